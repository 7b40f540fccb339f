"""A model in sealed memory, compared with its signatures as a model on disk is.

Each file that a signature names is copied into a `MemoryFile`, or decrypted into one, and hashed there. A later change
on disk has no effect. Files that no signature names stay on disk; they are compared by name and never handed on.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from batuta_cli.errors import InvalidInputError, OperationError
from batuta_cli.files import Advance, StrPath, display, errors_named, open_regular
from batuta_cli.pacha.content import ModelContent
from batuta_cli.pacha.encryption.describe import describe_stream
from batuta_cli.pacha.encryption.header import MAGIC, is_encrypted
from batuta_cli.pacha.encryption.kdf import DEFAULT_MEMORY_LIMIT_KIB
from batuta_cli.pacha.encryption.passwords import Password
from batuta_cli.pacha.encryption.transfer import decrypt_into
from batuta_cli.pacha.encryption.v1 import wrong_or_damaged
from batuta_cli.pacha.hashing import ContentAddress, address_of
from batuta_cli.pacha.ignoring import is_beneath, topmost
from batuta_cli.pacha.locate import Located
from batuta_cli.pacha.oms.signature import OmsSignature
from batuta_cli.pacha.pacha1 import Pacha1Signature
from batuta_cli.pacha.scanning import FileEntry, scan
from batuta_cli.pacha.sealed import capacity
from batuta_cli.pacha.sealed.memfd import MemoryFile, MemoryFileSink, check_supported, copy_from
from batuta_cli.pacha.signing import ModelSignature, SignedStatement
from batuta_cli.pacha.verification import Verification

_ENCRYPTED_SUFFIX = ".enc"


@dataclass(frozen=True)
class SealingOptions:
    """What a model may take, and how its password is found."""

    max_memory: int | None = None
    """Bytes for the whole model; by default what is available here (`capacity.available_memory`)."""
    allow_swap: bool = False
    password: Password | Callable[[], Password] | None = None
    """The password of an encrypted model, or a function that is called when it is needed."""
    allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB


@dataclass
class SealedContent(ModelContent):
    """A model in sealed memory. Closing it frees the memory."""

    files: dict[str, MemoryFile] = field(default_factory=dict)
    """The files by their names inside the model; a single file is named `"."`."""
    entries: tuple[FileEntry, ...] = ()
    """All files of the model: those in memory, and those on disk that no signature names."""
    linked: frozenset[str] = frozenset()
    """Names of the files that are symbolic links on disk."""
    unusable: tuple[str, ...] = ()
    """Names of links and special files that cannot be part of a model."""

    def scan(
        self, *, ignore: Sequence[str] = (), follow_symlinks: bool = False, unusable: list[str] | None = None
    ) -> list[FileEntry]:
        """See `ModelContent.scan`."""
        left_out = frozenset(ignore)

        def counts(name: str) -> bool:
            return name not in left_out and not is_beneath(name, left_out)

        refused = [*self.unusable, *(() if follow_symlinks else sorted(self.linked))]
        if unusable is not None:
            unusable += filter(counts, refused)
        return [entry for entry in self.entries if counts(entry.name) and entry.name not in refused]

    def check_unchanged(
        self, entries: Sequence[FileEntry], *, ignore: Sequence[str] = (), follow_symlinks: bool = False
    ) -> list[FileEntry]:
        """Nothing to check: sealed memory does not change, and files on disk are not handed on."""
        return list(entries)

    def address(self) -> ContentAddress:
        """The content address of a model that was sealed with `everything`.

        Raises `InvalidInputError` when it has a link, a special file, or no file.
        """
        refused = [*self.unusable, *sorted(self.linked)]
        if refused or not self.entries:
            what = f"{display(refused[0])} is not a regular file" if refused else "the directory has no file in it"
            raise InvalidInputError(f"{display(self.path)}: {what}, so it has no content address")
        self._hash(self.entries)
        return address_of([self._hashed[entry] for entry in self.entries])

    def covered(self, verified: Verification) -> dict[str, MemoryFile]:
        """The files that every accepted signature covers: those that may be handed on."""
        others = {*verified.ignored, *verified.unsigned}
        return {name: file for name, file in self.files.items() if name not in others}

    def close(self) -> None:
        """Free the memory."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_encrypted_file(path: StrPath) -> bool:
    """Whether `path` is a regular file that begins as an encrypted file does. Raises `OperationError`."""
    with errors_named(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
    descriptor = open_regular(path)
    try:
        return _begins_encrypted(descriptor, path)
    finally:
        os.close(descriptor)


def plaintext_name(name: str, encrypted: bool) -> str:
    """The name of the model in a file of that name: without `.enc` when it is encrypted."""
    return name.removesuffix(_ENCRYPTED_SUFFIX) or name if encrypted else name


def signatures_beside(found: Located, encrypted: bool) -> tuple[str, ...]:
    """Where a model's signature is looked for, in this order.

    The signature of an encrypted file is over the plaintext, so it has the plaintext's name: `MODEL.sig` for
    `MODEL.enc`. A signature that is named like the encrypted file is read too, as one over the plaintext.
    """
    plain = replace(found, path=plaintext_name(found.path, encrypted))
    return tuple(dict.fromkeys((*plain.signatures, *found.signatures)))


def _begins_encrypted(descriptor: int, path: StrPath) -> bool:
    with errors_named(path):
        return is_encrypted(os.pread(descriptor, len(MAGIC), 0))


def seal_model(
    path: StrPath,
    signatures: Sequence[ModelSignature],
    options: SealingOptions,
    *,
    label: StrPath | None = None,
    everything: bool = False,
    progress: Advance | None = None,
) -> SealedContent:
    """Copy a model into sealed memory, or decrypt it into it. Nothing is judged yet.

    Args:
        signatures: those that it will be compared with; they name the files that are copied.
        label: what to call the model in messages; `path` by default.
        everything: copy all files, also those that no signature names.

    Raises:
        OperationError: no sealed memory here, not enough memory or open files, or the model cannot be read.
        DecryptionError: wrong password, or a damaged ciphertext.
        ChangedWhileReadError: a file became shorter while it was read.
        InvalidInputError: the model has a file that cannot be part of a model, and a signature is not over it.
    """
    check_supported()
    label = path if label is None else label
    strict: list[str] = []
    ignore = () if everything else _ignored_by_all(signatures)
    found = scan(path, ignore=ignore, allow_empty=True, unusable=strict)
    linked: frozenset[str] = frozenset()
    if any(_follows(signature) for signature in signatures):
        names = {entry.name for entry in found}
        strict = []
        found = scan(path, ignore=ignore, follow_symlinks=True, allow_empty=True, unusable=strict)
        linked = frozenset(entry.name for entry in found) - names
    wanted = None if everything else _named_in(signatures)
    content = SealedContent(path, progress, linked=linked, unusable=tuple(strict))
    try:
        inside = [entry for entry in found if wanted is None or entry.name == "." or entry.name in wanted]
        room = _Room.measured(label, options.max_memory)
        room.take(sum(entry.size for entry in inside if entry.name != "."))
        capacity.make_room_for_descriptors(len(inside))
        entries = {entry.name: entry for entry in found}
        for entry in inside:
            name = label if entry.name == "." else entry.path
            file = _sealed(entry, name, options, room, progress)
            content.files[entry.name] = file
            entries[entry.name] = FileEntry.of(entry.name, file.path, os.fstat(file.descriptor))
        content.entries = tuple(entries.values())
    except BaseException:
        content.close()
        raise
    return content


def _sealed(
    entry: FileEntry, name: StrPath, options: SealingOptions, room: "_Room", progress: Advance | None
) -> MemoryFile:
    """One file of a model in memory. Only a model that is a single file is decrypted."""
    descriptor = open_regular(entry.path)
    try:
        single = entry.name == "."
        if single and _begins_encrypted(descriptor, name):
            return _decrypted(descriptor, name, options, room, progress)
        if single:
            room.take(size := os.fstat(descriptor).st_size)
        else:
            size = entry.size
        return _filled(size, options, copy_from(descriptor, name, progress))
    finally:
        os.close(descriptor)


def _decrypted(
    descriptor: int, name: StrPath, options: SealingOptions, room: "_Room", progress: Advance | None
) -> MemoryFile:
    size = describe_stream(descriptor, name).plaintext_size
    if size is None:
        raise wrong_or_damaged(name)
    room.take(size)
    password = options.password() if callable(options.password) else options.password
    if password is None:
        raise OperationError(f"{display(name)}: is encrypted, and no password was given", hint="pass password=")
    os.lseek(descriptor, 0, os.SEEK_SET)

    def write(view: memoryview) -> None:
        decrypt_into(
            descriptor,
            MemoryFileSink(view, name),
            password,
            allow_kdf_memory_kib=options.allow_kdf_memory_kib,
            progress=progress,
            source_name=name,
        )

    if size == 0:  # there is nothing to write, and the password still has to be the right one
        write(memoryview(bytearray()))
    return _filled(size, options, write)


def _filled(size: int, options: SealingOptions, write: Callable[[memoryview], None]) -> MemoryFile:
    file = MemoryFile(size, allow_swap=options.allow_swap)
    try:
        file.fill(write)
    except BaseException:
        file.close()
        raise
    return file


@dataclass
class _Room:
    """The bytes that are still free for a model."""

    label: StrPath
    limit: int | None
    given: bool
    needed: int = 0

    @classmethod
    def measured(cls, label: StrPath, max_memory: int | None) -> Self:
        return cls(label, capacity.available_memory() if max_memory is None else max_memory, max_memory is not None)

    def take(self, size: int) -> None:
        """Count `size` more bytes as needed. Raises `OperationError` beyond the limit."""
        self.needed += size
        if self.limit is None or self.needed <= self.limit:
            return
        where = "--max-memory" if self.given else "the memory that is available here"
        raise OperationError(
            f"{display(self.label)}: needs {_mebibytes(self.needed)} of memory, more than {where}"
            f" ({_mebibytes(self.limit)})",
            hint="raise --max-memory"
            if self.given
            else "free memory, raise the container's memory limit; --max-memory SIZE overrides the measured limit",
        )


def _mebibytes(size: int) -> str:
    return f"{-(-size >> 20):,} MiB" if size >= 1 << 20 else f"{size:,} bytes"


def _ignored_by_all(signatures: Sequence[ModelSignature]) -> tuple[str, ...]:
    """The paths that every signature leaves out."""
    bodies = [signature.body for signature in signatures]
    ignored = [() if isinstance(body, Pacha1Signature) else body.statement.ignore_paths for body in bodies]
    return topmost(set.intersection(*map(set, ignored))) if ignored else ()


def _follows(signature: ModelSignature) -> bool:
    return not isinstance(signature.body, Pacha1Signature) and signature.body.statement.allow_symlinks


def _named_in(signatures: Iterable[ModelSignature]) -> frozenset[str]:
    """The names of all files that signatures are over."""
    names: set[str] = set()
    for signature in signatures:
        body = signature.body
        if isinstance(body, SignedStatement):
            names |= {resource.name for resource in body.statement.resources}
        elif isinstance(body, OmsSignature):
            names |= {file.name for file in body.statement.files}
    return frozenset(names)
