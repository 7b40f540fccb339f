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
from typing import ClassVar, Self, TypeVar

from blake3 import blake3

from batuta_cli.errors import ChangedWhileReadError, InvalidInputError
from batuta_cli.files import (
    Advance,
    StrPath,
    dangling,
    display,
    errors_named,
    file_done,
    is_dangling,
    kind_of,
    open_regular,
    same_content_expected,
    utf8_name,
)
from batuta_cli.limits import can_start, native_pool_starts
from batuta_cli.pacha.ignoring import expand_ignored

PREFIX = "blake3:"

_MAPPING = 128 * 1024 * 1024  # each takes time to set up and to take down
_WINDOW = 32 * 1024 * 1024  # small enough that a file that shrinks is noticed before the next window is touched
_BUFFER = 1024 * 1024
_BATCH_BYTES = 4 * 1024 * 1024  # a few milliseconds of work
_BATCH_ITEMS = 64
_DIRECTORY_CONTEXT = "batuta pacha 2026-11-23 directory v1"

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
        return self.prefix + self.hex

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


@dataclass(frozen=True)
class Resource:
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


def changed(name: StrPath) -> ChangedWhileReadError:
    """The error for a file that was written to while it was read."""
    return ChangedWhileReadError(
        f"{display(name)}: changed while it was being read", hint="try again when nothing writes to it"
    )


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


@dataclass(frozen=True)
class FileEntry:
    """A file found in a model: its name inside the model, its path, its size, and what shows a later change."""

    name: str
    path: str
    size: int
    inode: int
    modified: int
    """Nanoseconds."""

    @classmethod
    def of(cls, name: str, path: str, status: os.stat_result) -> Self:
        """The entry for a file whose `stat` is known."""
        return cls(name, path, status.st_size, status.st_ino, status.st_mtime_ns)


def scan(
    path: StrPath,
    *,
    ignore: Sequence[str] = (),
    follow_symlinks: bool = False,
    allow_empty: bool = False,
    unusable: list[str] | None = None,
) -> list[FileEntry]:
    """The files of a model in the order in which they are hashed: by code points of their names.

    Args:
        path: a regular file, or a directory.
        ignore: relative paths (never globs) from the model's root. Each leaves out what has exactly that name, and
            when it is a directory all that lies beneath it.
        follow_symlinks: read symbolic links to regular files instead of refusing them.
        allow_empty: return an empty list for a directory without files instead of refusing it.
        unusable: a list that takes the names of what cannot be part of a model (links, special files, names that are
            not UTF-8) instead of an error; a verifier reports them together with all other differences.

    Raises:
        NotFoundError, OperationError: it is missing or cannot be read.
        InvalidInputError: a special file, a symbolic link, a name that is not UTF-8, an empty directory.
    """
    with errors_named(path):
        status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{display(path)}: is {kind_of(status.st_mode)}, not a file or a directory")
        return [FileEntry.of(".", os.fspath(path), status)]
    entries = sorted(_walk(os.fspath(path), frozenset(ignore), follow_symlinks, unusable), key=lambda entry: entry.name)
    if not entries and not allow_empty:
        besides = " besides the ignored ones" if ignore else ""
        raise InvalidInputError(f"{display(path)}: the directory has no file in it{besides}")
    return entries


def _walk(root: str, ignore: frozenset[str], follow_symlinks: bool, unusable: list[str] | None) -> Iterator[FileEntry]:
    directories = [(root, "")]
    while directories:
        directory, prefix = directories.pop()
        with errors_named(directory):
            found = list(os.scandir(directory))
        for item in found:
            name = prefix + utf8_name(item.name)
            if name in ignore:
                continue
            try:
                status = _judge(item, follow_symlinks)
            except InvalidInputError:
                if unusable is None:
                    raise
                unusable.append(name)
                continue
            if stat.S_ISDIR(status.st_mode):
                directories.append((item.path, name + "/"))
            else:
                yield FileEntry.of(name, item.path, status)


def _judge(item: os.DirEntry[str], follow_symlinks: bool) -> os.stat_result:
    """The `stat` of a directory entry that can be part of a model; raises for all others."""
    try:
        utf8_name(item.name).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{display(item.path)}: the name is not UTF-8, so it cannot be signed") from None
    with errors_named(item.path):
        linked = item.is_symlink()
        if linked and is_dangling(item.path):
            raise InvalidInputError(
                f"{display(item.path)}: {dangling(item.path)}", hint="remove it, or leave it out: --ignore GLOB"
            )
        if linked and not follow_symlinks:
            raise InvalidInputError(
                f"{display(item.path)}: is a symbolic link", hint="--follow-symlinks reads what it points to"
            )
        status = item.stat(follow_symlinks=linked)
    if stat.S_ISREG(status.st_mode) or (stat.S_ISDIR(status.st_mode) and not linked):
        return status
    raise InvalidInputError(
        f"{display(item.path)}: is {'a symbolic link to ' * linked}{kind_of(status.st_mode)}, not a regular file",
        hint="--ignore GLOB leaves it out",
    )


def hash_entries(entries: Sequence[FileEntry], advance: Advance | None = None) -> list[Resource]:
    """Hash scanned files, two at a time, keeping their order; `advance` is called from both threads.

    Where no threads can be started, one file is hashed after the other.

    Raises as `hash_descriptor`, and `ChangedWhileReadError` for a file that is not the one that was scanned.
    """

    def one(entry: FileEntry) -> Resource:
        descriptor = open_regular(entry.path)
        try:
            if FileEntry.of(entry.name, entry.path, os.fstat(descriptor)) != entry:
                raise changed(entry.path)
            measured = hash_descriptor(descriptor, entry.path, advance)
        finally:
            os.close(descriptor)
        file_done(advance)
        return Resource(entry.name, measured.size, measured.digest)

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


def check_unchanged(
    path: StrPath, entries: Sequence[FileEntry], *, ignore: Sequence[str] = (), follow_symlinks: bool = False
) -> None:
    """Raise `ChangedWhileReadError` unless a new scan finds what `entries` say; see `scan` for the arguments."""
    again = scan(path, ignore=ignore, follow_symlinks=follow_symlinks, allow_empty=True, unusable=[])
    if again != list(entries):
        different = sorted(set(again) ^ set(entries), key=lambda entry: entry.name)
        raise changed(different[0].path)


def hash_model(
    path: StrPath, *, ignore: Sequence[str] = (), follow_symlinks: bool = False, advance: Advance | None = None
) -> list[Resource]:
    """The files of a model with their digests; see `scan` for the arguments and errors.

    Raises `ChangedWhileReadError` too, when a file changed, was added or was removed in the meantime.
    """
    entries = scan(path, ignore=ignore, follow_symlinks=follow_symlinks)
    resources = hash_entries(entries, advance)
    check_unchanged(path, entries, ignore=ignore, follow_symlinks=follow_symlinks)
    return resources


def directory_address(resources: Sequence[Resource]) -> ContentAddress:
    """The address of a directory from its files; the order given does not matter."""
    hasher = blake3(derive_key_context=_DIRECTORY_CONTEXT)
    for resource in sorted(resources, key=lambda r: r.name):
        name = resource.name.encode()
        hasher.update(struct.pack(">I", len(name)) + name + struct.pack(">Q", resource.size) + resource.digest)
    return ContentAddress(hasher.digest())


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
