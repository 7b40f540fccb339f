"""The directory of a SQLite ledger: whether it is writable, and whether the ledger was removed or replaced.

A marker file `<file>.recorded` is created beside a ledger before its first transaction, and batuta never removes it. A
marker without its ledger means that the ledger was removed. That is an error and never begins a new budget. The marker
contains no path, so that the directory can be moved.
"""

import contextlib
import os
import stat

from batuta_cli.errors import LedgerError, MissingLedgerError
from batuta_cli.files import display, kind_of

HINT = "the file and its directory must be writable by this user, on a disk that is not mounted read-only"

_BESIDE = ("", ".lock", "-wal", "-shm")
"""Suffixes of the files that a transaction writes."""

_TEXT = b"""This file marks that a budget ledger was kept beside it. While this file exists and the
ledger does not, batuta refuses requests that cost money.
To begin a new, empty ledger: batuta serve budget reset
"""

Identity = tuple[int, int]
"""Device and inode of a file."""


def identity(path: str) -> Identity | None:
    """The file that has this name now; None when it does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def journal(path: str) -> str:
    """SQLite's write-ahead log of a ledger, see https://www.sqlite.org/wal.html."""
    return f"{path}-wal"


def is_marked(path: str) -> bool:
    """Whether a ledger was kept at `path`."""
    return os.path.lexists(_marker(path))


def leave_marker(path: str) -> None:
    """Create the marker unless it exists. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_marker(path), flags, 0o600)
        try:
            os.write(descriptor, _TEXT)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def missing(path: str) -> MissingLedgerError:
    """The error for a missing ledger whose marker exists."""
    return MissingLedgerError(
        f"{display(path)}: the ledger is missing, but its marker {display(os.path.basename(_marker(path)))} exists;"
        " paid requests are refused",
        hint="restore the file, or begin a new, empty ledger: batuta serve budget reset",
    )


def changed(path: str, how: str) -> LedgerError:
    """The error for a file that was removed or replaced while this process used it."""
    return LedgerError(
        f"{display(path)}: was {how} while this process used it; paid requests are refused",
        hint="restore the same file, or restart this process to use the current one",
    )


def name_ledger(error: LedgerError, path: str) -> None:
    """Add `--ledger` to the commands of a hint, for a ledger that is not this user's default one."""
    from shlex import quote

    from batuta_cli import paths

    if error.hint and path != str(paths.ledger_file()):
        option = f" --ledger {quote(f'sqlite:///{display(path)}')}"
        for command in ("batuta serve budget reset", "batuta serve budget set"):
            error.hint = error.hint.replace(command, command + option)


def require_writable(path: str) -> None:
    """Raise `LedgerError` when a transaction could not be written at `path`. Writes nothing.

    When the ledger does not exist, its directory or the nearest existing parent must be writable.
    """
    directory = _nearest(os.path.dirname(path))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise not_writable(path)
    there = False
    for suffix in _BESIDE:
        try:
            mode = os.lstat(path + suffix).st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise not_writable(path) from error
        if not stat.S_ISREG(mode):
            raise LedgerError(f"{display(path + suffix)}: is {kind_of(mode)}, not a regular file", hint=HINT)
        if not os.access(path + suffix, os.R_OK | os.W_OK):
            raise not_writable(path + suffix)
        there = there or not suffix
    if not (there and _size(journal(path))):
        _require_room(directory, path)


def not_writable(path: str) -> LedgerError:
    """The error for a ledger that cannot be written."""
    return LedgerError(f"{display(path)}: cannot be written; paid requests are refused", hint=HINT)


def _marker(path: str) -> str:
    return f"{path}.recorded"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _nearest(directory: str) -> str:
    """The nearest existing directory from `directory` upwards. Raises `LedgerError` for a file in its place."""
    current = directory
    while True:
        try:
            mode = os.stat(current).st_mode
        except FileNotFoundError as error:
            if os.path.islink(current) or current == os.path.dirname(current):
                raise not_writable(directory) from error
            current = os.path.dirname(current)
            continue
        except OSError as error:
            raise not_writable(directory) from error
        if not stat.S_ISDIR(mode):
            raise LedgerError(f"{display(current)}: is {kind_of(mode)}, not a directory", hint=HINT)
        return current


def _require_room(directory: str, path: str) -> None:
    found = os.statvfs(directory)
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    if found.f_blocks and not free:
        raise LedgerError(
            f"{display(path)}: the disk is full; nothing could be written", hint="free space on that disk"
        )
