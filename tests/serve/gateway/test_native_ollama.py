"""A request of Ollama's API at an Ollama backend: the body goes on as it came, the objects come back as they are."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection, Privacy, Router
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from tests.serve.gateway.support import OLLAMA_CHAT, OLLAMA_GENERATE, Response, ask
from tests.serve.support_backend import FaultServer, response, stream_head
from tests.serve.support_pipeline import MODEL, backends, pipeline, servers, speaker

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "user", "content": "Weather?", "images": ["iVBORw0KGgoAAAANSUhEUg=="]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Łódź"}}}]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ],
    "options": {"num_ctx": 8192, "num_predict": -1, "mirostat": 2, "of_next_year": 1},
    "keep_alive": "10m",
    "think": "high",
    "truncate": False,
    "of_next_year": {"deep": [1, None]},
}


def line(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "created_at": "2026-11-26T00:00:00Z", **fields}, ensure_ascii=False).encode()


def said(content: str = "", **message: Any) -> bytes:
    return line(message={"role": "assistant", "content": content, **message}, done=False)


END = {"done": True, "done_reason": "stop", "load_duration": 7, "prompt_eval_count": 9, "eval_count": 3}
STREAM = [
    said(thinking="hm"),
    said("Füchse", of_next_year=1),
    said(tool_calls=[{"function": {"name": "weather", "arguments": {"city": "Łódź"}}}]),
    line(message={"role": "assistant", "content": ""}, **END),
]


def streams(lines: list[bytes]) -> Any:
    return lambda *_: [stream_head("application/x-ndjson"), b"".join(each + b"\n" for each in lines)]


def answers(document: Any) -> Any:
    return lambda *_: [response(document if isinstance(document, bytes) else json.dumps(document).encode())]


def asked(
    tmp_path: Path, server: FaultServer, path: str, body: Any, *, profile: str = "ollama", **more: Any
) -> Response:
    """The response of a gateway with one backend."""
    made = pipeline(
        tmp_path,
        backends(one=(profile, server.base_url)),
        privacy=Privacy(tier="standard"),
        models={MODEL: more.pop("model", ModelSection(context_window=100_000, output_reserve=64))},
        breaker=more.pop("breaker", None),
    )
    return ask(tmp_path, path, body, pipeline=made, **more)


def test_a_request_goes_on_as_it_came_and_its_objects_come_back_as_they_are(tmp_path: Path) -> None:
    with servers(streams(STREAM)) as [one]:
        done = asked(tmp_path, one, OLLAMA_CHAT, BODY)
    assert one.requests[0][0] == "/api/chat"
    assert one.requests[0][2] == BODY
    assert "x-batuta-dropped" not in done.headers
    *lines, last = done.body.splitlines()
    assert lines == STREAM[:-1]
    receipt = {"batuta": {"backend": "one", "cost_usd": "0.00", "attempts": 1}}
    assert json.loads(last) == json.loads(STREAM[-1]) | receipt
    assert done.complete


def test_a_whole_response_comes_back_as_it_is(tmp_path: Path) -> None:
    document = json.loads(line(message={"role": "assistant", "content": "Hi"}, **END, of_next_year=[1.5]))
    with servers(answers(document)) as [one]:
        done = asked(tmp_path, one, OLLAMA_CHAT, BODY | {"stream": False})
    assert done.json == document
    generated = json.loads(line(response="Hi", context=[1, 2], **END))
    with servers(answers(generated)) as [one]:
        done = asked(tmp_path, one, OLLAMA_GENERATE, {"model": MODEL, "prompt": "Hi", "stream": False})
    assert done.json == generated


@pytest.mark.parametrize(
    "more", [{"suffix": "return x"}, {"raw": True}, {"template": "{{ .Prompt }}"}, {"context": [1, 2]}]
)
def test_what_only_ollama_has_goes_to_ollama_and_is_refused_elsewhere(tmp_path: Path, more: dict[str, Any]) -> None:
    body = {"model": MODEL, "prompt": "def f(x):", **more}
    with servers(streams([line(response="x", done=False), line(response="", **END)])) as [one]:
        done = asked(tmp_path, one, OLLAMA_GENERATE, body)
    assert done.lines[0]["response"] == "x"
    assert one.requests[0][2] == body
    with servers(streams([])) as [one]:
        refused = asked(tmp_path, one, OLLAMA_GENERATE, body, profile="llamacpp")
    assert refused.status == 400
    assert f"its API has no {next(iter(more))}" in refused.json["error"]
    assert one.requests == []


def test_another_server_gets_the_translated_request_and_the_rest_is_named(tmp_path: Path) -> None:
    document = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    body = BODY | {"stream": False, "messages": [{"role": "user", "content": "Hi"}]}
    with servers(answers(document)) as [one]:
        done = asked(tmp_path, one, OLLAMA_CHAT, body, profile="llamacpp")
    path, _, sent = one.requests[0]
    assert path == "/v1/chat/completions"
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]
    assert (sent["mirostat"], sent["reasoning_effort"]) == (2, "high")
    assert done.headers["x-batuta-dropped"] == "keep_alive, options.num_ctx, truncate"
    assert done.json["message"]["content"] == "Hi"


def test_a_service_that_refuses_fields_of_local_servers_does_not_get_them(tmp_path: Path) -> None:
    document = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "options": {"top_k": 20, "min_p": 0.1, "repeat_penalty": 1.1, "temperature": 0.5},
        "think": False,
        "stream": False,
    }
    priced = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))
    with servers(answers(document)) as [one]:
        done = asked(tmp_path, one, OLLAMA_CHAT, body, profile="groq", model=priced)
    sent = one.requests[0][2]
    assert sent["temperature"] == 0.5
    assert not sent.keys() & {"top_k", "min_p", "repeat_penalty", "chat_template_kwargs"}
    assert done.headers["x-batuta-dropped"] == "chat_template_kwargs, min_p, repeat_penalty, top_k"


def test_a_stream_that_dies_is_continued_by_another_server_in_the_same_form(tmp_path: Path) -> None:
    cut = streams([said("One, "), said("two, ")])
    with servers(cut, speaker("One, two, three.")) as [one, two]:
        tables = backends(one=("ollama", one.base_url), two=("llamacpp", two.base_url))
        router = Router(local_backend="one")
        made = pipeline(tmp_path, tables, privacy=Privacy(tier="standard"), router=router)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}]}
        done = ask(tmp_path, OLLAMA_CHAT, body, pipeline=made)
    lines = done.lines
    assert lines[-1]["batuta"] == {"backend": "two", "cost_usd": "0.00", "attempts": 2}
    assert "".join(each["message"]["content"] for each in lines) == "One, two, three."
    assert [each["done"] for each in lines].count(True) == 1


def test_an_output_limit_that_money_needs_is_written_into_the_options(tmp_path: Path) -> None:
    priced = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    with servers(streams(STREAM)) as [one]:
        tables = backends((MODEL + "-cloud",), one=("ollama", one.base_url))
        made = pipeline(
            tmp_path, tables, privacy=Privacy(tier="standard"), models={MODEL + "-cloud": priced}, breaker=breaker
        )
        body = BODY | {"model": MODEL + "-cloud"}
        done = ask(tmp_path, OLLAMA_CHAT, body, pipeline=made)
    assert done.status == 200, done.body
    sent = one.requests[-1][2]
    assert sent["options"] == BODY["options"] | {"num_predict": 64}
    assert {name: value for name, value in sent.items() if name != "options"} == {
        name: value for name, value in body.items() if name != "options"
    }
    assert breaker.status().spent > 0


@pytest.mark.parametrize(
    "lines",
    [
        [said("Hi")],
        [said("Hi"), b'{"error": "the model is gone"}'],
        [said(tool_calls=[{"name": "f"}])],
        [b"[]"],
        [],
    ],
)
def test_an_error_or_a_missing_end_is_never_a_complete_answer(tmp_path: Path, lines: list[bytes]) -> None:
    with servers(streams(lines)) as [one]:
        done = asked(tmp_path, one, OLLAMA_CHAT, BODY)
    assert not done.complete or done.status == 502
    assert "error" in done.lines[-1]
