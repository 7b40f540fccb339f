"""How many requests each client key has running, and when it may begin the next one.

The rate is a token bucket (the generic cell rate algorithm of ITU-T I.371, with one time for the whole bucket): a key
of 60 requests a minute may begin 60 at once, and then one a second. One process keeps the counts in memory. Several
workers share a file for each key in a directory, under its lock, so that a limit holds for all of them together. A
worker that dies holds nothing: its running requests are not counted.
"""

import contextlib
import fcntl
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

_MINUTE = 60.0
_MOST_WORKERS = 128
_HEAD = struct.Struct("<dq")
_WORKER = struct.Struct("<qq")
_SIZE = _HEAD.size + _MOST_WORKERS * _WORKER.size


class Rate(NamedTuple):
    """The state of a key's rate."""

    limit: int
    """Requests a minute."""
    remaining: int
    """Requests that may begin at once."""
    reset: float
    """Seconds until `remaining` is `limit` again."""
    wait: float
    """Seconds until the next request may begin; 0: at once."""


@dataclass
class KeyCounts:
    """The counts of one key."""

    full_at: float = 0.0
    """The time, by the monotonic clock, at which the bucket is full again."""
    running: dict[int, int] = field(default_factory=dict)
    """Requests in progress, by the process that serves them."""

    def rate(self, limit: int, now: float) -> Rate:
        """The state of the rate at a time."""
        interval = _MINUTE / limit
        owed = max(0.0, self.full_at - now)
        # The tolerance is for the rounding of floating-point sums.
        remaining = max(0, math.floor((_MINUTE - owed) / interval + 1e-6))
        wait = 0.0 if remaining else owed + interval - _MINUTE
        return Rate(limit, remaining, owed, wait)

    def take(self, limit: int, now: float) -> None:
        """Count a request that begins now."""
        self.full_at = max(self.full_at, now) + _MINUTE / limit

    def change(self, process: int, by: int) -> None:
        """Add to the running requests of a process."""
        count = self.running.get(process, 0) + by
        if count > 0:
            self.running[process] = count
        else:
            self.running.pop(process, None)

    def total(self) -> int:
        """The running requests of all processes that are alive."""
        for process in [process for process in self.running if not _alive(process)]:
            del self.running[process]
        return sum(self.running.values())


class CountStore(Protocol):
    """Keeps the counts of all keys."""

    shared: bool
    """Other processes change the counts too."""

    def opened(self, key_id: str) -> contextlib.AbstractContextManager[KeyCounts]:
        """The counts of a key, which no other process changes within the block; they are kept at its end."""


class MemoryCounts:
    """The counts of one process."""

    shared = False

    def __init__(self) -> None:
        self._counts: dict[str, KeyCounts] = {}

    @contextlib.contextmanager
    def opened(self, key_id: str) -> Iterator[KeyCounts]:
        """See `CountStore`."""
        yield self._counts.setdefault(key_id, KeyCounts())


class FileCounts:
    """The counts of all workers of a gateway, in files of a directory that ends with it. Raises `OSError`."""

    shared = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}

    @contextlib.contextmanager
    def opened(self, key_id: str) -> Iterator[KeyCounts]:
        """See `CountStore`. The lock is held for microseconds; the kernel frees it when a worker dies."""
        descriptor = self._descriptors.get(key_id)
        if descriptor is None:
            path = self._directory / f"{key_id}.counts"
            descriptor = self._descriptors[key_id] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            counts = _unpacked(os.pread(descriptor, _SIZE, 0))
            yield counts
            os.pwrite(descriptor, _packed(counts), 0)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _packed(counts: KeyCounts) -> bytes:
    workers = list(counts.running.items())[:_MOST_WORKERS]
    return _HEAD.pack(counts.full_at, len(workers)) + b"".join(_WORKER.pack(*worker) for worker in workers)


def _unpacked(data: bytes) -> KeyCounts:
    if not data:
        return KeyCounts()
    full_at, workers = _HEAD.unpack_from(data)
    return KeyCounts(full_at, dict(_WORKER.unpack_from(data, _HEAD.size + i * _WORKER.size) for i in range(workers)))


def _alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
