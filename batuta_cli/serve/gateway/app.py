"""The gateway as an ASGI 3 application: HTTP in, the pipeline, HTTP out.

    app = Gateway(open_pipeline, settings)      # any ASGI server with the lifespan protocol can host it

Order of judgement: who is let in (`access`), what is asked (`openai_api`, `anthropic_api`), then the pipeline, whose
errors become statuses in `refusals`. `/health` and `/ready` are open to everybody, because load balancers have no key,
and tell a stranger one word; all else, `/metrics` and unknown paths included, is behind the door.

A stream that cannot be completed ends with an error event and a response that is visibly cut off, never as a good one
would. What went wrong inside is logged by its type; the client is told "internal error".
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import orjson

from batuta_cli.errors import BatutaError, NoBackendError, UsageError
from batuta_cli.faults import as_typed
from batuta_cli.serve.gateway import METRICS_DIRECTORY, logs, metrics
from batuta_cli.serve.gateway.access import AccessCheck, check_json, read_headers, tier_for
from batuta_cli.serve.gateway.connection import (
    ClientLeftError,
    Connection,
    ConnectionLimits,
    HeaderList,
    Receive,
    Scope,
    Send,
)
from batuta_cli.serve.gateway.dialects.anthropic import Messages
from batuta_cli.serve.gateway.dialects.openai import ChatCompletions, Completions
from batuta_cli.serve.gateway.dialects.replies import Dialect, read
from batuta_cli.serve.gateway.http_errors import (
    ErrorFormat,
    HttpError,
    anthropic_error,
    error_body,
    http_error_for,
    openai_error,
)
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.money import format_usd
from batuta_cli.serve.pipeline.request import ChatRequest, Summary
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.pipeline.response import Response
    from batuta_cli.serve.routing.planning import Plan

CLIENT_LEFT = 499
"""The status in log and metrics of a request whose client has left; nginx's number."""

_MODELS = "/v1/models"
_PROBES = ("/health", "/ready")
_LONGEST_PLAN = 1000  # characters of a header


@dataclass(frozen=True)
class GatewaySettings:
    """What the operator chose."""

    privacy: PrivacyTier = PrivacyTier.STANDARD
    origins: tuple[str, ...] = ()
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


class Gateway:
    """The application."""

    def __init__(
        self,
        open_pipeline: "Callable[[], contextlib.AbstractAsyncContextManager[Pipeline]]",
        settings: GatewaySettings | None = None,
        *,
        keys: ClientKeys | None = None,
        log: logs.Log | None = None,
    ) -> None:
        self._open_pipeline = open_pipeline
        self._settings = settings or GatewaySettings()
        self._door = AccessCheck(keys or ClientKeys(), self._settings.origins)
        self._log = log or logs.Log()
        self._metrics = metrics.Metrics()
        self._pipeline: Pipeline | None = None
        self._under_way: set[Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        """No new work is taken, and `/ready` says so."""
        self.startup_error: Exception | None = None
        """Why the pipeline could not be opened."""
        self._posts: dict[str, Dialect] = {
            "/v1/chat/completions": ChatCompletions(),
            "/v1/completions": Completions(),
            "/v1/messages": Messages(),
        }
        self._gets: dict[str, Callable[[Connection], Awaitable[None]]] = {
            _MODELS: self._list_models,
            "/metrics": self._show_metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._serve(Connection(scope, receive, send, self._settings.limits))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._open_pipeline() as pipeline:
                self._pipeline = pipeline
                refresher = asyncio.create_task(self._refresh()) if os.environ.get(METRICS_DIRECTORY) else None
                await send({"type": "lifespan.startup.complete"})
                await receive()
                if refresher:
                    refresher.cancel()
                self._pipeline = None
        except BaseException as failure:
            error = self._fault(failure)
            self._log.write("error", "pipeline", **logs.describe(error))
            self.startup_error = error
            phase = "startup" if self._pipeline is None and not self.draining else "shutdown"
            await send({"type": f"lifespan.{phase}.failed", "message": http_error_for(error).message})
            return
        self._log.flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _refresh(self) -> None:
        while True:
            await self._take_gauges()
            await asyncio.sleep(1)

    async def _take_gauges(self) -> None:
        if self._pipeline is not None:
            try:
                self._metrics.refresh(await self._pipeline.gauges())
            except BaseException as error:  # a ledger that cannot be read must not hide all else
                self._log.write("error", "gauges", **logs.describe(self._fault(error)))
        self._metrics.log_dropped(self._log.dropped)

    def _fault(self, error: BaseException) -> Exception:
        """The one place that says what is answered and goes on: native panics too, but nothing that ends a task.

        Counts what is no refusal, and raises `error` when it is a cancellation or ends the process.
        """
        typed = as_typed(error)
        if typed is None and not isinstance(error, Exception):
            raise error
        if typed is not None or not isinstance(error, HttpError | BatutaError):
            self._metrics.fault("internal" if typed is None else typed.kind)
        if typed is None:
            return cast(Exception, error)
        typed.__cause__ = error
        return typed

    async def drain(self, seconds: float) -> None:
        """Take no new work, wait for what is under way, and after `seconds` end it with an error."""
        self.draining = True
        self._log.write("info", "draining", under_way=len(self._under_way))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        self.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):  # for the error events to be written
                await self._idle.wait()

    def cut(self) -> None:
        """End what is under way with an error."""
        for exchange in tuple(self._under_way):
            exchange.cut()

    def connection_closed(self, limit: str) -> None:
        """The server has closed a connection that exceeded a limit."""
        self._metrics.connection_closed(limit)

    async def _serve(self, exchange: Connection) -> None:
        try:
            await self._route(exchange)
        except ClientLeftError as left:
            exchange.facts["left"] = left.why
            exchange.status = CLIENT_LEFT
            self._metrics.left()
        except BaseException as failure:
            error = self._fault(failure)
            try:
                await self._refuse(exchange, error)
            except Exception as again:  # the line of the log is written all the same
                exchange.status = exchange.status or 500
                exchange.facts["refusal_failed"] = type(again).__name__
        seconds = exchange.seconds
        self._metrics.request(exchange.route, exchange.status, seconds)
        if exchange.route in _PROBES:  # asked for every second or so, and told in the metrics
            return
        self._log.write(
            "error" if exchange.status >= 500 or "broken" in exchange.facts else "info",
            "request",
            request_id=exchange.shown_id,
            id=exchange.id if exchange.id != exchange.shown_id else None,
            method=exchange.scope["method"],
            route=exchange.route,
            status=exchange.status,
            seconds=round(seconds, 6),
            client=exchange.client or None,
            **exchange.facts,
        )

    async def _refuse(self, exchange: Connection, error: Exception) -> None:
        refusal = http_error_for(error)
        exchange.facts["code"] = refusal.code
        if not isinstance(error, HttpError):
            exchange.facts |= logs.describe(error)
        if exchange.over:
            return
        with contextlib.suppress(ClientLeftError):
            if exchange.begun and exchange.reply is not None:
                self._metrics.broken()
                exchange.facts["broken"] = True
                # Not ended on purpose: the server then cuts the connection, so that nobody takes it for complete.
                await exchange.last_part(exchange.reply.broken(refusal))
            else:
                shape = self._error_shape(exchange)
                body = error_body(shape, refusal, exchange.shown_id)
                await exchange.respond(refusal.status, body, headers=refusal.all_headers)

    def _error_shape(self, exchange: Connection) -> ErrorFormat:
        shape = self._posts.get(exchange.route)
        if shape is not None:
            return shape.error
        return anthropic_error if b"anthropic-version" in exchange.headers else openai_error

    async def _route(self, exchange: Connection) -> None:
        scope = exchange.scope
        path, method = scope["path"], scope["method"]
        exchange.headers = read_headers(scope["headers"])
        exchange.take_id()
        if path in _PROBES:
            exchange.route = path
            await self._probe(exchange)
            return
        exchange.more_headers = self._door.cors(exchange.headers)
        if method == "OPTIONS" and exchange.more_headers:
            await self._preflight(exchange)
            return
        exchange.client = self._door.admit(scope.get("client"), exchange.headers)
        if path in self._posts:
            exchange.route = path
            _check_method(method, ("POST",))
            await self._answer(exchange, self._posts[path])
        elif path in self._gets:
            exchange.route = path
            _check_method(method, ("GET", "HEAD"))
            await self._gets[path](exchange)
        elif path.startswith(_MODELS + "/"):
            exchange.route = _MODELS
            _check_method(method, ("GET", "HEAD"))
            await self._show_model(exchange, path.removeprefix(_MODELS + "/"))
        else:
            raise HttpError(404, "not_found", "there is nothing at this address")

    # What is not an answer of a model

    async def _probe(self, exchange: Connection) -> None:
        _check_method(exchange.scope["method"], ("GET", "HEAD"))
        if exchange.route == "/health":
            await exchange.respond(200, b'{"status":"ok"}')
            return
        ready, reason = False, "starting"
        if self.draining:
            reason = "shutting down"
        elif self._pipeline is not None:
            state = self._pipeline.ready()
            ready, reason = state.ok, state.reason
        document = {"status": "ready" if ready else "not ready"}
        with contextlib.suppress(HttpError):
            self._door.admit(exchange.scope.get("client"), exchange.headers)
            document |= {} if ready else {"reason": reason}
        await exchange.respond(200 if ready else 503, orjson.dumps(document))

    async def _preflight(self, exchange: Connection) -> None:
        allowed = b"authorization, x-api-key, content-type, x-request-id, x-batuta-privacy, anthropic-version"
        headers = [(b"access-control-allow-methods", b"GET, POST"), (b"access-control-allow-headers", allowed)]
        exchange.route = "preflight"
        await exchange.respond(200, b"{}", headers=[*headers, (b"access-control-max-age", b"600")])

    async def _show_metrics(self, exchange: Connection) -> None:
        await self._take_gauges()
        await exchange.respond(200, self._metrics.text(), metrics.CONTENT_TYPE.encode())

    async def _list_models(self, exchange: Connection) -> None:
        models = [_model(name) for name in self._running().models()]
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
        empty = {"first_id": None, "last_id": None}
        await exchange.respond(
            200, orjson.dumps({"object": "list", "data": models, "has_more": False, **empty, **ends})
        )

    async def _show_model(self, exchange: Connection, name: str) -> None:
        if name not in self._running().models():
            raise _unknown_model()
        await exchange.respond(200, orjson.dumps(_model(name)))

    def _running(self) -> "Pipeline":
        if self._pipeline is None:
            raise HttpError(503, "starting", "the gateway is starting or shutting down", retry_after=1)
        return self._pipeline

    # Answers of models

    async def _answer(self, exchange: Connection, shape: Dialect) -> None:
        check_json(exchange.headers)
        pipeline = self._running()
        if self.draining:
            close = {b"connection": b"close"}
            raise HttpError(503, "shutting_down", "the gateway is shutting down", retry_after=1, headers=close)
        tier = tier_for(exchange.headers, self._settings.privacy)
        asked = await read(shape, await exchange.body())
        reply = shape.reply(asked, exchange.id, int(time.time()))
        exchange.reply = reply if asked.stream else None
        request = ChatRequest(
            request_id=exchange.id,
            model=asked.model,
            messages=asked.messages,
            privacy=tier,
            max_tokens=asked.max_tokens,
            stream=asked.stream,
            options=asked.options or {},
        )
        answer, backend = None, ""
        self._enter(exchange)
        try:
            async with exchange.present():
                answer = await self._start(pipeline, request)
                backend = answer.backend
                self._metrics.under_way(1, backend)
                self._metrics.first_piece(exchange.seconds)
                exchange.facts |= {"backend": backend, "tier": str(answer.tier)}
                if asked.stream:
                    await exchange.begin_stream(_headers(answer))
                    data = reply.begin()
                    while pieces := await answer.more():
                        data += b"".join(map(reply.piece, pieces))
                        if data:
                            await exchange.part(data)
                            data = b""
                    summary = self._ended(exchange, answer)
                    await exchange.end_stream(data + reply.end(summary) + _comment(summary))
                else:
                    all_pieces: list[Piece] = []
                    while pieces := await answer.more():
                        all_pieces += pieces
                    summary = self._ended(exchange, answer)
                    headers = [*_headers(answer), (b"x-batuta-cost", format_usd(summary.cost).encode())]
                    await exchange.respond(200, reply.whole(all_pieces, summary), headers=headers)
        finally:
            try:
                if answer is not None:
                    await answer.aclose()
            finally:  # also when the ledger fails at the end
                if answer is not None:
                    self._metrics.under_way(-1, backend)
                self._leave(exchange)

    def _enter(self, exchange: Connection) -> None:
        self._under_way.add(exchange)
        self._idle.clear()

    def _leave(self, exchange: Connection) -> None:
        self._under_way.discard(exchange)
        if not self._under_way:
            self._idle.set()

    async def _start(self, pipeline: "Pipeline", request: ChatRequest) -> "Response":
        try:
            return await pipeline.start(request)
        except (UsageError, NoBackendError) as error:
            models = pipeline.models()
            if type(error) in (UsageError, NoBackendError) and models and request.model not in models:
                raise _unknown_model() from None
            raise

    def _ended(self, exchange: Connection, answer: "Response") -> Summary:
        summary = answer.summary
        if summary is None:
            raise RuntimeError("an answer ended without a summary")
        self._metrics.answer(summary)
        exchange.facts |= {
            "backend": summary.backend,
            "input_tokens": summary.input_tokens,
            "output_tokens": summary.output_tokens,
            "cost_usd": format_usd(summary.cost),
            "legs": len(summary.attempts),
        }
        return summary


def _check_method(method: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise HttpError(
            405, "method_not_allowed", f"use {allowed[0]} here", headers={b"allow": ", ".join(allowed).encode()}
        )


def _unknown_model() -> HttpError:
    return HttpError(404, "model_not_found", "there is no such model here; GET /v1/models lists them", "model")


def _model(name: str) -> dict[str, object]:
    """A model as both clients read it."""
    openai = {"id": name, "object": "model", "created": 0, "owned_by": "batuta"}
    return {**openai, "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}


def _headers(answer: "Response") -> HeaderList:
    return [
        (b"x-batuta-backend", _header_value(answer.backend)),
        (b"x-batuta-tier", str(answer.tier).encode()),
        (b"x-batuta-plan", _header_value(_plan_words(answer.plan))),
    ]


def _plan_words(plan: "Plan | None") -> str:
    """The plan in a line; `batuta serve route --explain` tells all of it."""
    if plan is None:
        return ""
    rest = f"; then {', '.join(plan.fallbacks)}" if plan.fallbacks else ""
    return f"{plan.decision}; {plan.reason}{rest}"


def _header_value(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text[:_LONGEST_PLAN].encode()


def _comment(summary: Summary) -> bytes:
    """The cost of a stream, as a comment: clients pass over it (WHATWG HTML, section 9.2.6)."""
    facts = {"backend": summary.backend, "cost_usd": format_usd(summary.cost), "legs": len(summary.attempts)}
    return b": batuta %s\n\n" % orjson.dumps(facts)
