"""The interface of a dialect, and how the pieces of a response are joined into choices and tool calls."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.gateway.dialects.fields import ParsedRequest, parse_object
from batuta_cli.serve.gateway.http_errors import ErrorFormat, HttpError
from batuta_cli.serve.money import format_usd
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.wire import FinishReason, NativeRequest, Piece

_HEADER = re.compile(rb"[ -~]{1,4096}")
_SHORT = 64 * 1024
"""Largest body, in bytes, that is parsed on the event loop: it takes about a millisecond."""


class WholeReply(Protocol):
    """Writes one response in a dialect that does not stream."""

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        """The JSON of a response that is not streamed."""


class Reply(WholeReply, Protocol):
    """Writes one response in a dialect. A stream is `begin`, each `piece`, then `end`, or `broken` after an error."""

    @property
    def stream_type(self) -> bytes:
        """The content type of a stream."""

    def waiting(self) -> bytes:
        """What a client ignores; sent while the backend has sent nothing, so that proxies keep the connection."""

    def begin(self) -> bytes:
        """The events before the first piece."""

    def piece(self, piece: Piece) -> bytes:
        """The events of one piece; may be empty."""

    def end(self, summary: Summary) -> bytes:
        """The events after the last piece."""

    def receipt(self, summary: Summary) -> bytes:
        """The cost of a stream, after `end`; empty where `end` has it."""

    def broken(self, error: HttpError, request_id: str) -> bytes:
        """The error event of a stream that cannot be completed."""


class EventStreamReply:
    """The part of a `Reply` with a stream of server-sent events, whose comments clients ignore (WHATWG HTML, 9.2.6)."""

    stream_type = b"text/event-stream; charset=utf-8"

    def waiting(self) -> bytes:
        """See `Reply`."""
        return b": waiting for the backend\n\n"

    def receipt(self, summary: Summary) -> bytes:
        """See `Reply`."""
        return b": batuta %s\n\n" % orjson.dumps(receipt_facts(summary))


def receipt_facts(summary: Summary) -> dict[str, Any]:
    """What a client is told at the end of a stream, because headers are sent before it."""
    facts = {"backend": summary.backend, "cost_usd": format_usd(summary.cost), "attempts": len(summary.attempts)}
    return facts | ({"fallback": summary.fallback} if summary.fallback else {})


class RequestDialect(Protocol):
    """The requests of a client API."""

    @property
    def error(self) -> ErrorFormat:
        """The format of an error body."""

    @property
    def api(self) -> ClientApi | None:
        """Its name in the profiles of backends; None for an API that no backend gets as it came."""

    @property
    def headers(self) -> frozenset[bytes]:
        """The request headers that belong to the API, in lower case; a backend that speaks it gets them."""

    @property
    def personal(self) -> frozenset[str]:
        """The fields that name a user or a conversation; only the API's provider gets them."""

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        """Parse a request. Raises `HttpError`."""


class Dialect(RequestDialect, Protocol):
    """A client API: parses its requests and writes its responses."""

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> WholeReply:
        """The writer of one response; a `Reply` for a stream. `name` is unique; `created` is in Unix seconds."""


class CountDialect(RequestDialect, Protocol):
    """A client API that counts the tokens of a request."""

    def counted(self, tokens: int) -> bytes:
        """The JSON of the response."""


async def read(dialect: RequestDialect, body: bytes, headers: Mapping[bytes, bytes]) -> ParsedRequest:
    """Parse a request. A long one is parsed in a thread, because it may take seconds. Raises `HttpError`."""
    if len(body) <= _SHORT:
        return _read(dialect, body, headers)
    return await asyncio.get_running_loop().run_in_executor(None, lambda: _read(dialect, body, headers))


def _read(dialect: RequestDialect, body: bytes, headers: Mapping[bytes, bytes]) -> ParsedRequest:
    document = parse_object(body)
    parsed = dialect.read(document)
    if dialect.api is None:
        return parsed
    given = {name: headers[name] for name in dialect.headers if _HEADER.fullmatch(headers.get(name, b""))}
    sent = {name.decode(): value.decode() for name, value in given.items()}

    def with_native(parsed: ParsedRequest, api: ClientApi) -> ParsedRequest:
        native_document = document if parsed.document is None else parsed.document
        personal = tuple(n for n, value in native_document.items() if n in dialect.personal and value is not None)
        native = NativeRequest(
            api=api, document=native_document, headers=sent, personal=personal, left_out=parsed.left_out
        )
        less = parsed.without_optional
        return replace(parsed, native=native, without_optional=less and with_native(less, api))

    return with_native(parsed, dialect.api)


@dataclass
class Calls:
    """Tool calls, joined from the parts of a stream."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, parts: object) -> None:
        """Add the `tool_calls` of one piece. A part without an index is a new call."""
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                continue
            index = part.get("index")
            if not isinstance(index, int) or not 0 <= index <= len(self.calls):
                index = len(self.calls)
            if index == len(self.calls):
                self.calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            call = self.calls[index]
            call |= {name: value for name, value in part.items() if name not in ("index", *call)}
            function = part.get("function")
            function = function if isinstance(function, dict) else {}
            call["id"] = call["id"] or part.get("id") or ""
            call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""


@dataclass(kw_only=True)
class ReplyChoice:
    """One choice of a response that is not streamed."""

    texts: list[str] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    more: dict[str, str] = field(default_factory=dict)
    """Other text fields, such as the reasoning or a refusal."""
    finish_reason: FinishReason = "stop"
    logprobs: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(self.texts)

    def add(self, piece: Piece) -> None:
        """Add one piece."""
        if piece.text:
            self.texts.append(piece.text)
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
        if piece.delta:
            self._add_delta(piece.delta)
        if isinstance(piece.logprobs, dict):
            self._add_logprobs(piece.logprobs)

    def _add_delta(self, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                self.calls.add(value)
            elif isinstance(value, str):
                self.more[name] = self.more.get(name, "") + value

    def _add_logprobs(self, logprobs: dict[str, Any]) -> None:
        kept = self.logprobs = self.logprobs or {}
        for name, value in logprobs.items():
            kept[name] = (kept.get(name) or []) + value if isinstance(value, list) else value


def choices_of(pieces: Sequence[Piece]) -> dict[int, ReplyChoice]:
    """The choices of a response by index. The first one is always present."""
    choices = {0: ReplyChoice()}
    for piece in pieces:
        choice = choices.get(piece.index)
        if choice is None:
            choice = choices[piece.index] = ReplyChoice()
        choice.add(piece)
    return dict(sorted(choices.items()))
