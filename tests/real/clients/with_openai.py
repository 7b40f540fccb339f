"""The official `openai` client: chat completions and responses. See `common`."""

import json
from typing import Any

import openai  # type: ignore[import-not-found,unused-ignore]
from common import HELLO, MODEL, NOTE, SCHEMA, URL, main, read_note  # type: ignore[import-not-found]

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
FUNCTION = {"name": "read_note", "description": "Read a note", "parameters": SCHEMA}
GREEDY = {"model": MODEL, "temperature": 0}


def chat() -> tuple[str, list[str], str]:
    def turns(text: str) -> list[Any]:
        return [{"role": "user", "content": text}]

    asked = client.chat.completions.create(**GREEDY, messages=turns(HELLO), max_tokens=40)
    chunks = client.chat.completions.create(**GREEDY, messages=turns(HELLO), max_tokens=40, stream=True)
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    messages, tools = turns(NOTE), [{"type": "function", "function": FUNCTION}]
    with client.chat.completions.stream(**GREEDY, messages=messages, max_tokens=80, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    messages.append(message)
    for call in message.tool_calls:
        result = read_note(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    told = client.chat.completions.create(**GREEDY, messages=messages, max_tokens=40, tools=tools)
    return asked.choices[0].message.content, parts, told.choices[0].message.content


def responses() -> tuple[str, list[str], str]:
    asked = client.responses.create(**GREEDY, input=HELLO, max_output_tokens=40)
    with client.responses.stream(**GREEDY, input=HELLO, max_output_tokens=40) as stream:
        parts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(parts)
    items: list[Any] = [{"role": "user", "content": NOTE}]
    tools = [{"type": "function", "strict": False, **FUNCTION}]
    with client.responses.stream(**GREEDY, input=items, max_output_tokens=80, tools=tools) as stream:
        output = stream.get_final_response().output
    items += output
    for call in (item for item in output if item.type == "function_call"):
        result = read_note(**json.loads(call.arguments))
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    told = client.responses.create(**GREEDY, input=items, max_output_tokens=40, tools=tools)
    return asked.output_text, parts, told.output_text


main({"chat": chat, "responses": responses})
