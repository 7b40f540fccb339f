"""One request and its response over ASGI: limits on what is read, a deadline on what is written, and whether the
client is still there.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from batuta_cli.serve.deadline import Deadline
from batuta_cli.serve.gateway.dialects.replies import Reply
from batuta_cli.serve.gateway.http_errors import HttpError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"

_UNWATCHED = 0.02
"""Seconds for which nobody looks whether the client is still there."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may take."""

    body_bytes: int = 32 * 1024 * 1024
    client_seconds: float = 60.0
    """How long it may take to send its request, and to take a part of the answer."""


class ClientLeftError(Exception):
    """Nobody waits for the answer any more; `why` is for the log."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Connection:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: ConnectionLimits) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = {}
        self.id = os.urandom(12).hex()
        """Unique, so that what is kept by it (the budget, a stream under way) is never mixed up."""
        self.shown_id = self.id
        """The client's own, when it sent one."""
        self.more_headers: HeaderList = []
        self.route = "other"
        self.status = 0
        self.client = ""
        self.reply: Reply | None = None
        """Set when the answer is a stream."""
        self.facts: dict[str, Any] = {}
        """What the log tells of it."""
        self.began = time.perf_counter()
        self.begun = False
        """The status has been sent."""
        self.over = False
        """The last byte has been handed over."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._presence: DisconnectWatcher | None = None
        self._handed_at = 0.0
        """When the part of the stream was handed over that has not been taken yet; 0 when there is none."""
        self._watch: asyncio.TimerHandle | None = None

    def take_id(self) -> None:
        """Use the client's `X-Request-Id` when it is well formed."""
        given = self.headers.get(b"x-request-id", b"")
        if _REQUEST_ID.fullmatch(given):
            self.shown_id = given.decode()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began

    async def body(self) -> bytes:
        """The whole body. Raises `HttpError` when it is too large or too slow, `ClientLeftError` when it breaks off."""
        limit = self._limits.body_bytes
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limit:
            raise _too_large(limit)
        parts, size = [], 0
        try:
            with Deadline(self._limits.client_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError("left while sending")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise HttpError(
                408, "timeout", "the request took too long to arrive", headers={b"connection": b"close"}
            ) from None

    def present(self) -> "DisconnectWatcher":
        """A block that is left with `ClientLeftError` as soon as the client is gone, or reads too slowly."""
        self._presence = DisconnectWatcher(self, self._receive)
        return self._presence

    def cut(self) -> None:
        """End it with an error: the gateway is going down."""
        if self._presence is not None:
            self._presence.end(HttpError(503, "shutting_down", "the gateway is shutting down", retry_after=1))

    async def respond(self, status: int, body: bytes, kind: bytes = JSON, headers: Iterable[Any] = ()) -> None:
        """A whole response."""
        self.status = status
        start = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.shown_id.encode()),
            *self.more_headers,
            *headers,
        ]
        self.begun = self.over = True
        await self._hand(
            {"type": "http.response.start", "status": status, "headers": start},
            {"type": "http.response.body", "body": body, "more_body": False},
        )

    async def begin_stream(self, headers: HeaderList) -> None:
        """The status and the headers of a stream of events."""
        self.status = 200
        start = [
            (b"content-type", EVENTS),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # nginx would hold events back
            (b"x-request-id", self.shown_id.encode()),
            *self.more_headers,
            *headers,
        ]
        self.begun = True
        await self._hand({"type": "http.response.start", "status": 200, "headers": start})
        self._look_later(self._limits.client_seconds)

    async def part(self, data: bytes) -> None:
        """Some events; returns when the client keeps up. When it does not for too long, the block of `present` ends."""
        self._handed_at = time.perf_counter()
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise ClientLeftError("left") from None
        self._handed_at = 0.0

    def _look_later(self, seconds: float) -> None:
        # One timer a stream that looks now and then: a timeout of its own for every event costs more than the event.
        self._watch = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        waited = time.perf_counter() - self._handed_at if self._handed_at else 0.0
        if waited < self._limits.client_seconds:
            self._look_later(self._limits.client_seconds - waited)
        elif self._presence is not None:
            self._presence.end(ClientLeftError("reads too slowly"))

    def stop_looking(self) -> None:
        """The stream is over."""
        if self._watch is not None:
            self._watch.cancel()

    async def last_part(self, data: bytes) -> None:
        """Some events after which the stream is left without an end."""
        await self._hand({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        """The last events."""
        self.over = True
        await self._hand({"type": "http.response.body", "body": data, "more_body": False})

    async def _hand(self, *messages: Message) -> None:
        try:
            with Deadline(self._limits.client_seconds):
                for message in messages:
                    await self._send(message)
        except TimeoutError:
            raise ClientLeftError("reads too slowly") from None
        except OSError:  # how ASGI 2.4 servers say that it is gone
            raise ClientLeftError("left") from None


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"the body has more than {limit:,} bytes")


class DisconnectWatcher:
    """Waits for the client to leave, and ends the block then. As `asyncio.timeout`, it cancels and takes that back."""

    def __init__(self, exchange: Connection, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._reason: Exception | None = None
        self._inside: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._inside = asyncio.current_task(loop)
        # Most answers that are not streamed, and all refusals, are there before a client could have left: they need no
        # task that waits for it.
        self._timer = loop.call_later(_UNWATCHED, self._begin, loop)
        return self

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._exchange.over:  # a server says the same once the response is complete
            self.end(ClientLeftError("left"))

    def end(self, reason: Exception) -> None:
        """End the block with `reason`."""
        if self._inside is not None and self._reason is None:
            self._reason = reason
            self._inside.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside, self._inside = self._inside, None
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._exchange.stop_looking()
        if self._reason is not None and inside is not None and inside.uncancel() == 0:
            raise self._reason from None
