"""Whether threads and memory can be had, asked before native code needs them.

A Rust library that cannot start its threads panics, and a panic prints to stderr before Python sees it. So as many
threads as its pool would have are started here first; where they cannot be, the caller works in one thread. Limits on
threads are those of RLIMIT_NPROC (setrlimit(2)), of the pids controller of cgroups, and of memory.

A Rust library that cannot allocate memory ends the process. So as much address space as it needs is mapped here first,
which RLIMIT_AS bounds; a limit of a cgroup is met only when memory is used, and cannot be asked for like this.
"""

import _thread
import contextlib
import functools
import mmap
import os

from batuta_cli.faults import OutOfMemoryError

_asking = _thread.allocate_lock()  # two threads that ask at once would see each other's threads


def can_start(count: int) -> bool:
    """Whether `count` threads more can run at the same time in this process."""
    with _asking:
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
            for end in started:
                end.acquire()
        return True


def check_memory(size: int, purpose: str) -> None:
    """Raise `OutOfMemoryError` unless `size` bytes can be mapped; `purpose` reads on after "not enough memory to"."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError):
        raise OutOfMemoryError(
            f"not enough memory to {purpose}: {size >> 20:,} MiB are needed",
            hint="free memory, or raise the limit: ulimit -v, the container's memory limit",
        ) from None


@functools.cache
def native_pool_starts() -> bool:
    """Whether rayon, the thread pool of Rust libraries, can start here; decided once, as it starts once a process.

    Its size is RAYON_NUM_THREADS, else the number of processors that the process may use:
    https://docs.rs/rayon/latest/rayon/struct.ThreadPoolBuilder.html#method.num_threads
    """
    wanted = 0
    with contextlib.suppress(ValueError):
        wanted = int(os.environ.get("RAYON_NUM_THREADS", ""))
    return can_start(wanted if wanted > 0 else len(os.sched_getaffinity(0)))
