"""Uses `/v1/responses` with the official `openai` client and prints what it got, as JSON: `with_responses.py URL`.

Run by the interpreter of .venv/clients, which has the client and nothing of batuta.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import openai  # type: ignore[import-not-found,unused-ignore]
import pydantic  # type: ignore[import-not-found,unused-ignore]
from openai.types.responses import Response, ResponseStreamEvent  # type: ignore[import-not-found,unused-ignore]

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none needed", max_retries=0)
ASK = "Zażółć gęślą jaźń"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'},
}
IMAGE = "data:image/png;base64,iVBORw0KGgo="
event_type: Any = pydantic.TypeAdapter(ResponseStreamEvent)


def answer() -> Any:
    raw = client.responses.with_raw_response.create(model="echo", input=ASK, instructions="Be brief.", store=False)
    done = raw.parse()
    Response.model_validate(done.to_dict())
    return {
        "text": done.output_text,
        "status": done.status,
        "store": raw.http_response.json()["store"],
        "usage": [done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens],
        "cost": raw.headers["x-batuta-cost"],
    }


def stream() -> Any:
    events = list(client.responses.create(model="echo", input=[{"role": "user", "content": ASK}], stream=True))
    for event in events:
        event_type.validate_python(event.to_dict())
    return {
        "text": "".join(event.delta for event in events if event.type == "response.output_text.delta"),
        "last": [events[-1].type, events[-1].response.output_text],
        "numbers": [event.sequence_number for event in events] == list(range(len(events))),
    }


def helper() -> Any:
    with client.responses.stream(model="thinking", input=ASK, tools=[WEATHER], reasoning={"summary": "auto"}) as events:
        for event in events:
            event_type.validate_python(event.to_dict() | {"snapshot": None})
        done = events.get_final_response()
    return {
        "kinds": [item.type for item in done.output],
        "summary": done.output[0].summary[0].text,
        "calls": [[item.name, item.arguments] for item in done.output if item.type == "function_call"],
    }


def tools() -> Any:
    asked: list[Any] = [{"role": "user", "content": ASK}]
    done = client.responses.create(
        model="thinking", input=asked, tools=[WEATHER], include=["reasoning.encrypted_content"], store=False
    )
    asked += done.output
    for item in done.output:
        if item.type == "function_call":
            asked.append({"type": "function_call_output", "call_id": item.call_id, "output": f"{item.name}: rain"})
    return client.responses.create(model="echo", input=asked, tools=[WEATHER], store=False).output_text


def custom() -> Any:
    asked: list[Any] = [{"role": "user", "content": ASK}]
    events = list(client.responses.create(model="custom", input=asked, tools=[PATCH], stream=True))
    for event in events:
        event_type.validate_python(event.to_dict())
    call = events[-1].response.output[0]
    asked += [call, {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Success"}]
    then = client.responses.create(model="echo", input=asked, tools=[PATCH])
    deltas = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
    return {"input": call.input, "streamed": "".join(deltas), "deltas": len(deltas), "then": then.output_text}


class Person(pydantic.BaseModel):  # type: ignore[misc,unused-ignore]
    name: str
    age: int


def parsed() -> Any:
    text = '{"name": "Ada", "age": 36}'
    done = client.responses.parse(model="echo", input=text, text_format=Person)
    with client.responses.stream(model="echo", input=text, text_format=Person) as events:
        streamed = events.get_final_response().output_parsed
    return [done.output_parsed.model_dump(), streamed.model_dump()]


def image() -> Any:
    content = [{"type": "input_text", "text": ASK}, {"type": "input_image", "image_url": IMAGE, "detail": "low"}]
    return client.responses.create(model="echo", input=[{"role": "user", "content": content}]).output_text


def cut() -> Any:
    done = client.responses.create(model="more", input=ASK, max_output_tokens=1)
    return [done.status, done.incomplete_details.reason, done.output_text]


def errors() -> Any:
    found: dict[str, Any] = {}
    for name in ("over-budget", "private", "queue-full", "overflow", "no-such-model"):
        for streamed in (False, True):
            try:
                client.responses.create(model=name, input=ASK, stream=streamed)
            except openai.APIStatusError as error:
                told = [type(error).__name__, error.status_code, error.code]
                assert found.setdefault(name, told) == told
    try:
        client.responses.create(model="echo", input=ASK, previous_response_id="resp_1")
    except openai.BadRequestError as error:
        found["previous_response_id"] = [type(error).__name__, error.status_code, error.param]
    return found


def broken() -> Any:
    kinds = []
    try:
        for event in client.responses.create(model="break", input=ASK, stream=True):
            event_type.validate_python(event.to_dict())
            kinds.append(event.type)
    except openai.APIConnectionError as error:
        return {"kinds": kinds[-2:], "error": type(error).__name__}
    return "it ended well"


SCENARIOS: list[Callable[[], Any]] = [
    answer, stream, helper, tools, custom, parsed, image, cut, errors, broken,
]  # fmt: skip

if __name__ == "__main__":
    print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
