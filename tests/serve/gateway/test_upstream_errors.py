"""An upstream's error reaches the client with its status, message and code, and the log; keys and messages do not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.gateway.support import CHAT, MESSAGES, chat, message
from tests.serve.gateway.support_upstream import MODEL, Upstream
from tests.serve.support_backend import chunk, response, stream_head

KEY = "zz-upstream-key-4711"
SAID = "the content of a message that is private"
TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UPSTREAM_KEY", KEY)
        with Upstream(tmp_path_factory.mktemp("upstream"), api_key_env="UPSTREAM_KEY") as running:
            yield running


def test_a_context_overflow_keeps_status_message_code_type_and_field(server: Upstream) -> None:
    answer = response(json.dumps({"error": TOO_LONG}).encode(), status="400 Bad Request")
    for stream in (False, True):
        done = server.ask(CHAT, chat(MODEL, stream=stream), answer)
        assert (done.status, done.error) == (400, TOO_LONG)
        assert TOO_LONG["message"] in server.log[-1]["reason"]
        assert server.log[-1]["code"] == "context_length_exceeded"
        done = server.ask(MESSAGES, message(MODEL, stream=stream), answer)
        assert done.status == 400
        assert done.error == {
            "type": "invalid_request_error",
            "message": TOO_LONG["message"],
            "code": "context_length_exceeded",
        }


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (
            422,
            b'{"detail": [{"loc": ["body", "top_k"], "msg": "must be positive"}]}',
            (422, "body.top_k: must be positive"),
        ),
        (404, b'{"error": "model \\"m\\" not found"}', (404, 'model "m" not found')),
        (413, b"too large", (413, "too large")),
        (429, b'{"error": {"message": "Rate limit reached"}}', (429, "Rate limit reached")),
        (400, b"", (400, "the backend answered with HTTP 400")),
        (401, b'{"error": {"message": "Invalid key"}}', (502, "the backend answered with HTTP 401: Invalid key")),
        (403, b'{"error": {"message": "No access"}}', (502, "the backend answered with HTTP 403: No access")),
        (500, b"CUDA out of memory", (502, "the backend answered with HTTP 500: CUDA out of memory")),
        (501, b'{"error": {"message": "No such feature"}}', (400, "No such feature")),
        (503, b"<html>busy</html>", (502, "the backend answered with HTTP 503")),
    ],
)
def test_each_status_is_kept_or_is_the_gateways(
    server: Upstream, status: int, body: bytes, wanted: tuple[int, str]
) -> None:
    for path, asked in ((CHAT, chat(MODEL)), (MESSAGES, message(MODEL))):
        done = server.ask(path, asked, response(body, status=f"{status} X"))
        assert (done.status, done.error["message"]) == wanted


@pytest.mark.parametrize(("status", "cools"), [(500, True), (501, False)])
def test_a_route_that_a_backend_does_not_implement_keeps_nothing_else_from_it(
    server: Upstream, status: int, cools: bool
) -> None:
    """Such as embeddings at a llama.cpp that runs a chat model: its chat goes on."""
    body = b'{"error": {"code": 501, "message": "This server does not support embeddings", "type": "not_supported"}}'
    asked = {"model": MODEL, "input": "The sky"}
    done = server.ask("/v1/embeddings", asked, response(body, status=f"{status} X"))
    health = server.pipeline.monitor.health
    assert (health.cooling("one", health.latest, MODEL) is not None) is cools
    assert ("retry-after" in done.headers) is cools


def test_no_key_and_no_message_is_repeated_to_the_client_or_the_log(server: Upstream) -> None:
    text = f"bad key {KEY} for {SAID}, sk-{'a' * 30}"
    for status in ("400 X", "500 X"):
        done = server.ask(CHAT, chat(MODEL, SAID), response(json.dumps({"error": text}).encode(), status=status))
        for hidden in (KEY, SAID, "private", "sk-aaa"):
            assert hidden not in done.body.decode() + server.log_text
        assert "bad key (value not shown) for" in done.error["message"]
    assert server.sent[-1][1]["authorization"] == f"Bearer {KEY}"


def test_an_error_within_a_stream_has_its_text(server: Upstream) -> None:
    event = b'data: {"error": {"message": "slot was lost", "code": "server_error"}}\n\n'
    done = server.ask(CHAT, chat(MODEL, stream=True), stream_head(), chunk("Hi"), event)
    assert not done.complete
    assert done.events[-1]["error"]["message"] == "the backend reports an error (server_error): slot was lost"
    assert done.events[-1]["error"]["code"] == "server_error"


def test_a_body_that_never_ends_is_not_waited_for(server: Upstream, tmp_path: Path) -> None:
    head = b"HTTP/1.1 400 X\r\nContent-Type: text/plain\r\nContent-Length: 9999999\r\n\r\n"
    done = server.ask(CHAT, chat(MODEL), head, b"word " * 20_000, *[b"word " * 1000] * 200)
    assert (done.status, len(done.error["message"])) == (400, 600)
