"""Server-sent events, read as the bytes arrive (https://html.spec.whatwg.org/multipage/server-sent-events.html).

`EventScanner.feed` yields complete events. An event without its empty line at the end of a stream is truncated and is
not yielded (section 9.2.6 of the standard). Data stays bytes, so a character split between two reads is complete when
its event is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from batuta_cli.errors import OperationError

EVENT_LIMIT = 16 * 1024 * 1024
"""The largest event in bytes. A backend that sends more without an empty line fails."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, empty for the default one, and its data, lines joined by line feeds."""

    type: str
    data: bytes


class EventScanner:
    """Turns the bytes of a stream into events."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()
        """A line without its end."""
        self._begun = False
        self._type = ""
        self._data: list[bytes] = []
        self._size = 0
        """Bytes since the last event, comments and unknown fields included."""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes. Raises `OperationError` for more than the limit without an event."""
        if self._begun and b"\n" not in piece and b"\r" not in piece and not self._rest.endswith(b"\r"):
            self._rest += piece  # the line is searched for its end only once
            self._check_size()
            return
        buffer = bytes(self._rest) + piece if self._rest else piece
        if not self._begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = bytearray(buffer)
                return
            self._begun = True
            buffer = buffer.removeprefix(_BOM)
        # A carriage return at the end may be the first byte of CRLF.
        held = buffer.endswith(b"\r")
        if held:
            buffer = buffer[:-1]
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = buffer.split(b"\n")
        if self._rest or rest or held:
            self._rest = bytearray(rest + b"\r" * held)
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                yield Event(self._type, b"\n".join(self._data))
                self._type, self._data, self._size = "", [], 0
            else:
                self._type = ""
        if self._rest:
            self._check_size()

    def _check_size(self) -> None:
        if self._size + len(self._rest) > self._limit:
            raise OperationError(f"the backend sent more than {self._limit:,} bytes without a complete event")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        self._size += len(line) + 1
        if self._size > self._limit:
            self._check_size()
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode(errors="replace")

    def end(self) -> Iterator[Event]:
        """The events that the end of the stream completes: none."""
        return iter(())


class LineScanner:
    """Turns the bytes of a stream of lines into events, one a line: the format of Ollama's own API."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The lines that `piece` completes. Raises `OperationError` when one is larger than the limit."""
        lines: list[bytes] = []
        if b"\n" in piece:
            *lines, piece = (bytes(self._rest) + piece).split(b"\n")
            self._rest.clear()
        self._rest += piece
        if len(self._rest) > self._limit:
            raise OperationError(f"the backend sent a line of more than {self._limit:,} bytes")
        for line in lines:
            if line.strip():
                yield Event("", line)

    def end(self) -> Iterator[Event]:
        """The last line, which may lack its line feed."""
        if (line := bytes(self._rest)).strip():
            yield Event("", line)
