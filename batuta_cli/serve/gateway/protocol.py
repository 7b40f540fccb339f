"""uvicorn's HTTP protocol with limits that it lacks: size, number of fields and time of a request's head, size of a
body's trailers, and number of pipelined requests that wait on one connection.

Without them a client that sends one header a minute holds a connection for ever, and a client that pipelines requests
without reading the responses fills the memory before any key is checked. The time for a head runs from the opening of a
connection, and from the first byte of each further request. Between requests uvicorn's keep-alive timeout applies.

If a limit is exceeded while an earlier response is being written, the connection is closed without an error response,
because the client would read it as part of that response.
"""

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers, and of a body's trailers."""

MOST_FIELDS = 200
"""Header fields of a request. Each takes at least 150 bytes of memory. Clients and proxies send fewer than 50."""

MOST_WAITING = 16
"""Pipelined requests of one connection that wait. A server may close a connection at any time (RFC 9112, section 9.5).
The official clients do not pipeline."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _LimitExceededError(Exception):
    """Ends the parsing of a connection that is being closed."""


def limited_protocol(seconds: float, closed: Callable[[str], None]) -> type[asyncio.Protocol]:
    """The protocol class whose clients have `seconds` for the head of a request.

    `closed` is called with the name of the limit when a connection exceeds it.
    """

    class LimitedProtocol(HttpToolsProtocol):
        """The protocol with limits."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._unread = 0
            """Bytes since the beginning of a head, or since the last part of a body, which may be trailers."""
            self._in_head = True
            self._deadline: TimerHandle | None = None
            self._end: TimerHandle | None = None
            self._running: Any = None
            """The request whose response is being written. uvicorn's `cycle` is the last request that was read."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            if self._end is not None:
                self._end.cancel()
            self.pipeline.clear()
            if self._running is not None:  # uvicorn sends the disconnect only to the last request
                self._running.disconnected = not self._running.response_complete
                self._running.message_event.set()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            # This piece may hold the end of the head and a body, so only the earlier pieces count.
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
            if self._in_head:  # else it is a trailer (RFC 9110, section 6.5.1)
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
            if not self._in_head:  # answered before the body was complete: the rest is discarded within the time
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
                # A client that reads nothing would keep the unsent data and the connection for ever.
                self._end = self.loop.call_later(seconds, self.transport.abort)

    return LimitedProtocol
