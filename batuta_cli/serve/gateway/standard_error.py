"""Turns everything that a gateway process writes to stderr into JSON lines of its log.

    with StandardError(quiet=False) as captured:
        captured.follow(loop)
        captured.log.write(...)

Inside the block descriptor 2 is a pipe. The event loop reads it and wraps each line that native code, child processes
or the interpreter wrote into a JSON object. Reports of Python's `logging`, `warnings` and exception hooks do not pass
the pipe: they become JSON objects with separate fields.

Two limits. Writes to the pipe do not block, because a blocked writer that holds the GIL would stop the process: more
than about 1 MiB between two turns of the event loop is lost. Text that is written while a signal such as SIGSEGV ends
the process is lost too.

Wrapped text comes from libraries and may quote a message, so quoted parts are removed.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

from batuta_cli.serve.gateway.logs import Level, Log, describe

_PIPE_BYTES = 1024 * 1024  # the largest pipe for unprivileged processes (pipe(7))
_READ_BYTES = 64 * 1024
_LONGEST = 500  # characters of a wrapped line
_OWN_LOGGER = "batuta"
"""The logger whose messages never hold content."""

_QUOTED = re.compile(rb"`[^`]*(?:`|\Z)|\"[^\"\n]*(?:\"|$)|(?<!\w)'[^'\n]*(?:'|$)", re.MULTILINE)
"""Rust quotes in backticks, over several lines; Python and C within a line. An apostrophe inside a word is no quote."""


class StandardError:
    """Captures descriptor 2 and Python's reports. A context manager; use one per process."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._rest = b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        # If stderr was closed at the start, descriptor 2 may be another file, and is left alone.
        self._captures = sys.stderr is not None
        self._real = os.dup(2) if self._captures else os.open(os.devnull, os.O_WRONLY)
        self.log = Log(open(self._real, "wb", buffering=0, closefd=False), quiet=self._quiet)
        self._read, write = os.pipe()
        with contextlib.suppress(OSError):  # the user's limit for pipes is reached; the default size is enough
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        if self._captures:
            sys.stderr.flush()
            os.dup2(write, 2)
        os.close(write)
        self._handler = _Records(self.log)
        logging.getLogger().addHandler(self._handler)
        self._hooks = warnings.showwarning, threading.excepthook, sys.unraisablehook
        warnings.showwarning = self._warning
        threading.excepthook = self._thread_failed
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        warnings.showwarning, threading.excepthook, sys.unraisablehook = self._hooks
        logging.getLogger().removeHandler(self._handler)
        if self._captures:
            with contextlib.suppress(OSError):  # the pipe is full
                sys.stderr.flush()
            os.dup2(self._real, 2)
        while self._take():
            pass
        self._wrap(self._rest)
        os.close(self._read)
        if self.log.flush():  # else its thread still writes there
            os.close(self._real)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read the pipe and log unhandled exceptions while this loop runs."""
        loop.add_reader(self._read, self._take)
        loop.set_exception_handler(self._loop_failed)

    def _take(self) -> bool:
        """Wrap the next part of the pipe's content; returns False when the pipe is empty."""
        try:
            data = os.read(self._read, _READ_BYTES)
        except BlockingIOError:
            return False
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > _READ_BYTES:
            whole, self._rest = whole + self._rest, b""
        if whole:
            self._wrap(whole)
        return bool(data)

    def _wrap(self, data: bytes) -> None:
        for line in _QUOTED.sub(b"[...]", data).splitlines():
            if text := line.decode(errors="replace").strip():
                self.log.write("warning", "stderr", text=text[:_LONGEST])

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        fields = describe(error) if isinstance(error, BaseException) else {}
        # After a bracket comes the repr of an object, which may hold content.
        self.log.write("error", "event_loop", text=re.split(r"[<(]", str(context.get("message")))[0].strip(), **fields)

    def _thread_failed(self, failure: "threading.ExceptHookArgs", /) -> None:
        fields = describe(failure.exc_value) if failure.exc_value else {"error": failure.exc_type.__name__}
        self.log.write("error", "thread", **fields)

    def _unraisable(self, failure: "sys.UnraisableHookArgs", /) -> None:
        fields = describe(failure.exc_value) if failure.exc_value else {"error": failure.exc_type.__name__}
        self.log.write("error", "unraisable", **fields)

    def _warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self.log.write("warning", "python_warning", error=category.__name__, at=[f"{filename}:{lineno}"])


class _Records(logging.Handler):
    """Turns Python's log records into lines: their place, and their format string without its arguments."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        text = record.getMessage() if record.name == _OWN_LOGGER else str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        fields = describe(error) if error else {"at": [f"{record.pathname}:{record.lineno}"]}
        first = text.partition("\n")[0][:_LONGEST]
        self._log.write(level, "library", logger=record.name, text=first, **fields)
