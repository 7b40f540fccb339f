"""The official `ollama` client. See `common`."""

from typing import Any

import ollama  # type: ignore[import-not-found,unused-ignore]
from common import HELLO, MODEL, NOTE, URL, main, read_note  # type: ignore[import-not-found]

client = ollama.Client(host=URL)
LIMIT = {"num_predict": 80, "temperature": 0}


def chat() -> tuple[str, list[str], str]:
    def turns(text: str) -> list[Any]:
        return [{"role": "user", "content": text}]

    asked = client.chat(model=MODEL, messages=turns(HELLO), options=LIMIT)
    stream = client.chat(model=MODEL, messages=turns(HELLO), options=LIMIT, stream=True)
    parts = [part.message.content for part in stream]
    messages = turns(NOTE)
    calls: list[Any] = []
    for part in client.chat(model=MODEL, messages=messages, tools=[read_note], options=LIMIT, stream=True):
        calls += part.message.tool_calls or []
    messages.append({"role": "assistant", "content": "", "tool_calls": calls})
    for call in calls:
        result = read_note(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    told = client.chat(model=MODEL, messages=messages, options=LIMIT)
    return asked.message.content, parts, told.message.content


main({"chat": chat})
