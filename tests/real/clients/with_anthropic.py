"""The official `anthropic` client, its tool runner included. See `common`."""

from typing import Any

import anthropic  # type: ignore[import-not-found,unused-ignore]
from common import HELLO, MODEL, NOTE, URL, main, read_note  # type: ignore[import-not-found]

client = anthropic.Anthropic(base_url=URL, auth_token="none", api_key=None, max_retries=0)
GREEDY: Any = {"model": MODEL, "extra_body": {"temperature": 0}}  # the client has no parameter for it


def turns(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def messages() -> tuple[str, list[str], str]:
    asked = client.messages.create(**GREEDY, messages=turns(HELLO), max_tokens=40)
    with client.messages.stream(**GREEDY, messages=turns(HELLO), max_tokens=40) as stream:
        parts = list(stream.text_stream)
    tool = anthropic.beta_tool(read_note)
    runner = client.beta.messages.tool_runner(**GREEDY, messages=turns(NOTE), max_tokens=80, tools=[tool], stream=True)
    told = ""
    for stream in runner:
        last = stream.get_final_message()
        told = "".join(block.text for block in last.content if block.type == "text")
    return asked.content[0].text, parts, told


main({"messages": messages})
