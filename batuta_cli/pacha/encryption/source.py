"""Inputs: blocks of one size, each with a flag whether it is the last.

Version 2 needs the flag, because its last chunk is sealed as the last. A block is yielded as soon as one byte after it
has been read, and is valid until the next one is requested.
"""

import os
from collections.abc import Callable, Iterator
from typing import Protocol

from batuta_cli.files import StrPath, errors_named

Block = tuple[memoryview, bool]
"""Bytes, and whether they are the last ones. Only the last block can be short or empty."""

_Read = Callable[[memoryview], int]
"""Reads the available bytes into the view (at least one, except at the end) and returns their number."""

_AIM = 4 * 1024 * 1024


class ByteSource(Protocol):
    """Bytes to be encrypted or decrypted."""

    def blocks(self, unit: int) -> Iterator[Block]:
        """What remains, in blocks of a whole number of units of `unit` bytes, the last one as it comes."""


class StreamSource:
    """The remaining bytes of a descriptor, read once from its current position: of a pipe or a file."""

    def __init__(self, descriptor: int, name: StrPath, *, ahead: bool) -> None:
        """`ahead`: gather several units before handing them on; False for a pipe, whose reader waits for each."""
        self._descriptor = descriptor
        self._name = name
        self._ahead = ahead

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end."""
        data = bytearray(count)
        return bytes(data[: _fill(self._read, memoryview(data), 0)])

    def blocks(self, unit: int) -> Iterator[Block]:
        """See `ByteSource`. Raises `OperationError` when reading fails."""
        return _read_ahead(self._read, _block_size(unit) if self._ahead else unit)

    def _read(self, view: memoryview) -> int:
        with errors_named(self._name):
            return os.readv(self._descriptor, [view])


class RangeSource:
    """Part of a regular file, which can be read again."""

    def __init__(self, descriptor: int, name: StrPath, start: int, length: int) -> None:
        self._descriptor = descriptor
        self._name = name
        self._start = start
        self._length = length

    def blocks(self, unit: int) -> Iterator[Block]:
        """See `ByteSource`. A file that has shrunk gives less. Raises `OperationError` when reading fails."""
        position, end = self._start, self._start + self._length

        def read(view: memoryview) -> int:
            nonlocal position
            with errors_named(self._name):
                count = os.preadv(self._descriptor, [view[: end - position]], position)
            position += count
            return count

        return _read_ahead(read, _block_size(unit))


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def blocks(self, unit: int) -> Iterator[Block]:
        """See `ByteSource`."""
        size = _block_size(unit)
        for start in range(0, max(len(self._data), 1), size):
            yield self._data[start : start + size], start + size >= len(self._data)


def pread_into(descriptor: int, view: memoryview, position: int, name: StrPath) -> int:
    """Fill `view` from `position` of a file; returns how much there was. Raises `OperationError` naming the file."""
    filled = 0
    with errors_named(name):
        while filled < len(view) and (count := os.preadv(descriptor, [view[filled:]], position + filled)):
            filled += count
    return filled


def _block_size(unit: int) -> int:
    return max(1, _AIM // unit) * unit


def _fill(read: _Read, view: memoryview, filled: int) -> int:
    while filled < len(view) and (count := read(view[filled:])):
        filled += count
    return filled


def _read_ahead(read: _Read, size: int) -> Iterator[Block]:
    current, following = memoryview(bytearray(size)), memoryview(bytearray(size))
    count = _fill(read, current, 0)
    while count == size and (begun := read(following)):
        yield current, False
        current, following = following, current
        count = _fill(read, current, begun)
    yield current[:count], True
