"""POST routes: read a request in its dialect, run it through the pipeline, write the response whole or as a stream.

Raises `HttpError`, the pipeline's errors, and `ClientLeftError`. The response of the pipeline is always closed, so that
a client that disconnects frees its backend.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import orjson

from batuta_cli.errors import InvalidInputError, NoBackendError, PrivacyError, UnboundedCostError, UsageError
from batuta_cli.serve.gateway.access import check_json, tier_for
from batuta_cli.serve.gateway.connection import Connection, HeaderList
from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.outside import may_fetch
from batuta_cli.serve.gateway.dialects.replies import Dialect, Reply, WholeReply, read
from batuta_cli.serve.gateway.http_errors import HttpError, unknown_model
from batuta_cli.serve.gateway.metrics import OTHER
from batuta_cli.serve.gateway.state import GatewayState
from batuta_cli.serve.money import format_usd
from batuta_cli.serve.pipeline.request import ChatRequest, Summary
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.pipeline.response import Response
    from batuta_cli.serve.routing.planning import Plan

T = TypeVar("T")

_HEADER_LIMIT = 1000  # characters of a header value
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")  # other names of unknown fields may be content
_MOST_SHOWN = 20


async def generate(state: GatewayState, connection: Connection, dialect: Dialect) -> None:
    """Serve one POST request."""
    check_json(connection.headers)
    state.require_pipeline()
    if state.draining:
        close = {b"connection": b"close"}
        raise HttpError(503, "shutting_down", "the gateway is shutting down", retry_after=1, headers=close)
    tier = tier_for(connection.headers, state.settings.privacy, connection.limits)
    parsed = await read(dialect, await connection.body(), connection.headers)
    if parsed.ready is not None:
        models = state.require_pipeline().models(connection.account)
        if parsed.model not in models:
            raise unknown_model(parsed.model, models)
        await connection.respond(200, orjson.dumps(parsed.ready))
        return
    reply = dialect.reply(parsed, connection.id, int(time.time()))
    stream = cast(Reply, reply) if parsed.stream else None
    connection.reply = stream
    request = chat_request(state, connection, parsed, tier)
    connection.model = OTHER
    with state.open_request(connection) as pipeline:
        response, backend = None, ""
        opened: list[Response] = []
        try:
            async with connection.watch_client():
                if parsed.stream:
                    connection.expect_stream([(b"x-batuta-tier", str(tier).encode())])
                response = await ask_for(parsed, request, lambda request: _start(pipeline, request, opened))
                backend = response.backend
                state.metrics.in_flight(1, backend)
                connection.model = parsed.model
                if parsed.stream:
                    state.metrics.first_token(parsed.model, connection.seconds)
                connection.log_fields |= {
                    "backend": backend,
                    "tier": str(response.tier),
                    "fallback": response.fallback or None,
                }
                if response.dropped:
                    connection.log_fields["dropped"] = list(response.dropped)
                if stream is not None:
                    await _write_stream(state, connection, response, stream)
                else:
                    await _write_whole(state, connection, response, reply)
        finally:
            try:
                if response is not None:
                    await response.aclose()
                elif parsed.model in pipeline.models():
                    connection.model = parsed.model
            finally:  # also when the ledger fails at the end
                if response is not None:
                    state.metrics.in_flight(-1, backend)
                _record_lost(state, connection, opened)


def chat_request(state: GatewayState, connection: Connection, parsed: ParsedRequest, tier: PrivacyTier) -> ChatRequest:
    """The pipeline's request for a parsed one. Fields that no table knows are logged by name."""
    if parsed.unknown:
        shown = [name for name in parsed.unknown if _FIELD_NAME.fullmatch(name)]
        connection.log_fields["unknown_fields"] = shown[:_MOST_SHOWN]
    return ChatRequest(
        request_id=connection.id,
        model=parsed.model,
        messages=parsed.messages,
        privacy=tier,
        max_tokens=parsed.max_tokens,
        stream=parsed.stream,
        options=parsed.options or {},
        inputs=parsed.inputs,
        native=parsed.native,
        native_only=parsed.native_only,
        reach=parsed.reach,
        fetches=not may_fetch(parsed.reach.urls, state.settings.media_hosts),
        unknown_fields=parsed.unknown,
        dropped=parsed.dropped,
        client=connection.account,
    )


async def ask_for(parsed: ParsedRequest, request: ChatRequest, ask: Callable[[ChatRequest], Awaitable[T]]) -> T:
    """Ask the pipeline; when no backend may take the request, ask without what the request can do without."""
    less = parsed.without_optional
    if less is None:
        return await ask(request)
    try:
        return await ask(request)
    except (PrivacyError, UnboundedCostError, InvalidInputError, NoBackendError):
        other = replace(
            request,
            options=less.options or {},
            native=less.native,
            native_only=less.native_only,
            reach=less.reach,
            dropped=less.dropped,
        )
        return await ask(other)


async def _start(pipeline: "Pipeline", request: ChatRequest, opened: "list[Response]") -> "Response":
    with refuse_unknown_model(pipeline, request):
        return await pipeline.start(request, opened)


@contextmanager
def refuse_unknown_model(pipeline: "Pipeline", request: ChatRequest) -> Iterator[None]:
    """Turn the error for a model that no backend has into `HttpError` 404."""
    try:
        yield
    except (UsageError, NoBackendError) as error:
        models = pipeline.models()
        if type(error) in (UsageError, NoBackendError) and models and request.model not in models:
            raise unknown_model(request.model, pipeline.models(request.client)) from None
        raise


async def _write_stream(state: GatewayState, connection: Connection, response: "Response", reply: Reply) -> None:
    await connection.begin_stream(_headers(response), reply.stream_type)
    data, begun = b"", False
    while pieces := await response.more():
        if not begun:
            begun = True
            data = reply.begin() if pieces[0].raw is None else b""
        data += b"".join(map(reply.piece, pieces))
        if data:
            await connection.part(data)
            data = b""
    summary = _record_summary(state, connection, response)
    await connection.end_stream(data + reply.end(summary) + reply.receipt(summary))


async def _write_whole(state: GatewayState, connection: Connection, response: "Response", reply: WholeReply) -> None:
    all_pieces: list[Piece] = []
    while pieces := await response.more():
        all_pieces += pieces
    summary = _record_summary(state, connection, response)
    headers = [*_headers(response), (b"x-batuta-cost", format_usd(summary.cost).encode())]
    await connection.respond(200, reply.whole(all_pieces, summary), headers=headers)


def _record_summary(state: GatewayState, connection: Connection, response: "Response") -> Summary:
    summary = response.summary
    if summary is None:
        raise RuntimeError("a response ended without a summary")
    summary = replace(summary, fallback=response.fallback)
    state.metrics.completed(summary, connection.model or OTHER, connection.client)
    connection.log_fields |= {
        "backend": summary.backend,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "cost_usd": format_usd(summary.cost),
        "attempts": len(summary.attempts),
    }
    return summary


def _record_lost(state: GatewayState, connection: Connection, opened: "list[Response]") -> None:
    """Record what was charged for a request whose response was not completed."""
    if "cost_usd" in connection.log_fields:
        return
    # A response has the attempts that it replaces, so that each response's own ones are taken.
    charged = [report for each in opened for report in each.attempts[len(each.replaced) :] if report.cost]
    if not charged:
        return
    state.metrics.charged(charged, connection.model or OTHER, connection.client)
    connection.log_fields |= {
        "backend": charged[-1].backend,
        "cost_usd": format_usd(sum(report.cost for report in charged)),
        "attempts": len(charged),
    }


def _headers(response: "Response") -> HeaderList:
    fallback = [(b"x-batuta-fallback", _header_value(response.fallback))] if response.fallback else []
    return [
        *fallback,
        (b"x-batuta-backend", _header_value(response.backend)),
        (b"x-batuta-tier", str(response.tier).encode()),
        (b"x-batuta-plan", _header_value(_plan_summary(response.plan))),
        *([(b"x-batuta-dropped", _header_value(", ".join(response.dropped)))] if response.dropped else ()),
    ]


def _plan_summary(plan: "Plan | None") -> str:
    """The plan in one line; `batuta serve route --explain` prints all of it."""
    if plan is None:
        return ""
    rest = f"; then {', '.join(plan.fallbacks)}" if plan.fallbacks else ""
    return f"{plan.decision}; {plan.reason}{rest}"


def _header_value(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text[:_HEADER_LIMIT].encode()
