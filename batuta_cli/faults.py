"""Turns failures of the machine and of native libraries into typed errors: panics, no memory, no threads, deep nesting.

`except Exception` does not catch all of them: the panic of a Rust library reaches Python as
`pyo3_runtime.PanicException`, which derives from `BaseException` and which no module exports
(https://docs.rs/pyo3/latest/pyo3/panic/struct.PanicException.html). A caller that must continue uses

    try:
        ...
    except BaseException as error:
        typed = as_typed(error)
        if typed is None:
            raise
        raise typed from error

The text of a foreign exception is never repeated, because it may quote the data in process.
"""

import errno
import sys
from collections.abc import Iterator
from types import TracebackType

from batuta_cli.errors import BatutaError, OperationError


class NativePanicError(OperationError):
    """A native library stopped with a panic. Exit 1."""

    kind = "native_panic"


class OutOfMemoryError(OperationError):
    """Memory could not be allocated. Exit 1."""

    kind = "out_of_memory"


class NoThreadError(OperationError):
    """A thread or process could not be started. Exit 1."""

    kind = "no_thread"


class NestingError(OperationError):
    """Data is nested more deeply than the interpreter's stack allows. Exit 1."""

    kind = "nested_too_deeply"


_ENDINGS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that end a program; these and `asyncio.CancelledError` are not failures."""

# CPython's Modules/_threadmodule.c and Lib/threading.py; 3.13 adds "at interpreter shutdown", which is not a limit.
_THREAD_WORDS = ("can't start new thread", "can't allocate lock")

# How glibc's loader says that a library does not fit into memory: elf/dl-load.c and elf/dl-map-segments.h.
_LOADER_MEMORY_WORDS = ("failed to map segment", "annot allocate memory", "cannot create shared object descriptor")

# How Rust's std and rayon name a thread that could not be started: ThreadPoolBuildError { kind: IOError(Os { code: 11,
# kind: WouldBlock, … }) }. https://docs.rs/rayon/latest/rayon/struct.ThreadPoolBuildError.html
_PANIC_THREAD_WORDS = ("ThreadPoolBuildError", "failed to spawn thread", "failed to initialize global rayon")
_PANIC_MEMORY_WORDS = ("AllocError", "memory allocation", "capacity overflow", "OutOfMemory", "code: 12,")


def as_typed(error: BaseException) -> BatutaError | None:
    """The typed error for a failure of the machine or of a native library.

    None for any other exception, which the caller raises again: `KeyboardInterrupt`, `SystemExit`, `GeneratorExit`,
    `asyncio.CancelledError`, `BatutaError`, and ordinary exceptions. In an exception group the first failure counts,
    unless the group also contains an exception that ends the program.
    """
    leaves = list(_leaves(error))
    if any(isinstance(leaf, _ENDINGS) or _is_cancellation(leaf) for leaf in leaves):
        return None
    return next((typed for leaf in leaves if (typed := _typed(leaf)) is not None), None)


def is_panic(error: BaseException) -> bool:
    """Whether `error` is the panic of a Rust library, for every version of pyo3."""
    return any(kind.__name__ == "PanicException" for kind in type(error).__mro__)


def _is_cancellation(error: BaseException) -> bool:
    # Importing asyncio takes 50 ms, and a command that does not use it has no CancelledError.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        next_one = waiting.pop(0)
        if isinstance(next_one, BaseExceptionGroup):
            waiting.extend(next_one.exceptions)
        else:
            yield next_one


def _typed(error: BaseException) -> BatutaError | None:
    if isinstance(error, BatutaError):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return _memory()
    if isinstance(error, ImportError) and any(words in _text(error) for words in _LOADER_MEMORY_WORDS):
        return _memory()
    if isinstance(error, RecursionError):
        return NestingError("the data is nested too deeply to be processed")
    if isinstance(error, RuntimeError) and any(words in _text(error) for words in _THREAD_WORDS):
        return _threads()
    if is_panic(error):
        return _panic(error)
    return None


def _panic(error: BaseException) -> BatutaError:
    text = _text(error)
    if any(words in text for words in _PANIC_THREAD_WORDS):
        return _threads()
    if any(words in text for words in _PANIC_MEMORY_WORDS):
        return _memory()
    return NativePanicError(
        f"a native library panicked; it was called by {_caller(error.__traceback__)}",
        hint="run again with BATUTA_DEBUG=1 for the traceback to report",
    )


def _memory() -> BatutaError:
    return OutOfMemoryError(
        "not enough memory", hint="free memory, or raise the limit: ulimit -v, the container's memory limit"
    )


def _threads() -> BatutaError:
    return NoThreadError(
        "cannot start a thread: the limit of threads or memory is reached",
        hint="raise the limit: ulimit -u, ulimit -v, the container's pids limit",
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a foreign type may do anything
        return ""


def _caller(trace: TracebackType | None) -> str:
    """The name of the Python module whose call failed; native code has no frame of its own."""
    name = "batuta"
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", name))
        trace = trace.tb_next
    return name
