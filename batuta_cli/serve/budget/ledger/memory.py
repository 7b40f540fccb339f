"""A ledger in the memory of one process: for tests, and for programs that keep no history between runs.

Thread-safe. After a fork, parent and child have separate ledgers.
"""

import threading
from collections.abc import Callable
from datetime import date
from typing import TypeVar

from batuta_cli.serve.budget.ledger.base import LedgerEntry
from batuta_cli.serve.budget.ledger.row_ledger import RowLedger
from batuta_cli.serve.budget.ledger.stored_rows import (
    ClientDay,
    Counts,
    Day,
    LedgerRows,
    StoredReservation,
    Tombstone,
    Zoning,
)

T = TypeVar("T")


class MemoryLedger(RowLedger):
    """See `Ledger`."""

    def __init__(self) -> None:
        self._rows = MemoryRows()
        self._lock = threading.Lock()

    def read(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`."""
        with self._lock:
            return body(self._rows)

    def write(self, body: Callable[[LedgerRows], T]) -> T:
        """See `RowLedger`. The rules compute what can fail before they write, so a failure has changed nothing."""
        return self.read(body)


def opened(_url: object, _options: object) -> MemoryLedger:
    """See `LedgerModule`."""
    return MemoryLedger()


class MemoryRows:
    """Rows in dictionaries; see `rules.LedgerRows`."""

    def __init__(self) -> None:
        self.days: dict[date, Day] = {}
        self.reservations: dict[str, StoredReservation] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.lines: dict[tuple[date, str, str, str], Counts] = {}
        self.clients: dict[tuple[date, str], ClientDay] = {}
        self.zone: Zoning | None = None

    def zoning(self) -> Zoning | None:
        return self.zone

    def put_zoning(self, row: Zoning) -> None:
        self.zone = row

    def newest(self) -> Day | None:
        return self.days[max(self.days)] if self.days else None

    def day(self, day: date) -> Day | None:
        return self.days.get(day)

    def put_day(self, row: Day) -> None:
        self.days[row.day] = row

    def client_day(self, day: date, client: str) -> ClientDay | None:
        return self.clients.get((day, client))

    def put_client_day(self, row: ClientDay) -> None:
        self.clients[row.day, row.client] = row

    def client_days(self, day: date) -> list[ClientDay]:
        return [row for row in self.clients.values() if row.day == day]

    def reservation(self, id: str) -> StoredReservation | None:
        return self.reservations.get(id)

    def put_reservation(self, row: StoredReservation) -> None:
        self.reservations[row.id] = row

    def drop_reservation(self, id: str) -> None:
        del self.reservations[id]

    def renew(self, owner: str, expires: int) -> None:
        for stored in self.reservations.values():
            if stored.owner == owner:
                self.put_reservation(stored._replace(expires=expires))

    def expired(self, time: int) -> list[StoredReservation]:
        return [stored for stored in self.reservations.values() if stored.expires <= time]

    def tombstone(self, id: str) -> Tombstone | None:
        return self.tombstones.get(id)

    def put_tombstone(self, row: Tombstone) -> None:
        self.tombstones[row.id] = row

    def drop_tombstone(self, id: str) -> None:
        del self.tombstones[id]

    def drop_tombstones_before(self, time: int) -> None:
        self.tombstones = {id: row for id, row in self.tombstones.items() if row.at >= time}

    def add_history(self, day: date, model: str, backend: str, counts: Counts, client: str = "") -> None:
        before = self.lines.get((day, model, backend, client), Counts(0, 0, 0, 0))
        self.lines[day, model, backend, client] = Counts(
            *(one + other for one, other in zip(before, counts, strict=True))
        )

    def history(self, since: date) -> list[LedgerEntry]:
        entries = [LedgerEntry(*key[:3], *counts, key[3]) for key, counts in self.lines.items() if key[0] >= since]
        return sorted(sorted(entries, key=lambda e: (e.model, e.backend, e.client)), key=lambda e: e.day, reverse=True)

    def days_after(self, day: date) -> list[Day]:
        return [row for row in self.days.values() if row.day > day]

    def move(self, day: date, to: date) -> None:
        for stored in self.reservations.values():
            if stored.day == day:
                self.reservations[stored.id] = stored._replace(day=to)
        for tombstone in self.tombstones.values():
            if tombstone.day == day:
                self.tombstones[tombstone.id] = tombstone._replace(day=to)
        for key in [key for key in self.lines if key[0] == day]:
            self.add_history(to, key[1], key[2], self.lines.pop(key), key[3])
        self.clients = {key: row for key, row in self.clients.items() if row.day != day}
        del self.days[day]

    def forgive(self, day: date, latest: int) -> None:
        for row in self.tombstones.values():
            if row.day == day:
                self.tombstones[row.id] = row._replace(forgiven=True)
        for stored in self.reservations.values():
            self.reservations[stored.id] = stored._replace(expires=min(stored.expires, latest))
