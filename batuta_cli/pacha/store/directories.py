"""Directories in the store: a manifest of objects, under the directory's own content address.

A manifest consists of exactly the bytes that the address is the digest of (docs/formats.md#content-address). Its
objects are kept as those of any other file are, so a file that several models have is kept once.
"""

import os
import struct
from collections.abc import Sequence
from itertools import pairwise

from batuta_cli.errors import ChangedWhileReadError, DamagedStateError, InvalidInputError, NotFoundError
from batuta_cli.files import StrPath, display, open_regular, read_limited, write_file
from batuta_cli.pacha.hashing import (
    ContentAddress,
    Resource,
    address_of_directory_bytes,
    directory_bytes,
    hash_entries,
)
from batuta_cli.pacha.scanning import FileEntry, changed, check_unchanged, scan
from batuta_cli.pacha.store import names as names_file
from batuta_cli.pacha.store.addition import (
    Added,
    AddOrder,
    Sharing,
    add_copy,
    check_replaced,
    if_utf8,
    signature_beside,
)
from batuta_cli.pacha.store.layout import Progress, Store, silent
from batuta_cli.pacha.store.names import StoredName, StoreName

_LENGTH, _REST = struct.Struct(">I"), struct.Struct(">Q32s")
_MANIFEST_LIMIT = 512 * 1024 * 1024  # bytes: a million files with names of 400 bytes
_ATTEMPTS = 5


def parse_manifest(data: bytes) -> tuple[Resource, ...]:
    """The files of a directory from its manifest. Raises `InvalidInputError`."""
    from batuta_cli.pacha.statement import check_resource_name

    found: list[Resource] = []
    position = 0
    try:
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            name = data[position : position + length].decode()
            size, digest = _REST.unpack_from(data, position + length)
            position += length + _REST.size
            check_resource_name(name, "")
            found.append(Resource(name, size, digest))
    except (struct.error, UnicodeDecodeError):
        raise InvalidInputError("the manifest is cut off or not a manifest") from None
    names = [resource.name for resource in found]
    if not names or names == ["."] or any(a >= b for a, b in pairwise(names)):
        raise InvalidInputError("the manifest has no files, or not in order")
    return tuple(found)


def read_manifest(store: Store, address: ContentAddress) -> tuple[Resource, ...]:
    """The files of a directory in the store.

    Raises `NotFoundError` when it is not there, `DamagedStateError` when its manifest is damaged, `OperationError`.
    """
    path = store.manifest_path(address)
    try:
        data = read_limited(path, _MANIFEST_LIMIT)
        if address_of_directory_bytes(data) != address:
            raise InvalidInputError(f"the content is {address_of_directory_bytes(data)}")
        return parse_manifest(data)
    except InvalidInputError as error:
        raise DamagedStateError(
            f"{address}: its manifest {display(path)} is damaged: {error.message}",
            hint="add the directory again: batuta pacha store add PATH",
        ) from None


def add_directory(
    store: Store,
    path: StrPath,
    *,
    name: StoreName | None = None,
    force: bool = False,
    follow_symlinks: bool = False,
    progress: Progress = silent,
) -> Added:
    """Add a directory: every file as an object, and the manifest. Its `PATH.sig` is kept beside it.

    Raises as `addition.add` and `scanning.scan`.
    """
    entries = scan(path, follow_symlinks=follow_symlinks)
    label = os.fspath(path)
    total = sum(entry.size for entry in entries)
    with progress(f"hashing {label}", total) as advance:
        resources = hash_entries(entries, advance)
    file = if_utf8(os.path.basename(os.path.abspath(path)))
    order = AddOrder(store, name, force, label, file, signature_beside(path), progress)
    data = directory_bytes(resources)
    address = address_of_directory_bytes(data)
    check_replaced(order, store.names(), address)  # before anything is copied
    present = os.path.lexists(store.manifest_path(address))
    for _ in range(_ATTEMPTS):
        for entry, resource in zip(entries, resources, strict=True):
            _add_object(order, entry, resource)
        check_unchanged(path, entries, follow_symlinks=follow_symlinks)
        if _place(order, address, data, resources):
            has_signature = os.path.lexists(store.signature_path(address))
            sharing: Sharing = "present" if present else "copy"
            return Added(address, total, store.manifest_path(address), name, sharing, has_signature)
    raise ChangedWhileReadError(
        f"{display(path)}: another process keeps deleting its objects", hint="try again when no `store gc` runs"
    )


def _add_object(order: AddOrder, entry: FileEntry, resource: Resource) -> None:
    """Make sure that the store has an intact object for one file."""
    address = ContentAddress(resource.digest)
    if order.store.examine(address).identity is not None:
        return
    descriptor = open_regular(entry.path)
    try:
        if not entry.is_same(os.fstat(descriptor)):
            raise changed(entry.path)
        one = AddOrder(order.store, None, False, entry.path, None, None, order.progress)
        if add_copy(one, descriptor).address != address:
            raise changed(entry.path)
    finally:
        os.close(descriptor)


def _place(order: AddOrder, address: ContentAddress, data: bytes, resources: Sequence[Resource]) -> bool:
    """Write manifest, signature and name under one lock; False when an object was deleted in the meantime."""
    store = order.store
    with store.locked():
        if not all(os.path.lexists(store.object_path(ContentAddress(r.digest))) for r in resources):
            return False
        names = store.names()
        check_replaced(order, names, address)
        if order.signature is not None:
            write_file(store.signature_path(address), order.signature, force=True)
        write_file(store.manifest_path(address), data, force=True, mode=0o444)
        if order.name is not None:
            total = sum(resource.size for resource in resources)
            names[order.name] = StoredName(address, total, order.file, directory=True)
            names_file.save(store.names_path, names)
        return True


def members(store: Store, address: ContentAddress) -> tuple[ContentAddress, ...]:
    """The objects of a directory; none for an address that is no directory. Raises as `read_manifest`."""
    try:
        return tuple(dict.fromkeys(ContentAddress(r.digest) for r in read_manifest(store, address)))
    except NotFoundError:
        return ()
