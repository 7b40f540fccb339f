"""Digests of files that were read before, so that `verify --cached` and `sign --cached` read only changed files.

An entry says that the file of this device, inode, size, modification time and change time had this BLAKE3 digest. A
program cannot set the change time (`st_ctime`, inode(7)), so a write always shows. What makes that true, and what is
refused where it is not:

* Each entry is authenticated by a key of this user (keyed BLAKE3), which is not kept beside the cache. An entry that
  was made or changed without the key is ignored with a warning, and the file is read.
* A file whose last change is younger than the clock of the file system can tell is not recorded, because another change
  could leave the same time: the "racily clean" rule of git (https://git-scm.com/docs/racy-git).
* A file is recorded only when it is the same, change time included, after it was read.
* A writer that has mapped the file changes the time only at the first write to a page that is clean. All pages are
  therefore written back (sync(2)) before files are read that will be recorded.
* A file that another user may write is not recorded. That user can exchange its blocks with those of another
  file, which changes no time: EXT4_IOC_MOVE_EXT (Linux, fs/ext4/move_extent.c), XFS_IOC_SWAPEXT.
* Only local file systems that keep change times in nanoseconds and for mapped writes are cached; network file systems
  and tmpfs are not.
* Entries do not outlive a reboot: after a crash a file can have new content and its old times.

What it cannot notice: damage of the disk itself, and a change by root who writes to the block device or sets the clock.
It does not protect from other programs of this user, which can read the key, and from a program that opened the file
for writing while it was allowed to.
"""

import contextlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from struct import Struct
from typing import Self

from blake3 import blake3

from batuta_cli import paths
from batuta_cli.errors import BatutaError, DamagedStateError, NotFoundError, OutputExistsError, UnsafeFileError
from batuta_cli.files import StrPath, display, errors_named, open_regular, read_limited, write_file
from batuta_cli.pacha.hashing import Resource
from batuta_cli.pacha.scanning import FileEntry

FILE_SYSTEMS = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs"})
"""Types of mountinfo (proc_pid_mountinfo(5)) on which every write to a file changes its change time."""

GRANULARITY = 100_000_000
"""Nanoseconds. File systems take their times from the kernel's tick, which is at most 10 ms long (time(7))."""

_SECOND = 1_000_000_000
_KEY_BYTES = 32
_CONTEXT = "batuta pacha 2026-11-26 digest cache v1"
_MAGIC = b"batuta digest cache 1\n"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")
_IDENTITY = Struct(">QQQqq")  # device, inode, size, modification time, change time
_STATED = _IDENTITY.size + 32  # and the digest, which the code authenticates
_RECORD = _STATED + 32
_LIMIT = 1_000_000 * _RECORD + 4096  # bytes; no signature has more files


@dataclass
class DigestCache:
    """The entries for one model. `warnings` says which entries were ignored."""

    device: int
    """Of the model's root; files of other file systems are not recorded."""
    path: Path
    key: bytes
    header: bytes
    """What the file of entries begins with: it belongs to this format and this boot."""
    warnings: list[str] = field(default_factory=list)
    found: int = 0
    """Files whose digest was taken from the cache."""
    read: int = 0
    """Files that were read."""
    _data: bytes = b""
    _index: dict[bytes, int] = field(default_factory=dict)
    _kept: list[bytes] = field(default_factory=list)
    _started: int = 0

    @classmethod
    def open(cls, model: StrPath) -> Self | None:
        """The cache for a model; None where its file system cannot be relied on.

        Raises:
            UnsafeFileError: group or others can read the key.
            DamagedStateError: the key is damaged.
            NotFoundError, OperationError: the model cannot be examined, the key cannot be read or made.
        """
        if file_system(model) not in FILE_SYSTEMS:
            return None
        with errors_named(model):
            status = os.stat(model)
        with errors_named(_BOOT):
            boot = _BOOT.read_bytes().strip()
        path = paths.digests_dir() / f"{status.st_dev:x}-{status.st_ino:x}"
        cache = cls(status.st_dev, path, _own_key(), _MAGIC + boot + b"\n")
        cache._load()
        return cache

    def _load(self) -> None:
        try:
            data = read_limited(self.path, _LIMIT)
        except NotFoundError:
            return
        except BatutaError as error:
            self.warnings.append(f"the digest cache is not used: {error.message}")
            return
        if not data.startswith(self.header):
            return  # of an earlier boot or version
        self._data = data[len(self.header) :]
        if len(self._data) % _RECORD:
            self.warnings.append(f"{display(self.path)}: the digest cache is damaged; its end is ignored")
        starts = range(0, len(self._data) - _RECORD + 1, _RECORD)
        self._index = {self._data[start : start + _IDENTITY.size]: start for start in starts}

    def lookup(self, entries: Sequence[FileEntry]) -> dict[FileEntry, Resource]:
        """The resources of the files that are known. Entries that are not authentic are ignored with a warning."""
        known: dict[FileEntry, Resource] = {}
        forged = 0
        for entry in entries:
            start = self._index.get(_identity(entry))
            if start is None:
                continue
            record = self._data[start : start + _RECORD]
            if not compare_digest(_code(self.key, record[:_STATED]), record[_STATED:]):
                forged += 1
                continue
            self._kept.append(record)
            known[entry] = Resource(entry.name, entry.size, record[_IDENTITY.size : _STATED])
        if forged:
            what = (
                "1 entry of the digest cache was not made with this user's key; it is ignored and its file is read"
                if forged == 1
                else f"{forged:,} entries of the digest cache were not made with this user's key;"
                " they are ignored and the files are read"
            )
            self.warnings.append(f"{display(self.path)}: {what}")
        self.found += len(known)
        return known

    def begin_reading(self, count: int) -> None:
        """Prepare for reading `count` files that are not known: pages that a mapping has changed are written back."""
        self.read += count
        if not self._started:
            self._started = time.time_ns()
            os.sync()

    def record(
        self, before: Sequence[FileEntry], after: Sequence[FileEntry], digests: Mapping[FileEntry, Resource]
    ) -> None:
        """Keep the digests of the files that were read between two scans and have not changed, and write the cache.

        A failure to write is a warning.
        """
        shared = [entry for entry in before if entry.others_write]
        if shared:
            which, them = ("1 file is", "it") if len(shared) == 1 else (f"{len(shared):,} files are", "them")
            self.warnings.append(
                f"{which} read each time, because another user may write to {them}: {display(shared[0].path)}"
                + (", …" if len(shared) > 1 else "")
            )
        known = {record[: _IDENTITY.size] for record in self._kept}
        unchanged = set(before) & set(after)
        fresh = [e for e in unchanged if e in digests and _identity(e) not in known and self._is_settled(e)]
        if not fresh:
            return
        for entry in fresh:
            stated = _identity(entry) + digests[entry].digest
            self._kept.append(stated + _code(self.key, stated))
        try:
            paths.private_dir(self.path.parent)
            if os.path.lexists(self.path):
                os.close(open_regular(self.path, follow_symlinks=False))  # a FIFO would be written to, and block
            write_file(self.path, self.header + b"".join(self._kept), force=True, mode=0o600)
        except BatutaError as error:
            self.warnings.append(f"the digest cache was not written: {error.message}")

    def _is_settled(self, entry: FileEntry) -> bool:
        """Whether a later change of a file would give it another change time."""
        old_enough = entry.changed + GRANULARITY <= self._started
        return old_enough and entry.changed % _SECOND != 0 and entry.device == self.device and not entry.others_write


def _identity(entry: FileEntry) -> bytes:
    return _IDENTITY.pack(entry.device, entry.inode, entry.size, entry.modified, entry.changed)


def _code(key: bytes, stated: bytes) -> bytes:
    return blake3(stated, key=key).digest()


def _own_key() -> bytes:
    """The key of this user's entries, which is made at the first use."""
    from batuta_cli.pacha.keyring import read_private_file

    path = paths.digest_key_file()
    try:
        try:
            secret = read_private_file(path)
        except NotFoundError:
            paths.private_dir(path.parent)
            with contextlib.suppress(OutputExistsError):  # another process was faster
                write_file(path, os.urandom(_KEY_BYTES), mode=0o600)
            secret = read_private_file(path)
    except UnsafeFileError as error:
        raise UnsafeFileError(error.message, hint=f"chmod 600 {shlex.quote(display(path))}") from None
    if len(secret) != _KEY_BYTES:
        raise DamagedStateError(
            f"{display(path)}: the key of the digest cache is damaged", hint="delete it; all files are read once more"
        )
    return blake3(secret, derive_key_context=_CONTEXT).digest()


def file_system(path: StrPath) -> str | None:
    """The type of the file system that a path lies on, as the kernel's table of mounts has it; None if unknown."""
    place = os.fsencode(os.path.realpath(path))
    best, kind = -1, None
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        mount, _, about = line.partition(b" - ")
        point = _unescaped(mount.split()[4])
        inside = place == point or place.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= best:  # the last mount of a point covers the earlier ones
            best, kind = len(point), about.split()[0].decode("ascii", "replace")
    return kind


def _unescaped(point: bytes) -> bytes:
    for code, plain in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        point = point.replace(code, plain)
    return point
