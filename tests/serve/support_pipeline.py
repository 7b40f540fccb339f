"""A pipeline over scripted backends, for tests."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Budget, Config, ModelSection, Privacy, Router
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import STALL, FaultServer, Script, chunk, response, stream_head

MODEL = "test-model"


def backends(models: tuple[str, ...] = (MODEL,), /, **servers: tuple[str, str]) -> dict[str, Table]:
    """The configuration's tables: name = (profile, base_url)."""
    return {name: Table(profile=profile, base_url=url, models=models) for name, (profile, url) in servers.items()}


def pipeline(
    tmp_path: Path,
    tables: dict[str, Table],
    *,
    breaker: CostCircuitBreaker | None = None,
    failover: FailoverConfig | None = None,
    timeouts: Timeouts | None = None,
    router: Router | None = None,
    privacy: Privacy | None = None,
    models: dict[str, ModelSection] | None = None,
    budget: Budget | None = None,
) -> Pipeline:
    """A pipeline of its own, with a budget in memory."""
    own = {MODEL: ModelSection(context_window=100_000, output_reserve=64)} | (models or {})
    config = Config(
        backends=tables,
        models=own,
        router=router or Router(),
        privacy=privacy or Privacy(tier="sovereign"),
        budget=budget or Budget(),
    )
    return Pipeline(
        config,
        breaker=breaker or CostCircuitBreaker(CircuitBreakerConfig()),
        audit=AuditLog(tmp_path / "audit"),
        failover=failover,
        timeouts=timeouts,
    )


def request(stream: bool = True, **more: Any) -> ChatRequest:
    """A short conversation."""
    fields: dict[str, Any] = {
        "request_id": "r1",
        "model": MODEL,
        "messages": (ChatMessage.user("Say it."),),
        "privacy": PrivacyTier.SOVEREIGN,
        "max_tokens": 10_000,
        "stream": stream,
    }
    return ChatRequest(**(fields | more))


def ask(made: Pipeline, asked: ChatRequest | None = None) -> tuple[Response, list[Piece]]:
    """The whole answer to one request."""

    async def run() -> tuple[Response, list[Piece]]:
        async with made:
            answer = await made.start(asked or request())
            return answer, [piece async for piece in answer]

    try:
        return asyncio.run(run())
    finally:
        made.audit.close()  # hundreds of tests share one process


def text_of(pieces: list[Piece]) -> str:
    """What they say."""
    return "".join(piece.text for piece in pieces)


def speaker(text: str, *, cut: int | None = None, then: Script | None = None, echo: bool = False, size: int = 3) -> Any:
    """A script for a backend whose text is a function of its prefix: it says what is left of `text`.

    Its stream is cut after `cut` bytes of the body, followed by `then`. With `echo` it repeats the prefix first.
    """

    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        last = body["messages"][-1]
        prefix = last["content"] if last["role"] == "assistant" else ""
        assert text.startswith(prefix), "the prefix is not the beginning of the text"
        said = text if echo else text[len(prefix) :]
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        stream = b"".join(chunk(piece) for piece in pieces) + chunk(finish="stop")
        stream += chunk(usage=(9, len(pieces))) + b"data: [DONE]\n\n"
        return [stream_head(), stream if cut is None else stream[:cut], *(then or [])]

    return script


def refuser(status: str, *headers: str) -> Callable[..., Script]:
    """A script that answers with a status."""
    return lambda *_: [response(b'{"error": {"message": "no"}}', "application/json", status, *headers)]


@contextlib.contextmanager
def servers(*scripts: Callable[..., Script]) -> Iterator[list[FaultServer]]:
    """Several backends at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FaultServer(script)) for script in scripts]


__all__ = [
    "MODEL",
    "STALL",
    "ask",
    "backends",
    "pipeline",
    "refuser",
    "request",
    "servers",
    "speaker",
    "text_of",
]
