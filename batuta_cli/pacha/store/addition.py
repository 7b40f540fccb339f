"""Adding an object: reflink, copy or hard link, hashed while it is written, then put into the store under the lock.

Until then it is an unnamed file, so that kill -9 leaves nothing. Object, name and signature are put into the store
under one lock. `collect` takes the same lock, so that it never sees an object without its name.
"""

import contextlib
import fcntl
import os
import secrets
import select
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from blake3 import blake3

from batuta_cli.errors import (
    ChangedWhileReadError,
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UsageError,
    VerificationError,
)
from batuta_cli.files import (
    Advance,
    StrPath,
    atomic_output,
    display,
    errors_named,
    kind_of,
    open_stream,
    read_limited,
    same_content_expected,
    write_all,
    write_file,
)
from batuta_cli.pacha.hashing import ContentAddress, blake3_threads, hash_descriptor
from batuta_cli.pacha.store import names as names_file
from batuta_cli.pacha.store.layout import FileIdentity, Progress, Store, silent, sync_directory
from batuta_cli.pacha.store.names import StoredName, StoreName

Sharing = Literal["reflink", "copy", "link", "present"]
"""How an object came to be: blocks shared with the source, a copy, the source itself, or it was there already."""

# _IOW(0x94, 9, int) of linux/fs.h on x86, Arm and RISC-V; Python names it from 3.14 on. Where the number differs
# (POWER, MIPS, SPARC) the system refuses it, and the file is copied.
_FICLONE = getattr(fcntl, "FICLONE", 0x40049409)

_BUFFER = 4 * 1024 * 1024  # bytes; enough for all cores to hash at once
_SIGNATURE_LIMIT = 64 * 1024 * 1024  # bytes, as verification has it


@dataclass(frozen=True)
class Added:
    """An object that is in the store now, intact, with its size in bytes."""

    address: ContentAddress
    size: int
    object_path: str
    name: StoreName | None
    sharing: Sharing
    has_signature: bool
    replaced: str | None = None
    """The path of the damaged object that was moved aside for this one."""


@dataclass(frozen=True)
class AddOrder:
    """What the caller of `add` wants: the name, what else to keep, what may be replaced."""

    store: Store
    name: StoreName | None
    force: bool
    label: str
    file: str | None
    signature: bytes | None
    progress: Progress


def add(
    store: Store,
    path: StrPath,
    *,
    name: StoreName | None = None,
    force: bool = False,
    link: bool = False,
    progress: Progress = silent,
) -> Added:
    """Add a file of any size, in constant memory, or a directory, with its `PATH.sig`.

    Args:
        name: what to call it. Without a name the next `collect` deletes it again.
        force: let `name` mean this object when it means another one, and replace another signature kept for it.
        link: make the file itself the object, by a hard link, instead of copying where blocks cannot be shared. The
            file turns read-only; an edit in place would damage the object.

    Raises:
        NotFoundError, OperationError: it cannot be read, or the store cannot be written; nothing is left behind.
        ChangedWhileReadError: the file changed under the reader.
        InvalidInputError, UsageError: a directory that cannot be a model; `link` for something that is not a file.
        OutputExistsError: the name or the signature is another one, and `force` is false.
    """
    if os.path.isdir(path):
        if link:
            raise UsageError(f"{display(path)}: only a regular file can be linked", hint="leave --link out")
        from batuta_cli.pacha.store.directories import add_directory

        return add_directory(store, path, name=name, force=force, progress=progress)
    descriptor = open_stream(path)
    try:
        file = os.path.basename(os.path.abspath(path))
        order = AddOrder(store, name, force, os.fspath(path), if_utf8(file), signature_beside(path), progress)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISCHR(mode) and not os.isatty(descriptor):
            raise InvalidInputError(f"{display(path)}: is {kind_of(mode)}, which may never end")
        if stat.S_ISREG(mode):
            return _add_file(order, descriptor, link=link)
        if link:
            raise UsageError(f"{display(path)}: only a regular file can be linked", hint="leave --link out")
        return add_copy(order, descriptor)
    finally:
        os.close(descriptor)


def add_stream(
    store: Store,
    descriptor: int,
    label: str,
    *,
    name: StoreName | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Added:
    """Add what can be read from a descriptor, from its position to the end. Arguments and errors as `add`."""
    return add_copy(AddOrder(store, name, force, label, None, None, progress), descriptor)


def add_stored(
    store: Store,
    address: ContentAddress,
    *,
    name: StoreName | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Added:
    """Give an object that is in the store a further name, once it has been found intact.

    Raises `VerificationError` when it was found damaged and set aside, `NotFoundError` when it is not there, and as
    `add`.
    """
    file = next((entry.file for entry in store.names().values() if entry.address == address), None)
    order = AddOrder(store, name, force, str(address), file, None, progress)
    size = os.lstat(store.lookup(address)[1]).st_size
    try:
        return _place(order, address, size, "present", None)
    except _Absent as absent:
        hint = "add the file it came from again"
        if absent.replaced is None:
            raise NotFoundError(f"{address}: the object is not there any more", hint=hint) from None
        raise VerificationError(
            f"{address}: the object is damaged and has been set aside in {display(absent.replaced)}", hint=hint
        ) from None


def if_utf8(name: str) -> str | None:
    """`name`, unless it cannot be recorded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name


def signature_beside(path: StrPath) -> bytes | None:
    """The content of `PATH.sig`, if there is one."""
    from batuta_cli.pacha.signing import signature_path

    try:
        return read_limited(signature_path(path), _SIGNATURE_LIMIT)
    except NotFoundError:
        return None


def _add_file(order: AddOrder, descriptor: int, *, link: bool) -> Added:
    size = os.fstat(descriptor).st_size
    if link or _worth_hashing_first(order, size):
        with order.progress(f"hashing {order.label}", size) as advance:
            before = os.fstat(descriptor)
            address = ContentAddress(hash_descriptor(descriptor, order.label, advance).digest)
        if link:
            return _place(order, address, size, "link", lambda target: _link(order, descriptor, before, target))
        try:
            return _place(order, address, size, "present", None)
        except _Absent as absent:
            os.lseek(descriptor, 0, os.SEEK_SET)
            return add_copy(order, descriptor, absent.replaced)
    return add_copy(order, descriptor)


def _worth_hashing_first(order: AddOrder, size: int) -> bool:
    """Whether the file may be in the store already, or its name be refused: then 40 GB need not be copied for that."""
    taken = order.name is not None and not order.force and order.name in order.store.names()
    return taken or any(item.size == size for item in order.store.objects())


def add_copy(order: AddOrder, source: int, replaced: str | None = None) -> Added:
    """Read `source` into an unnamed file and place that."""
    status = os.fstat(source)
    regular = stat.S_ISREG(status.st_mode)
    # Never more readable than the source was.
    mode = 0o400 | (status.st_mode if regular else 0o444) & 0o444
    path = order.store.incoming / secrets.token_hex(16)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as writing:
            output = atomic_output(path, mode=mode)
            with order.store.locked():  # so that `collect` never sees the file without its writer's lock
                writing.enter_context(output)
            held.callback(os.close, os.dup(output.fd))  # which keeps that lock until the object is in its place
            address, size, sharing = _fill(order, source, output.fd)
            held.callback(_unlink_if_there, path)
        return _place(order, address, size, sharing, lambda target: os.rename(path, target), replaced)


def _unlink_if_there(path: StrPath) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _fill(order: AddOrder, source: int, target: int) -> tuple[ContentAddress, int, Sharing]:
    before = os.fstat(source)
    regular = stat.S_ISREG(before.st_mode)
    start = os.lseek(source, 0, os.SEEK_CUR) if regular else 0  # stdin may have been read from already
    expected = max(before.st_size - start, 0) if regular else None
    with order.progress(f"storing {order.label}", expected) as advance:
        sharing: Sharing = "copy"
        if regular and start == 0 and clone(source, target):
            resource = hash_descriptor(target, order.label, advance)
            address, count, sharing = ContentAddress(resource.digest), resource.size, "reflink"
        else:
            address, count = _copy(order, source, target, expected, advance)
    if regular and (count != expected or not same_content_expected(before, os.fstat(source))):
        raise _changed(order)
    return address, count, sharing


def clone(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another; False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # not on this file system, or across two; the copy will report a full disk
        return False
    return True


def _copy(
    order: AddOrder, source: int, target: int, expected: int | None, advance: Advance | None
) -> tuple[ContentAddress, int]:
    """Write what can be read, hashing the very bytes that are written; returns their number as well."""
    hasher = blake3(max_threads=blake3_threads())
    total = 0
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    with os.fdopen(source, "rb", buffering=0, closefd=False) as file:
        while True:
            with errors_named(order.label):
                count = file.readinto(buffer)
            if count is None:  # a pipe that does not block and has nothing in it yet, which is not its end
                waiting = select.poll()
                waiting.register(source, select.POLLIN)
                waiting.poll()
                continue
            if count == 0:
                return ContentAddress(hasher.digest()), total
            hasher.update(view[:count])
            with errors_named(order.store.root):
                write_all(target, view[:count])
            total += count
            if expected is not None and total > expected:  # a log that grows as fast as it is read has no end
                raise _changed(order)
            if advance:
                advance(count)


def _link(order: AddOrder, descriptor: int, hashed: os.stat_result, target: str) -> None:
    """Make the source itself the object, by a second name for the very file that was hashed."""
    mode = stat.S_IMODE(hashed.st_mode)
    try:
        os.fsync(descriptor)
        os.fchmod(descriptor, mode & ~0o222)
        # A directory descriptor makes Python call linkat(2), which follows the link in /proc.
        os.link(f"/proc/self/fd/{descriptor}", target, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        raise OperationError(
            f"{display(order.label)}: cannot be linked into the store: {(error.strerror or '').lower()}",
            hint="leave --link out; the file is copied then",
        ) from error
    if not same_content_expected(hashed, os.fstat(descriptor)):
        os.unlink(target)
        os.fchmod(descriptor, mode)
        raise _changed(order)


def _changed(order: AddOrder) -> ChangedWhileReadError:
    return ChangedWhileReadError(
        f"{display(order.label)}: changed while it was being read", hint="try again when nothing writes to it"
    )


class _Absent(Exception):
    """There is no intact object, and no source to make one from; `replaced` as in `Added`."""

    def __init__(self, replaced: str | None) -> None:
        super().__init__(replaced)
        self.replaced = replaced


def _place(
    order: AddOrder,
    address: ContentAddress,
    size: int,
    sharing: Sharing,
    put: Callable[[str], None] | None,
    replaced: str | None = None,
) -> Added:
    """Put object, signature and name into the store under one lock.

    An object that is there already is hashed first, without the lock, and replaced when it is damaged. Raises `_Absent`
    when there is no intact one, and nothing to `put` in its place.
    """
    store, target = order.store, order.store.object_path(address)
    intact: FileIdentity | None = None
    while True:
        with store.locked(), errors_named(target):
            names = store.names()
            check_replaced(order, names, address)
            present = _identity(target)
            if present is None and put is None:
                raise _Absent(replaced)
            if present is None or present == intact:
                if order.signature is not None:
                    write_file(store.signature_path(address), order.signature, force=True)
                if present is None and put is not None:
                    _put(target, put)
                if order.name is not None:
                    names[order.name] = StoredName(address, size, order.file)
                    names_file.save(store.names_path, names)
                signed = os.path.lexists(store.signature_path(address))
                how: Sharing = "present" if present is not None else sharing
                return Added(address, size, target, order.name, how, signed, replaced)
        with order.progress(f"checking {address}", size) as advance:
            examined = store.examine(address, advance)
        intact, replaced = examined.identity, examined.set_aside or replaced


def check_replaced(order: AddOrder, names: names_file.Names, address: ContentAddress) -> None:
    """Raise `OutputExistsError` when an existing name or signature would be replaced without `force`."""
    if order.force:
        return
    entry = names.get(order.name) if order.name is not None else None
    if entry is not None and entry.address != address:
        raise OutputExistsError(
            f"{display(order.label)}: {order.name} is the name of another object, {entry.address}",
            hint=f"--force makes it the name of {address}",
        )
    if order.signature is not None:
        with contextlib.suppress(NotFoundError):
            kept = read_limited(order.store.signature_path(address), _SIGNATURE_LIMIT)
            if kept != order.signature:
                raise OutputExistsError(
                    f"{display(order.label)}: the store already has another signature of this content",
                    hint="--force replaces it with the one beside the file",
                )


def _identity(path: str) -> FileIdentity | None:
    try:
        return FileIdentity.of(os.lstat(path))
    except FileNotFoundError:
        return None


def _put(target: str, put: Callable[[str], None]) -> None:
    shard = os.path.dirname(target)
    if not os.path.isdir(shard):
        os.mkdir(shard, 0o700)
        sync_directory(os.path.dirname(shard))
    put(target)
    sync_directory(shard)
