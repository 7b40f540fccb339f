"""What a ledger promises: the values that go in and out, and the contract that every place fulfils.

Amounts are whole nano-dollars, times whole milliseconds since 1970. A ledger has no clock: each call is told the
`Moment` it happens at.

A ledger keeps the time zone that its days are counted in: that of its first use, until `rezone` changes it from the
next day on. A caller with another zone is refused, so that no zone opens a budget that another one has spent.

Of each day three sums are kept: what was *spent*, what of that was *forgiven* by a reset, and what is *reserved*. Held
at every moment, for every day: reserved is the sum of its reservations, and spent is the sum of its history.
"""

from dataclasses import dataclass
from datetime import date
from typing import Protocol

LEASE = 60_000
"""Milliseconds for which a reservation holds without being renewed."""

REMEMBERED = 7 * 24 * 3600 * 1000
"""Milliseconds for which an expired reservation can still be corrected; no request takes longer."""

GREATEST = 2**63 - 1
"""The largest sum, that of SQLite's and Redis' integers."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something happens: the clock's time, and the day it is in the caller's time zone."""

    time: int
    day: date
    zone: str = "UTC"
    """The caller's time zone, a name of the IANA database."""


@dataclass(frozen=True, slots=True)
class ReservationRow:
    """A reservation: `amount` is kept free until it is settled, or until nobody has renewed it for the lease."""

    id: str
    amount: int
    owner: str
    """The process that renews it."""
    model: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """What was paid for."""

    model: str = ""
    backend: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class DayStatus:
    """How a day stands. `spent` is without what was forgiven."""

    day: date
    spent: int = 0
    reserved: int = 0
    warned: bool = False
    """Somebody has been warned of this day's spending."""
    ahead: bool = False
    """The ledger's newest day is more than one after the clock's: the clock is, or was, wrong."""
    zone: str = "UTC"
    """The time zone that the ledger counts its days in now."""
    next_zone: str | None = None
    """The time zone that the ledger counts its days in from the next day on, when that is another one."""


@dataclass(frozen=True, slots=True)
class Rezoned:
    """What a change of the time zone did."""

    zone: str
    """The time zone of the current day."""
    next_zone: str | None
    """The time zone from the next day on; None when it stays the same."""
    before: str
    """The time zone that held from the next day on before this change."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settlement did."""

    day_status: DayStatus
    reserved: int
    """The amount that had been reserved."""
    late: bool
    """The reservation had expired; what had been charged for it was corrected."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A line of the history: one day, model and backend."""

    day: date
    model: str
    backend: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost: int


@dataclass(frozen=True, slots=True)
class Reset:
    """What a reset did."""

    day: date
    forgiven: int
    """What no longer counts against the day's budget."""
    moved: tuple[date, ...]
    """Days after the clock's, whose sums are this day's now."""


class Ledger(Protocol):
    """Where spending is kept. Each method is one atomic step, whatever the number of threads and processes.

    All raise `LedgerError` when the ledger cannot be used, and have then changed nothing.
    """

    def day_status(self, moment: Moment) -> DayStatus:
        """How the current day stands: the later of the clock's and the ledger's newest. Writes nothing.

        Raises `LedgerError` when a paid request would be refused because nothing can be written, or because the
        ledger counts its days in another time zone.
        """

    def reserve(self, moment: Moment, hold: ReservationRow, limit: int) -> tuple[bool, DayStatus]:
        """Hold an amount if spent + reserved + amount ≤ limit, and tell whether; and how the day stands now.

        Raises `LedgerError` when the ledger is more than a day ahead of the clock, or counts its days in another zone.
        """

    def dispatch(self, moment: Moment, id: str) -> bool:
        """Note that the request is about to be sent, so that it counts in full if nobody settles it.

        False when the reservation has expired: then the request must not be sent.
        """

    def renew(self, moment: Moment, owner: str) -> None:
        """Begin the lease of all reservations of a process anew."""

    def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
        """Turn a reservation into what was really spent, on its own day, exactly once.

        `model` and `backend` are those of the reservation. One that has expired is corrected, once. None when no
        such reservation is known (any more).
        """

    def record(self, moment: Moment, cost: int, use: Use) -> DayStatus:
        """Note what was spent without a reservation; it may exceed any limit.

        It is noted on the ledger's own day, also when the caller's time zone is another one.
        """

    def warn_once(self, day: date) -> bool:
        """Whether the caller is the one to warn of this day's spending: true once a day."""

    def history(self, since: date) -> list[LedgerEntry]:
        """What was spent from that day on, the newest day first."""

    def reset(self, moment: Moment) -> Reset:
        """Forgive what was spent on the clock's day, and make that the newest: later days are moved to it.

        The history keeps every amount, reservations keep theirs. A ledger whose file is missing is begun anew.
        """

    def rezone(self, moment: Moment, zone: str) -> Rezoned:
        """Count days in another time zone from the next day on; at once when nothing has been counted yet.

        The current day ends when it is over in both time zones, so that no day has two budgets. Raises `LedgerError`
        when the ledger is more than a day ahead of the clock.
        """

    def close(self) -> None:
        """Let go of files and connections. A ledger that is used again opens them again."""
