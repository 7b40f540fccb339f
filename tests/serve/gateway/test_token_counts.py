"""`POST /v1/messages/count_tokens`: by the server that would get the request, else by the model's own tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.tokens import count_messages
from tests.serve.gateway.support import Response
from tests.serve.gateway.support_backends import answers, asked
from tests.serve.support_backend import response
from tests.serve.support_pipeline import MODEL, refuser, servers

COUNT = "/v1/messages/count_tokens"
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hi"}],
    "metadata": {"user_id": "u"},
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
}


def test_a_server_with_the_route_counts_the_body_as_it_came(tmp_path: Path) -> None:
    with servers(answers({"input_tokens": 1234})) as [one]:
        done = asked(tmp_path, "llamacpp", one, COUNT, BODY, tier="sovereign", headers={"anthropic-beta": "b"})
    assert (done.status, done.json) == (200, {"input_tokens": 1234})
    assert done.headers["x-batuta-count"] == "exact"
    path, headers, sent = one.requests[-1]
    assert path == "/v1/messages/count_tokens"
    assert sent == {name: value for name, value in BODY.items() if name != "metadata"}
    assert headers["anthropic-beta"] == "b"


def test_a_server_that_tokenizes_counts_the_translated_request(tmp_path: Path) -> None:
    with servers(answers({"count": 77, "max_model_len": 4096})) as [one]:
        done = asked(tmp_path, "vllm", one, COUNT, BODY)
    assert (done.json, done.headers["x-batuta-count"]) == ({"input_tokens": 77}, "exact")
    path, _, sent = one.requests[-1]
    assert path == "/tokenize"
    assert sent["tools"][0]["function"]["name"] == "f"


def test_anthropic_calls_its_own_count_an_estimate(tmp_path: Path) -> None:
    with servers(answers({"input_tokens": 9})) as [one]:
        done = asked(tmp_path, "anthropic", one, COUNT, BODY | {"model": "claude-3-haiku-20240307"})
    assert (done.json, done.headers["x-batuta-count"]) == ({"input_tokens": 9}, "estimate")
    assert one.requests[-1][2]["metadata"] == {"user_id": "u"}


def counted_here(tmp_path: Path, body: dict[str, Any]) -> Response:
    with servers(refuser("404 Not Found")) as [one]:
        return asked(tmp_path, "openai", one, COUNT, body)


def test_without_a_server_that_counts_the_models_own_tokenizer_does(tmp_path: Path) -> None:
    body = {"model": "gpt-4o", "messages": BODY["messages"]}
    done = counted_here(tmp_path, body)
    expected = count_messages("gpt-4o", [ChatMessage.user("Hi")]).tokens
    assert (done.json, done.headers["x-batuta-count"]) == ({"input_tokens": expected}, "exact")
    done = counted_here(tmp_path, body | {"tools": BODY["tools"]})
    assert done.json["input_tokens"] > expected
    assert done.headers["x-batuta-count"] == "estimate"


@pytest.mark.parametrize("answer", [{"input_tokens": "many"}, {}, [1]])
def test_an_answer_that_is_no_count_is_not_believed(tmp_path: Path, answer: Any) -> None:
    with servers(lambda *_: [response(json.dumps(answer).encode())]) as [one]:
        done = asked(tmp_path, "llamacpp", one, COUNT, BODY)
    assert (done.status, done.headers["x-batuta-count"]) == (200, "estimate")


def test_counting_needs_no_budget(tmp_path: Path) -> None:
    long = BODY | {"model": "claude-3-opus-20240229", "messages": [{"role": "user", "content": "word " * 90_000}]}
    with servers(answers({"input_tokens": 90_010})) as [one]:
        done = asked(tmp_path, "anthropic", one, COUNT, long)
    assert done.status == 200
    assert done.json["input_tokens"] > 80_000


def test_the_privacy_rules_hold_for_counting_too(tmp_path: Path) -> None:
    with servers(answers({"input_tokens": 1})) as [one]:
        done = asked(tmp_path, "vllm", one, COUNT, BODY | {"mcp_servers": [{"name": "m"}]}, tier="private")
        assert (done.status, one.requests) == (403, [])


def test_a_wrong_request_is_refused_in_anthropics_format(tmp_path: Path) -> None:
    with servers(answers({})) as [one]:
        done = asked(tmp_path, "vllm", one, COUNT, {"model": MODEL, "messages": []})
    assert (done.status, done.json["type"], done.error["type"]) == (400, "error", "invalid_request_error")
