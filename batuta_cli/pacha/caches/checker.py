"""Compares the files of a cache with the digests that it keeps of them."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from batuta_cli.errors import BatutaError, InvalidInputError, NotFoundError
from batuta_cli.files import Advance, errors_named, file_done, open_regular, same_content_expected
from batuta_cli.pacha.caches.contents import (
    CacheContents,
    CachedFile,
    CachedModel,
    ExpectedDigest,
    FileStatus,
)
from batuta_cli.pacha.hashing import in_two_threads
from batuta_cli.pacha.scanning import changed

_BUFFER = 1024 * 1024
_ZEROS = bytes(_BUFFER)
_NOTED = 4096
"""Zero bytes at the end that are worth a word: a block that a stalled write or a crash has left empty."""


@dataclass(frozen=True)
class FileFinding:
    """The result for one file."""

    file: CachedFile
    status: FileStatus
    reason: str = ""
    size: int | None = None
    """Bytes that were found."""
    found: ExpectedDigest | None = None

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The command lines that bring the file back; empty for an intact one, and where the source is not known."""
        repair = self.file.repair
        if self.status not in (FileStatus.DAMAGED, FileStatus.MISSING):
            return ()
        remove = repair.remove_first and self.status is FileStatus.DAMAGED
        removal = (("rm", "-f", self.file.path),) if remove else ()
        return (*removal, *((repair.fetch,) if repair.fetch else ()))


@dataclass(frozen=True)
class ModelFinding:
    """The results for the files of one model."""

    model: CachedModel
    files: tuple[FileFinding, ...]

    def with_status(self, *statuses: FileStatus) -> tuple[FileFinding, ...]:
        """The files with one of these results."""
        return tuple(file for file in self.files if file.status in statuses)

    @property
    def intact(self) -> bool:
        """Whether every file was read and is what its digest says."""
        return all(file.status is FileStatus.INTACT for file in self.files)


def work_of(contents: CacheContents) -> tuple[int, int]:
    """The bytes and the number of the files that a check reads, for a progress bar."""
    files = {file.path: file for model in contents.models for file in model.files if _needs_reading(file)}
    return sum(map(_size, files.values())), len(files)


def check_cache(
    contents: CacheContents,
    advance: Advance | None = None,
    known: Callable[[ModelFinding], None] = lambda finding: None,
) -> list[ModelFinding]:
    """Read every file of a cache, each once, and compare it with its digest.

    `known` is called with each model's result as soon as there is one. What is wrong is in the results; nothing is
    raised for it.
    """
    done: dict[tuple[str, ExpectedDigest | None], FileFinding] = {}
    findings = []
    for model in contents.models:
        fresh = {_key(file): file for file in model.files if _key(file) not in done}
        judged = in_two_threads(list(fresh.values()), _size, lambda file: _judged(file, advance))
        done |= dict(zip(fresh, judged, strict=True))
        # A shared blob has another name and another command in each model.
        own = tuple(replace(done[_key(file)], file=file) for file in model.files)
        findings.append(ModelFinding(model, own))
        known(findings[-1])
    return findings


def _key(file: CachedFile) -> tuple[str, ExpectedDigest | None]:
    return file.path, file.expected


def _needs_reading(file: CachedFile) -> bool:
    return file.known is None and file.expected is not None


def _size(file: CachedFile) -> int:
    try:
        return os.stat(file.path).st_size
    except OSError:
        return 0


def _judged(file: CachedFile, advance: Advance | None) -> FileFinding:
    finding = _judge(file, advance)
    if _needs_reading(file):
        file_done(advance)
    return finding


def _judge(file: CachedFile, advance: Advance | None) -> FileFinding:
    if file.known is not None:
        return FileFinding(file, file.known, file.reason)
    if file.expected is None:
        return FileFinding(file, FileStatus.UNVERIFIABLE, "the cache has no digest of it")
    try:
        return _compare(file, file.expected, advance)
    except NotFoundError:
        return FileFinding(file, FileStatus.MISSING)
    except InvalidInputError as error:  # a directory or a device in the place of a blob
        return FileFinding(file, FileStatus.DAMAGED, error.message)
    except BatutaError as error:
        return FileFinding(file, FileStatus.UNREADABLE, error.message)


def _compare(file: CachedFile, expected: ExpectedDigest, advance: Advance | None) -> FileFinding:
    descriptor = open_regular(file.path)
    try:
        size = os.fstat(descriptor).st_size
        if file.size is not None and size != file.size:
            if advance:
                advance(size)
            reason = f"has {size:,} bytes instead of {file.size:,}"
            return FileFinding(file, FileStatus.DAMAGED, reason + _zeros(descriptor, file.path, size), size)
        found = ExpectedDigest(expected.algorithm, _digest(descriptor, file.path, expected.algorithm, advance))
        if found == expected:
            return FileFinding(file, FileStatus.INTACT, "", size, found)
        reason = f"its content is {found}" + _zeros(descriptor, file.path, size)
        return FileFinding(file, FileStatus.DAMAGED, reason, size, found)
    finally:
        os.close(descriptor)


def _digest(descriptor: int, path: str, algorithm: str, advance: Advance | None) -> str:
    """The digest of an open file. Raises `ChangedWhileReadError`, `OperationError`."""
    before = os.fstat(descriptor)
    hasher = _hasher(algorithm, before.st_size)
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    with errors_named(path):
        while count := os.readv(descriptor, [buffer]):
            hasher.update(view[:count])
            if advance:
                advance(count)
    if not same_content_expected(before, os.fstat(descriptor)):
        raise changed(path)
    return str(hasher.hexdigest())


def _hasher(algorithm: str, size: int) -> Any:
    if algorithm != "git-sha1":
        return hashlib.new(algorithm)
    # A git blob: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _zeros(descriptor: int, path: str, size: int) -> str:
    """What to say of zero bytes at the end of a damaged file."""
    end = size
    with errors_named(path):
        while end > 0:
            start = max(0, end - _BUFFER)
            data = os.pread(descriptor, end - start, start)
            if data != _ZEROS[: len(data)]:
                end = start + len(data.rstrip(b"\0"))
                break
            end = start
    if size == 0 or size - end < min(_NOTED, size):
        return ""
    return "; all its bytes are zero" if end == 0 else f"; its last {size - end:,} bytes are zero"
