"""Limits the requests of each client key: how many begin in a minute, and how many run at a time.

    async with throttle.admitted(client, connection):
        ...  # serve the request

A request counts before its body is read. One above a limit is refused with 429 and `Retry-After`. With `[gateway]
key_queue` it waits instead, in the order of arrival, when the queue of its key has a place and its turn can come within
`key_queue_wait` seconds. Its body is read first, so that a client that leaves can be noticed and frees its place.

A request that was refused does not count. One that was admitted counts also when it fails later.
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from batuta_cli.serve.gateway.access import Client
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.gateway.key_counts import CountStore, Rate

_POLL = 0.1
"""Seconds after which the first waiting request looks again: other workers do not wake it."""
_LONGEST_RETRY = 60.0
_MILLISECOND = 0.001


@dataclass(frozen=True)
class KeyQueueSettings:
    """The queue of each key."""

    length: int = 0
    """Requests that may wait, in one process; 0: none."""
    wait: float = 10.0
    """Seconds that a request waits at most."""


@dataclass
class _KeyLine:
    """What this process knows of a key beside its counts."""

    waiting: dict["_QueuePlace", None] = field(default_factory=dict)
    """The requests that wait, in order of arrival."""
    duration: float = 0.0
    """Seconds that a request takes, a moving average; 0: not known."""


class _QueuePlace:
    """A request's place in the line of its key."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()


class KeyThrottle:
    """Use it in one event loop. `now` is a monotonic clock, the same for all processes that share `counts`."""

    def __init__(self, counts: CountStore, now: Callable[[], float] = time.monotonic) -> None:
        self.queue = KeyQueueSettings()
        self._counts = counts
        self._now = now
        self._process = os.getpid()
        self._lines: dict[str, _KeyLine] = {}
        self._closed = False

    @contextlib.asynccontextmanager
    async def admitted(self, client: Client, connection: Connection) -> AsyncIterator[None]:
        """A block that counts as a request of the client's key. Raises `HttpError` 429 or 503, `ClientLeftError`."""
        limits = client.limits
        if limits.requests_per_minute is None and limits.concurrent is None:
            yield
            return
        line = self._lines.setdefault(client.key_id, _KeyLine())
        await self._enter(client, line, connection)
        began = self._now()
        try:
            yield
        finally:
            self._leave(client, line, self._now() - began)

    def close(self) -> None:
        """Refuse the requests that wait, because the gateway is shutting down."""
        self._closed = True
        for line in self._lines.values():
            for turn in line.waiting:
                turn.woken.set()

    async def _enter(self, client: Client, line: _KeyLine, connection: Connection) -> None:
        if not line.waiting and self._try(client, connection) is None:
            return
        if len(line.waiting) >= self.queue.length:
            raise self._refusal(client, line, connection)
        await connection.receive_body()
        turn, deadline = _QueuePlace(), self._now() + self.queue.wait
        line.waiting[turn] = None
        try:
            async with connection.watch_client():
                while True:
                    if self._closed:
                        raise HttpError(503, "shutting_down", "the gateway is shutting down", retry_after=1)
                    until, now = deadline, self._now()
                    if next(iter(line.waiting)) is turn:
                        wait = self._try(client, connection)
                        if wait is None:
                            return
                        if wait != math.inf and now + wait > deadline:
                            raise self._refusal(client, line, connection)
                        until = min(until, now + wait, now + _POLL if self._counts.shared else math.inf)
                    if now >= deadline:
                        raise self._refusal(client, line, connection)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(_MILLISECOND, until - now)):
                            await turn.woken.wait()
                    turn.woken.clear()
        finally:
            del line.waiting[turn]
            self._wake(line)

    def _try(self, client: Client, connection: Connection) -> float | None:
        """Begin the request, and return None; else the seconds until its turn, infinite when they are not known."""
        limits, now = client.limits, self._now()
        with self._counts.opened(client.key_id) as counts:
            rate = None if limits.requests_per_minute is None else counts.rate(limits.requests_per_minute, now)
            if limits.concurrent is not None and counts.total() >= limits.concurrent:
                return math.inf
            if rate is not None:
                if rate.wait > 0:
                    return rate.wait
                counts.take(rate.limit, now)
                rate = counts.rate(rate.limit, now)
            counts.change(self._process, 1)
        if rate is not None:
            connection.more_headers = [*connection.more_headers, *_rate_headers(rate)]
        return None

    def _leave(self, client: Client, line: _KeyLine, seconds: float) -> None:
        with self._counts.opened(client.key_id) as counts:
            counts.change(self._process, -1)
        line.duration = seconds if not line.duration else 0.9 * line.duration + 0.1 * seconds
        self._wake(line)

    def _wake(self, line: _KeyLine) -> None:
        for turn in line.waiting:
            turn.woken.set()
            return

    def _refusal(self, client: Client, line: _KeyLine, connection: Connection) -> HttpError:
        limits, now = client.limits, self._now()
        with self._counts.opened(client.key_id) as counts:
            rate = None if limits.requests_per_minute is None else counts.rate(limits.requests_per_minute, now)
            full = limits.concurrent is not None and counts.total() >= limits.concurrent
        ahead = len(line.waiting)
        if rate is not None:
            connection.more_headers = [*connection.more_headers, *_rate_headers(rate)]
            if rate.wait > 0 or not full:
                wait = max(rate.wait, ahead * 60.0 / rate.limit)
                message = f"this key may send {rate.limit} requests a minute"
                return HttpError(429, "rate_limit_exceeded", message, retry_after=wait)
        turns = (ahead + 1) / (limits.concurrent or 1)
        wait = min(max(turns * line.duration, 1.0), _LONGEST_RETRY)
        message = f"this key may have {limits.concurrent} requests at a time"
        return HttpError(429, "too_many_concurrent_requests", message, retry_after=wait)


def _rate_headers(rate: Rate) -> list[tuple[bytes, bytes]]:
    """The headers by which OpenAI's API tells the state of a rate limit
    (https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers)."""
    return [
        (b"x-ratelimit-limit-requests", b"%d" % rate.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % rate.remaining),
        (b"x-ratelimit-reset-requests", duration_text(rate.reset).encode()),
    ]


def duration_text(seconds: float) -> str:
    """A duration as OpenAI writes it, rounded up to milliseconds: `120ms`, `8.64s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:g}s"
    return f"{minutes}m{text}" if minutes else text
