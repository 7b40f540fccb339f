"""One exchange with a backend: whatever it does wrong is an error, and whatever it does right is relayed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config
from batuta_cli.errors import PrivacyError
from batuta_cli.serve.backends import Backend, configured_backends
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.client import Timeouts, send_call
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.wire import BackendError, Call, Piece, Usage
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import (
    STALL,
    FaultServer,
    Script,
    chat_answer,
    chat_stream,
    chunk,
    response,
    stream_head,
)

FAST = Timeouts(connect=5, first_token=0.2, idle=0.2, total=60)
PATIENT = Timeouts()


def backend(base_url: str, profile: str = "vllm", key: str = "") -> Backend:
    config = Config(backends={"b": Table(profile=profile, base_url=base_url, api_key_env=key)})
    return configured_backends(config)[0]


def call(stream: bool = True, **more: Any) -> Call:
    return Call(model="m", messages=(ChatMessage.user("Hi"),), max_tokens=64, stream=stream, **more)


def run(
    tmp_path: Path,
    script: Callable[..., Script] | Script,
    asked: Call | None = None,
    *,
    timeouts: Timeouts = PATIENT,
    profile: str = "vllm",
    take: int | None = None,
) -> tuple[list[Piece], FaultServer]:
    """All pieces (or `take` of them) that an exchange with a scripted backend gives."""

    async def pieces(server: FaultServer) -> list[Piece]:
        async with GatedSession(PrivacyTier.SOVEREIGN, AuditLog(tmp_path / "audit")) as session:
            target = backend(server.base_url, profile)
            answer = send_call(
                session, target, target.base_urls[0], asked or call(), request_id="r1", timeouts=timeouts
            )
            found: list[Piece] = []
            async for together in answer:
                found += together
                if take is not None and len(found) >= take:
                    found = found[:take]
                    break
            await answer.aclose()
            return found

    def scripted(*request: Any) -> Script:
        return script(*request) if callable(script) else script

    with FaultServer(scripted) as server:
        found = asyncio.run(pieces(server))
        if take is not None:
            assert server.left.wait(10)
        return found, server


def test_a_stream_and_a_whole_answer_say_the_same(tmp_path: Path) -> None:
    streamed, server = run(tmp_path, [stream_head(), chat_stream(["Hel", "lo"])])
    whole, _ = run(tmp_path, [response(chat_answer("Hello"))], call(stream=False))
    for pieces in (streamed, whole):
        assert "".join(p.text for p in pieces) == "Hello"
        assert [p.finish_reason for p in pieces if p.finish_reason] == ["stop"]
        assert [p.usage for p in pieces if p.usage] == [Usage(7, 5)]
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["content-type"] == "application/json"
    assert body["messages"] == [{"role": "user", "content": "Hi"}]


STREAM = chat_stream(["Häl", "lo 😀"])
"""With characters of two and four bytes."""


@pytest.mark.parametrize("length", range(len(STREAM)))
def test_a_stream_that_is_cut_anywhere_is_an_error_or_complete_and_never_a_part_of_a_character(
    tmp_path: Path, length: int
) -> None:
    seen: list[Piece] = []
    ended = STREAM.index(chunk(finish="stop")) + len(chunk(finish="stop"))
    if length >= ended:
        seen, _ = run(tmp_path, [stream_head(), STREAM[:length]])
        assert "".join(p.text for p in seen) == "Hällo 😀"
        return
    with pytest.raises(
        BackendError, match=r"ended before its response was complete|the connection to the backend broke"
    ):
        run(tmp_path, [stream_head(), STREAM[:length]])


@pytest.mark.parametrize(
    ("script", "message", "retryable"),
    [
        ([response(b"<html>", "text/html")], "content type text/html", True),
        ([response(b"oops", "text/plain", "500 Internal Server Error")], "HTTP 500: oops", True),
        ([response(b"{}", status="404 Not Found")], "HTTP 404", True),
        ([response(b'{"error": {"message": "bad"}}', status="400 Bad Request")], "HTTP 400: bad", False),
        ([response(b"", "text/html", "302 Found", "Location: http://example.com/")], "does not follow redirects", True),
        ([response(b'{"error": {"message": "x", "code": "overloaded"}}')], "an error .overloaded.: x", True),
        (
            [stream_head(), b'data: {"error": {"message": "x", "code": "overloaded"}}\n\n'],
            "an error .overloaded.: x",
            True,
        ),
        ([stream_head(), b"data: {oops\n\n"], "not a JSON object", True),
        ([stream_head()], "ended before its response was complete", True),
        ([b"HTTP/1.1 200"], "the connection to the backend broke", True),
        ([b"not http at all\r\n\r\n"], "the connection to the backend broke", True),
        ([], "the connection to the backend broke", True),
    ],
)
def test_what_is_no_answer_is_an_error(tmp_path: Path, script: Script, message: str, retryable: bool) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        run(tmp_path, script)
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("body", [b"<html>", b'{"error": {"message": "x"}}', b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_an_error_inside_a_200_is_an_error(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(BackendError):
        run(tmp_path, [response(body)], call(stream=False))


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("999999", 3600.0), ("soon", None), ("-1", None)])
def test_the_time_to_wait_is_read(tmp_path: Path, value: str, seconds: float | None) -> None:
    script: Script = [response(b"{}", "application/json", "429 Too Many Requests", f"Retry-After: {value}")]
    with pytest.raises(BackendError, match="HTTP 429") as caught:
        run(tmp_path, script)
    assert (caught.value.status, caught.value.retry_after) == (429, seconds)


@pytest.mark.parametrize("before", [[], [stream_head()], [stream_head(), chunk("Hel")]])
def test_a_backend_that_falls_silent_is_an_error(tmp_path: Path, before: Script) -> None:
    with pytest.raises(BackendError, match=r"sent nothing for 0\.2 s"):
        run(tmp_path, [*before, STALL], timeouts=FAST)


def test_leaving_closes_the_connection(tmp_path: Path) -> None:
    pieces, server = run(tmp_path, [stream_head(), chunk("Hel"), STALL], take=1)
    assert pieces == [Piece("Hel")]
    assert server.left.is_set()


def test_a_port_that_nobody_listens_on_is_an_error(tmp_path: Path) -> None:
    with FaultServer(lambda *_: []) as server:
        gone = server.base_url

    async def ask() -> None:
        async with GatedSession(PrivacyTier.SOVEREIGN, AuditLog(tmp_path / "audit")) as session:
            target = backend(gone)
            async for _ in send_call(session, target, gone, call(), request_id="r", timeouts=PATIENT):
                pass

    with pytest.raises(BackendError, match="the backend cannot be reached"):
        asyncio.run(ask())


def test_the_gate_stands_before_the_connection(tmp_path: Path) -> None:
    async def ask() -> None:
        async with GatedSession(PrivacyTier.SOVEREIGN, AuditLog(tmp_path / "audit")) as session:
            target = backend("http://192.0.2.1:8000/v1")
            async for _ in send_call(session, target, target.base_urls[0], call(), request_id="r", timeouts=PATIENT):
                pass

    with pytest.raises(PrivacyError, match=r"sovereign does not admit 192\.0\.2\.1:8000"):
        asyncio.run(ask())


def test_anthropic_is_spoken_to_in_its_own_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b'{"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {}}'
    pieces, server = run(tmp_path, [response(answer)], call(stream=False), profile="anthropic")
    assert "".join(p.text for p in pieces) == "Hi"
    path, headers, body = server.requests[0]
    assert (path, headers["anthropic-version"], body["max_tokens"]) == ("/v1/messages", "2023-06-01", 64)


def test_ollama_continues_a_rendered_prompt_on_its_own_route(tmp_path: Path) -> None:
    lines = b'{"response": "fo"}\n{"response": "ur", "done": true, "prompt_eval_count": 3, "eval_count": 2}\n'
    asked = call(prompt="<user>count<assistant>", prefix="one two three ")
    pieces, server = run(tmp_path, [stream_head("application/x-ndjson"), lines], asked, profile="ollama")
    assert pieces == [Piece("fo"), Piece("ur", finish_reason="stop", usage=Usage(3, 2))]
    path, _, body = server.requests[0]
    assert path == "/api/generate"
    assert (body["raw"], body["prompt"]) == (True, "<user>count<assistant>one two three ")


def test_the_limit_of_an_answer_is_always_sent_under_the_name_that_the_backend_takes(tmp_path: Path) -> None:
    for profile, field in (("vllm", "max_tokens"), ("openai", "max_completion_tokens")):
        _, server = run(tmp_path, [stream_head(), chat_stream(["x"])], call(options={"n": 2}), profile=profile)
        body = server.requests[0][2]
        assert {name: body.get(name) for name in ("max_tokens", "max_completion_tokens")} == {
            "max_tokens": None, "max_completion_tokens": None,
        } | {field: 64}  # fmt: skip


PING = b": ping\n\n"


@pytest.mark.parametrize("head", [[stream_head()], [0.1, stream_head()]], ids=["head at once", "head later"])
def test_pings_of_a_backend_that_reads_a_long_prompt_are_waited_for(tmp_path: Path, head: Script) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/24013: a comment every second for 130 s, then the response."""
    patience = Timeouts(connect=5, first_token=0.6, idle=0.6, total=60)
    pings = [step for _ in range(14) for step in (PING, 0.1)]  # 1.4 s
    pieces, _ = run(tmp_path, [*head, *pings, chat_stream(["Hi"])], timeouts=patience)
    assert "".join(piece.text for piece in pieces) == "Hi"


def test_pings_between_two_pieces_are_waited_for_and_silence_is_not(tmp_path: Path) -> None:
    patience = Timeouts(connect=5, first_token=60, idle=0.6, total=60)
    pings = [step for _ in range(14) for step in (PING, 0.1)]
    pieces, _ = run(tmp_path, [stream_head(), chunk("Hi "), *pings, chat_stream(["you"])], timeouts=patience)
    assert "".join(piece.text for piece in pieces) == "Hi you"
    with pytest.raises(BackendError, match=r"sent nothing for 0\.6 s"):
        run(tmp_path, [stream_head(), chunk("Hi "), PING, STALL], timeouts=patience)


def test_the_first_token_has_its_own_limit_after_the_head(tmp_path: Path) -> None:
    patience = Timeouts(connect=5, first_token=60, idle=0.1, total=60)
    pieces, _ = run(tmp_path, [stream_head(), 0.5, chat_stream(["Hi"])], timeouts=patience)
    assert "".join(piece.text for piece in pieces) == "Hi"


def test_pings_without_end_stop_at_the_limit_of_the_whole_response(tmp_path: Path) -> None:
    patience = Timeouts(connect=5, first_token=60, idle=60, total=0.5)
    with pytest.raises(BackendError, match="took too long"):
        run(tmp_path, [stream_head(), *[PING, 0.05] * 200], timeouts=patience)
