"""Finds the files of a model, and whether they are still the same.

Nothing is skipped silently: what cannot be part of a model is an error that names its path.
"""

import os
import stat
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple, Self

from batuta_cli.errors import ChangedWhileReadError, InvalidInputError
from batuta_cli.files import StrPath, dangling, display, errors_named, is_dangling, kind_of, os_error, utf8_name


class FileEntry(NamedTuple):
    """A file found in a model: its name inside the model, its path, its size, and what shows a later change."""

    name: str
    path: str
    size: int
    inode: int
    modified: int
    """Nanoseconds."""
    device: int
    changed: int
    """When the inode changed (`st_ctime`), in nanoseconds."""
    others_write: bool = False
    """Another user than root and this one may write it. An access control list shows in the mode: acl(5)."""

    @classmethod
    def of(cls, name: str, path: str, status: os.stat_result) -> Self:
        """The entry for a file whose `stat` is known."""
        others = status.st_mode & 0o022 != 0 or status.st_uid not in (0, os.geteuid())
        facts = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_dev, status.st_ctime_ns)
        return cls(name, path, *facts, others)

    def is_same(self, status: os.stat_result) -> bool:
        """Whether a later `stat` shows the same file with no change of its content."""
        # Not the change time: a new hard link to the file changes it.
        return (self.size, self.inode, self.modified) == (status.st_size, status.st_ino, status.st_mtime_ns)

    @property
    def shown(self) -> tuple[str, str, int, int, int]:
        """The parts that are equal in a later scan when the content did not change."""
        return self[:5]


def changed(name: StrPath) -> ChangedWhileReadError:
    """The error for a file that was written to while it was read."""
    return ChangedWhileReadError(
        f"{display(name)}: changed while it was being read", hint="try again when nothing writes to it"
    )


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
    entries = sorted(_walk(os.fspath(path), frozenset(ignore), follow_symlinks, unusable), key=itemgetter(0))
    if not entries and not allow_empty:
        besides = " besides the ignored ones" if ignore else ""
        raise InvalidInputError(f"{display(path)}: the directory has no file in it{besides}")
    return entries


def _walk(root: str, ignore: frozenset[str], follow_symlinks: bool, unusable: list[str] | None) -> list[FileEntry]:
    entries: list[FileEntry] = []
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
            if stat.S_ISREG(status.st_mode):
                entries.append(FileEntry.of(name, item.path, status))
            else:
                directories.append((item.path, name + "/"))
    return entries


def _judge(item: os.DirEntry[str], follow_symlinks: bool) -> os.stat_result:
    """The `stat` of a directory entry that can be part of a model; raises for all others."""
    if not item.name.isascii():
        _check_utf8(item)
    try:
        status = item.stat(follow_symlinks=False)
    except OSError as error:
        raise os_error(error, item.path) from error
    mode = status.st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return status
    linked = stat.S_ISLNK(mode)
    if linked:
        status = _target(item, follow_symlinks)
        if stat.S_ISREG(status.st_mode):
            return status
    raise InvalidInputError(
        f"{display(item.path)}: is {'a symbolic link to ' * linked}{kind_of(status.st_mode)}, not a regular file",
        hint="--ignore GLOB leaves it out",
    )


def _check_utf8(item: os.DirEntry[str]) -> None:
    try:
        utf8_name(item.name).encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{display(item.path)}: the name is not UTF-8, so it cannot be signed") from None


def _target(item: os.DirEntry[str], follow_symlinks: bool) -> os.stat_result:
    """The `stat` of what a link leads to; raises unless it exists and links are followed."""
    if is_dangling(item.path):
        raise InvalidInputError(
            f"{display(item.path)}: {dangling(item.path)}", hint="remove it, or leave it out: --ignore GLOB"
        )
    if not follow_symlinks:
        raise InvalidInputError(
            f"{display(item.path)}: is a symbolic link", hint="--follow-symlinks reads what it points to"
        )
    with errors_named(item.path):
        return item.stat(follow_symlinks=True)


def check_unchanged(
    path: StrPath, entries: Sequence[FileEntry], *, ignore: Sequence[str] = (), follow_symlinks: bool = False
) -> list[FileEntry]:
    """Scan again, and raise `ChangedWhileReadError` unless the content is what `entries` say; see `scan`."""
    again = scan(path, ignore=ignore, follow_symlinks=follow_symlinks, allow_empty=True, unusable=[])
    before, after = [entry.shown for entry in entries], [entry.shown for entry in again]
    if before != after:
        different = min(set(before) ^ set(after))
        raise changed(different[1])
    return again
