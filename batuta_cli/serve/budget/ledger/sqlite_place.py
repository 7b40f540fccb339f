"""The place of a SQLite ledger: whether it can be written, and whether the file is still the one that was there.

Beside a ledger lies a marker, `<file>.recorded`. It is made before the first transaction, and nothing of batuta removes
it. A marker without its ledger means that the ledger was removed: that is an error, never a fresh budget. A directory
may be moved with everything in it, because the marker has no path in it.
"""

import contextlib
import os
import stat

from batuta_cli.errors import LedgerError, MissingLedgerError
from batuta_cli.files import display, kind_of

HINT = "the file and its directory must be yours to write, on a disk that is not read-only"

_BESIDE = ("", ".lock", "-wal", "-shm")
"""Suffixes of the files that every transaction writes."""

_TEXT = b"""The budget ledger beside this file must not vanish unnoticed: while this file is here and
the ledger is not, batuta refuses requests that cost money.
To begin a new, empty ledger: batuta serve budget reset
"""

Identity = tuple[int, int]
"""Device and inode of a file."""


def identity(path: str) -> Identity | None:
    """Which file has that name now; None when none has."""
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
    """Make the marker, when it is not there. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_marker(path), flags, 0o600)
        try:
            os.write(descriptor, _TEXT)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def missing(path: str) -> MissingLedgerError:
    """The error for a ledger that is not there although its marker is."""
    return MissingLedgerError(
        f"{display(path)}: the ledger is missing, and {display(os.path.basename(_marker(path)))} beside it shows that"
        " one was kept there; nothing that costs money is sent",
        hint="put the file back; or begin a new, empty ledger: batuta serve budget reset",
    )


def changed(path: str, how: str) -> LedgerError:
    """The error for a file that was taken away under a running process."""
    return LedgerError(
        f"{display(path)}: was {how} while this process used it; nothing that costs money is sent",
        hint="put the same file back, or restart this process, which then uses the ledger that is there",
    )


def name_ledger(error: LedgerError, path: str) -> None:
    """Complete the commands of a hint, for a ledger that is not this user's usual one."""
    from shlex import quote

    from batuta_cli import paths

    if error.hint and path != str(paths.ledger_file()):
        option = f" --ledger {quote(f'sqlite:///{display(path)}')}"
        for command in ("batuta serve budget reset", "batuta serve budget set"):
            error.hint = error.hint.replace(command, command + option)


def require_writable(path: str) -> None:
    """Raise `LedgerError` when no transaction could be written at `path`; writes nothing itself.

    Where there is no ledger yet, its directory or the nearest one above it must allow it to be made.
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
            raise LedgerError(f"{display(path + suffix)}: is {kind_of(mode)}, not a file of a ledger", hint=HINT)
        if not os.access(path + suffix, os.R_OK | os.W_OK):
            raise not_writable(path + suffix)
        there = there or not suffix
    if not (there and _size(journal(path))):
        _require_room(directory, path)


def not_writable(path: str) -> LedgerError:
    """The error for a ledger that could be read at most."""
    return LedgerError(f"{display(path)}: cannot be written, so nothing that costs money is sent", hint=HINT)


def _marker(path: str) -> str:
    return f"{path}.recorded"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _nearest(directory: str) -> str:
    """The nearest directory that exists, from `directory` upwards. Raises `LedgerError` for what is not one."""
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
        raise LedgerError(f"{display(path)}: the disk is full; nothing could be written", hint="make room on that disk")
