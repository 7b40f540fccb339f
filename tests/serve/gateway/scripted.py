"""A pipeline whose answers are scripted: the model's name says what happens. No backend, no ledger, no clock.

    python -m tests.serve.gateway.scripted serve gateway --port 0

runs the real command over it. A test that has to know, or decide, when something happens listens on a port of its own
and names it in CONTROL: the models `gated` and `hang` connect to it, say what happens to them, and wait for its word.
"""

import asyncio
import base64
import datetime as dt
import logging
import os
import struct
import sys
import threading
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from batuta_cli import errors
from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.budget.breaker import BudgetStatus
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.pipeline.request import AttemptReport, ChatRequest, Summary
from batuta_cli.serve.providers.wire import BackendError, Piece, Usage
from batuta_cli.serve.tokens.tokenizer import TokenCount

SECRET = "xyzzy-content-of-a-message"
COST = 1_234_000  # nano-dollars


@dataclass(frozen=True)
class Plan:
    decision: str = "spillover"
    reason: str = "local_busy"
    fallbacks: tuple[str, ...] = ("second", "third")


@dataclass(frozen=True)
class Facts:
    window: int | None = 8192
    carries: frozenset[Need] = frozenset({Need.TOOLS})
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    ok: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Gauges:
    queue_depth: dict[str, int] = field(default_factory=lambda: {"scripted": 7})
    budget: BudgetStatus = field(
        default_factory=lambda: BudgetStatus(
            spent=2_500_000_000,
            reserved=500_000_000,
            daily_budget=10_000_000_000,
            max_request_cost=1_000_000_000,
            warn_at=8_000_000_000,
            day=dt.date(2026, 11, 23),
            timezone="UTC",
            resets_at=dt.datetime(2026, 11, 24, tzinfo=dt.UTC),
            ahead=False,
        )
    )


Step = Piece | BaseException | str
"""A piece, what is raised, or `wait` for the control's word."""


class PanicException(BaseException):
    """What a Rust library raises when it panics: no `Exception`, and of a module that cannot be imported."""


def _deep(request: ChatRequest) -> list[Step]:
    """A recursion without an end."""
    return _deep(request)


def _noisy(request: ChatRequest) -> list[Step]:
    """What libraries do beside their work: they write to stderr in all the ways there are."""
    panic = f"thread '<unnamed>' panicked at src/lib.rs:7:5:\nbyte index 1 is not a boundary of `{SECRET}\n{SECRET}`\n"
    os.write(2, panic.encode())
    os.write(2, b"half a line")
    print(f"printed '{SECRET}'", file=sys.stderr)
    warnings.warn(SECRET, stacklevel=1)
    logging.getLogger("some.library").error("it failed: %s", SECRET)
    logging.getLogger("uvicorn.error").critical("as uvicorn %s", SECRET)
    thread = threading.Thread(target=_raises)
    thread.start()
    thread.join()
    asyncio.get_running_loop().call_soon(_raises)
    return _echo(request)


def _panics() -> None:
    raise PanicException(SECRET)


def _raises() -> None:
    raise RuntimeError(SECRET)


def _call(index: int, id: str | None, name: str | None, arguments: str) -> Piece:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})
    return Piece(delta={"tool_calls": [call]})


def _echo(request: ChatRequest) -> list[Step]:
    if request.inputs:
        return _vectors(request)
    words = request.messages[-1].content.split(" ")
    texts = [word + " " for word in words[:-1]] + [words[-1]]
    return [*(Piece(text) for text in texts if text), Piece(finish_reason="stop")]


def _tools(request: ChatRequest) -> list[Step]:
    return [
        Piece("Let me look. "),
        _call(0, "call_1", "weather", ""),
        _call(0, None, None, '{"city":'),
        _call(0, None, None, ' "Łódź"}'),
        _call(1, "call_2", "time", "{}"),
        Piece(finish_reason="tool_calls"),
    ]


def _whole_tools(request: ChatRequest) -> list[Step]:
    """As a backend that does not stream gives them: no index."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Łódź"}'}}
    return [Piece(delta={"tool_calls": [call]}), Piece(finish_reason="tool_calls")]


def _custom(request: ChatRequest) -> list[Step]:
    """A call of a custom tool, as a function with one text; an escape is cut in two."""
    parts = ['{"inp', 'ut": "*** Begin Patch\\n+Ł', "\\u00f3d\\u", '017a \\"q\\"\\n*** End Patch"}']
    return [
        _call(0, "call_1", "apply_patch", ""),
        *(_call(0, None, None, part) for part in parts),
        Piece(finish_reason="tool_calls"),
    ]


def _thinking(request: ChatRequest) -> list[Step]:
    """Reasoning, text, and two calls whose parts arrive in turn, the second without an id or arguments."""
    return [
        Piece(delta={"reasoning_content": "I need "}),
        Piece(delta={"reasoning_content": "the weather.", "reasoning": "the weather."}),
        Piece("Let me look."),
        _call(0, "call_1", "weather", '{"city":'),
        _call(1, None, "time", ""),
        _call(0, None, None, '"Łódź"}'),
        Piece(finish_reason="tool_calls"),
    ]


def _refuses(request: ChatRequest) -> list[Step]:
    return [Piece(delta={"refusal": "I can"}), Piece(delta={"refusal": "not."}), Piece(finish_reason="stop")]


def _choices(request: ChatRequest) -> list[Step]:
    count = request.options.get("n", 1)
    texts: list[Step] = [Piece(f"choice {i}", index=i) for i in range(count)]
    return [*texts, *(Piece(finish_reason="stop", index=i) for i in range(count))]


def _more(request: ChatRequest) -> list[Step]:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
    return [
        Piece(delta={"reasoning_content": "hmm "}),
        Piece(delta={"reasoning_content": "yes"}),
        Piece("a", logprobs=logprobs),
        Piece("b", finish_reason="length"),
    ]


def _vectors(request: ChatRequest) -> list[Step]:
    return [Piece(embeddings=tuple([float(i), 0.5] for i, _ in enumerate(request.inputs)))]


def _packed(request: ChatRequest) -> list[Step]:
    texts = tuple(base64.b64encode(struct.pack("<2f", i, 0.5)).decode() for i, _ in enumerate(request.inputs))
    return [Piece(embeddings=texts)]


SCRIPTS: dict[str, Callable[[ChatRequest], list[Step]]] = {
    "echo": _echo,
    "tools": _tools,
    "whole-tools": _whole_tools,
    "bad-tools": lambda request: [_call(0, "call_1", "f", "{not json"), Piece(finish_reason="tool_calls")],
    "choices": _choices,
    "vectors": _vectors,
    "packed": _packed,
    "no-vectors": lambda request: [Piece(embeddings=("not base64!",))],
    "words": lambda request: [Piece(embeddings=(["one"],))],  # type: ignore[list-item]
    "custom": _custom,
    "thinking": _thinking,
    "refuses": _refuses,
    "cut-call": lambda request: [_call(0, "call_1", "apply_patch", '{"input": "half'), BackendError("it ended")],
    "more": _more,
    "json": lambda request: [Piece('{"age": 22}'), Piece(finish_reason="stop")],
    "long": lambda request: [*(Piece("0123456789abcdef" * 64) for _ in range(20_000)), Piece(finish_reason="stop")],
    "unfinished": lambda request: [Piece("all of it")],
    "filtered": lambda request: [Piece(finish_reason="content_filter")],
    "break": lambda request: [Piece("half of "), BackendError("the backend's stream ended")],
    "bug": lambda request: [Piece("half of "), RuntimeError(SECRET)],
    "gated": lambda request: [Piece("begun "), "wait", Piece("ended"), Piece(finish_reason="stop")],
    "panic-late": lambda request: [Piece("half of "), PanicException(SECRET)],
    "memory-late": lambda request: [Piece("half of "), MemoryError(SECRET)],
    "deep": _deep,
    "noisy": _noisy,
    "hang": lambda request: ["wait", Piece("late")],
}

REFUSALS: dict[str, BaseException] = {
    "too-expensive": errors.RequestTooExpensive("the request may cost 2.00, at most 1.00 is allowed"),
    "over-budget": errors.DailyBudgetExceeded("the budget of the day is spent"),
    "unpriced": errors.UnknownPriceError("the price is not known"),
    "private": errors.PrivacyError("the tier forbids it"),
    "queue-full": errors.QueueFullError("every backend is busy"),
    "no-backend": errors.NoBackendError("no backend answers"),
    "overflow": errors.ContextOverflowError("the conversation does not fit"),
    "audit": errors.AuditError("/var/lib/audit: disk full"),
    "ledger": errors.LedgerError("/var/lib/ledger: locked"),
    "damaged": errors.DamagedStateError("/var/lib/x: damaged"),
    "usage": errors.UsageError("that cannot be asked"),
    "template": errors.TemplateError("message 2: the template has no system role"),
    "backend-500": BackendError("the backend answered (HTTP 500)", status=500),
    "backend-429": BackendError("the backend answered (HTTP 429)", status=429, retry_after=17.2),
    "backend-400": BackendError("the backend answered (HTTP 400)", status=400, retryable=False),
    "backend-401": BackendError("the backend answered (HTTP 401)", status=401),
    "internal": RuntimeError(SECRET),
    "panic": PanicException(SECRET),
    "memory": MemoryError(SECRET),
    "recursion": RecursionError(SECRET),
}
REFUSALS["queue-full"].retry_after = 2.4  # type: ignore[attr-defined]


class Answer:
    """What a script says, and what became of it."""

    backend = "scripted"
    fallback = ""
    plan: Plan | None = Plan()
    dropped: tuple[str, ...] = ()

    def __init__(self, request: ChatRequest, steps: Sequence[Step], say: "Control") -> None:
        self.tier = request.privacy
        self.summary: Summary | None = None
        self.closed = 0
        self.taken = 0
        self._request = request
        self._steps = iter(steps)
        self._said: list[str] = []
        self._say = say
        self._output = 0
        self._ahead: Piece | None = None

    async def open(self) -> None:
        self._ahead = await self._next()

    async def _next(self) -> Piece | None:
        for step in self._steps:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, Piece):
                return step
            await self._say.wait(self._request.model)
        return None

    async def more(self) -> list[Piece]:
        if self.summary is not None:
            return []
        piece, self._ahead = self._ahead or await self._next(), None
        if piece is not None:
            self.taken += 1
            self._output += bool(piece.text)
            return [piece]
        attempts = (AttemptReport("first", 0, "backend_error"), AttemptReport("scripted", COST))
        words = sum(len(m.content.split()) for m in self._request.messages) + len(self._request.inputs)
        self.summary = Summary(
            backend="scripted",
            input_tokens=words,
            output_tokens=self._output,
            exact=True,
            cost=COST,
            budget_left=5_000_000_000,
            attempts=attempts,
        )
        return [Piece(usage=Usage(words, self._output))]

    async def aclose(self) -> None:
        self.closed += 1
        if self.summary is None:
            await self._say.tell(f"freed {self._request.model} {self.taken}")


class Control:
    """The line to the test that decides."""

    def __init__(self) -> None:
        self._port = int(os.environ.get("CONTROL", "0"))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def tell(self, what: str) -> None:
        if self._port:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self._streams[1].write(what.encode() + b"\n")

    async def wait(self, model: str) -> None:
        if not self._port:
            await asyncio.Event().wait()
        await self.tell(f"waiting {model}")
        assert self._streams is not None
        if not await self._streams[0].readline():
            await asyncio.Event().wait()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()


class Pipeline:
    """What `batuta_cli.serve.pipeline.Pipeline` is to the gateway."""

    known = ("echo", "tools", "org/model:q4")

    def __init__(self, config: Any = None, *, watch: bool = False) -> None:
        self.config = config
        self.requests: list[ChatRequest] = []
        self.answers: list[Answer] = []
        self.state = Ready()

    def reconfigured(self, config: Any) -> "Pipeline":
        return Pipeline(config)

    async def __aenter__(self) -> Self:
        if os.environ.get("CANNOT_OPEN"):
            raise errors.LedgerError("/var/lib/ledger: cannot be opened", hint="mend it")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def start(self, request: ChatRequest, opened: list[Any] | None = None) -> Answer:
        self.requests.append(request)
        request.client.require(request.model)
        if request.model in REFUSALS:
            raise REFUSALS[request.model]
        if request.model == "panic-in-thread":
            await asyncio.get_running_loop().run_in_executor(None, _panics)
        if request.model not in SCRIPTS:
            raise errors.NoBackendError("no backend can take the request")
        control = Control()
        answer = Answer(request, SCRIPTS[request.model](request), control)
        self.answers.append(answer)
        try:
            await answer.open()
        except BaseException:
            await answer.aclose()
            raise
        return answer

    async def count(self, request: ChatRequest) -> TokenCount:
        """The words of its messages; exactly for the model `tools`."""
        if request.model not in SCRIPTS:
            raise errors.NoBackendError("no backend can take the request")
        words = sum(len(message.content.split()) for message in request.messages)
        return TokenCount(words, request.model == "tools", "words")

    def models(self, client: ClientAccount = ANY_CLIENT) -> list[str]:
        return list(filter(client.may_use, self.known))

    def model_facts(self, model: str) -> Facts:
        told = {"size": 98_362_432, "digest": "00" * 32, "details": {"family": "llama"}} if model == "tools" else {}
        return Facts() if model == "echo" else Facts(None, frozenset(), told)

    def ready(self) -> Ready:
        return self.state

    async def check_storage(self) -> None:
        pass

    async def gauges(self) -> Gauges:
        return Gauges()


def not_ready(reason: str) -> Ready:
    return replace(Ready(), ok=False, reason=reason)


def main() -> None:
    """The command `batuta`, over this pipeline."""
    module: Any = types.ModuleType("batuta_cli.serve.pipeline.pipeline")
    module.Pipeline = Pipeline
    sys.modules[module.__name__] = module
    from batuta_cli.cli.app import main as batuta

    batuta()


if __name__ == "__main__":
    main()
