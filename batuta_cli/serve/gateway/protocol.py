"""uvicorn's HTTP/1.1 protocol with the limits that it lacks.

* Head of a request: size, number of fields, and time. Trailers of a body: size.
* Pipelined requests that wait on one connection.
* Connections of the process. A new connection over the limit closes the one that has been idle longest. If none is
  idle, the new connection gets 429.

The time for a head runs from the opening of a connection, and from the first byte of each further request. Between
requests uvicorn's keep-alive timeout applies. If a limit is exceeded while an earlier response is being written, the
connection is closed without an error response, because the client would read it as part of that response.

A request to upgrade to another protocol, such as the h2c of `curl --http2`, is answered over HTTP/1.1, which a server
may always do (RFC 9110, section 7.8). uvicorn drops the body of such a request.
"""

import asyncio
import time
from asyncio.events import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers, and of a body's trailers."""

MOST_FIELDS = 200
"""Header fields of a request. Each takes at least 150 bytes of memory. Clients and proxies send fewer than 50."""

MOST_WAITING = 16
"""Pipelined requests of one connection that wait. A server may close a connection at any time (RFC 9112, section 9.5).
The official clients do not pipeline."""

MOST_REFUSED = 100
"""Connections over the limit that get 429 at one time; further ones are reset."""

_IDLE_SECONDS = 1.0
"""A connection that is idle for less is not closed in favour of a new one: its request may be on its way."""

_REFUSED_SECONDS = 5.0
"""Time for a refused client to send its request and to read the 429."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BUSY_BODY = (
    b'{"error":{"message":"the gateway has too many connections","type":"rate_limit_error",'
    b'"param":null,"code":"too_many_connections"}}'
)
_BUSY = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


class _LimitExceededError(Exception):
    """Ends the parsing of a connection that is being closed."""


def limited_protocol(seconds: float, connections: int, closed: Callable[[str], None]) -> type[asyncio.Protocol]:
    """The protocol class for one process, with at most `connections` of them.

    A client has `seconds` for the head of a request. `closed` is called with the name of the limit when a connection
    exceeds it.
    """
    idle: dict[Any, float] = {}
    """Connections without a request in progress, by the time since when, oldest first."""

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
            self._refusal: bytes | None = None
            """The response to the first bytes of a connection over the limit."""
            self._skip_callbacks = False
            """The parser reads the head that `_without_upgrade` has made."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) <= connections or _close_idle():
                idle[self] = time.monotonic()
                self._start_clock()
                return
            closed("connections")
            self._refusal = _BUSY
            if len(self.connections) > connections + MOST_REFUSED:
                transport.abort()
            else:
                self._end = self.loop.call_later(_REFUSED_SECONDS, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            idle.pop(self, None)
            self._stop_clock()
            if self._end is not None:
                self._end.cancel()
            self.pipeline.clear()
            if self._running is not None:  # uvicorn sends the disconnect only to the last request
                self._running.disconnected = not self._running.response_complete
                self._running.message_event.set()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refusal is not None:
                # Closed by the client or after a time: a close with unread bytes would reset the connection, and the
                # client would not get the response.
                self.transport.write(self._refusal)
                self._refusal = b""
                return
            # This piece may hold the end of the head and a body, so only the earlier pieces count.
            if self._unread > LARGEST_HEAD:
                self._give_up("head_bytes", _TOO_LARGE)
                return
            self._unread += len(data)
            if self._in_head and self._deadline is None:
                self._start_clock()
            self._unset_keepalive_if_required()
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
                except httptools.HttpParserError:
                    self.send_400_response("Invalid HTTP request received.")
                    return

        def _without_upgrade(self) -> bytes:
            """Start a parser that does not know of the upgrade; returns a head that tells it the body's length."""
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self._skip_callbacks = True
            framing = [
                name + b": " + value + b"\r\n"
                for name, value in self.headers
                if name in (b"content-length", b"transfer-encoding")
            ]
            return b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n"

        def on_message_begin(self) -> None:
            if self._skip_callbacks:
                return
            # httptools stops parsing when a callback raises. `data_received` then calls `send_400_response`.
            if len(self.pipeline) >= MOST_WAITING:
                self._give_up("waiting_requests")
                raise _LimitExceededError
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            if not self._skip_callbacks:
                super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._skip_callbacks:
                return
            if len(self.headers) >= MOST_FIELDS:
                self._give_up("head_fields", _TOO_LARGE)
                raise _LimitExceededError
            if self._in_head:  # else it is a trailer (RFC 9110, section 6.5.1)
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            if self._skip_callbacks:
                self._skip_callbacks = False
                return
            self._in_head, self._unread = False, 0
            idle.pop(self, None)
            self._stop_clock()
            super().on_headers_complete()

        def on_chunk_header(self) -> None:
            self._unread = 0

        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():  # the head is complete; `data_received` goes on with the body
                return
            self._in_head, self._unread = True, 0
            self._stop_clock()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head:  # answered before the body was complete: the rest is discarded within the time
                self._start_clock()
            elif not self._answering:
                idle[self] = time.monotonic()

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

    def _close_idle() -> bool:
        """Close the connection that has been idle longest; returns whether there was one."""
        for connection, since in idle.items():
            if time.monotonic() - since < _IDLE_SECONDS:
                return False
            del idle[connection]
            connection._give_up("connections")
            return True
        return False

    return LimitedProtocol
