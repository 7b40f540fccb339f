"""A ledger in a SQLite file: for all threads and processes of one host.

Each method is one transaction that begins by taking the write lock, so that what it has read still holds when it
writes. After `kill -9` at any moment the file is as some transaction left it. In WAL mode readers neither wait nor keep
anybody waiting. Writers take turns (`turn.py`); who waits longer than `patience` seconds gets a `LedgerError`.

A process that forks opens the file again: SQLite's connections do not survive a fork. A process whose file was removed
or replaced raises `LedgerError` until it is restarted: what it had counted is not in the file that is there now.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from batuta_cli import paths
from batuta_cli.errors import LedgerError, OperationError
from batuta_cli.files import display
from batuta_cli.serve.budget.ledger import rules, sqlite_file, sqlite_place
from batuta_cli.serve.budget.ledger.base import (
    LEASE,
    DayStatus,
    LedgerEntry,
    Moment,
    ReservationRow,
    Reset,
    Rezoned,
    Settled,
    Use,
)
from batuta_cli.serve.budget.ledger.file_lock import file_lock
from batuta_cli.serve.budget.ledger.rules import Counts, Day, Held, Tombstone, Zoning

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for other processes; beside a slow disk, a transaction takes milliseconds."""

_INHERITED: list[Any] = []  # connections of a parent process, which its child must neither use nor close


class SqliteLedger:
    """See `Ledger`. The file is made by the first method that writes."""

    def __init__(self, path: str, *, durability: str = "normal", patience: float = PATIENCE) -> None:
        self.path = path
        self._durability = durability
        self._patience = patience
        self._used: sqlite_place.Identity | None = None
        """The file that this object has used; it is never given up for another one."""
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._journal: sqlite_place.Identity | None = None
        self._prepared = False
        """The file has its marker and is of this version."""

    def day_status(self, moment: Moment) -> DayStatus:
        """See `Ledger`."""
        return self._read(lambda rows: rules.day_status(rows, moment), DayStatus(moment.day, zone=moment.zone))

    def reserve(self, moment: Moment, hold: ReservationRow, limit: int) -> tuple[bool, DayStatus]:
        """See `Ledger`."""
        return self._write(lambda rows: rules.reserve(rows, moment, hold, limit))

    def dispatch(self, moment: Moment, id: str) -> bool:
        """See `Ledger`."""
        return self._write(lambda rows: rules.dispatch(rows, moment, id))

    def renew(self, moment: Moment, owner: str) -> None:
        """See `Ledger`."""
        self._write(lambda rows: rows.renew(owner, moment.time + LEASE))

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """See `Ledger`."""
        return self._write(lambda rows: rules.settle(rows, moment, id, cost, use, requests))

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """See `Ledger`."""
        return self._write(lambda rows: rules.record(rows, moment, cost, use))

    def warn_once(self, day: date) -> bool:
        """See `Ledger`."""
        return self._write(lambda rows: rules.warn_once(rows, day))

    def history(self, since: date) -> list[LedgerEntry]:
        """See `Ledger`."""
        return self._read(lambda rows: rows.history(since), [])

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`."""
        return self._write(lambda rows: rules.reset(rows, moment), anew=True)

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`. Without a file nothing is made: its first use brings the zone along."""
        with self._exclusively(), self._named_errors():
            if not sqlite_file.exists(self.path):
                self._require_never_kept()
                return Rezoned(zone, None, before=moment.zone)
        return self._write(lambda rows: rules.rezone(rows, moment, zone))

    def close(self) -> None:
        """See `Ledger`."""
        with self._exclusively():
            self._disconnect()

    def _write(self, body: "Callable[[_SqliteRows], T]", *, anew: bool = False) -> T:
        """Run a transaction that writes; `anew` makes a file in the place of one that is missing."""
        with self._exclusively(), self._named_errors():
            if not sqlite_file.exists(self.path):
                self._require_never_kept(anew=anew)
                _make_directory(self.path)
            with file_lock(f"{self.path}.lock", self._patience):
                if not sqlite_file.exists(self.path):
                    self._require_never_kept(anew=anew)
                    sqlite_file.make(self.path)
                connection = self._connected()
                if not self._prepared:
                    # Before the first transaction, so that no ledger in which something is counted lacks the marker.
                    sqlite_place.leave_marker(self.path)
                    sqlite_file.upgrade(connection)
                    self._prepared = True
                return self._transaction(connection, "BEGIN IMMEDIATE", body)

    def _read(self, body: "Callable[[_SqliteRows], T]", nothing: T) -> T:
        with self._exclusively(), self._named_errors():
            there = sqlite_file.exists(self.path)
            if not there:
                self._require_never_kept()
            sqlite_place.require_writable(self.path)
            return self._transaction(self._connected(), "BEGIN", body) if there else nothing

    def _transaction(self, connection: sqlite3.Connection, begin: str, body: "Callable[[_SqliteRows], T]") -> T:
        result = _transaction(connection, begin, body)
        if self._journal is None:  # from its first transaction on, a connection keeps SQLite from removing the journal
            self._journal = sqlite_place.identity(sqlite_place.journal(self.path))
        return result

    def _require_never_kept(self, *, anew: bool = False) -> None:
        if self._used is not None:
            raise sqlite_place.changed(self.path, "removed")
        if not anew and sqlite_place.is_marked(self.path):
            raise sqlite_place.missing(self.path)

    def _connected(self) -> sqlite3.Connection:
        found = sqlite_place.identity(self.path)
        if self._used is not None and self._used != found:
            raise sqlite_place.changed(self.path, "removed" if found is None else "replaced")
        if self._connection is not None and self._journal is not None:
            journal = sqlite_place.journal(self.path)
            if sqlite_place.identity(journal) != self._journal:
                raise sqlite_place.changed(journal, "removed or replaced")
        if self._connection is None:
            self._connection = sqlite_file.connect(self.path, self._patience, self._durability)
            if sqlite_place.identity(self.path) != found:
                self._disconnect()
                raise sqlite_place.changed(self.path, "replaced")
            self._used = found
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection, self._journal, self._prepared = self._connection, None, None, False
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One thread at a time; and what a parent process had open is not this one's."""
        if self._process != os.getpid():
            _INHERITED.append(self._connection)
            self._begin()
        if not self._lock.acquire(timeout=self._patience):
            raise self._locked()
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except LedgerError as error:
            sqlite_place.name_ledger(error, self.path)
            raise
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self.path, self._patience) from error
        except TimeoutError as error:
            raise self._locked() from error
        except ValueError as error:  # a day that is none
            raise sqlite_file.damaged(self.path, "a value is not what it should be") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise LedgerError(f"{display(self.path)}: cannot be used: {reason}") from error

    def _locked(self) -> LedgerError:
        return sqlite_file.locked(self.path, self._patience)


def _make_directory(path: str) -> None:
    try:
        paths.private_dir(Path(path).parent)
    except OperationError as error:
        raise LedgerError(f"{display(path)}: {error.message}", hint=sqlite_place.HINT) from error


def _transaction(connection: sqlite3.Connection, begin: str, body: "Callable[[_SqliteRows], T]") -> T:
    connection.execute(begin)
    try:
        result = body(_SqliteRows(connection))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


class _SqliteRows:
    """Rows in the tables of `sqlite_file.py`; see `rules.Shelf`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def zoning(self) -> Zoning | None:
        try:
            found = self._execute("SELECT name, next, after FROM zone").fetchone()
        except sqlite3.OperationalError:
            if sqlite_file.has_zone(self._execute):
                raise
            return None
        if found is None:
            return None
        name, following, after = found
        return Zoning(name, following, None if after is None else date.fromisoformat(after))

    def put_zoning(self, row: Zoning) -> None:
        after = None if row.after is None else row.after.isoformat()
        self._execute("INSERT OR REPLACE INTO zone VALUES (1, ?, ?, ?)", (row.zone, row.next, after))

    def newest(self) -> Day | None:
        return _day(self._execute("SELECT * FROM day ORDER BY day DESC LIMIT 1").fetchone())

    def day(self, day: date) -> Day | None:
        return _day(self._execute("SELECT * FROM day WHERE day = ?", (day.isoformat(),)).fetchone())

    def put_day(self, row: Day) -> None:
        self._execute("INSERT OR REPLACE INTO day VALUES (?, ?, ?, ?, ?)", (row.day.isoformat(), *row[1:]))

    def hold(self, id: str) -> Held | None:
        found = self._execute("SELECT * FROM hold WHERE id = ?", (id,)).fetchone()
        return None if found is None else _held(found)

    def put_hold(self, row: Held) -> None:
        values = (row.id, row.day.isoformat(), *row[2:])
        self._execute("INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def drop_hold(self, id: str) -> None:
        self._execute("DELETE FROM hold WHERE id = ?", (id,))

    def renew(self, owner: str, expires: int) -> None:
        self._execute("UPDATE hold SET expires = ? WHERE owner = ?", (expires, owner))

    def expired(self, time: int) -> list[Held]:
        return [_held(row) for row in self._execute("SELECT * FROM hold WHERE expires <= ?", (time,))]

    def tombstone(self, id: str) -> Tombstone | None:
        found = self._execute("SELECT * FROM tombstone WHERE id = ?", (id,)).fetchone()
        if found is None:
            return None
        id, day, amount, charged, forgiven, *rest = found
        return Tombstone(id, date.fromisoformat(day), amount, charged, bool(forgiven), *rest)

    def put_tombstone(self, row: Tombstone) -> None:
        values = (row.id, row.day.isoformat(), *row[2:])
        self._execute("INSERT INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def drop_tombstone(self, id: str) -> None:
        self._execute("DELETE FROM tombstone WHERE id = ?", (id,))

    def drop_tombstones_before(self, time: int) -> None:
        self._execute("DELETE FROM tombstone WHERE at < ?", (time,))

    def add_history(self, day: date, model: str, backend: str, counts: Counts) -> None:
        key = (day.isoformat(), model, backend)
        found = self._execute(
            "UPDATE history SET requests = requests + ?, input_tokens = input_tokens + ?,"
            " output_tokens = output_tokens + ?, cost = cost + ? WHERE day = ? AND model = ? AND backend = ?",
            (*counts, *key),
        )
        if found.rowcount == 0:
            self._execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, *counts))

    def history(self, since: date) -> list[LedgerEntry]:
        rows = self._execute(
            "SELECT * FROM history WHERE day >= ? ORDER BY day DESC, model, backend", (since.isoformat(),)
        )
        return [LedgerEntry(date.fromisoformat(day), *rest) for day, *rest in rows]

    def days_after(self, day: date) -> list[Day]:
        rows = self._execute("SELECT * FROM day WHERE day > ? ORDER BY day", (day.isoformat(),))
        return [found for row in rows if (found := _day(row)) is not None]

    def move(self, day: date, to: date) -> None:
        both = (to.isoformat(), day.isoformat())
        self._execute("UPDATE hold SET day = ? WHERE day = ?", both)
        self._execute("UPDATE tombstone SET day = ? WHERE day = ?", both)
        for _, model, backend, *counts in self._execute("SELECT * FROM history WHERE day = ?", both[1:]).fetchall():
            self.add_history(to, model, backend, Counts(*counts))
        self._execute("DELETE FROM history WHERE day = ?", both[1:])
        self._execute("DELETE FROM day WHERE day = ?", both[1:])

    def forgive(self, day: date, latest: int) -> None:
        self._execute("UPDATE tombstone SET forgiven = 1 WHERE day = ?", (day.isoformat(),))
        self._execute("UPDATE hold SET expires = min(expires, ?)", (latest,))


def _day(row: Any) -> Day | None:
    if row is None:
        return None
    day, spent, forgiven, reserved, warned = row
    return Day(date.fromisoformat(day), spent, forgiven, reserved, bool(warned))


def _held(row: Any) -> Held:
    id, day, amount, expires, owner, dispatched, model, backend = row
    return Held(id, date.fromisoformat(day), amount, expires, owner, bool(dispatched), model, backend)
