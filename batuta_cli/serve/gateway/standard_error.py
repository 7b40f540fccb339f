"""Whatever a gateway's process writes to stderr becomes lines of its log.

    with StandardError(quiet=False) as captured:
        captured.follow(loop)
        captured.log.write(...)

Descriptor 2 is a pipe for the length of the block. The event loop reads what native code, child processes or an
interpreter write to it, and wraps each line into a JSON object; what Python reports through `logging`, `warnings` and
its hooks for exceptions does not take that way, but becomes an object of its own fields.

Two limits. The pipe does not block its writers, since one that holds Python's lock would stop the process: beyond
about a megabyte between two turns of the event loop, what they write is lost. And so is what a process writes in the
moment in which a signal such as SIGSEGV ends it.

What is wrapped is foreign text, which may quote a message: parts in quotation marks are left out.
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

_PIPE_BYTES = 1024 * 1024  # the most that Linux gives without a privilege (pipe(7))
_AT_ONCE = 64 * 1024
_LONGEST = 500  # characters of a wrapped line
_OURS = "batuta"
"""The logger whose messages hold nothing foreign."""

_QUOTED = re.compile(rb"`[^`]*(?:`|\Z)|\"[^\"\n]*(?:\"|$)|(?<!\w)'[^'\n]*(?:'|$)", re.MULTILINE)
"""Rust quotes a text over several lines in backticks; Python and C in one line. An apostrophe in a word is none."""


class StandardError:
    """Captures descriptor 2 and Python's reports. A context manager, once a process."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._rest = b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        # Without a stderr from the start, descriptor 2 may be anything by now, and is left alone.
        self._captures = sys.stderr is not None
        self._real = os.dup(2) if self._captures else os.open(os.devnull, os.O_WRONLY)
        self.log = Log(open(self._real, "wb", buffering=0, closefd=False), quiet=self._quiet)
        self._read, write = os.pipe()
        with contextlib.suppress(OSError):  # a limit of the user's pipes is reached; the usual size will do
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
        if self.log.flush():  # else its thread still writes there, until the process ends
            os.close(self._real)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read what is written, and log what goes wrong, while this loop runs."""
        loop.add_reader(self._read, self._take)
        loop.set_exception_handler(self._loop_failed)

    def _take(self) -> bool:
        """Wrap the next part of what was written; false when there is none now."""
        try:
            data = os.read(self._read, _AT_ONCE)
        except BlockingIOError:
            return False
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > _AT_ONCE:
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
        facts = describe(error) if isinstance(error, BaseException) else {}
        # What follows a bracket is the representation of an object, which may show its content.
        self.log.write("error", "event_loop", text=re.split(r"[<(]", str(context.get("message")))[0].strip(), **facts)

    def _thread_failed(self, failure: "threading.ExceptHookArgs", /) -> None:
        facts = describe(failure.exc_value) if failure.exc_value else {"error": failure.exc_type.__name__}
        self.log.write("error", "thread", **facts)

    def _unraisable(self, failure: "sys.UnraisableHookArgs", /) -> None:
        facts = describe(failure.exc_value) if failure.exc_value else {"error": failure.exc_type.__name__}
        self.log.write("error", "unraisable", **facts)

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
    """Python's log records as lines: where they come from, and their text without what is filled into it."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        text = record.getMessage() if record.name == _OURS else str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        facts = describe(error) if error else {"at": [f"{record.pathname}:{record.lineno}"]}
        first = text.partition("\n")[0][:_LONGEST]
        self._log.write(level, "library", logger=record.name, text=first, **facts)
