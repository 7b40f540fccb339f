"""BLAKE3 content addresses of files, streams and directories: `blake3:<hex>`.

A file's address is BLAKE3-256 over its bytes. A directory's binds the relative name, size and digest of every regular
file in it (docs/formats.md#content-address). Nothing is skipped silently: a file that cannot be hashed is an error
that names its path.

Large files are read through memory-mapped windows, which is as fast as `b3sum` and keeps memory constant. A model that
changes while it is read is a `ChangedWhileReadError`, never a result: each file is checked before and after, and the
whole model again after all of it was read.
"""

import mmap
import os
import select
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self, TypeVar

from blake3 import blake3

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import OPEN_FLAGS, Advance, StrPath, display, errors_named, file_done, same_content_expected
from batuta_cli.limits import can_start, native_pool_starts
from batuta_cli.pacha.ignoring import expand_ignored
from batuta_cli.pacha.scanning import FileEntry, changed, check_unchanged, scan

if TYPE_CHECKING:
    from batuta_cli.pacha.digest_cache import DigestCache

PREFIX = "blake3:"

_MAPPING = 128 * 1024 * 1024  # each takes time to set up and to take down
_WINDOW = 32 * 1024 * 1024  # small enough that a file that shrinks is noticed before the next window is touched
_BUFFER = 1024 * 1024
_SMALL = 128 * 1024  # a read(2) of a regular file this short gives all of it
_BATCH_BYTES = 4 * 1024 * 1024  # a few milliseconds of work
_BATCH_ITEMS = 64
_DIRECTORY_CONTEXT = "batuta pacha 2026-11-23 directory v1"
_LENGTH, _SIZE = struct.Struct(">I").pack, struct.Struct(">Q").pack

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PrefixedDigest:
    """A digest of 32 bytes; its `str` is the prefix of its algorithm and 64 hexadecimal digits."""

    digest: bytes

    prefix: ClassVar[str]
    refusal: ClassVar[str]
    """How the error about a text that cannot be read begins."""
    hint: ClassVar[str]

    def __str__(self) -> str:
        return f"{self.prefix}{self.hex}"

    @property
    def hex(self) -> str:
        """The digest as 64 lower-case hexadecimal digits."""
        return self.digest.hex()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the prefix and 64 hexadecimal digits. Raises `InvalidInputError`."""
        digits = text.removeprefix(cls.prefix)
        if digits == text or len(digits) != 64 or not set(digits) <= set("0123456789abcdefABCDEF"):
            raise InvalidInputError(f"{cls.refusal}: {display(text)}", hint=cls.hint)
        return cls(bytes.fromhex(digits))


@dataclass(frozen=True, order=True)
class ContentAddress(PrefixedDigest):
    """A BLAKE3-256 digest of 32 bytes; its `str` is `blake3:` and 64 hexadecimal digits."""

    prefix = PREFIX
    refusal = "not a content address"
    hint = "an address is blake3: and 64 hexadecimal digits"

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            raise ValueError("a BLAKE3-256 digest has 32 bytes")


class Resource(NamedTuple):
    """One file of a model: its `/`-separated name inside the model, its size in bytes, its BLAKE3 digest."""

    name: str
    size: int
    digest: bytes


def address_of_bytes(data: bytes | bytearray | memoryview) -> ContentAddress:
    """The content address of bytes in memory."""
    return ContentAddress(blake3(data).digest())


def hash_descriptor(descriptor: int, name: StrPath, advance: Advance | None = None) -> Resource:
    """Hash an open regular file from its beginning to its end. The resource is named `"."`, as a single file is.

    Raises:
        ChangedWhileReadError: size or modification time differ before and after.
        OperationError: it cannot be read.
    """
    with errors_named(name):
        before = os.fstat(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
    hasher = blake3(max_threads=blake3_threads() if before.st_size >= 4 * _BUFFER else 1)
    count = before.st_size
    if before.st_size >= 4 * _BUFFER:
        _update_mapped(hasher, descriptor, name, before.st_size, advance)
    else:
        count = _update_read(hasher, descriptor, name, advance, largest=min(before.st_size + 1, _BUFFER))
    if count != before.st_size or not same_content_expected(before, os.fstat(descriptor)):
        raise changed(name)
    return Resource(".", before.st_size, hasher.digest())


def blake3_threads() -> int:
    """`max_threads` for a hasher of much data: all processors, or one where threads cannot be started."""
    return blake3.AUTO if native_pool_starts() else 1


def _update_mapped(hasher: blake3, descriptor: int, name: StrPath, size: int, advance: Advance | None) -> None:
    for offset in range(0, size, _MAPPING):
        length = min(_MAPPING, size - offset)
        if os.fstat(descriptor).st_size < offset + length:
            raise changed(name)
        with (
            errors_named(name),
            mmap.mmap(descriptor, length, access=mmap.ACCESS_READ, offset=offset) as mapping,
            memoryview(mapping) as view,
        ):
            mapping.madvise(mmap.MADV_SEQUENTIAL)
            for start in range(0, length, _WINDOW):
                window = min(_WINDOW, length - start)
                end = offset + start + window
                if os.fstat(descriptor).st_size < end:  # touching a page that is gone would end the process
                    raise changed(name)
                if end < size:
                    os.posix_fadvise(descriptor, end, _WINDOW, os.POSIX_FADV_WILLNEED)
                hasher.update(view[start : start + window])
                if advance:
                    advance(window)


def _update_read(
    hasher: blake3,
    descriptor: int,
    name: StrPath,
    advance: Advance | None,
    *,
    largest: int = _BUFFER,
    also: Sequence[Callable[[memoryview], object]] = (),
) -> int:
    """Hash from the current position to the end, `largest` bytes at a time; returns the number of bytes."""
    total = 0
    buffer = bytearray(largest)
    view = memoryview(buffer)
    with errors_named(name):
        while True:
            try:
                count = os.readv(descriptor, [buffer])
            except BlockingIOError:  # a non-blocking pipe with nothing in it yet, which is not its end
                _wait_for(descriptor)
                continue
            if count == 0:
                return total
            hasher.update(view[:count])
            for take in also:
                take(view[:count])
            total += count
            if advance:
                advance(count)


def _wait_for(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


def start_hashing_threads() -> None:
    """Start the threads that hash large files, which live as long as the process."""
    blake3(max_threads=blake3_threads()).update(bytes(_BUFFER))


def hash_stream(descriptor: int, name: StrPath, advance: Advance | None = None) -> ContentAddress:
    """The content address of all bytes that a descriptor (a pipe for instance) gives, in constant memory."""
    return hash_stream_counting(descriptor, name, advance)[1]


def hash_stream_counting(
    descriptor: int,
    name: StrPath,
    advance: Advance | None = None,
    *,
    also: Sequence[Callable[[memoryview], object]] = (),
) -> tuple[int, ContentAddress]:
    """As `hash_stream`, with the number of bytes read. Each function of `also` is called with every part."""
    hasher = blake3(max_threads=blake3_threads())
    size = _update_read(hasher, descriptor, name, advance, also=also)
    return size, ContentAddress(hasher.digest())


def hash_entries(entries: Sequence[FileEntry], advance: Advance | None = None) -> list[Resource]:
    """Hash scanned files, two at a time, keeping their order; `advance` is called from both threads.

    Where no threads can be started, one file is hashed after the other.

    Raises as `hash_descriptor`, and `ChangedWhileReadError` for a file that is not the one that was scanned.
    """

    def one(entry: FileEntry) -> Resource:
        with errors_named(entry.path):
            descriptor = os.open(entry.path, OPEN_FLAGS)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or not entry.is_same(status):
                    raise changed(entry.path)
                if entry.size >= _SMALL:
                    digest = hash_descriptor(descriptor, entry.path, advance).digest
                else:  # fewer calls, which are most of the time of a small file
                    data = os.read(descriptor, entry.size + 1)
                    if len(data) != entry.size or not entry.is_same(os.fstat(descriptor)):
                        raise changed(entry.path)
                    digest = blake3(data).digest()
                    if advance:
                        advance(entry.size)
            finally:
                os.close(descriptor)
        file_done(advance)
        return Resource(entry.name, entry.size, digest)

    return in_two_threads(entries, lambda entry: entry.size, one)


def in_two_threads(
    items: Sequence[_Item], size: Callable[[_Item], int], work: Callable[[_Item], _Result]
) -> list[_Result]:
    """What `work` returns for each item, in their order; two items are worked on at a time.

    `size` gives the bytes of an item. Where no threads can be started, one item is worked on after the other.
    """

    def several(batch: Sequence[_Item]) -> list[_Result]:
        return [work(item) for item in batch]

    if len(items) <= 1 or not can_start(2):
        return several(items)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=2) as pool:
        return [result for results in pool.map(several, _batches(items, size)) for result in results]


def _batches(items: Sequence[_Item], size: Callable[[_Item], int]) -> Iterator[Sequence[_Item]]:
    """The items in batches, because passing a small file to a thread costs more than hashing it."""
    start, total = 0, 0
    for end, item in enumerate(items, start=1):
        total += size(item)
        if total >= _BATCH_BYTES or end - start >= _BATCH_ITEMS:
            yield items[start:end]
            start, total = end, 0
    yield items[start:]


def hash_unknown(
    entries: Sequence[FileEntry], cache: "DigestCache | None", advance: Advance | None = None
) -> dict[FileEntry, Resource]:
    """The resources of files: those that a cache knows, and the others hashed. Raises as `hash_entries`."""
    known: dict[FileEntry, Resource] = {} if cache is None else cache.lookup(entries)
    unknown = [entry for entry in entries if entry not in known]
    if advance is not None:
        for entry in known:
            advance(entry.size)
            file_done(advance)
    if cache is not None and unknown:
        cache.begin_reading(len(unknown))
    return known | dict(zip(unknown, hash_entries(unknown, advance), strict=True))


def hash_model(
    path: StrPath,
    *,
    ignore: Sequence[str] = (),
    follow_symlinks: bool = False,
    advance: Advance | None = None,
    cache: "DigestCache | None" = None,
) -> list[Resource]:
    """The files of a model with their digests; see `scan` for the arguments and errors.

    Raises `ChangedWhileReadError` too, when a file changed, was added or was removed in the meantime.
    """
    entries = scan(path, ignore=ignore, follow_symlinks=follow_symlinks)
    digests = hash_unknown(entries, cache, advance)
    after = check_unchanged(path, entries, ignore=ignore, follow_symlinks=follow_symlinks)
    if cache is not None:
        cache.record(entries, after, digests)
    return [digests[entry] for entry in entries]


def directory_bytes(resources: Sequence[Resource]) -> bytes:
    """What a directory's address is the digest of (docs/formats.md#content-address), from its files in any order."""
    parts: list[bytes] = []
    for text, size, digest in sorted(resources, key=itemgetter(0)):
        name = text.encode()
        parts += (_LENGTH(len(name)), name, _SIZE(size), digest)
    return b"".join(parts)


def address_of_directory_bytes(data: bytes) -> ContentAddress:
    """The address of a directory from its `directory_bytes`."""
    return ContentAddress(blake3(data, derive_key_context=_DIRECTORY_CONTEXT).digest())


def directory_address(resources: Sequence[Resource]) -> ContentAddress:
    """The address of a directory from its files; the order given does not matter."""
    return address_of_directory_bytes(directory_bytes(resources))


def address_of(resources: Sequence[Resource]) -> ContentAddress:
    """The content address of a model from its files: a single file is the resource `"."`."""
    if len(resources) == 1 and resources[0].name == ".":
        return ContentAddress(resources[0].digest)
    return directory_address(resources)


def content_address(
    path: StrPath, *, ignore: Sequence[str] = (), follow_symlinks: bool = False, progress: Advance | None = None
) -> ContentAddress:
    """The content address of a file or a directory.

    `ignore` are globs, which are expanded to the paths that they name; see `ignoring` for their rules, and
    `hash_model` for the other arguments. Raises as both.
    """
    paths = expand_ignored(path, ignore).paths
    return address_of(hash_model(path, ignore=paths, follow_symlinks=follow_symlinks, advance=progress))
