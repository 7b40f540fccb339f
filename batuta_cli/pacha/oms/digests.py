"""Digests of parts of files by SHA-256, BLAKE2b and BLAKE3, two at a time, in constant memory.

A file that changes while it is read is a `ChangedWhileReadError`, as in `hashing`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.files import Advance, StrPath, display, errors_named, open_regular
from batuta_cli.limits import can_start
from batuta_cli.pacha.hashing import FileEntry, hash_entries

HASHERS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}
"""Hash functions of model-signing-spec's algorithm registry, with their default digest sizes."""

_BUFFER = 1024 * 1024
_BATCH_BYTES = 4 * 1024 * 1024
_BATCH_PARTS = 64


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

    def several(batch: Sequence[Part]) -> list[bytes]:
        return [_digest(part, algorithm, advance) for part in batch]

    if len(parts) <= 1 or not can_start(2):
        return several(parts)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=2) as pool:
        return [digest for digests in pool.map(several, _batches(parts)) for digest in digests]


def _batches(parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
    start, size = 0, 0
    for end, part in enumerate(parts, start=1):
        size += part.end - part.start
        if size >= _BATCH_BYTES or end - start >= _BATCH_PARTS:
            yield parts[start:end]
            start, size = end, 0
    yield parts[start:]


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
    return bytes(hasher.digest())


def _check_same(entry: FileEntry, descriptor: int) -> None:
    if FileEntry.of(entry.name, entry.path, os.fstat(descriptor)) != entry:
        raise changed(entry.path)


def changed(name: StrPath) -> ChangedWhileReadError:
    """The error for a file that was written to while it was read."""
    return ChangedWhileReadError(
        f"{display(name)}: changed while it was being read", hint="try again when nothing writes to it"
    )


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
