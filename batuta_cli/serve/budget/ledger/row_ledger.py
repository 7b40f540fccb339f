"""The methods of `Ledger` for a storage of rows: each one is a transaction that applies a function of `rules.py`.

A subclass provides the transactions. `ledger/base.py` shows how to write one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import date
from typing import TypeVar

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
from batuta_cli.serve.budget.ledger.stored_rows import LedgerRows

T = TypeVar("T")


class RowLedger(ABC):
    """See `Ledger`."""

    @abstractmethod
    def read(self, body: Callable[[LedgerRows], T]) -> T:
        """Run `body` in a transaction that writes nothing. Raises `LedgerError` when the ledger cannot be used."""

    @abstractmethod
    def write(self, body: Callable[[LedgerRows], T]) -> T:
        """Run `body` in a transaction that no other writer overlaps, and store its changes.

        When `body` or the storage fails, nothing has changed. Raises `LedgerError`, and what `body` raises.
        """

    def day_status(self, moment: Moment, client: str = "") -> DayStatus:
        """See `Ledger`."""
        return self.read(lambda rows: rules.day_status(rows, moment, client))

    def reserve(
        self, moment: Moment, row: ReservationRow, limit: int, client_limit: int | None = None
    ) -> tuple[bool, DayStatus]:
        """See `Ledger`."""
        return self.write(lambda rows: rules.reserve(rows, moment, row, limit, client_limit))

    def dispatch(self, moment: Moment, id: str) -> bool:
        """See `Ledger`."""
        return self.write(lambda rows: rules.dispatch(rows, moment, id))

    def renew(self, moment: Moment, owner: str) -> None:
        """See `Ledger`."""
        self.write(lambda rows: rows.renew(owner, moment.time + LEASE))

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """See `Ledger`."""
        return self.write(lambda rows: rules.settle(rows, moment, id, cost, use, requests))

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """See `Ledger`."""
        return self.write(lambda rows: rules.record(rows, moment, cost, use))

    def warn_once(self, day: date) -> bool:
        """See `Ledger`."""
        return self.write(lambda rows: rules.warn_once(rows, day))

    def history(self, since: date) -> list[LedgerEntry]:
        """See `Ledger`."""
        return self.read(lambda rows: rows.history(since))

    def reset(self, moment: Moment) -> Reset:
        """See `Ledger`."""
        return self.write(lambda rows: rules.reset(rows, moment))

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """See `Ledger`."""
        return self.write(lambda rows: rules.rezone(rows, moment, zone))

    def close(self) -> None:
        """See `Ledger`. Does nothing."""
        return
