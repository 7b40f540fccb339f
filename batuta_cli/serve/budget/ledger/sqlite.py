"""A ledger in a SQLite file, for all threads and processes of one host.

Each method is one transaction that takes the write lock first, so that the rows it has read are current when it
writes. After `kill -9` the file holds the state of the last transaction. Readers and writers do not block each other
(WAL mode). Writers take a file lock (`file_lock.py`) one after the other; after `patience` seconds of waiting the
method raises `LedgerError`.

A forked child opens the file again, because a SQLite connection must not be used after a fork. When the file has been
removed or replaced, the process raises `LedgerError` until it is restarted, because the new file lacks its spending.
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
from batuta_cli.serve.budget.ledger.base import LedgerEntry, Moment, Reset, Rezoned
from batuta_cli.serve.budget.ledger.file_lock import file_lock
from batuta_cli.serve.budget.ledger.memory import MemoryRows
from batuta_cli.serve.budget.ledger.row_ledger import RowLedger
from batuta_cli.serve.budget.ledger.rules import Counts, Day, LedgerRows, StoredReservation, Tombstone, Zoning

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for other processes. A transaction takes milliseconds, except on a slow disk."""

_INHERITED: list[Any] = []  # connections of the parent process, which a forked child must neither use nor close


class SqliteLedger(RowLedger):
    """See `Ledger`. The first write creates the file."""

    def __init__(self, path: str, *, durability: str = "normal", patience: float = PATIENCE) -> None:
        self.path = path
        self._durability = durability
        self._patience = patience
        self._used: sqlite_place.Identity | None = None
        """The file that this object has opened. No other file is used instead."""
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._journal: sqlite_place.Identity | None = None
        self._prepared = False
        """The file has its marker and the current version."""

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`."""
        return self._write(lambda rows: rules.reset(rows, moment), anew=True)

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`. Without a file nothing is created: the first use stores the zone."""
        with self._exclusively(), self._named_errors():
            if not sqlite_file.exists(self.path):
                self._require_never_kept()
                return Rezoned(zone, None, before=moment.zone)
        return super().rezone(moment, zone)

    def close(self) -> None:
        """See `Ledger`."""
        with self._exclusively():
            self._disconnect()

    def write(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`."""
        return self._write(body)

    def _write(self, body: Callable[[LedgerRows], T], *, anew: bool = False) -> T:
        """Run a writing transaction; `anew` creates a file when the ledger's file is missing."""
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
                    # Before the first transaction, so that every ledger with spending has its marker.
                    sqlite_place.leave_marker(self.path)
                    sqlite_file.upgrade(connection)
                    self._prepared = True
                return self._transaction(connection, "BEGIN IMMEDIATE", body)

    def read(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`."""
        with self._exclusively(), self._named_errors():
            there = sqlite_file.exists(self.path)
            if not there:
                self._require_never_kept()
            sqlite_place.require_writable(self.path)
            return self._transaction(self._connected(), "BEGIN", body) if there else body(MemoryRows())

    def _transaction(self, connection: sqlite3.Connection, begin: str, body: Callable[[LedgerRows], T]) -> T:
        result = _transaction(connection, begin, body)
        if self._journal is None:  # SQLite keeps the journal while a connection that had a transaction is open
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
        """Run the block in one thread at a time; after a fork, without the parent's connection."""
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
        except ValueError as error:  # an invalid date
            raise sqlite_file.damaged(self.path, "a row has an invalid value") from error
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


def _transaction(connection: sqlite3.Connection, begin: str, body: Callable[[LedgerRows], T]) -> T:
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
    """Rows in the tables of `sqlite_file.py`; see `rules.LedgerRows`."""

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

    def reservation(self, id: str) -> StoredReservation | None:
        found = self._execute("SELECT * FROM hold WHERE id = ?", (id,)).fetchone()
        return None if found is None else _stored(found)

    def put_reservation(self, row: StoredReservation) -> None:
        values = (row.id, row.day.isoformat(), *row[2:])
        self._execute("INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def drop_reservation(self, id: str) -> None:
        self._execute("DELETE FROM hold WHERE id = ?", (id,))

    def renew(self, owner: str, expires: int) -> None:
        self._execute("UPDATE hold SET expires = ? WHERE owner = ?", (expires, owner))

    def expired(self, time: int) -> list[StoredReservation]:
        return [_stored(row) for row in self._execute("SELECT * FROM hold WHERE expires <= ?", (time,))]

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


def _stored(row: Any) -> StoredReservation:
    id, day, amount, expires, owner, dispatched, model, backend = row
    return StoredReservation(id, date.fromisoformat(day), amount, expires, owner, bool(dispatched), model, backend)
