"""The gateway's log: one JSON object a line, which says what happened and never what was said.

    log = Log()
    log.write("info", "draining", under_way=3)
    log.flush(1.0)          # at the end; waits at most a second for a reader that is slow

`write` never blocks: a thread does the writing, and a line that does not fit the bounded buffer is counted. Once the
reader goes on, a line `log_dropped` says how many are missing.

No field holds a message, a key, a query or a header, but for the request's id, which has an alphabet of its own. Of a
foreign exception only the type and the place are told: its text may quote what must not be shown.
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
"""Bytes of a line. POSIX writes that many to a pipe in one piece (pipe(7)), so the lines of workers that share stderr
are never mixed."""

MOST_WAITING = 4 * 1024 * 1024
"""Bytes that wait for a reader; some 15,000 requests."""

_PAUSE = 0.02
"""Seconds between two writes; the lines of a busy gateway are then written together."""

_IDLE = 5.0
"""Seconds after which the thread that writes ends; the next line starts another."""

_SHORT = 200  # characters of a text, and entries of a list, in a line that would be too long


class Log:
    """Writes to a raw binary stream, by default to the process's stderr. `quiet` leaves out what is no error.

    Safe to use from several threads, not across a fork.
    """

    def __init__(
        self, stream: BinaryIO | None = None, *, quiet: bool = False, most_waiting: int = MOST_WAITING
    ) -> None:
        self._stream = stream or _stderr()
        self._quiet = quiet
        self._most = most_waiting
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._held = 0
        """Bytes that wait or are being written."""
        self._told = 0
        self._flushing = 0
        """Callers of `flush` that wait."""
        self._pausing = False
        self._writer: threading.Thread | None = None
        self._gone = False
        """There is no reader any more."""
        self.dropped = 0
        """Lines that did not fit."""

    def write(self, level: Level, event: str, **fields: Any) -> None:
        """One line; fields that are None are left out."""
        if self._gone or (self._quiet and level != "error"):
            return
        line = format_line(level, event, fields)
        with self._changed:
            if self._held + len(line) > self._most or not self._start():
                self.dropped += 1
                return
            self._waiting.append(line)
            self._held += len(line)
            if not self._pausing:
                self._changed.notify_all()

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait until all is written, for a limited time; returns whether it was."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            written = self._changed.wait_for(
                lambda: self._gone or (self._held == 0 and self.dropped == self._told), seconds
            )
            self._flushing -= 1
            return written

    def _start(self) -> bool:
        """Start the writer with the first line; whether it runs."""
        if self._writer is None:
            # A daemon, because a reader that has stalled must not keep the process from ending.
            writer = threading.Thread(target=self._work, name="batuta-log", daemon=True)
            try:
                writer.start()
            except RuntimeError:  # no more threads, for now
                return False
            self._writer = writer
        return True

    def _work(self) -> None:
        while not self._gone:
            with self._changed:
                if not self._changed.wait_for(lambda: bool(self._waiting) or self.dropped > self._told, _IDLE):
                    self._writer = None
                    return
                lines, self._waiting = self._waiting, []
                size, missing = sum(map(len, lines)), self.dropped - self._told
            if missing:
                lines.append(format_line("warning", "log_dropped", {"lines": missing}))
            try:
                for piece in _pieces(lines):
                    self._put(piece)
            except (OSError, ValueError):  # there is no reader any more; requests are served all the same
                self._gone = True
            with self._changed:
                self._held -= size
                self._told += missing
                self._changed.notify_all()
                self._pausing = True
                self._changed.wait_for(lambda: self._flushing > 0, _PAUSE)
                self._pausing = False

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._stream.write(left)
            if written is None:  # another process has set the stream to non-blocking, and it is full
                poll = select.poll()
                poll.register(self._stream, select.POLLOUT)
                poll.poll()
            left = left[written or 0 :]


def _stderr() -> BinaryIO:
    """The process's stderr without a buffer of Python's."""
    if sys.stderr is None:  # it was closed before the process began, and descriptor 2 may be anything by now
        return open(os.devnull, "wb", buffering=0)
    return open(2, "wb", buffering=0, closefd=False)


def format_line(level: Level, event: str, fields: Mapping[str, Any]) -> bytes:
    """A line of the log, with its end, of at most `LARGEST_LINE` bytes."""
    time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"time": time, "level": level, "event": event}
    line = _dumped(head | {name: value for name, value in fields.items() if value is not None})
    if len(line) > LARGEST_LINE:
        line = _dumped(head | {name: _short(value) for name, value in fields.items()} | {"shortened": True})
    return line if len(line) <= LARGEST_LINE else _dumped(head | {"shortened": True})


def _dumped(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a character, a number of more than 64 bits, an object
        return json.dumps(line, default=repr).encode() + b"\n"


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _SHORT else value[:_SHORT] + "…"
    return [_short(each) for each in value[:5]] if isinstance(value, list) else value


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The lines in pieces that a pipe takes whole."""
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
    """An error as fields of a line; `at` is the place in the program, of an error of ours that of its cause."""
    if not isinstance(error, BatutaError):
        return {"error": type(error).__name__, "at": _place(error)}
    facts: dict[str, Any] = {"error": error.kind, "reason": error.message}
    if error.__cause__ is not None:
        facts["at"] = _place(error.__cause__)
    return facts


def _place(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{f.filename}:{f.lineno} {f.name}" for f in frames]
