"""A file lock, taken by the writers of a SQLite ledger before SQLite's own lock.

SQLite waits by sleeping up to 100 ms between tries. With eight writing processes some of them wait for seconds. The
kernel wakes a process that waits in `flock` at once. Waiting has no time limit.

Each lock is a separately opened file, so that a thread or a crash releases its own lock only. A forked child inherits
a copy of that file and would keep its parent's lock, so it closes the copy.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def file_lock(path: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` during the block; created with mode 0600 when it does not exist.

    Raises `OSError` when the file cannot be opened; `BlockingIOError` when the lock is held and `wait` is false.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        _close(descriptor)


_OPEN: set[int] = set()


def _open(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _OPEN.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _OPEN.discard(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # also releases a copy that a forked child has not closed yet
    os.close(descriptor)


def _after_fork() -> None:
    while _OPEN:
        os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_after_fork)
