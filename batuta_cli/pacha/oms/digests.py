"""Digests of parts of files by SHA-256, BLAKE2b and BLAKE3, two at a time, in constant memory.

A file that changes while it is read is a `ChangedWhileReadError`, as in `hashing`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from batuta_cli.files import Advance, errors_named, file_done, open_regular
from batuta_cli.pacha.hashing import hash_entries, in_two_threads
from batuta_cli.pacha.scanning import FileEntry, changed

HASHERS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}
"""Hash functions of model-signing-spec's algorithm registry, with their default digest sizes."""

_BUFFER = 1024 * 1024


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `end` (exclusive) of a scanned file."""

    entry: FileEntry
    start: int
    end: int


def digest_parts(parts: Sequence[Part], algorithm: str, advance: Advance | None = None) -> list[bytes]:
    """The digests of parts of files, in their order; `advance` is called from both threads.

    Raises as `hashing.hash_entries`.
    """
    if algorithm == "blake3" and all((part.start, part.end) == (0, part.entry.size) for part in parts):
        return [resource.digest for resource in hash_entries([part.entry for part in parts], advance)]

    return in_two_threads(parts, lambda part: part.end - part.start, lambda part: _digest(part, algorithm, advance))


def _digest(part: Part, algorithm: str, advance: Advance | None) -> bytes:
    entry = part.entry
    hasher = HASHERS[algorithm]()
    descriptor = open_regular(entry.path)
    try:
        _check_same(entry, descriptor)
        position = part.start
        while position < part.end:
            with errors_named(entry.path):
                data = os.pread(descriptor, min(_BUFFER, part.end - position), position)
            if not data:
                raise changed(entry.path)
            hasher.update(data)
            position += len(data)
            if advance:
                advance(len(data))
        _check_same(entry, descriptor)
    finally:
        os.close(descriptor)
    if part.end == entry.size:
        file_done(advance)
    return bytes(hasher.digest())


def _check_same(entry: FileEntry, descriptor: int) -> None:
    if not entry.is_same(os.fstat(descriptor)):
        raise changed(entry.path)


class StreamDigests:
    """Digests of the pieces of a stream that is read once, from its beginning to its end.

    The bounds of the pieces are known before; bytes after the last one make up a piece more.
    """

    def __init__(self, algorithm: str, ends: Sequence[int] = ()) -> None:
        """`ends`: where each piece ends, ascending; without any the stream is one piece."""
        self._algorithm = algorithm
        self._ends = list(ends)
        self._hasher = HASHERS[algorithm]()
        self._digests: list[bytes] = []
        self.size = 0
        """Bytes that were read."""

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            bound = self._ends[len(self._digests)] if len(self._digests) < len(self._ends) else None
            taken = view if bound is None else view[: bound - self.size]
            self._hasher.update(taken)
            self.size += len(taken)
            view = view[len(taken) :]
            if self.size == bound:
                self._finish_piece()

    def _finish_piece(self) -> None:
        self._digests.append(bytes(self._hasher.digest()))
        self._hasher = HASHERS[self._algorithm]()

    def digests(self) -> list[bytes]:
        """The digest of each piece, when all has been read."""
        if not self._ends or self.size > self._ends[-1]:
            return [*self._digests, bytes(self._hasher.digest())]
        return list(self._digests)
