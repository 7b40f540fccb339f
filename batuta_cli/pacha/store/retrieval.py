"""Copies a model out of the store: a file, or a directory with all its files.

Every byte is hashed on its way. A damaged object is set aside, and then nothing appears at the destination. The copy is
the user's own and can be changed; it shares blocks with the objects where the file system can.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from blake3 import blake3

from batuta_cli.errors import NotFoundError, OutputExistsError, VerificationError
from batuta_cli.files import (
    Advance,
    StrPath,
    atomic_output,
    display,
    errors_named,
    is_locked,
    open_regular,
    read_limited,
    write_all,
    write_file,
)
from batuta_cli.pacha.hashing import ContentAddress, blake3_threads, hash_descriptor
from batuta_cli.pacha.store.addition import clone
from batuta_cli.pacha.store.directories import read_manifest
from batuta_cli.pacha.store.layout import FileIdentity, Progress, Store, silent, sync_directory
from batuta_cli.pacha.store.names import Reference, StoreName

_BUFFER = 4 * 1024 * 1024  # bytes
_SIGNATURE_LIMIT = 64 * 1024 * 1024  # bytes, as verification has it


@dataclass(frozen=True)
class Retrieved:
    """A model that was copied out of the store: the number of its files and their bytes."""

    address: ContentAddress
    path: str
    files: int
    size: int
    kind: Literal["file", "directory"]
    signature: str | None
    """The path of the signature that was kept with it."""


def retrieve(store: Store, reference: Reference, destination: StrPath, *, progress: Progress = silent) -> Retrieved:
    """Copy a model of the store to `destination`, with its signature as `DESTINATION.sig`.

    Raises:
        NotFoundError: there is no such name or object.
        DamagedStateError: the manifest of a directory is damaged.
        VerificationError: an object is damaged; it has been set aside, and nothing was written.
        OutputExistsError: something is at the destination or at the place of the signature.
        OperationError: it cannot be read or written.
    """
    from batuta_cli.pacha.signing import signature_path

    address = _address(store, reference)
    target = os.path.abspath(destination)
    signature = signature_path(target)
    signed = os.path.lexists(store.signature_path(address))
    for place in (target, *([signature] if signed else [])):
        if os.path.lexists(place):
            raise OutputExistsError(f"{display(place)}: already exists", hint="choose another DEST")
    kind: Literal["file", "directory"] = "file"
    if os.path.lexists(store.manifest_path(address)):
        kind = "directory"
        resources = read_manifest(store, address)
        size = sum(resource.size for resource in resources)
        with progress(f"copying {reference}", size) as advance, _new_directory(target) as directory:
            for resource in resources:
                place = os.path.join(directory, *resource.name.split("/"))
                with errors_named(place):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                _copy_object(store, ContentAddress(resource.digest), place, advance)
        files = len(resources)
    else:
        path = store.lookup(reference)[1]
        size, files = os.lstat(path).st_size, 1
        with progress(f"copying {reference}", size) as advance:
            _copy_object(store, address, target, advance)
    kept = _copy_signature(store, address, signature)
    return Retrieved(address, target, files, size, kind, signature if kept else None)


def _address(store: Store, reference: Reference) -> ContentAddress:
    if isinstance(reference, StoreName):
        entry = store.names().get(reference)
        if entry is None:
            raise NotFoundError(f"nothing in the store is called {reference}", hint="batuta pacha store list")
        if entry.directory and not os.path.lexists(store.manifest_path(entry.address)):
            raise NotFoundError(
                f"{reference}: its manifest is not in the store any more",
                hint=f"add the directory again: batuta pacha store add PATH --name {reference}",
            )
        return entry.address
    return reference


def _copy_signature(store: Store, address: ContentAddress, target: str) -> bool:
    try:
        data = read_limited(store.signature_path(address), _SIGNATURE_LIMIT)
    except NotFoundError:
        return False
    write_file(target, data)
    return True


@contextlib.contextmanager
def _new_directory(target: str) -> Iterator[str]:
    """A hidden directory beside `target`, which becomes it at the end of the block, and is removed on an error."""
    parent, name = os.path.split(target)
    hidden = os.path.join(parent, f".{name[:200]}.batuta-{os.getpid()}")
    with errors_named(target):
        _clear_abandoned(parent, f".{name[:200]}.batuta-")
        os.mkdir(hidden)
        held = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # shows other runs that this one is alive
        yield hidden
        for directory, _, _ in os.walk(hidden):
            sync_directory(directory)
        with errors_named(target):
            if os.path.lexists(target):
                raise OutputExistsError(f"{display(target)}: already exists", hint="choose another DEST")
            os.rename(hidden, target)
            sync_directory(parent)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _clear_abandoned(parent: str, prefix: str) -> None:
    """Remove the hidden directories of runs that were killed."""
    with os.scandir(parent) as entries:
        for entry in entries:
            owner = entry.name.removeprefix(prefix)
            if owner != entry.name and owner.isdigit() and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if not is_locked(entry.path):
                        shutil.rmtree(entry.path, ignore_errors=True)


def _copy_object(store: Store, address: ContentAddress, target: str, advance: Advance | None) -> None:
    path = store.object_path(address)
    try:
        descriptor = open_regular(path, follow_symlinks=False)
    except NotFoundError:
        raise NotFoundError(
            f"{address}: the object is not in the store any more", hint="add the file it came from again"
        ) from None
    try:
        with atomic_output(target, inputs=[descriptor]) as output:
            if clone(descriptor, output.fd):
                digest = hash_descriptor(output.fd, target, advance).digest
            else:
                digest = _copy(descriptor, path, output.fd, target, advance)
            if digest != address.digest:
                seen = FileIdentity.of(os.fstat(descriptor))
                moved = store.set_aside(path, address, seen, f"the content is blake3:{digest.hex()}")
                where = f", and has been set aside in {display(moved.set_aside)}" if moved.set_aside else ""
                raise VerificationError(
                    f"{address}: the object is damaged{where}", hint="add the file it came from again"
                )
    finally:
        os.close(descriptor)


def _copy(source: int, name: str, target: int, label: str, advance: Advance | None) -> bytes:
    hasher = blake3(max_threads=blake3_threads() if os.fstat(source).st_size >= _BUFFER else 1)
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    while True:
        with errors_named(name):
            count = os.readv(source, [buffer])
        if count == 0:
            return bytes(hasher.digest())
        hasher.update(view[:count])
        with errors_named(label):
            write_all(target, view[:count])
        if advance:
            advance(count)
