"""Maintains the store: `verify` hashes every object again, `collect` deletes unreferenced ones."""

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from batuta_cli.errors import BatutaError, DamagedStateError
from batuta_cli.files import Advance, errors_named, is_locked
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.store.directories import members
from batuta_cli.pacha.store.layout import FileIdentity, Progress, Store, is_temporary, signed_address, silent
from batuta_cli.pacha.store.names import Reference, StoreName


@dataclass(frozen=True)
class Damaged:
    """An object whose content does not have its address: why, where it was moved, and the names it had."""

    address: ContentAddress
    reason: str
    set_aside: str
    names: tuple[StoreName, ...]


@dataclass(frozen=True)
class Report:
    """The result of `verify`. The store is intact when `damaged`, `missing` and `unreadable` are empty."""

    intact: tuple[ContentAddress, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    missing: tuple[tuple[StoreName | None, ContentAddress], ...] = ()
    """Objects that were requested or have a name, and do not exist."""
    unreadable: tuple[tuple[ContentAddress, BatutaError], ...] = ()
    made_read_only: tuple[ContentAddress, ...] = ()
    """Intact objects that were writable; they are read-only again."""
    foreign: tuple[str, ...] = ()
    """Files in the store's directory that do not belong to the store."""


@dataclass(frozen=True)
class Collected:
    """What `collect` deleted, or would delete: objects with their sizes in bytes, and the bytes that frees."""

    objects: tuple[tuple[ContentAddress, int], ...] = ()
    signatures: int = 0
    temporaries: int = 0
    freed: int = 0
    """Bytes; an object that is a hard link to a user's file frees none, shared blocks cannot be told and count."""
    set_aside: int = 0
    """Bytes in `store/damaged` that are kept there."""
    cleared: int = 0
    """Bytes of `store/damaged` that were deleted because the caller asked for it."""
    directories: tuple[ContentAddress, ...] = ()
    """Directories whose manifest was deleted."""


def _ignore(count: int, report: Report) -> None:
    """Print nothing."""


def verify(
    store: Store,
    references: Collection[Reference] | None = None,
    *,
    progress: Progress = silent,
    known: Callable[[int, Report], None] = _ignore,
) -> Report:
    """Hash every object, or those requested, and move the damaged ones aside.

    `known` is called after each object, with the number of all objects and the report on this one.

    Raises:
        DamagedStateError: `names.toml` is damaged.
        OperationError: the store cannot be read, or a damaged object cannot be set aside.
    """
    names = store.names()
    contents = store.contents()
    named: dict[ContentAddress, list[StoreName]] = {}
    for name, entry in sorted(names.items(), key=lambda item: item[0]):
        named.setdefault(entry.address, []).append(name)
    if references is None:
        wanted = list(dict.fromkeys([*contents.objects, *named, *contents.manifests]))
    else:
        # A name that is not in names.toml is the caller's error; a missing object is reported.
        wanted = list(dict.fromkeys(_address_of(store, r) for r in references))
    directories = {*contents.manifests, *(entry.address for entry in names.values() if entry.directory)}
    reports: list[Report] = []
    within: list[ContentAddress] = []
    for address in [address for address in wanted if address in directories]:
        report, inside = _examined_manifest(store, address, named.get(address, []))
        reports.append(report)
        within += inside
        for member in inside:  # damage of an object is damage of the directories that have it
            named.setdefault(member, []).extend(named.get(address, []))
    wanted = [address for address in dict.fromkeys([*wanted, *within]) if address not in directories]
    total = len(reports) + len(wanted)
    for report in reports:
        known(total, report)
    with progress("verifying the store", sum(_size(store.object_path(address)) for address in wanted)) as advance:
        for address in wanted:
            reports.append(_examined(store, address, named.get(address, []), references is not None, advance))
            known(total, reports[-1])
    return Report(
        tuple(address for one in reports for address in one.intact),
        tuple(damaged for one in reports for damaged in one.damaged),
        tuple(missing for one in reports for missing in one.missing),
        tuple(unreadable for one in reports for unreadable in one.unreadable),
        tuple(address for one in reports for address in one.made_read_only),
        contents.foreign if references is None else (),
    )


def _examined(
    store: Store, address: ContentAddress, names: list[StoreName], requested: bool, advance: Advance | None
) -> Report:
    """The report on one object."""
    try:
        found = store.examine(address, advance)
    except BatutaError as error:
        return Report(unreadable=((address, error),))
    if found.set_aside is not None:
        return Report(damaged=(Damaged(address, found.reason, found.set_aside, tuple(names)),))
    if found.identity is not None:
        return Report(intact=(address,), made_read_only=(address,) if found.made_read_only else ())
    if not requested and not names:
        return Report()  # collected in the meantime
    return Report(missing=tuple((name, address) for name in names) or ((None, address),))


def _examined_manifest(
    store: Store, address: ContentAddress, names: list[StoreName]
) -> tuple[Report, tuple[ContentAddress, ...]]:
    """The report on a directory's manifest, and the objects of the directory."""
    path = store.manifest_path(address)
    try:
        seen = FileIdentity.of(os.lstat(path))
    except FileNotFoundError:
        return Report(missing=tuple((name, address) for name in names) or ((None, address),)), ()
    try:
        return Report(intact=(address,)), members(store, address)
    except DamagedStateError as error:
        moved = store.set_aside(path, address, seen, error.message)
        where = moved.set_aside or path
        return Report(damaged=(Damaged(address, "its manifest is damaged", where, tuple(names)),)), ()
    except BatutaError as error:
        return Report(unreadable=((address, error),)), ()


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0  # hashing it reports what is wrong


def _address_of(store: Store, reference: Reference) -> ContentAddress:
    if isinstance(reference, ContentAddress):
        return reference
    entry = store.names().get(reference)
    return entry.address if entry is not None else store.lookup(reference)[0]


def collect(store: Store, *, dry_run: bool = False, damaged: bool = False) -> Collected:
    """Delete the objects that no name needs, their signatures, and leftovers of interrupted additions.

    `damaged` deletes also what was set aside in `store/damaged`.

    Works under the store's lock, under which additions write object and name together.
    An addition in progress is not deleted.

    Raises `DamagedStateError` when the names or the manifest of a named directory are damaged or missing: nothing is
    deleted then.
    """
    if not os.path.lexists(store.root):
        return Collected()
    with store.locked():
        names = store.names()
        needed = {entry.address for entry in names.values()}
        for name, entry in names.items():
            if entry.directory:
                needed.update(_needed_by(store, name, entry.address))
        contents = store.contents()
        manifests = tuple(address for address in contents.manifests if address not in needed)
        objects: list[tuple[ContentAddress, int]] = []
        freed = 0
        for address, path in contents.objects.items():
            if address not in needed:
                with errors_named(path):
                    status = os.lstat(path)
                objects.append((address, status.st_size))
                freed += status.st_size if status.st_nlink == 1 else 0
        signatures = [
            item.path
            for item in _files(store.root / "signatures")
            if (address_ := signed_address(item.name)) is not None and address_ not in needed
        ]
        temporaries = _abandoned(store)
        if not dry_run:
            for address in [*manifests, *(address for address, _ in objects)]:
                store.delete(address)
            _unlink([*signatures, *temporaries])
        aside = [(item.path, item.stat(follow_symlinks=False).st_size) for item in _files(store.root / "damaged")]
        if damaged and not dry_run:
            _unlink([path for path, _ in aside])
        held = sum(size for _, size in aside)
        kept, cleared = (0, held) if damaged else (held, 0)
        return Collected(tuple(objects), len(signatures), len(temporaries), freed, kept, cleared, manifests)


def _needed_by(store: Store, name: StoreName, address: ContentAddress) -> tuple[ContentAddress, ...]:
    needed = members(store, address)
    if not needed:
        raise DamagedStateError(
            f"{name}: the manifest of the directory is missing, so its objects are not known",
            hint=f"add the directory again, or give it up: batuta pacha store remove {name}",
        )
    return needed


def _files(directory: Path) -> list[os.DirEntry[str]]:
    with errors_named(directory):
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []


def _abandoned(store: Store) -> list[str]:
    """Temporaries without a living writer; a writer holds a lock on its file."""
    found = [item.path for item in _files(store.incoming)]
    for directory in (store.root, store.root / "signatures", store.root / "directories"):
        found += [item.path for item in _files(directory) if is_temporary(item.name)]
    return [path for path in found if _is_free(path)]


def _is_free(path: str) -> bool:
    try:
        return not is_locked(path)
    except OSError:
        return False


def _unlink(paths: Sequence[str]) -> None:
    for path in paths:
        with errors_named(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)
