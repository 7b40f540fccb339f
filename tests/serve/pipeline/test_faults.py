"""What a backend, a client or the network may do at the worst moment, and what must come of it."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import ModelSection, Router
from batuta_cli.errors import (
    BatutaError,
    ConfigError,
    InvalidInputError,
    LedgerError,
    NoBackendError,
    PrivacyError,
    UsageError,
)
from batuta_cli.serve.backends import Backend, ServingBackend
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.client import Timeouts, send_call
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.wire import BackendError, Call, Piece, Usage
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import chat_answer, chat_stream, chunk, response, stream_head
from tests.serve.support_pipeline import MODEL, STALL, ask, backends, pipeline, request, servers, text_of
from tests.serve.support_server import free_port


def priced() -> ModelSection:
    """A dollar for a million tokens."""
    return ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))


# The network


def test_a_name_that_cannot_be_resolved_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        assert len(asked) < 10
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    tables = backends(far=("vllm", "http://llm.example:8000/v1"))
    made = pipeline(tmp_path, tables, models={MODEL: priced()})
    with pytest.raises(BackendError, match="cannot be reached"):
        ask(made, request(privacy=PrivacyTier.STANDARD))
    assert asked == ["llm.example"]


# Money


def paid(tmp_path: Path, url: str, asked: ChatRequest | None = None) -> tuple[CostCircuitBreaker, BaseException | None]:
    """One request to a paid backend; what was spent, and how it ended."""
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    made = pipeline(tmp_path, backends(one=("openai", url)), breaker=breaker, models={MODEL: priced()})
    try:
        ask(made, asked)
    except BatutaError as error:
        return breaker, error
    return breaker, None


def test_who_cannot_be_reached_is_not_paid(tmp_path: Path) -> None:
    breaker, error = paid(tmp_path, f"http://127.0.0.1:{free_port()}/v1")
    assert isinstance(error, BackendError)
    assert (breaker.status().spent, breaker.status().reserved) == (0, 0)


def test_a_key_that_cannot_be_sent_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "two words")
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    table = Table(profile="openai", base_url="http://127.0.0.1:9/v1", models=(MODEL,), api_key_env="SOME_KEY")
    with pytest.raises(ConfigError, match="SOME_KEY"):
        ask(pipeline(tmp_path, {"one": table}, breaker=breaker, models={MODEL: priced()}))
    assert (breaker.status().spent, breaker.status().reserved) == (0, 0)


def test_who_took_the_request_and_said_nothing_is_paid_for_the_prompt(tmp_path: Path) -> None:
    with servers(lambda *_: []) as [one]:
        breaker, error = paid(tmp_path, one.base_url)
    assert isinstance(error, BackendError)
    assert breaker.status().spent > 0
    assert breaker.status().reserved == 0


# Endings


def chunked(*pieces: bytes, end: bool = True) -> list[bytes]:
    """A stream in the transfer coding that most servers use; without `end` its connection is cut."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return [head + body + (b"0\r\n\r\n" if end else b"")]


Reply = list[Any]


def said(tmp_path: Path, *replies: Reply, asked: ChatRequest | None = None, profile: str = "vllm") -> list[Piece]:
    """The pieces of an answer by backends that reply so, one after the other."""
    with servers(*[lambda *_, reply=reply: reply for reply in replies]) as running:
        tables = backends(**{f"b{n}": (profile, one.base_url) for n, one in enumerate(running)})
        return ask(pipeline(tmp_path, tables), asked)[1]


def ends(pieces: list[Piece]) -> list[str]:
    """What the client sees of ends: finish reasons and usages, in their order."""
    found = [["finish"] * (p.finish_reason is not None) + ["usage"] * (p.usage is not None) for p in pieces]
    return [one for each in found for one in each]


def test_a_connection_that_is_cut_after_the_end_of_the_answer_is_no_failure(tmp_path: Path) -> None:
    cut = chunked(chunk("All of it."), chunk(finish="stop"), end=False)
    pieces = said(tmp_path, cut, [stream_head(), chat_stream([" And more."])])
    assert text_of(pieces) == "All of it."
    assert ends(pieces) == ["finish", "usage"]


def test_silence_after_the_end_of_the_answer_is_no_failure(tmp_path: Path) -> None:
    with servers(lambda *_: [stream_head(), chunk("All of it."), chunk(finish="stop"), STALL]) as [one]:
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url)), timeouts=Timeouts(idle=0.2))
        pieces = ask(made)[1]
    assert (text_of(pieces), ends(pieces)) == ("All of it.", ["finish", "usage"])


def test_text_after_the_end_and_a_second_end_are_one_text_with_one_end(tmp_path: Path) -> None:
    stream = chunk("One", finish="stop") + chunk(" two", finish="length") + chunk(usage=(7, 2)) + chunk(usage=(7, 3))
    pieces = said(tmp_path, [stream_head(), stream + b"data: [DONE]\n\n"])
    assert text_of(pieces) == "One two"
    assert ends(pieces) == ["finish", "usage"]
    assert pieces[-1].usage == Usage(7, 3)


def test_an_end_that_its_backend_takes_back_is_never_seen(tmp_path: Path) -> None:
    def anthropic(kind: str, **fields: Any) -> bytes:
        return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"

    begun = anthropic("content_block_delta", delta={"type": "text_delta", "text": "Half"})
    ended = anthropic("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1})
    with servers(lambda *_: [stream_head(), begun + ended], lambda *_: [stream_head(), chat_stream([" done"])]) as [
        a,
        b,
    ]:
        tables = backends(a=("anthropic", a.base_url), b=("vllm", b.base_url))
        router = Router(local_backend="a")
        pieces = ask(pipeline(tmp_path, tables, models={MODEL: priced()}, router=router))[1]
    assert text_of(pieces) == "Half done"
    assert ends(pieces) == ["finish", "usage"]


def test_an_empty_finish_reason_is_none(tmp_path: Path) -> None:
    """LocalAI has one in every chunk of a stream."""
    unfinished = json.dumps({"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": ""}]})
    reply = [stream_head(), b"data: " + unfinished.encode() + b"\n\n"]
    with pytest.raises(BackendError, match="before its response was complete"):
        said(tmp_path, reply)


@pytest.mark.parametrize("reason", ["abort", "error", "cancelled", "insufficient_system_resource"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_was_given_up_is_no_answer(tmp_path: Path, reason: str, stream: bool) -> None:
    if stream:
        reply = [stream_head(), chunk("Half") + chunk(finish=reason) + b"data: [DONE]\n\n"]
    else:
        reply = [response(chat_answer("Half").replace(b'"stop"', json.dumps(reason).encode()))]
    with pytest.raises(BackendError, match="aborted"):
        said(tmp_path, reply, asked=request(stream=stream))


def test_one_of_several_choices_that_is_cut_off_is_a_failure(tmp_path: Path) -> None:
    def choice(index: int, text: str, finish: str | None) -> bytes:
        part = {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}
        return b"data: " + json.dumps(part).encode() + b"\n\n"

    stream = choice(0, "All", None) + choice(1, "Half", None) + choice(0, "", "stop")
    with pytest.raises(BackendError, match="before its response was complete"):
        said(tmp_path, [stream_head(), stream], asked=request(options={"n": 2}))
    whole = stream + choice(1, " and half", "length")
    pieces = said(tmp_path, [stream_head(), whole], asked=request(options={"n": 2}))
    assert [(p.index, p.finish_reason) for p in pieces if p.finish_reason] == [(0, "stop"), (1, "length")]


# What is too much


def test_an_event_that_never_ends_is_left_for_another_backend(tmp_path: Path) -> None:
    endless = [stream_head(), *[b"data: " + b"x" * 2**20] * 20]
    assert text_of(said(tmp_path, endless, [stream_head(), chat_stream(["Hi"])])) == "Hi"


def test_a_line_of_ollama_may_be_long_and_must_not_be_endless(tmp_path: Path) -> None:
    async def generated(url: str) -> str:
        backend = Backend(name="ollama", kind=ServingBackend.OLLAMA, base_urls=(url,))
        call = Call(model=MODEL, messages=(ChatMessage.user("Say it."),), max_tokens=10, stream=True, prompt="Say it.")
        async with GatedSession(PrivacyTier.SOVEREIGN, AuditLog(tmp_path)) as session:
            pieces = send_call(session, backend, url, call, request_id="r", timeouts=Timeouts())
            return text_of([piece async for together in pieces for piece in together])

    line = json.dumps({"response": "done", "done": True, "context": list(range(50_000))}).encode() + b"\n"
    endless = [b"x" * 2**20] * 20
    with servers(*[lambda *_, r=r: [stream_head("application/x-ndjson"), *r] for r in ([line], endless)]) as [one, two]:
        assert asyncio.run(generated(one.base_url)) == "done"
        with pytest.raises(BackendError, match="line of more than"):
            asyncio.run(generated(two.base_url))


# Half a character


def test_a_character_that_came_in_two_events_reaches_the_client_as_one(tmp_path: Path) -> None:
    """A server whose strings are UTF-16 cuts where it likes."""
    halves = [
        b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % t for t in (b"a\\ud83d", b"\\ude00b")
    ]
    pieces = said(tmp_path, [stream_head(), *halves, chunk(finish="stop")])
    assert [piece.text for piece in pieces if piece.text] == ["a", "\N{GRINNING FACE}b"]


@pytest.mark.parametrize("end", [[], [chunk(finish="stop")]])
def test_half_a_character_alone_is_never_given_on(tmp_path: Path, end: list[bytes]) -> None:
    half = b'data: {"choices": [{"index": 0, "delta": {"content": "a\\ud83d"}}]}\n\n'
    pieces = said(tmp_path, [stream_head(), half, *end], [stream_head(), chat_stream(["\N{GRINNING FACE}b"])])
    assert text_of(pieces) == ("a�" if end else "a\N{GRINNING FACE}b")


@pytest.mark.parametrize("options", [{"seed": 2**70}, {"stop": "\ud800"}], ids=["a huge number", "half a character"])
def test_what_cannot_be_sent_is_the_fault_of_who_asks(tmp_path: Path, options: dict[str, Any]) -> None:
    with servers(lambda *_: [stream_head(), chat_stream(["Hi"])]) as [one]:
        breaker, error = paid(tmp_path, one.base_url, request(options=options))
    assert isinstance(error, InvalidInputError)
    assert (one.requests, breaker.status().spent, breaker.status().reserved) == ([], 0, 0)


# Models that a local server sends elsewhere


def ollama(*, tells: bool) -> Callable[..., list[Any]]:
    found = {
        "/": b"Ollama is running",
        "/api/version": b'{"version": "0.13.0"}',
        "/v1/models": b'{"data": [{"id": "alias:latest"}, {"id": "near:latest"}, {"id": "big:cloud"}]}',
        "/api/tags": b'{"models": [{"name": "near:latest"}, {"name": "alias:latest", "remote_host": "https://far"}]}',
    }

    def script(path: str, headers: dict[str, str], body: Any) -> list[Any]:
        if body is not None:
            return [stream_head(), chat_stream(["Hi"])]
        known = path in found and (tells or path != "/api/tags")
        return [response(found[path])] if known else [response(b"", status="404 Not Found")]

    return script


@pytest.mark.parametrize("tier", ["sovereign", "private"])
@pytest.mark.parametrize(
    ("model", "tells", "asked"),
    [
        ("near", True, 1),
        ("near:latest", True, 1),
        ("alias", True, 0),
        ("alias:latest", True, 0),
        ("Alias", True, 0),
        ("big:cloud", True, 0),
        ("near", False, 0),
    ],
)
def test_a_server_is_asked_which_models_it_sends_elsewhere_before_it_is_sent_anything(
    tmp_path: Path, model: str, tells: bool, asked: int, tier: str
) -> None:
    with servers(ollama(tells=tells)) as [one]:
        table = Table(profile="ollama", base_url=one.base_url)
        made = pipeline(tmp_path, {"one": table}, models={model: ModelSection(100_000, 64)})
        with contextlib.suppress(PrivacyError, NoBackendError):
            ask(made, request(model=model, privacy=PrivacyTier.parse(tier)))
        assert sum(body is not None for _, _, body in one.requests) == asked


# Odd requests, odd ledgers


@pytest.mark.parametrize("number", [0, -5])
def test_an_answer_of_no_tokens_cannot_be_asked_for(number: int) -> None:
    with pytest.raises(UsageError, match="max_tokens"):
        request(max_tokens=number)


def test_a_ledger_that_cannot_be_read_afterwards_does_not_spoil_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    status, asked = breaker.status, []

    def once(*arguments: Any) -> Any:
        asked.append(1)
        if len(asked) > 1:
            raise LedgerError("the ledger is gone")
        return status(*arguments)

    monkeypatch.setattr(breaker, "status", once)
    with servers(lambda *_: [stream_head(), chat_stream(["Hi"])]) as [one]:
        tables = backends(one=("openai", one.base_url))
        answer, pieces = ask(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: priced()}))
    assert (text_of(pieces), len(asked)) == ("Hi", 2)
    assert answer.summary is not None
    assert (answer.summary.cost > 0, answer.summary.budget_left) == (True, None)
