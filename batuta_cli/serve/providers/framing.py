"""How a response's body is framed: server-sent events, JSON lines, or one JSON document.

A backend names the framing in the content type. Some answer a request for a stream with one JSON document, send
events as `application/json` or `text/plain`, or a stream to a request for a whole response. `UnnamedScanner` decides by
the first bytes, and `whole_pieces` reads all three.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from batuta_cli.files import display
from batuta_cli.serve.providers.sse import Event, EventScanner, LineScanner
from batuta_cli.serve.providers.tolerant_json import json_value
from batuta_cli.serve.providers.wire import BackendError, Piece, Reader

RESPONSE_LIMIT = 64 * 1024 * 1024
"""The largest response that is not streamed, in bytes."""

_LINES = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"))
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")  # the first bytes of server-sent events (WHATWG, 9.2.6)
_ENOUGH = 6  # bytes that tell them apart


class Scanner(Protocol):
    """Turns the bytes of a response into events."""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes. Raises `OperationError`."""

    def end(self) -> Iterator[Event]:
        """The events that the end of the response completes."""


def scanner_for(content_type: str) -> Scanner:
    """The scanner of a streamed response."""
    if content_type == "text/event-stream":
        return EventScanner()
    return LineScanner() if content_type in _LINES else UnnamedScanner(content_type)


class UnnamedScanner:
    """Scans a stream whose content type is not that of a stream.

    A body that is JSON is kept, as `document`, and is read at its end.
    """

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type
        self._events: EventScanner | None = None
        self._head = b""
        self.document: bytearray | None = None

    def feed(self, piece: bytes) -> Iterator[Event]:
        """See `Scanner`. Raises `BackendError` for another content, such as a page in HTML."""
        if self._events is not None:
            yield from self._events.feed(piece)
            return
        if self.document is None:
            self._head += piece
            start = self._head.lstrip(b"\xef\xbb\xbf \t\r\n")
            if len(start) < _ENOUGH and not start.startswith((b"{", b"[", b":")):
                return
            yield from self._decide(start)
            return
        self.document += piece
        if len(self.document) > RESPONSE_LIMIT:
            raise _too_large()

    def end(self) -> Iterator[Event]:
        """See `Scanner`."""
        if self._events is None and self.document is None and self._head.strip():
            yield from self._decide(self._head)

    def _decide(self, start: bytes) -> Iterator[Event]:
        if start.startswith(_FIELDS):
            self._events = EventScanner()
            yield from self._events.feed(start)
        elif start.startswith((b"{", b"[")):
            self.document = bytearray(start)
        else:
            raise BackendError(
                f"the backend answered with the content type {display(self._content_type[:60]) or '(missing)'},"
                " not with an event stream"
            )


def whole_pieces(body: bytes, reader: Reader, *, stream: bool = False) -> list[Piece]:
    """The pieces of a whole body: a JSON document, or all events of a stream. Raises `BackendError`.

    `stream`: whether the client gets a stream. What has the other framing is not relayed as it came.
    """
    pieces = _whole_pieces(body, reader)
    return [
        replace(piece, raw=None, opaque=False)
        if piece.raw is not None and isinstance(piece.raw, Event) is not stream
        else piece
        for piece in pieces
    ]


def _whole_pieces(body: bytes, reader: Reader) -> list[Piece]:
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(_FIELDS):
        events: Iterator[Event] = EventScanner(RESPONSE_LIMIT).feed(start + b"\n\n")
        return [piece for event in events for piece in reader.event(event)]
    try:
        document = json_value(body)
    except BackendError:
        lines = [line for line in start.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [piece for line in lines for piece in reader.event(Event("", line))]
    return list(reader.whole(document))


def check_size(body: bytearray) -> None:
    """Raise `BackendError` for a body that is too large."""
    if len(body) > RESPONSE_LIMIT:
        raise _too_large()


def _too_large() -> BackendError:
    return BackendError(f"the backend's response has more than {RESPONSE_LIMIT:,} bytes")
