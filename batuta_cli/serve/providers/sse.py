"""Server-sent events, read as the bytes arrive (https://html.spec.whatwg.org/multipage/server-sent-events.html).

`EventScanner.feed` gives the events that are whole; what a stream ends in the middle of is never given: an event
without its empty line is a truncated one (section 9.2.6 of the standard). Bytes stay bytes, so that an event can be
relayed as it came, and a character that was cut in two is whole again when its event is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from batuta_cli.errors import OperationError

EVENT_LIMIT = 16 * 1024 * 1024
"""Bytes of one event. A backend that sends more without an empty line is taken for broken."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, empty for the default one, and its data, lines joined by line feeds."""

    type: str
    data: bytes


class EventScanner:
    """Turns pieces of a stream into events."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = b""
        self._begun = False
        self._type = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that `piece` completes. Raises `OperationError` when one is larger than the limit."""
        buffer = self._rest + piece
        if not self._begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                self._rest = buffer
                return
            self._begun = True
            buffer = buffer.removeprefix(_BOM)
        # A carriage return at the end may be the first half of a line's end.
        held = buffer.endswith(b"\r")
        if held:
            buffer = buffer[:-1]
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = buffer.split(b"\n")
        self._rest = rest + b"\r" * held
        if len(self._rest) + self._size > self._limit:
            raise self._too_large()
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                yield Event(self._type, b"\n".join(self._data))
                self._type, self._data, self._size = "", [], 0
            else:
                self._type = ""

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self._limit:
                raise self._too_large()
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode(errors="replace")

    def end(self) -> Iterator[Event]:
        """What the end of the stream completes: nothing, see above."""
        return iter(())

    def _too_large(self) -> OperationError:
        return OperationError(f"the backend sent an event of more than {self._limit:,} bytes")


class LineScanner:
    """Turns pieces of a stream of lines into events, one a line; that is how Ollama's own API streams."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The lines that `piece` completes. Raises `OperationError` when one is larger than the limit."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > self._limit:
            raise OperationError(f"the backend sent a line of more than {self._limit:,} bytes")
        for line in lines:
            if line.strip():
                yield Event("", line)

    def end(self) -> Iterator[Event]:
        """The last line, which needs no line feed."""
        if self._rest.strip():
            yield Event("", self._rest)
