"""The file of a SQLite ledger: creates and opens it, refuses other files, explains SQLite's errors.

A new file has mode 0600, in a directory of mode 0700. A file is a ledger when it has our application id, a known
version and the tables. Any other file is a `LedgerError` that names it, and is not changed.

Only SQLite opens the file: closing any other descriptor of it would drop SQLite's locks
(https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from urllib.parse import quote

from batuta_cli.errors import LedgerError
from batuta_cli.files import display, kind_of
from batuta_cli.serve.budget.ledger.sqlite_place import not_writable

APPLICATION_ID = 0x4254424C
"""SQLite's application id in the header of the file: BTBL, batuta's budget ledger."""

VERSION = 3
"""The version of the tables below. Version 1 had no table `zone`; versions 1 and 2 had no clients: no table
`client_day`, and no column `client`."""


def _whole(name: str, rule: str) -> str:
    # Not STRICT tables: SQLite 3.34 of Red Hat 9 does not have them.
    return f"{name} INTEGER NOT NULL CHECK (typeof({name}) = 'integer' AND {name} {rule})"


def _table(name: str, *columns: str) -> str:
    return f"CREATE TABLE {name} ({', '.join(columns)}) WITHOUT ROWID"


_CLIENT = "client TEXT NOT NULL DEFAULT ''"

_TABLES = {
    "day": _table(
        "day",
        "day TEXT PRIMARY KEY",
        _whole("spent", ">= 0"),
        _whole("forgiven", "BETWEEN 0 AND spent"),
        _whole("reserved", ">= 0"),
        _whole("warned", "IN (0, 1)"),
    ),
    "hold": _table(
        "hold",
        "id TEXT PRIMARY KEY",
        "day TEXT NOT NULL",
        _whole("amount", "> 0"),
        _whole("expires", "IS NOT NULL"),
        "owner TEXT NOT NULL",
        _whole("dispatched", "IN (0, 1)"),
        "model TEXT NOT NULL",
        "backend TEXT NOT NULL",
        _CLIENT,
    ),
    "tombstone": _table(
        "tombstone",
        "id TEXT PRIMARY KEY",
        "day TEXT NOT NULL",
        _whole("amount", "> 0"),
        _whole("charged", "IN (0, amount)"),
        _whole("forgiven", "IN (0, 1)"),
        _whole("at", "IS NOT NULL"),
        "model TEXT NOT NULL",
        "backend TEXT NOT NULL",
        _CLIENT,
    ),
    "history": _table(
        "history",
        "day TEXT NOT NULL",
        "model TEXT NOT NULL",
        "backend TEXT NOT NULL",
        # Beside the other columns of the key: SQLite 3.40 reports a later one as damage (PRAGMA integrity_check).
        _CLIENT,
        _whole("requests", ">= 0"),
        _whole("input_tokens", ">= 0"),
        _whole("output_tokens", ">= 0"),
        _whole("cost", ">= 0"),
        "PRIMARY KEY (day, model, backend, client)",
    ),
    "zone": _table("zone", "id INTEGER PRIMARY KEY CHECK (id = 1)", "name TEXT NOT NULL", "next TEXT", "after TEXT"),
    "client_day": _table(
        "client_day",
        "day TEXT NOT NULL",
        "client TEXT NOT NULL CHECK (client <> '')",
        _whole("spent", ">= 0"),
        _whole("forgiven", "BETWEEN 0 AND spent"),
        _whole("reserved", ">= 0"),
        "PRIMARY KEY (day, client)",
    ),
}
_SINCE = {"zone": 2, "client_day": 3}
"""The versions in which later tables were added."""

_TO_VERSION_3 = (
    f"ALTER TABLE hold ADD COLUMN {_CLIENT}",
    f"ALTER TABLE tombstone ADD COLUMN {_CLIENT}",
    "ALTER TABLE history RENAME TO history_2",
    _TABLES["history"],
    "INSERT INTO history SELECT day, model, backend, '', requests, input_tokens, output_tokens, cost FROM history_2",
    "DROP TABLE history_2",
    _TABLES["client_day"],
)
_UPGRADES: tuple[tuple[int, tuple[str, ...]], ...] = ((2, (_TABLES["zone"],)), (3, _TO_VERSION_3))

_UNBALANCED = """SELECT 1 FROM day WHERE
    reserved <> (SELECT COALESCE(SUM(amount), 0) FROM hold WHERE hold.day = day.day)
    OR spent <> (SELECT COALESCE(SUM(cost), 0) FROM history WHERE history.day = day.day)
    UNION ALL SELECT 1 FROM hold WHERE day NOT IN (SELECT day FROM day)
    UNION ALL SELECT 1 FROM history WHERE day NOT IN (SELECT day FROM day) LIMIT 1"""
_UNBALANCED_CLIENTS = """SELECT 1 FROM client_day AS c WHERE
    reserved <> (SELECT COALESCE(SUM(amount), 0) FROM hold WHERE hold.day = c.day AND hold.client = c.client)
    OR spent <> (SELECT COALESCE(SUM(cost), 0) FROM history WHERE history.day = c.day AND history.client = c.client)
    UNION ALL SELECT 1 FROM hold WHERE client <> '' AND (day, client) NOT IN (SELECT day, client FROM client_day)
    UNION ALL SELECT 1 FROM history WHERE client <> '' AND (day, client) NOT IN (SELECT day, client FROM client_day)
    LIMIT 1"""


def exists(path: str) -> bool:
    """Whether `path` exists. Raises `LedgerError` when it is not a regular file, or cannot be examined."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise _cannot_open(path, error) from error
    if not stat.S_ISREG(mode):
        raise LedgerError(
            f"{display(path)}: is {kind_of(mode)}, not a ledger", hint="give the path of the ledger's file"
        )
    return True


def make(path: str) -> None:
    """Create an empty ledger with mode 0600. The caller holds the file lock.

    The complete file is renamed to `path`, so that an empty file is always a damaged ledger. Raises `LedgerError` or
    `sqlite3.Error`.
    """
    unfinished = f"{path}.new"
    try:
        # SQLite would take the journal of a removed ledger for the new one's.
        for leftover in (unfinished, f"{path}-wal", f"{path}-shm", f"{path}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_open(unfinished, 0)) as connection:
            for statement in (
                "PRAGMA journal_mode = WAL",
                "BEGIN",
                *_TABLES.values(),
                f"PRAGMA application_id = {APPLICATION_ID}",
                f"PRAGMA user_version = {VERSION}",
                "COMMIT",
            ):
                connection.execute(statement)
        os.rename(unfinished, path)
    except OSError as error:
        raise _cannot_open(path, error) from error


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a ledger of an earlier version to this one, in one transaction. Raises `sqlite3.Error`."""
    if version_of(connection.execute) >= VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = version_of(connection.execute)
        for version, statements in _UPGRADES:
            if found < version:
                for statement in statements:
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(found, VERSION)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def version_of(execute: Callable[..., sqlite3.Cursor]) -> int:
    """The version of the ledger's tables."""
    return int(execute("PRAGMA user_version").fetchone()[0])


def has_table(execute: Callable[..., sqlite3.Cursor], table: str) -> bool:
    """Whether the ledger's version has a table."""
    return version_of(execute) >= _SINCE.get(table, 1)


def connect(path: str, patience: float, durability: str) -> sqlite3.Connection:
    """Open an existing ledger. Raises `LedgerError` or `sqlite3.Error`."""
    # SQLite opens a file that it may not write read-only, and would report that at the first write.
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK)):
        raise not_writable(path)
    connection = _open(path, patience)
    try:
        connection.execute(f"PRAGMA synchronous = {durability}")
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: str, patience: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw",  # rw: SQLite itself would create a file that others can read
        uri=True,
        isolation_level=None,
        timeout=patience,
        check_same_thread=False,
    )


def explain(error: sqlite3.Error, path: str, patience: float) -> LedgerError:
    """The `LedgerError` for an error of SQLite."""
    name = display(path)
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return locked(path, patience)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return not_writable(path)
        case sqlite3.SQLITE_FULL:
            return LedgerError(f"{name}: the disk is full; nothing was written", hint="free space on that disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_FORMAT:
            return damaged(path, _said(error))
        case sqlite3.SQLITE_CANTOPEN:
            return LedgerError(
                f"{name}: cannot be opened", hint="the file and its directory must be writable by this user"
            )
        case sqlite3.SQLITE_IOERR:
            return LedgerError(
                f"{name}: reading or writing failed ({_said(error)})", hint="check whether the disk is full or failing"
            )
    return damaged(path, _said(error))


def locked(path: str, patience: float) -> LedgerError:
    """The error for a ledger that another program keeps locked."""
    return LedgerError(
        f"{display(path)}: another program has held the lock for {patience:g} seconds",
        hint=f"fuser -v {display(path)} shows the program",
    )


def damaged(path: str, how: str) -> LedgerError:
    """The error for a damaged ledger, or a file that is not a ledger."""
    name = display(path)
    aside = f"mv {name} {name}.damaged"
    return LedgerError(
        f"{name}: the ledger is damaged: {how}",
        hint=f"to begin a new ledger without the spending of this one: {aside} && batuta serve budget reset --yes",
    )


def _check(connection: sqlite3.Connection, path: str) -> None:
    name = display(path)
    connection.execute("BEGIN")
    found, version = [connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("application_id", "user_version")]
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if found != APPLICATION_ID:
        what = "is a database of another program" if tables else "is an empty database, not a ledger"
        raise LedgerError(
            f"{name}: {what}",
            hint=f"move it away, then begin a new ledger: mv {name} {name}.old && batuta serve budget reset --yes",
        )
    if version > VERSION:
        raise LedgerError(
            f"{name}: was written by a newer batuta (ledger version {version}; this batuta reads up to {VERSION})",
            hint="pip install --upgrade batuta-cli",
        )
    if version < 1 or not tables.issuperset(name for name in _TABLES if _SINCE.get(name, 1) <= version):
        raise damaged(path, "tables are missing")
    # Takes a millisecond for a year of history. Without it a page of zeros would pass for an empty table.
    if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise damaged(path, "SQLite's integrity check failed")
    checks = [_UNBALANCED, *([_UNBALANCED_CLIENTS] if version >= _SINCE["client_day"] else [])]
    if any(connection.execute(check).fetchone() is not None for check in checks):
        raise damaged(path, "its sums differ from its rows")
    connection.execute("COMMIT")


def _cannot_open(path: str, error: Exception) -> LedgerError:
    reason = (getattr(error, "strerror", None) or "not a usable file name").lower()
    return LedgerError(f"{display(path)}: cannot be opened: {reason}", hint="batuta config get budget.ledger")


def _said(error: sqlite3.Error) -> str:
    # SQLite quotes only names of tables and columns, which are ours.
    return display(str(error))[:200]
