"""A file lock with a time limit, taken by the writers of a SQLite ledger before SQLite's own lock.

SQLite waits by sleeping up to 100 ms between tries. With eight writing processes some of them wait for seconds. The
kernel wakes a process that waits in `flock` at once. `flock` has no time limit, so a helper thread waits, and releases
the lock when its caller has given up.

Each lock is a separately opened file, so that a thread or a crash releases its own lock only. A forked child inherits
a copy of that file and would keep its parent's lock, so it closes the copy.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def file_lock(path: str, patience: float) -> Iterator[None]:
    """Hold the lock file `path` during the block; created with mode 0600 when it does not exist.

    Raises `TimeoutError` after `patience` seconds, and `OSError` when the file cannot be opened.
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
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # also releases a copy that a forked child has not closed yet
    os.close(descriptor)


def _after_fork() -> None:
    while _OPEN:
        os.close(_OPEN.pop())


os.register_at_fork(after_in_child=_after_fork)


class _Waiter:
    """A thread that waits for a lock in the kernel's queue."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._wanted = True
        self._descriptor: int | None = None
        self._error: OSError | None = None

    def wait(self, patience: float) -> int:
        threading.Thread(target=self._run, name="batuta-ledger-lock", daemon=True).start()
        try:
            self._over.wait(patience)
        finally:
            with self._guard:  # also after an interrupt: the thread gives the lock back from here on
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
