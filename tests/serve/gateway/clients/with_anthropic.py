"""Uses a gateway with the official `anthropic` client and prints what it got, as JSON: `with_anthropic.py URL`.

Run by the interpreter of .venv/clients, which has the client and nothing of batuta.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import anthropic  # type: ignore[import-not-found,unused-ignore]

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none needed", max_retries=0)
ASK: Any = [{"role": "user", "content": "Zażółć gęślą jaźń"}]
TOOLS: Any = [{"name": "weather", "description": "the weather", "input_schema": {"type": "object"}}]


def chat() -> Any:
    done = client.messages.create(model="echo", max_tokens=99, messages=ASK, system="Be brief.")
    return {
        "text": done.content[0].text,
        "reason": done.stop_reason,
        "usage": [done.usage.input_tokens, done.usage.output_tokens],
    }


def stream() -> Any:
    with client.messages.stream(model="echo", max_tokens=99, messages=ASK) as events:
        text = "".join(events.text_stream)
        done = events.get_final_message()
    return {
        "text": text,
        "same": done.content[0].text == text,
        "reason": done.stop_reason,
        "usage": [done.usage.input_tokens, done.usage.output_tokens],
    }


def tools() -> Any:
    done = client.messages.create(model="tools", max_tokens=99, messages=ASK, tools=TOOLS)
    results = [
        {"type": "tool_result", "tool_use_id": b.id, "content": "rain"} for b in done.content if b.type == "tool_use"
    ]
    turns = [*ASK, {"role": "assistant", "content": done.content}, {"role": "user", "content": results}]
    answer = client.messages.create(model="echo", max_tokens=99, messages=turns, tools=TOOLS)
    return {
        "blocks": [b.type for b in done.content],
        "input": done.content[1].input,
        "reason": done.stop_reason,
        "then": answer.content[0].text,
    }


def tool_stream() -> Any:
    with client.messages.stream(model="tools", max_tokens=99, messages=ASK, tools=TOOLS) as events:
        kinds = [event.type for event in events]
        done = events.get_final_message()
    return {
        "blocks": [[b.type, getattr(b, "input", None)] for b in done.content],
        "reason": done.stop_reason,
        "stops": kinds.count("content_block_stop"),
    }


def models() -> Any:
    return [[m.id for m in client.models.list()], client.models.retrieve("echo").display_name]


def errors() -> Any:
    names = ["over-budget", "private", "queue-full", "overflow", "audit", "internal", "backend-500", "no-such-model"]
    found: dict[str, Any] = {}
    for name in names:
        for streamed in (False, True):
            try:
                client.messages.create(model=name, max_tokens=9, messages=ASK, stream=streamed)
            except anthropic.APIStatusError as error:
                told = [type(error).__name__, error.status_code, error.body["error"]["type"]]
                assert found.setdefault(name, told) == told
    return found


def broken() -> Any:
    texts = []
    try:
        with client.messages.stream(model="break", max_tokens=9, messages=ASK) as events:
            texts += events.text_stream
    except anthropic.APIError as error:
        return {"text": "".join(texts), "error": isinstance(error, anthropic.APIStatusError)}
    return "it ended well"


SCENARIOS: list[Callable[[], Any]] = [chat, stream, tools, tool_stream, models, errors, broken]

if __name__ == "__main__":
    print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
