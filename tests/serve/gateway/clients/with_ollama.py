"""Uses a gateway with the official `ollama` client and prints what it got, as JSON: `with_ollama.py URL`.

Run by the interpreter of .venv/clients, which has the client and nothing of batuta.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import ollama  # type: ignore[import-not-found,unused-ignore]
from pydantic import BaseModel  # type: ignore[import-not-found,unused-ignore]

client = ollama.Client(host=sys.argv[1])
TEXT = "Zażółć gęślą jaźń"
ASK = [{"role": "user", "content": TEXT}]


class Person(BaseModel):  # type: ignore[misc,unused-ignore]
    age: int


def weather(city: str) -> str:
    """Tell the weather.

    Args:
      city: the city
    """
    return f"rain in {city}"


def counts(done: Any) -> list[Any]:
    return [done.prompt_eval_count, done.eval_count]


def told(done: Any) -> Any:
    return {
        "text": done.message.content,
        "done": done.done,
        "reason": done.done_reason,
        "counts": counts(done),
        "timed": done.total_duration > 0,
    }


def chat() -> Any:
    async def later() -> Any:
        return await ollama.AsyncClient(host=sys.argv[1]).chat("echo", ASK, options={"num_ctx": 4096, "seed": 1})

    return [told(client.chat("echo", ASK, keep_alive="5m")), told(asyncio.run(later()))]


def generate() -> Any:
    text = "".join(part.response for part in client.generate("echo", TEXT, stream=True))
    return {"text": text, "thinking": client.generate("more", TEXT, system="Be brief.", think=True).thinking}


def stream() -> Any:
    def joined(parts: Any) -> Any:
        return {
            "text": "".join(part.message.content for part in parts),
            "ends": [part.done for part in parts if part.done],
            "counts": counts(parts[-1]),
        }

    async def later() -> Any:
        parts = await ollama.AsyncClient(host=sys.argv[1]).chat("echo", ASK, stream=True)
        return [part async for part in parts]

    return [joined(list(client.chat("echo", ASK, stream=True))), joined(asyncio.run(later()))]


def called(message: Any) -> list[Any]:
    return [[call.function.name, call.function.arguments] for call in message.tool_calls or ()]


def tools() -> Any:
    done = client.chat("tools", ASK, tools=[weather]).message
    streamed = [
        call for part in client.chat("tools", ASK, tools=[weather], stream=True) for call in called(part.message)
    ]
    results = [{"role": "tool", "tool_name": call.function.name, "content": "rain"} for call in done.tool_calls]
    then = client.chat("echo", [*ASK, done, *results]).message.content
    return {"text": done.content, "calls": called(done), "streamed": streamed, "then": then}


def structured() -> Any:
    done = client.chat("json", ASK, format=Person.model_json_schema())
    return Person.model_validate_json(done.message.content).model_dump()


def thinking() -> Any:
    done = client.chat("more", ASK, think="low", logprobs=True, top_logprobs=1)
    logprobs = [[each.token, each.logprob] for each in done.logprobs]
    return {
        "thinking": done.message.thinking,
        "text": done.message.content,
        "logprobs": logprobs,
        "reason": done.done_reason,
    }


def embeddings() -> Any:
    done = client.embed("vectors", ["one", "two"], truncate=True, dimensions=2)
    return [done.embeddings, done.prompt_eval_count, client.embeddings("packed", "one").embedding]


def models() -> Any:
    shown = client.show("echo")
    return {
        "list": [model.model for model in client.list().models],
        "window": list(shown.modelinfo.values()),
        "capabilities": shown.capabilities,
        "running": list(client.ps().models),
    }


def errors() -> Any:
    found: dict[str, Any] = {}

    def refused(name: str, ask: Callable[[], Any]) -> None:
        try:
            ask()
        except ollama.ResponseError as error:
            told = [error.status_code, error.error]
            assert found.setdefault(name, told) == told

    for name in ("over-budget", "private", "overflow", "no-such-model"):
        refused(name, lambda name=name: client.chat(name, ASK))  # type: ignore[misc]
        refused(name, lambda name=name: list(client.chat(name, ASK, stream=True)))  # type: ignore[misc]
    refused("pull", lambda: client.pull("echo"))
    refused("delete", lambda: client.delete("echo"))
    return found


def broken() -> Any:
    texts = []
    try:
        for part in client.chat("break", ASK, stream=True):
            texts.append(part.message.content)
    except ollama.ResponseError as error:
        return {"text": "".join(texts), "error": error.error}
    return "it ended well"


SCENARIOS: list[Callable[[], Any]] = [
    chat, generate, stream, tools, structured, thinking, embeddings, models, errors, broken,
]  # fmt: skip

if __name__ == "__main__":
    print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
