"""uvicorn's HTTP protocol with the limits it lacks: on the size of a request's head and the number of its fields, on
its time, on the trailers of a body, and on the requests that wait on one connection.

Without them a client that sends a header a minute holds a connection for ever, and one that sends requests without
reading the answers (pipelining) fills the memory before any key is checked. The time for a head runs from the opening
of a connection, and again from the first byte of each further request, until the head is complete; between requests
uvicorn's own keep-alive timeout counts.

A limit that is exceeded while an earlier request is still being answered closes the connection without a word: an
error written into the middle of that answer would be read as a part of it.
"""

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers, and of a body's trailers."""

MOST_FIELDS = 200
"""Header fields of a request. Each takes about 150 bytes of memory however short it is; clients and proxies send
fewer than 50."""

MOST_WAITING = 16
"""Requests of one connection that wait for the one before them. HTTP/1.1 lets a server close a connection at any time
(RFC 9112, section 9.3.2), and the official clients do not pipeline at all."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _LimitExceededError(Exception):
    """Ends the parsing of a connection that has been given up."""


def limited_protocol(seconds: float, closed: Callable[[str], None]) -> type[asyncio.Protocol]:
    """The protocol class whose clients have `seconds` for the head of a request.

    `closed` is told the limit for which a connection is closed.
    """

    class LimitedProtocol(HttpToolsProtocol):
        """See the module."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._unread = 0
            """Bytes since the beginning of a head, or since the last part of a body: its trailers."""
            self._in_head = True
            self._deadline: TimerHandle | None = None
            self._end: TimerHandle | None = None
            self._running: Any = None
            """The request that is being answered; `cycle` is the last one that has been read."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            if self._end is not None:
                self._end.cancel()
            self.pipeline.clear()
            if self._running is not None:  # uvicorn tells only the last one that its client has left
                self._running.disconnected = not self._running.response_complete
                self._running.message_event.set()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            # The end of the head may lie in this piece with the body behind it, so only what came before counts.
            if self._unread > LARGEST_HEAD:
                self._give_up("head_bytes", _TOO_LARGE)
                return
            self._unread += len(data)
            if self._in_head and self._deadline is None:
                self._start_clock()
            super().data_received(data)

        def on_message_begin(self) -> None:
            # httptools stops parsing when a callback raises, and uvicorn then calls `send_400_response`.
            if len(self.pipeline) >= MOST_WAITING:
                self._give_up("waiting_requests")
                raise _LimitExceededError
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            if len(self.headers) >= MOST_FIELDS:
                self._give_up("head_fields", _TOO_LARGE)
                raise _LimitExceededError
            if self._in_head:  # else it is a trailer, which is no header (RFC 9110, section 6.5.1)
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head, self._unread = False, 0
            self._stop_clock()
            super().on_headers_complete()

        def on_chunk_header(self) -> None:
            self._unread = 0

        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._in_head, self._unread = True, 0
            self._stop_clock()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head:  # answered before the body was there: it is read and thrown away, but not for ever
                self._start_clock()

        def send_400_response(self, msg: str) -> None:
            if self._answering:
                self._give_up("malformed")
            elif not self.transport.is_closing():
                super().send_400_response(msg)

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

        @property
        def _answering(self) -> bool:
            return self._running is not None and not self._running.response_complete

        def _start_clock(self) -> None:
            self._deadline = self.loop.call_later(seconds, self._give_up, "time", _TOO_SLOW if self._in_head else b"")

        def _stop_clock(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self, limit: str, response: bytes = b"") -> None:
            self._stop_clock()
            if not self.transport.is_closing():
                closed(limit)
                if not self._answering:
                    self.transport.write(response)
                self.transport.close()
                # A client that reads nothing would keep what is still to be written, and the connection, for ever.
                self._end = self.loop.call_later(seconds, self.transport.abort)

    return LimitedProtocol
