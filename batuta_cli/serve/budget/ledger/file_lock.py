"""Taking turns among the processes of a host: a lock file in front of SQLite.

SQLite's own waiting is a sleep of up to 100 ms between tries, which is unfair: with eight writers the unluckiest waits
for seconds. The kernel wakes those who wait in `flock` at once. It has no time limit, and a holder may be stopped by a
debugger; so a thread does the waiting, and gives the lock back when nobody wants it any more.

Each lock is an open file of its own, so that threads and crashes release what they should and nothing else. A child
that is forked meanwhile gets a copy of that file, with which it would hold its parent's lock: it closes the copy.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def file_lock(path: str, patience: float) -> Iterator[None]:
    """Hold the lock of `path` (made if need be, mode 0600) for the length of the block.

    Raises `TimeoutError` after `patience` seconds, and `OSError` when there can be no such file.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _close(descriptor)
        descriptor = _Waiter(path).wait(patience)
    except OSError:
        _close(descriptor)
        raise
    try:
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
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # for all copies, also one that a child has not closed yet
    os.close(descriptor)


def _after_fork() -> None:
    while _OPEN:
        os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_after_fork)


class _Waiter:
    """Waits in the kernel's queue in a thread of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._wanted = True
        self._descriptor: int | None = None
        self._error: OSError | None = None

    def wait(self, patience: float) -> int:
        threading.Thread(target=self._run, name="batuta-ledger-turn", daemon=True).start()
        try:
            self._over.wait(patience)
        finally:
            with self._guard:  # also when interrupted: from here on the thread keeps nothing
                self._wanted = False
                descriptor, error = self._descriptor, self._error
        if error is not None:
            raise error
        if descriptor is None:
            raise TimeoutError
        return descriptor

    def _run(self) -> None:
        descriptor = -1
        try:
            descriptor = _open(self._path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._guard:
            if self._wanted and self._error is None:
                self._descriptor = descriptor
            elif descriptor >= 0:
                _close(descriptor)
        self._over.set()
