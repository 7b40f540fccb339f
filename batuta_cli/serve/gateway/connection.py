"""One request and its response over ASGI, with a size limit and a deadline for the body, a deadline for every write,
and a watcher that notices a client that disconnects.

Raises `HttpError` for a request over a limit, and `ClientLeftError` for a client that disconnected or reads too slowly.
"""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.deadline import Deadline
from batuta_cli.serve.gateway.dialects.replies import Reply
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.gateway.key_limits import NO_LIMITS, KeyLimits

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

JSON = b"application/json"

_WATCH_AFTER = 0.02
"""Seconds of a request before the disconnect watcher starts."""

COMMENT_SECONDS = 15.0
"""Seconds without an event after which a streaming client gets `Reply.waiting`, a comment or an empty part. Proxies
often close a connection after 60 seconds of silence."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of one request."""

    body_bytes: int = 32 * 1024 * 1024
    """Largest body."""
    all_bodies_bytes: int = 256 * 1024 * 1024
    """Largest sum of the bodies of all requests in progress in one process."""
    client_seconds: float = 60.0
    """Time in which a client must send its whole body, and in which it must read each part of the response."""

    @property
    def largest_sum(self) -> int:
        """`all_bodies_bytes`, but never less than one body may have."""
        return max(self.all_bodies_bytes, self.body_bytes)


class BodyMemory:
    """The bytes of request bodies that one process holds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0

    def take(self, size: int) -> None:
        """Add the bytes of a body. Raises `HttpError` 429 when the sum exceeds the limit."""
        if self._held + size > self.limit:
            raise HttpError(429, "busy", "the requests in progress hold too much memory", retry_after=1)
        self._held += size

    def release(self, size: int) -> None:
        """Subtract the bytes of a body whose request has ended."""
        self._held -= size


class ClientLeftError(Exception):
    """The client has disconnected or reads too slowly; `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection:
    """One request and its response."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: ConnectionLimits, bodies: BodyMemory
    ) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = {}
        self.id = os.urandom(12).hex()
        """Unique. The budget, the audit log and the failover use it."""
        self.shown_id = self.id
        """The client's `X-Request-Id` if it sent a valid one, else `id`."""
        self.more_headers: HeaderList = []
        """Response headers that do not depend on the route."""
        self.route = "other"
        self.path_rest = ""
        """The part of the path behind the route's name, such as the name of a model."""
        self.status = 0
        self.client = ""
        """Name of the client key, empty without one."""
        self.limits: KeyLimits = NO_LIMITS
        """The limits of the client key."""
        self.account: ClientAccount = ANY_CLIENT
        """The client, as the pipeline judges it."""
        self.admin = False
        """The client may read `/metrics`."""
        self.model: str | None = None
        """The model for the metrics; None for a request that names no model."""
        self.reply: Reply | None = None
        """Set when the response is a stream."""
        self.log_fields: dict[str, Any] = {}
        """Further fields of the request's log line."""
        self._start_time = time.perf_counter()
        self.started = False
        """The status has been sent."""
        self.ended = False
        """The last byte has been handed to the server."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._bodies = bodies
        self._body_size = 0
        self._body: bytes | None = None
        self._watcher: DisconnectWatcher | None = None
        self._write_start = 0.0
        """When the pending write of a stream began; 0 when no write is pending."""
        self._last_write = 0.0
        """When the last write of a stream began."""
        self._timer: asyncio.TimerHandle | None = None
        self._early_headers: HeaderList = []
        self._comment: asyncio.Task[None] | None = None

    def take_id(self) -> None:
        """Use the client's `X-Request-Id` when it is valid."""
        value = self.headers.get(b"x-request-id", b"")
        if _REQUEST_ID.fullmatch(value):
            self.shown_id = value.decode()

    @property
    def seconds(self) -> float:
        """Since the request began."""
        return time.perf_counter() - self._start_time

    async def receive_body(self) -> None:
        """Read the body, for a later `body`. Raises as `body`."""
        self._body = await self.body()

    async def body(self) -> bytes:
        """The whole body. Raises `HttpError` if it is too large or slow, `ClientLeftError` if the client leaves."""
        if self._body is not None:
            body, self._body = self._body, None
            return body
        limit = self._limits.body_bytes
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        try:
            with Deadline(self._limits.client_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError("left while sending")
                    part = message.get("body", b"")
                    if self._body_size + len(part) > limit:
                        raise _too_large(limit)
                    self._bodies.take(len(part))
                    self._body_size += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise HttpError(
                408, "timeout", "the request took too long to arrive", headers={b"connection": b"close"}
            ) from None

    def release_body(self) -> None:
        """The request has ended: its body no longer counts."""
        self._bodies.release(self._body_size)
        self._body_size = 0

    def watch_client(self) -> "DisconnectWatcher":
        """A block that ends with `ClientLeftError` when the client disconnects or reads too slowly."""
        self._watcher = DisconnectWatcher(self, self._receive)
        return self._watcher

    def cut(self) -> None:
        """End the request with an error because the gateway is shutting down."""
        if self._watcher is not None:
            self._watcher.end(HttpError(503, "shutting_down", "the gateway is shutting down", retry_after=1))

    async def respond(self, status: int, body: bytes, kind: bytes = JSON, headers: Iterable[Any] = ()) -> None:
        """Send a whole response."""
        self.status = status
        start = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.shown_id.encode()),
            *self.more_headers,
            *headers,
        ]
        self.started = self.ended = True
        await self._write(
            {"type": "http.response.start", "status": status, "headers": start},
            {"type": "http.response.body", "body": body, "more_body": False},
        )

    def expect_stream(self, headers: HeaderList) -> None:
        """The response will be a stream. Call it in the block of `watch_client`.

        A client that waits longer than `COMMENT_SECONDS` for the first event gets the status with `headers` and a
        comment, and a comment after each further `COMMENT_SECONDS` without an event.
        """
        self._early_headers = headers
        self._last_write = time.perf_counter()
        self._tick_later(COMMENT_SECONDS)

    async def begin_stream(self, headers: HeaderList, kind: bytes) -> None:
        """Send the status and the headers of a stream of the content type `kind`, unless a comment was sent before."""
        if self.started:
            if self._comment is not None:
                await asyncio.wait((self._comment,))
            return
        self.status = 200
        start = [
            (b"content-type", kind),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # keeps nginx from buffering events
            (b"x-request-id", self.shown_id.encode()),
            *self.more_headers,
            *headers,
        ]
        self.started = True
        await self._write({"type": "http.response.start", "status": 200, "headers": start})

    async def part(self, data: bytes) -> None:
        """Send some events; waits while the client's buffers are full.

        After `client_seconds` of waiting the block of `watch_client` ends.
        """
        self._write_start = self._last_write = time.perf_counter()
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise ClientLeftError("left") from None
        self._write_start = 0.0

    def _tick_later(self, seconds: float) -> None:
        # One timer for the whole stream: a timeout for each event would cost more than the event.
        self._timer = asyncio.get_running_loop().call_later(min(seconds, self._limits.client_seconds), self._tick)

    def _tick(self) -> None:
        now, loop = time.perf_counter(), asyncio.get_running_loop()
        if self._write_start:
            waited = now - self._write_start
            if waited >= self._limits.client_seconds:
                self._leave(ClientLeftError("reads too slowly"))
                return
            self._tick_later(self._limits.client_seconds - waited)
            return
        remaining = self._last_write + COMMENT_SECONDS - now
        if remaining <= 0 and not self.ended and self.reply is not None:
            self._last_write, remaining = now, COMMENT_SECONDS
            self._comment = loop.create_task(self._send_comment(self.reply))
        self._tick_later(remaining)

    async def _send_comment(self, reply: Reply) -> None:
        try:
            if not self.started:
                await self.begin_stream(self._early_headers, reply.stream_type)
            await self.part(reply.waiting())
        except ClientLeftError as left:
            self._leave(left)

    def _leave(self, left: ClientLeftError) -> None:
        if self._watcher is not None:
            self._watcher.end(left)

    def stop_timer(self) -> None:
        """Send no more comments, and stop checking for a slow reader."""
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()

    async def last_part(self, data: bytes) -> None:
        """Send some events, and leave the stream without an end."""
        await self._write({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes) -> None:
        """Send the last events."""
        self.ended = True
        await self._write({"type": "http.response.body", "body": data, "more_body": False})

    async def _write(self, *messages: Message) -> None:
        try:
            with Deadline(self._limits.client_seconds):
                for message in messages:
                    await self._send(message)
        except TimeoutError:
            raise ClientLeftError("reads too slowly") from None
        except OSError:  # raised by servers of ASGI 2.4 after a disconnect
            raise ClientLeftError("left") from None


def _too_large(limit: int) -> HttpError:
    return HttpError(413, "body_too_large", f"the body has more than {limit:,} bytes")


class DisconnectWatcher:
    """A block that is cancelled when the client disconnects. Like `asyncio.timeout`, it turns the cancellation into an
    exception."""

    def __init__(self, connection: Connection, receive: Receive) -> None:
        self._connection = connection
        self._receive = receive
        self._reason: Exception | None = None
        self._inside: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._inside = asyncio.current_task(loop)
        # Most short responses and all errors are sent before this time, and then need no task.
        self._start_timer = loop.call_later(_WATCH_AFTER, self._begin, loop)
        return self

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._connection.ended:  # servers send the same message after a complete response
            self.end(ClientLeftError("left"))

    def end(self, reason: Exception) -> None:
        """End the block with the exception `reason`."""
        if self._inside is not None and self._reason is None:
            self._reason = reason
            self._inside.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside, self._inside = self._inside, None
        self._start_timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._connection.stop_timer()
        if self._reason is not None and inside is not None and inside.uncancel() == 0:
            raise self._reason from None
