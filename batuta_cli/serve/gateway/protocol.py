"""uvicorn's HTTP protocol with the two limits it lacks: on the size of a request's head, and on its time.

Without them a client that sends a header a minute holds a connection for ever. The time runs from the opening of a
connection, and again from the first byte of each further request, until the head is complete; between requests
uvicorn's own keep-alive timeout counts.
"""

import asyncio
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024
"""Bytes of request line and headers."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def limited_protocol(seconds: float) -> type[asyncio.Protocol]:
    """The protocol class whose clients have `seconds` for the head of a request."""

    class LimitedProtocol(HttpToolsProtocol):
        """See the module."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._head_bytes = 0
            self._in_head = True
            self._deadline: TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_clock()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head:
                # The end of the head may lie in this piece with the body behind it, so only what came before counts.
                if self._head_bytes > LARGEST_HEAD:
                    self._give_up(_TOO_LARGE)
                    return
                self._head_bytes += len(data)
                if self._deadline is None:
                    self._start_clock()
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self._in_head, self._head_bytes = False, 0
            self._stop_clock()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_head = True
            self._stop_clock()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head:  # answered before the body was there: it is read and thrown away, but not for ever
                self._start_clock()

        def _start_clock(self) -> None:
            self._deadline = self.loop.call_later(seconds, self._give_up, b"" if not self._in_head else _TOO_SLOW)

        def _stop_clock(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self, response: bytes) -> None:
            self._stop_clock()
            if not self.transport.is_closing():
                self.transport.write(response)
                self.transport.close()

    return LimitedProtocol
