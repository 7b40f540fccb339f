"""The rows of a SQLite ledger, cached in memory between transactions and written once a transaction.

Several operations share one transaction (`writer.py`). Each one reads and changes the cached rows; `flush` then writes
all changes in a few statements, whose number does not grow with the number of operations. The cache stays valid until
another connection has changed the file, which SQLite's `data_version` shows
(https://www.sqlite.org/pragma.html#pragma_data_version).
"""

import sqlite3
from datetime import date
from functools import cache
from typing import Any

from batuta_cli.serve.budget.ledger import sqlite_file
from batuta_cli.serve.budget.ledger.base import LedgerEntry
from batuta_cli.serve.budget.ledger.stored_rows import ClientDay, Counts, Day, StoredReservation, Tombstone, Zoning

_ROWS_A_STATEMENT = 100
"""Of 9 values each: SQLite before 3.32 takes 999 values in a statement (https://www.sqlite.org/limits.html)."""

_NEVER = 1 << 62
"""A time after all others, in milliseconds."""


class SqliteRows:
    """The tables of `sqlite_file.py`; see `rules.LedgerRows`. Use it between `begin` and the end of a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._version: int | None = None
        self.changes = 0
        """The number of changes so far."""
        self.forget()

    def begin(self) -> None:
        """Drop the cache if another connection has changed the file. Call it first in a transaction."""
        version = self._execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self.forget()
            self._version = version

    def forget(self) -> None:
        """Drop the cache and all unwritten changes."""
        self._version = None
        self._zoning: Zoning | None = None
        self._zoning_known = False
        self._newest: Day | None = None
        self._newest_known = False
        self._days: dict[date, Day] = {}
        self._changed_days: set[date] = set()
        self._reservations: dict[str, StoredReservation] = {}
        self._put: dict[str, None] = {}
        self._dropped: dict[str, None] = {}
        self._expiry: int | None = None
        """A time before which no reservation expires; None when unknown."""
        self._history: dict[tuple[date, str, str, str], list[int]] = {}
        self._clients: dict[tuple[date, str], ClientDay] = {}
        self._changed_clients: set[tuple[date, str]] = set()

    def zoning(self) -> Zoning | None:
        if not self._zoning_known:
            self._zoning, self._zoning_known = self._read_zoning(), True
        return self._zoning

    def _read_zoning(self) -> Zoning | None:
        try:
            found = self._execute("SELECT name, next, after FROM zone").fetchone()
        except sqlite3.OperationalError:
            if sqlite_file.has_table(self._execute, "zone"):
                raise
            return None
        if found is None:
            return None
        name, following, after = found
        return Zoning(name, following, None if after is None else date.fromisoformat(after))

    def put_zoning(self, row: Zoning) -> None:
        self.changes += 1
        after = None if row.after is None else row.after.isoformat()
        self._execute("INSERT OR REPLACE INTO zone VALUES (1, ?, ?, ?)", (row.zone, row.next, after))
        self._zoning, self._zoning_known = row, True

    def newest(self) -> Day | None:
        if not self._newest_known:
            self.flush()
            self._newest = _day(self._execute("SELECT * FROM day ORDER BY day DESC LIMIT 1").fetchone())
            self._newest_known = True
            if self._newest is not None:
                self._days[self._newest.day] = self._newest
        return self._newest

    def day(self, day: date) -> Day | None:
        found = self._days.get(day)
        if found is None:
            found = _day(self._execute("SELECT * FROM day WHERE day = ?", (day.isoformat(),)).fetchone())
            if found is not None:
                self._days[day] = found
        return found

    def put_day(self, row: Day) -> None:
        self.changes += 1
        self._days[row.day] = row
        self._changed_days.add(row.day)
        if self._newest_known and (self._newest is None or row.day >= self._newest.day):
            self._newest = row

    def client_day(self, day: date, client: str) -> ClientDay | None:
        found = self._clients.get((day, client))
        if found is None:
            rows = self._read_clients(" AND client = ?", (day.isoformat(), client))
            found = next(iter(rows), None)
            if found is not None:
                self._clients[day, client] = found
        return found

    def put_client_day(self, row: ClientDay) -> None:
        self.changes += 1
        self._clients[row.day, row.client] = row
        self._changed_clients.add((row.day, row.client))

    def client_days(self, day: date) -> list[ClientDay]:
        self.flush()
        return self._read_clients("", (day.isoformat(),))

    def _read_clients(self, condition: str, values: tuple[str, ...]) -> list[ClientDay]:
        try:
            rows = self._execute(f"SELECT * FROM client_day WHERE day = ?{condition}", values).fetchall()  # noqa: S608
        except sqlite3.OperationalError:
            if sqlite_file.has_table(self._execute, "client_day"):
                raise
            return []
        return [ClientDay(date.fromisoformat(day), *rest) for day, *rest in rows]

    def reservation(self, id: str) -> StoredReservation | None:
        found = self._reservations.get(id)
        if found is None and id not in self._dropped:
            row = self._execute("SELECT * FROM hold WHERE id = ?", (id,)).fetchone()
            found = None if row is None else _stored(row)
        return found

    def put_reservation(self, row: StoredReservation) -> None:
        self.changes += 1
        self._reservations[row.id] = row
        self._put[row.id] = None
        self._dropped.pop(row.id, None)
        if self._expiry is not None and row.expires < self._expiry:
            self._expiry = row.expires

    def drop_reservation(self, id: str) -> None:
        self.changes += 1
        self._reservations.pop(id, None)
        self._put.pop(id, None)
        self._dropped[id] = None

    def renew(self, owner: str, expires: int) -> None:
        self._change("UPDATE hold SET expires = ? WHERE owner = ?", (expires, owner))

    def expired(self, time: int) -> list[StoredReservation]:
        if self._expiry is None:
            self.flush()
            earliest = self._execute("SELECT MIN(expires) FROM hold").fetchone()[0]
            self._expiry = _NEVER if earliest is None else earliest
        if time < self._expiry:
            return []
        self.flush()
        self._expiry = None
        return [_stored(row) for row in self._execute("SELECT * FROM hold WHERE expires <= ?", (time,))]

    def tombstone(self, id: str) -> Tombstone | None:
        found = self._execute("SELECT * FROM tombstone WHERE id = ?", (id,)).fetchone()
        if found is None:
            return None
        id, day, amount, charged, forgiven, *rest = found
        return Tombstone(id, date.fromisoformat(day), amount, charged, bool(forgiven), *rest)

    def put_tombstone(self, row: Tombstone) -> None:
        self.changes += 1
        values = (row.id, row.day.isoformat(), *row[2:])
        self._execute("INSERT INTO tombstone VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def drop_tombstone(self, id: str) -> None:
        self.changes += 1
        self._execute("DELETE FROM tombstone WHERE id = ?", (id,))

    def drop_tombstones_before(self, time: int) -> None:
        self.changes += 1
        self._execute("DELETE FROM tombstone WHERE at < ?", (time,))

    def add_history(self, day: date, model: str, backend: str, counts: Counts, client: str = "") -> None:
        self.changes += 1
        sums = self._history.get((day, model, backend, client))
        if sums is None:
            self._history[day, model, backend, client] = list(counts)
            return
        requests, input_tokens, output_tokens, cost = counts
        sums[0] += requests
        sums[1] += input_tokens
        sums[2] += output_tokens
        sums[3] += cost

    def history(self, since: date) -> list[LedgerEntry]:
        self.flush()
        rows = self._execute("SELECT * FROM history WHERE day >= ?", (since.isoformat(),))
        entries = [_entry(row) for row in rows]
        return sorted(sorted(entries, key=lambda e: (e.model, e.backend, e.client)), key=lambda e: e.day, reverse=True)

    def days_after(self, day: date) -> list[Day]:
        self.flush()
        rows = self._execute("SELECT * FROM day WHERE day > ? ORDER BY day", (day.isoformat(),))
        return [found for row in rows if (found := _day(row)) is not None]

    def move(self, day: date, to: date) -> None:
        both = (to.isoformat(), day.isoformat())
        self._change("UPDATE hold SET day = ? WHERE day = ?", both)
        self._change("UPDATE tombstone SET day = ? WHERE day = ?", both)
        for _, model, backend, client, *counts in self._execute(
            "SELECT * FROM history WHERE day = ?", both[1:]
        ).fetchall():
            self.add_history(to, model, backend, Counts(*counts), client)
        self._change("DELETE FROM history WHERE day = ?", both[1:])
        self._change("DELETE FROM client_day WHERE day = ?", both[1:])
        self._change("DELETE FROM day WHERE day = ?", both[1:])

    def forgive(self, day: date, latest: int) -> None:
        self._change("UPDATE tombstone SET forgiven = 1 WHERE day = ?", (day.isoformat(),))
        self._change("UPDATE hold SET expires = min(expires, ?)", (latest,))

    def _change(self, statement: str, values: tuple[Any, ...]) -> None:
        """Change rows by one statement, of which the cache knows nothing."""
        self.flush()
        self._execute(statement, values)
        version, changes = self._version, self.changes
        self.forget()
        self._version, self.changes = version, changes + 1

    def flush(self) -> None:
        """Write all changes. Call it before the commit."""
        if self._changed_days:
            for day in self._changed_days:
                row = self._days[day]
                self._execute("INSERT OR REPLACE INTO day VALUES (?, ?, ?, ?, ?)", (day.isoformat(), *row[1:]))
            self._changed_days.clear()
        if self._changed_clients:
            for key in self._changed_clients:
                sums = self._clients[key]
                self._execute(
                    "INSERT OR REPLACE INTO client_day VALUES (?, ?, ?, ?, ?)", (key[0].isoformat(), *sums[1:])
                )
            self._changed_clients.clear()
        if self._dropped:
            for ids in _parts(list(self._dropped)):
                self._execute(_delete(len(ids)), ids)
            self._dropped.clear()
        if self._put:
            for ids in _parts(list(self._put)):
                values: list[Any] = []
                for id in ids:
                    stored = self._reservations[id]
                    values += (stored.id, stored.day.isoformat(), *stored[2:])
                self._execute(_insert(len(ids)), values)
            self._put.clear()
        if self._history:
            for (day, model, backend, client), counts in self._history.items():
                names = (day.isoformat(), model, backend)
                if self._execute(_ADD_HISTORY, (*counts, *names, client)).rowcount == 0:
                    self._execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*names, client, *counts))
            self._history.clear()


_ADD_HISTORY = (
    "UPDATE history SET requests = requests + ?, input_tokens = input_tokens + ?,"
    " output_tokens = output_tokens + ?, cost = cost + ? WHERE day = ? AND model = ? AND backend = ? AND client = ?"
)


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + _ROWS_A_STATEMENT] for start in range(0, len(ids), _ROWS_A_STATEMENT)]


@cache
def _insert(count: int) -> str:
    return ", ".join(
        [
            "INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * (count - 1),
        ]
    )


@cache
def _delete(count: int) -> str:
    return f"DELETE FROM hold WHERE id IN ({', '.join('?' * count)})"  # noqa: S608 - question marks only


def _day(row: Any) -> Day | None:
    if row is None:
        return None
    day, spent, forgiven, reserved, warned = row
    return Day(date.fromisoformat(day), spent, forgiven, reserved, bool(warned))


def _entry(row: Any) -> LedgerEntry:
    day, model, backend, *clients, requests, input_tokens, output_tokens, cost = row
    counts = (requests, input_tokens, output_tokens, cost)
    return LedgerEntry(date.fromisoformat(day), model, backend, *counts, *clients)  # no client before version 3


def _stored(row: Any) -> StoredReservation:
    id, day, amount, expires, owner, dispatched, *names = row
    return StoredReservation(id, date.fromisoformat(day), amount, expires, owner, bool(dispatched), *names)
