"""A ledger in the memory of one process: for tests, and for programs that keep no accounts between runs.

Safe among threads. A process that forks has a ledger of its own from then on.
"""

import threading
from datetime import date

from batuta_cli.serve.budget.ledger import rules
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
from batuta_cli.serve.budget.ledger.rules import Counts, Day, Held, Tombstone, Zoning


class MemoryLedger:
    """See `Ledger`."""

    def __init__(self) -> None:
        self._rows = _MemoryRows()
        self._lock = threading.Lock()

    def day_status(self, moment: Moment) -> DayStatus:
        """See `Ledger`."""
        with self._lock:
            return rules.day_status(self._rows, moment)

    def reserve(self, moment: Moment, hold: ReservationRow, limit: int) -> tuple[bool, DayStatus]:
        """See `Ledger`."""
        with self._lock:
            return rules.reserve(self._rows, moment, hold, limit)

    def dispatch(self, moment: Moment, id: str) -> bool:
        """See `Ledger`."""
        with self._lock:
            return rules.dispatch(self._rows, moment, id)

    def renew(self, moment: Moment, owner: str) -> None:
        """See `Ledger`."""
        with self._lock:
            for held in self._rows.holds.values():
                if held.owner == owner:
                    self._rows.put_hold(held._replace(expires=moment.time + LEASE))

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """See `Ledger`."""
        with self._lock:
            return rules.settle(self._rows, moment, id, cost, use, requests)

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """See `Ledger`."""
        with self._lock:
            return rules.record(self._rows, moment, cost, use)

    def warn_once(self, day: date) -> bool:
        """See `Ledger`."""
        with self._lock:
            return rules.warn_once(self._rows, day)

    def history(self, since: date) -> list[LedgerEntry]:
        """See `Ledger`."""
        with self._lock:
            lines = [LedgerEntry(*key, *counts) for key, counts in self._rows.lines.items() if key[0] >= since]
        return sorted(sorted(lines, key=lambda e: (e.model, e.backend)), key=lambda e: e.day, reverse=True)

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`."""
        with self._lock:
            return rules.reset(self._rows, moment)

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`."""
        with self._lock:
            return rules.rezone(self._rows, moment, zone)

    def close(self) -> None:
        """See `Ledger`. There is nothing to let go of."""


class _MemoryRows:
    """Rows in dictionaries; see `rules.Shelf`."""

    def __init__(self) -> None:
        self.days: dict[date, Day] = {}
        self.holds: dict[str, Held] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.lines: dict[tuple[date, str, str], Counts] = {}
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

    def hold(self, id: str) -> Held | None:
        return self.holds.get(id)

    def put_hold(self, row: Held) -> None:
        self.holds[row.id] = row

    def drop_hold(self, id: str) -> None:
        del self.holds[id]

    def expired(self, time: int) -> list[Held]:
        return [held for held in self.holds.values() if held.expires <= time]

    def tombstone(self, id: str) -> Tombstone | None:
        return self.tombstones.get(id)

    def put_tombstone(self, row: Tombstone) -> None:
        self.tombstones[row.id] = row

    def drop_tombstone(self, id: str) -> None:
        del self.tombstones[id]

    def drop_tombstones_before(self, time: int) -> None:
        self.tombstones = {id: row for id, row in self.tombstones.items() if row.at >= time}

    def add_history(self, day: date, model: str, backend: str, counts: Counts) -> None:
        before = self.lines.get((day, model, backend), Counts(0, 0, 0, 0))
        self.lines[day, model, backend] = Counts(*(one + other for one, other in zip(before, counts, strict=True)))

    def days_after(self, day: date) -> list[Day]:
        return [row for row in self.days.values() if row.day > day]

    def move(self, day: date, to: date) -> None:
        self.holds = {id: row._replace(day=to) if row.day == day else row for id, row in self.holds.items()}
        self.tombstones = {id: row._replace(day=to) if row.day == day else row for id, row in self.tombstones.items()}
        for key in [key for key in self.lines if key[0] == day]:
            self.add_history(to, key[1], key[2], self.lines.pop(key))
        del self.days[day]

    def forgive(self, day: date, latest: int) -> None:
        for row in self.tombstones.values():
            if row.day == day:
                self.tombstones[row.id] = row._replace(forgiven=True)
        for held in self.holds.values():
            self.holds[held.id] = held._replace(expires=min(held.expires, latest))
