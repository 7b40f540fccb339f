"""Tests whether threads and memory are available before native code needs them.

A Rust library that cannot start its threads panics, and prints to stderr before Python sees the panic. So this module
first starts as many threads as its pool would have; if that fails, the caller works in one thread. Threads are limited
by RLIMIT_NPROC (setrlimit(2)), the pids controller of cgroups, and memory.

A Rust library that cannot allocate memory ends the process. So this module first maps as much address space as the
library needs, which RLIMIT_AS bounds. The memory limit of a cgroup applies only to used memory and is not tested.
"""

import _thread
import contextlib
import functools
import mmap
import os
import sys
import time
from collections.abc import Iterator

from batuta_cli.faults import OutOfMemoryError

# Seconds. A thread whose first frame cannot be allocated ends without running, so nothing would ever release its lock.
_PATIENCE = 10.0

_asking = _thread.allocate_lock()  # two tests at once would count each other's threads


def can_start(count: int) -> bool:
    """Whether `count` more threads can run at the same time in this process."""
    with _asking, _without_memory_reports():
        ends = [_thread.allocate_lock() for _ in range(count)]
        go = _thread.allocate_lock()
        go.acquire()
        started = []

        def wait(end: _thread.LockType) -> None:
            with go:
                pass
            end.release()

        try:
            for end in ends:
                end.acquire()
                _thread.start_new_thread(wait, (end,))
                started.append(end)
        except (RuntimeError, MemoryError):
            return False
        finally:
            go.release()
            deadline = time.monotonic() + _PATIENCE
            ended = [end.acquire(timeout=max(0, deadline - time.monotonic())) for end in started]
        return all(ended)


@contextlib.contextmanager
def _without_memory_reports() -> Iterator[None]:
    """Keep Python from printing that a thread ended because its first frame could not be allocated."""
    report = sys.unraisablehook
    sys.unraisablehook = bool  # a built-in that ignores its argument: a function of Python would need memory as well
    try:
        yield
    finally:
        sys.unraisablehook = report


def check_memory(size: int, purpose: str) -> None:
    """Raise `OutOfMemoryError` unless `size` bytes can be mapped; `purpose` completes "not enough memory to …"."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError):
        raise OutOfMemoryError(
            f"not enough memory to {purpose}: {size >> 20:,} MiB are needed",
            hint="free memory, or raise the limit: ulimit -v, the container's memory limit",
        ) from None


@functools.cache
def native_pool_starts() -> bool:
    """Whether rayon, the thread pool of Rust libraries, can start; tested once, because it starts once a process.

    Its size is RAYON_NUM_THREADS, else the number of processors that the process may use:
    https://docs.rs/rayon/latest/rayon/struct.ThreadPoolBuilder.html#method.num_threads
    """
    wanted = 0
    with contextlib.suppress(ValueError):
        wanted = int(os.environ.get("RAYON_NUM_THREADS", ""))
    return can_start(wanted if wanted > 0 else len(os.sched_getaffinity(0)))
