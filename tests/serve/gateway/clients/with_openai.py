"""Uses a gateway with the official `openai` client and prints what it got, as JSON: `with_openai.py URL`.

Run by the interpreter of .venv/clients, which has the client and nothing of batuta.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import openai  # type: ignore[import-not-found,unused-ignore]

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none needed", max_retries=0)
ASK = [{"role": "user", "content": "Zażółć gęślą jaźń"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def chat() -> Any:
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=ASK)
    done = raw.parse()
    return {
        "text": done.choices[0].message.content,
        "reason": done.choices[0].finish_reason,
        "usage": [done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens],
        "cost": raw.headers["x-batuta-cost"],
        "request_id": done._request_id == raw.headers["x-request-id"],
    }


def stream() -> Any:
    chunks = list(
        client.chat.completions.create(model="echo", messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    return {
        "text": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "role": chunks[0].choices[0].delta.role,
        "reasons": [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason],
        "ids": len({c.id for c in chunks}),
        "usage": [c.usage.total_tokens for c in chunks if c.usage],
    }


def helper() -> Any:
    with client.chat.completions.stream(model="tools", messages=ASK, tools=TOOLS) as events:
        done = events.get_final_completion().choices[0].message
    return {"text": done.content, "calls": [[c.id, c.function.name, c.function.arguments] for c in done.tool_calls]}


def tools() -> Any:
    done = client.chat.completions.create(model="tools", messages=ASK, tools=TOOLS, tool_choice="auto").choices[0]
    calls = done.message.tool_calls
    answer = client.chat.completions.create(
        model="echo",
        messages=[*ASK, done.message, *({"role": "tool", "tool_call_id": c.id, "content": "rain"} for c in calls)],
    )
    return {
        "reason": done.finish_reason,
        "names": [c.function.name for c in calls],
        "then": answer.choices[0].message.content,
    }


def several() -> Any:
    done = client.chat.completions.create(model="choices", messages=ASK, n=3)
    return [c.message.content for c in done.choices]


def completions() -> Any:
    done = client.completions.create(model="echo", prompt="Once upon")
    parts = client.completions.create(model="echo", prompt="Once upon", stream=True)
    return [done.choices[0].text, done.usage.total_tokens, "".join(p.choices[0].text for p in parts)]


def embeddings() -> Any:
    done = client.embeddings.create(model="vectors", input=["one", "two"])
    packed = client.embeddings.create(model="packed", input="one", encoding_format="float")
    return [[each.embedding for each in done.data], done.usage.total_tokens, packed.data[0].embedding]


def models() -> Any:
    return [[m.id for m in client.models.list()], client.models.retrieve("org/model:q4").id]


def errors() -> Any:
    names = ["over-budget", "private", "queue-full", "overflow", "audit", "ledger", "internal", "backend-500"]
    names += ["backend-400", "no-such-model"]
    found: dict[str, Any] = {}
    for name in names:
        for streamed in (False, True):
            try:
                client.chat.completions.create(model=name, messages=ASK, stream=streamed)
            except openai.APIStatusError as error:
                told = [type(error).__name__, error.status_code, error.code]
                assert found.setdefault(name, told) == told
    try:
        client.chat.completions.create(model="echo", messages=ASK, n=1000)
    except openai.BadRequestError as error:
        found["n"] = [type(error).__name__, error.status_code, error.param]
    return found


def retries() -> Any:
    """How often it is sent, by the identity of the answers' requests."""
    found: dict[str, Any] = {}
    for name in ("over-budget", "private", "overflow"):
        again = client.with_options(max_retries=3)
        try:
            again.chat.completions.create(model=name, messages=ASK, extra_headers={"x-request-id": f"retry-{name}"})
        except openai.APIStatusError as error:
            found[name] = error.status_code
    return found


def broken() -> Any:
    texts = []
    try:
        for chunk in client.chat.completions.create(model="break", messages=ASK, stream=True):
            texts.append(chunk.choices[0].delta.content or "")
    except openai.APIError as error:
        return {"text": "".join(texts), "error": type(error).__name__, "code": error.code}
    return "it ended well"


def tighter() -> Any:
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=ASK, extra_headers={"X-Batuta-Privacy": "sovereign"}
    )
    return raw.headers["x-batuta-tier"]


SCENARIOS: list[Callable[[], Any]] = [
    chat, stream, helper, tools, several, completions, embeddings, models, errors, retries, broken, tighter,
]  # fmt: skip

if __name__ == "__main__":
    print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
