"""The gateway's log: one JSON object per line, without message content.

    log = Log()
    log.write("info", "draining", under_way=3)
    log.flush(1.0)          # at the end; waits at most one second for a slow reader

`write` never blocks: a thread writes, and a line that does not fit the bounded buffer is dropped and counted. When the
reader continues, a line `log_dropped` gives the number of dropped lines.

No field holds a message, a key, a query or a header, except the request's id, whose characters are restricted. An
exception of a library is logged by its type and place only, because its text may quote content.
"""

import datetime as dt
import json
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import orjson

from batuta_cli.errors import BatutaError

Level = Literal["info", "warning", "error"]

LARGEST_LINE = select.PIPE_BUF
"""Largest line in bytes. A write of that size to a pipe is atomic (pipe(7)), so the lines of workers that share stderr
are never interleaved."""

BUFFER_LIMIT = 4 * 1024 * 1024
"""Bytes that wait for a slow reader: about 15,000 requests."""

_PAUSE = 0.02
"""Seconds between two writes, so that a busy gateway writes many lines at once."""

_IDLE = 5.0
"""Seconds without a line after which the writer thread ends; the next line starts a new one."""

_SHORT = 200  # characters of a text in a line that is too long


class Log:
    """Writes to a raw binary stream, by default stderr. With `quiet` only errors are written.

    Safe to use from several threads, not across a fork.
    """

    def __init__(
        self, stream: BinaryIO | None = None, *, quiet: bool = False, buffer_limit: int = BUFFER_LIMIT
    ) -> None:
        self._stream = stream or _stderr()
        self._quiet = quiet
        self._buffer_limit = buffer_limit
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._pending = 0
        """Bytes that wait or are being written."""
        self._reported = 0
        """Dropped lines that a `log_dropped` line has counted."""
        self._flushing = 0
        """Callers that wait in `flush`."""
        self._pausing = False
        self._writer: threading.Thread | None = None
        self._closed = False
        """The stream has no reader any more."""
        self.dropped = 0
        """Lines that did not fit the buffer."""

    def write(self, level: Level, event: str, **fields: Any) -> None:
        """Write one line; fields that are None are omitted."""
        if self._closed or (self._quiet and level != "error"):
            return
        line = format_line(level, event, fields)
        with self._changed:
            if self._pending + len(line) > self._buffer_limit or not self._start():
                self.dropped += 1
                return
            self._waiting.append(line)
            self._pending += len(line)
            if not self._pausing:
                self._changed.notify_all()

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait up to `seconds` until all lines are written; returns whether they are."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            written = self._changed.wait_for(
                lambda: self._closed or (self._pending == 0 and self.dropped == self._reported), seconds
            )
            self._flushing -= 1
            return written

    def _start(self) -> bool:
        """Start the writer thread if none runs; returns whether one runs."""
        if self._writer is None:
            # A daemon, so that a stalled reader cannot keep the process from ending.
            writer = threading.Thread(target=self._work, name="batuta-log", daemon=True)
            try:
                writer.start()
            except RuntimeError:  # the limit of threads is reached
                return False
            self._writer = writer
        return True

    def _work(self) -> None:
        while not self._closed:
            with self._changed:
                if not self._changed.wait_for(lambda: bool(self._waiting) or self.dropped > self._reported, _IDLE):
                    self._writer = None
                    return
                lines, self._waiting = self._waiting, []
                size, missing = sum(map(len, lines)), self.dropped - self._reported
            if missing:
                lines.append(format_line("warning", "log_dropped", {"lines": missing}))
            try:
                for piece in _pieces(lines):
                    self._put(piece)
            except (OSError, ValueError):  # no reader any more; the gateway continues
                self._closed = True
            with self._changed:
                self._pending -= size
                self._reported += missing
                self._changed.notify_all()
                self._pausing = True
                self._changed.wait_for(lambda: self._flushing > 0, _PAUSE)
                self._pausing = False

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._stream.write(left)
            if written is None:  # the stream is non-blocking, and full
                poll = select.poll()
                poll.register(self._stream, select.POLLOUT)
                poll.poll()
            left = left[written or 0 :]


def _stderr() -> BinaryIO:
    """The process's stderr, unbuffered."""
    if sys.stderr is None:  # closed at the start; descriptor 2 may be another file
        return open(os.devnull, "wb", buffering=0)
    return open(2, "wb", buffering=0, closefd=False)


def format_line(level: Level, event: str, fields: Mapping[str, Any]) -> bytes:
    """One line of at most `LARGEST_LINE` bytes, with its newline."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"time": time, "level": level, "event": event}
    line = _dumped(head | {name: value for name, value in fields.items() if value is not None})
    if len(line) > LARGEST_LINE:
        line = _dumped(head | {name: _short(value) for name, value in fields.items()} | {"shortened": True})
    return line if len(line) <= LARGEST_LINE else _dumped(head | {"shortened": True})


def _dumped(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits, an object
        return json.dumps(line, default=repr).encode() + b"\n"


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHORT else value[:_SHORT] + "…"
    return [_short(each) for each in value[:5]] if isinstance(value, list) else value


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The lines, joined into pieces of at most `LARGEST_LINE` bytes."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > LARGEST_LINE and piece:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)


def describe(error: BaseException) -> dict[str, Any]:
    """An error as log fields. `at` is the place in the source: for a `BatutaError` that of its cause."""
    if not isinstance(error, BatutaError):
        return {"error": type(error).__name__, "at": _place(error)}
    fields: dict[str, Any] = {"error": error.kind, "reason": error.message}
    if error.__cause__ is not None:
        fields["at"] = _place(error.__cause__)
    return fields


def _place(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{f.filename}:{f.lineno} {f.name}" for f in frames]
