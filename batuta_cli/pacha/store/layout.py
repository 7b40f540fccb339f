"""The paths of the store, and the lock under which they change.

store/blake3/<2 hex>/<62 hex>   objects: read-only
store/names.toml                the object of each name
store/directories/<hex>         manifests of directories: the names, sizes and objects of their files
store/signatures/<hex>.sig      the signature that came with an object, or was made for it here
store/damaged/<hex>-<time>      damaged objects: their content no longer has their address; never served
store/incoming/                 objects that are complete and wait for the lock
store/lock                      held while objects and names are added or removed
"""

import contextlib
import datetime as dt
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from batuta_cli import paths
from batuta_cli.errors import DamagedStateError, NotFoundError, UsageError
from batuta_cli.files import Advance, display, errors_named, kind_of, locked, open_regular
from batuta_cli.pacha.hashing import ContentAddress, hash_descriptor
from batuta_cli.pacha.store import names as names_file
from batuta_cli.pacha.store.names import Reference, StoredName, StoreName

Progress = Callable[[str, int | None], contextlib.AbstractContextManager[Advance | None]]
"""Called with a label and the number of bytes (None: unknown) for each pass over data; enters a progress function."""

_WRITABLE = 0o222
_HEX = frozenset("0123456789abcdef")
_OWN = frozenset({"blake3", "directories", "names.toml", "signatures", "damaged", "incoming", "lock"})


@contextlib.contextmanager
def silent(label: str, total: int | None) -> Iterator[Advance | None]:
    """A `Progress` that shows nothing."""
    yield None


@dataclass(frozen=True)
class FileIdentity:
    """Shows whether the file at an object's path is still the one that was checked before."""

    device: int
    inode: int
    size: int
    changed: int
    """Modification time in nanoseconds."""

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class StoredObject:
    """An object of the store: its size in bytes, when it was last modified (which is when it was added), its names."""

    address: ContentAddress
    path: str
    size: int
    added: dt.datetime
    names: tuple[StoreName, ...]
    has_signature: bool
    links: int
    """How many hard links it has: 1 unless the user's own file is the object."""


@dataclass(frozen=True)
class Examined:
    """The result of hashing an object: intact when `identity` is set, missing when no field is."""

    identity: FileIdentity | None = None
    set_aside: str | None = None
    """The path the damaged object was moved to."""
    reason: str = ""
    """What was wrong with it."""
    made_read_only: bool = False


@dataclass(frozen=True)
class Contents:
    """The files in the store's tree: objects by address, addresses of directories, and all other files."""

    objects: dict[ContentAddress, str]
    foreign: tuple[str, ...]
    manifests: tuple[ContentAddress, ...] = ()


@dataclass(frozen=True)
class Store:
    """The store under one directory. Reading creates nothing; the first addition creates the directory."""

    root: Path

    @classmethod
    def default(cls) -> Self:
        """`$XDG_DATA_HOME/batuta/store`."""
        return cls(paths.store_dir())

    @property
    def incoming(self) -> Path:
        """The directory of objects that are not complete yet."""
        return self.root / "incoming"

    @property
    def names_path(self) -> Path:
        """`names.toml`."""
        return self.root / "names.toml"

    def object_path(self, address: ContentAddress) -> str:
        """The path of an object, existing or not."""
        return os.path.abspath(self.root / "blake3" / address.hex[:2] / address.hex[2:])

    def signature_path(self, address: ContentAddress) -> str:
        """The path of an object's signature, existing or not."""
        return os.path.abspath(self.root / "signatures" / f"{address.hex}.sig")

    def manifest_path(self, address: ContentAddress) -> str:
        """The path of a directory's manifest, existing or not."""
        return os.path.abspath(self.root / "directories" / address.hex)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock, and create the store if it does not exist.

        Never held while a model is read or copied, so other processes do not wait long.
        """
        paths.private_dir(self.root)
        with locked(self.root / "lock"):
            # The names first: objects without a names.toml mean that it was lost.
            if not os.path.lexists(self.root / "blake3") and not os.path.lexists(self.names_path):
                names_file.save(self.names_path, {})
            for directory in ("blake3", "directories", "signatures", "incoming"):
                paths.private_dir(self.root / directory)
            yield

    def names(self) -> dict[StoreName, StoredName]:
        """All names; empty when the store does not exist. Raises `DamagedStateError`."""
        try:
            return names_file.load(self.names_path)
        except NotFoundError:
            if not os.path.lexists(self.root / "blake3"):
                return {}
        raise DamagedStateError(
            f"{display(self.names_path)}: the names of the store are lost",
            hint="restore it from a backup; a file with the line [names] alone says that no object has a name",
        )

    def lookup(self, reference: Reference) -> tuple[ContentAddress, str, StoredName | None]:
        """The address of an object, the path it is served at, and the entry of its (first) name.

        Looks at kind, size and mode only, because hashing 40 GB to print a path would take too long; `verify`
        hashes. The size is known for objects that have a name.

        Raises:
            NotFoundError: there is no such object or name.
            UsageError: it is a directory, which has no single path.
            DamagedStateError: the file at that path cannot be the object.
        """
        names = self.names()
        if isinstance(reference, StoreName):
            entry = names.get(reference)
            if entry is None:
                raise NotFoundError(f"nothing in the store is called {reference}", hint="batuta pacha store list")
            address = entry.address
        else:
            address = reference
            entry = next((e for _, e in sorted(names.items(), key=lambda i: i[0]) if e.address == address), None)
        path = self.object_path(address)
        if (entry is not None and entry.directory) or os.path.lexists(self.manifest_path(address)):
            raise UsageError(
                f"{reference}: is a directory in the store, which has no single path",
                hint=f"batuta pacha store get {reference} DEST",
            )
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            raise self._absent(reference, address) from None
        except OSError:
            with errors_named(path):
                raise
        wrong = None
        if not stat.S_ISREG(status.st_mode):
            wrong = f"is {kind_of(status.st_mode)}, not a file"
        elif status.st_mode & _WRITABLE:
            wrong = "is not read-only any more"
        elif entry is not None and status.st_size != entry.size:
            wrong = f"has {status.st_size:,} bytes instead of {entry.size:,}"
        if wrong:
            raise DamagedStateError(
                f"{reference}: the object in the store {wrong}", hint=f"batuta pacha store verify {reference}"
            )
        return address, path, entry

    def _absent(self, reference: Reference, address: ContentAddress) -> NotFoundError:
        if isinstance(reference, ContentAddress):
            return NotFoundError(f"{address}: there is no such object in the store", hint="batuta pacha store list")
        return NotFoundError(
            f"{reference}: its object {address} is not in the store any more",
            hint=f"add the file again: batuta pacha store add PATH --name {reference}",
        )

    def contents(self) -> Contents:
        """All files of the store. Raises `OperationError` when it cannot be read."""
        objects: dict[ContentAddress, str] = {}
        foreign: list[str] = []
        for item in _entries(self.root):
            if item.name not in _OWN and not is_temporary(item.name):
                foreign.append(item.path)
        for shard in _entries(self.root / "blake3"):
            if not _is_hex(shard.name, 2) or not shard.is_dir(follow_symlinks=False):
                foreign.append(shard.path)
                continue
            for item in _entries(shard.path):
                if _is_hex(item.name, 62):
                    objects[ContentAddress(bytes.fromhex(shard.name + item.name))] = item.path
                else:
                    foreign.append(item.path)
        manifests = []
        for item in _entries(self.root / "directories"):
            if _is_hex(item.name, 64):
                manifests.append(ContentAddress(bytes.fromhex(item.name)))
            elif not is_temporary(item.name):
                foreign.append(item.path)
        for item in _entries(self.root / "signatures"):
            if signed_address(item.name) is None and not is_temporary(item.name):
                foreign.append(item.path)
        return Contents(dict(sorted(objects.items())), tuple(sorted(foreign)), tuple(manifests))

    def objects(self) -> list[StoredObject]:
        """All objects in the order of their addresses. Raises `DamagedStateError`, `OperationError`."""
        named: dict[ContentAddress, list[StoreName]] = {}
        for name, entry in sorted(self.names().items(), key=lambda item: item[0]):
            named.setdefault(entry.address, []).append(name)
        found = []
        for address, path in self.contents().objects.items():
            with contextlib.suppress(FileNotFoundError):  # collected in the meantime
                status = os.lstat(path)
                found.append(
                    StoredObject(
                        address,
                        self.object_path(address),
                        status.st_size,
                        dt.datetime.fromtimestamp(int(status.st_mtime), dt.UTC),
                        tuple(named.get(address, ())),
                        os.path.lexists(self.signature_path(address)),
                        status.st_nlink,
                    )
                )
        return found

    def examine(self, address: ContentAddress, advance: Advance | None = None) -> Examined:
        """Hash an object; a damaged one is moved aside, so that it is never served.

        Raises `OperationError` when it cannot be read, `ChangedWhileReadError` when something writes to it.
        """
        path = self.object_path(address)
        try:
            before = os.lstat(path)
        except FileNotFoundError:
            return Examined()
        if not stat.S_ISREG(before.st_mode):
            return self.set_aside(path, address, FileIdentity.of(before), f"is {kind_of(before.st_mode)}")
        try:
            descriptor = open_regular(path, follow_symlinks=False)
        except NotFoundError:
            return Examined()
        try:
            status = os.fstat(descriptor)
            writable = bool(status.st_mode & _WRITABLE)
            if writable:  # before it is read, so that it cannot be written afterwards
                with errors_named(path):
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_WRITABLE)
            found = hash_descriptor(descriptor, path, advance)
        finally:
            os.close(descriptor)
        if found.digest != address.digest:
            reason = f"the content is blake3:{found.digest.hex()}"
            return self.set_aside(path, address, FileIdentity.of(status), reason)
        return Examined(FileIdentity.of(status), made_read_only=writable)

    def set_aside(self, path: str, address: ContentAddress, seen: FileIdentity, reason: str) -> Examined:
        """Move a damaged object or manifest to `damaged/`, unless another process has replaced it since it was seen."""
        with self.locked(), errors_named(path):
            paths.private_dir(self.root / "damaged")
            try:
                if FileIdentity.of(os.lstat(path)) != seen:
                    return Examined()  # an addition has replaced it already
            except FileNotFoundError:
                return Examined()
            target = self.root / "damaged" / f"{address.hex}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
            number = 1
            while os.path.lexists(target):
                number += 1
                target = target.with_name(f"{target.name.partition('.')[0]}.{number}")
            os.rename(path, target)
            sync_directory(os.path.dirname(path))
            sync_directory(target.parent)
        return Examined(set_aside=str(target), reason=reason)

    def remove(self, reference: Reference, *, force: bool = False) -> tuple[StoreName, ...]:
        """Remove a name (the object stays until `collect`), or delete an object; returns the removed names.

        Raises:
            NotFoundError: there is no such name or object.
            UsageError: a name means the object, and `force` is false.
        """
        if not os.path.lexists(self.root):
            self.lookup(reference)  # raises with the name, without creating a store
        with self.locked():
            names = self.names()
            if isinstance(reference, StoreName):
                if reference not in names:
                    raise NotFoundError(f"nothing in the store is called {reference}", hint="batuta pacha store list")
                del names[reference]
                names_file.save(self.names_path, names)
                return (reference,)
            using = tuple(sorted(name for name, entry in names.items() if entry.address == reference))
            if using and not force:
                raise UsageError(
                    f"{reference}: in use as {', '.join(map(str, using))}",
                    hint="--force removes the object and these names; or batuta pacha store remove NAME",
                )
            present = map(os.path.lexists, (self.object_path(reference), self.manifest_path(reference)))
            if not using and not any(present):
                raise self._absent(reference, reference)
            if using:
                names_file.save(self.names_path, {n: e for n, e in names.items() if n not in using})
            self.delete(reference)
            return using

    def delete(self, address: ContentAddress) -> None:
        """Delete an object or a manifest, and its signature. The caller holds the lock and has looked at the names."""
        for path in (self.object_path(address), self.manifest_path(address), self.signature_path(address)):
            with errors_named(path), contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                sync_directory(os.path.dirname(path))


def sync_directory(path: str | Path) -> None:
    """Flush a directory, so that its entries survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether `name` is that of a file which `files.atomic_output` has not finished yet."""
    stem, _, owner = name.rpartition(".batuta-")
    return stem.startswith(".") and owner.isascii() and owner.isdigit()


def signed_address(name: str) -> ContentAddress | None:
    """The address of the object that the file `name` in `signatures/` belongs to."""
    stem, dot, suffix = name.partition(".")
    return ContentAddress(bytes.fromhex(stem)) if _is_hex(stem, 64) and dot + suffix == ".sig" else None


def _is_hex(name: str, length: int) -> bool:
    return len(name) == length and set(name) <= _HEX


def _entries(directory: str | Path) -> list[os.DirEntry[str]]:
    with errors_named(directory):
        try:
            with os.scandir(directory) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
