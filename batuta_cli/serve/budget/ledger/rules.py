"""The rules of the ledger, written once for all ledgers that store rows.

Each function is the body of one transaction: it reads rows from a `LedgerRows` and writes them back. It computes
everything that can fail before it writes the first row.

1. A reservation is a row. `day.reserved` is the sum of the amounts of that day's reservations.
2. The current day is the later of the clock's day and the ledger's newest day, so that a clock set back opens no second
   budget. When the ledger is more than one day ahead, nothing can be reserved until the operator runs `reset`.
3. A reservation that is not renewed expires. Its amount is spent in full if its request was dispatched, else nothing
   is. A tombstone row stays, so that a late settlement corrects the sums once.
4. Every change to a reservation counts on the day on which it was made.
5. Days are counted in the ledger's time zone. A change of the zone takes effect when the current day has ended in the
   old zone. Afterwards no day before that one is current.
"""

from datetime import date, timedelta
from typing import NamedTuple, Protocol

from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.serve.budget.budget_day import day_at, time_zone
from batuta_cli.serve.budget.ledger.base import (
    GREATEST,
    LEASE,
    REMEMBERED,
    DayStatus,
    LedgerEntry,
    Moment,
    ReservationRow,
    Reset,
    Rezoned,
    Settled,
    Use,
)

REPAIR = "batuta serve budget reset --yes"
REZONE = "batuta serve budget set --timezone"


class Day(NamedTuple):
    """The sums of a day."""

    day: date
    spent: int = 0
    forgiven: int = 0
    reserved: int = 0
    warned: bool = False


class StoredReservation(NamedTuple):
    """A reservation as the ledger stores it."""

    id: str
    day: date
    amount: int
    expires: int
    owner: str
    dispatched: bool
    model: str
    backend: str


class Tombstone(NamedTuple):
    """The remains of an expired reservation."""

    id: str
    day: date
    amount: int
    charged: int
    """The part of the day's spending that the expiry added: its amount, or 0."""
    forgiven: bool
    """A reset has forgiven the charge."""
    at: int
    model: str
    backend: str


class Zoning(NamedTuple):
    """The time zone in which days are counted, and a pending change of it."""

    zone: str
    next: str | None = None
    """The zone that replaces `zone` when the day `after` has ended."""
    after: date | None = None
    """The day of the last change. The current day is never before it."""


class Counts(NamedTuple):
    """Numbers to add to a line of the history."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int


class LedgerRows(Protocol):
    """The rows of a ledger, read and written within one transaction."""

    def zoning(self) -> Zoning | None: ...
    def put_zoning(self, row: Zoning) -> None: ...
    def newest(self) -> Day | None: ...
    def day(self, day: date) -> Day | None: ...
    def put_day(self, row: Day) -> None: ...
    def reservation(self, id: str) -> StoredReservation | None: ...
    def put_reservation(self, row: StoredReservation) -> None: ...
    def drop_reservation(self, id: str) -> None: ...
    def renew(self, owner: str, expires: int) -> None:
        """Let the reservations of `owner` expire at `expires`."""

    def expired(self, time: int) -> list[StoredReservation]: ...
    def tombstone(self, id: str) -> Tombstone | None: ...
    def put_tombstone(self, row: Tombstone) -> None: ...
    def drop_tombstone(self, id: str) -> None: ...
    def drop_tombstones_before(self, time: int) -> None: ...
    def add_history(self, day: date, model: str, backend: str, counts: Counts) -> None: ...
    def history(self, since: date) -> list[LedgerEntry]:
        """The history from `since` on, the newest day first, then by model and backend."""

    def days_after(self, day: date) -> list[Day]: ...
    def move(self, day: date, to: date) -> None:
        """Move reservations, tombstones and history of `day` to the day `to`, and delete the sums of `day`."""

    def forgive(self, day: date, latest: int) -> None:
        """Mark the day's tombstones as forgiven, and let every reservation expire at `latest` or earlier."""


class _Now(NamedTuple):
    """A moment in the ledger's own calendar."""

    time: int
    day: date
    """The day in `zone` at `time`."""
    zone: str
    next: str | None
    earliest: date | None
    kept: bool
    """Whether the ledger has stored its zone."""


def day_status(rows: LedgerRows, moment: Moment) -> DayStatus:
    """The status of the current day, with expired reservations counted as expired."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    for stored in rows.expired(now.time):
        if stored.day == row.day:
            row = _expire(row, stored)
    return _status(row, now)


def reserve(rows: LedgerRows, moment: Moment, reservation: ReservationRow, limit: int) -> tuple[bool, DayStatus]:
    """Add a reservation if it fits. Raises `LedgerError` when the ledger is ahead or has another time zone."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    if _is_ahead(row, now):
        raise ahead(row.day, now.day)
    _keep_zone(rows, now)
    if sweep(rows, now.time):
        row = _current(rows, now)
    if row.spent - row.forgiven + row.reserved + reservation.amount > limit:
        return False, _status(row, now)
    row = Day(row.day, row.spent, row.forgiven, _sum(row.reserved, reservation.amount), row.warned)
    expires = now.time + LEASE
    rows.put_reservation(
        StoredReservation(
            reservation.id,
            row.day,
            reservation.amount,
            expires,
            reservation.owner,
            reservation.dispatched,
            reservation.model,
            reservation.backend,
        )
    )
    rows.put_day(row)
    return True, _status(row, now)


def dispatch(rows: LedgerRows, moment: Moment, id: str) -> bool:
    """Mark a reservation as dispatched, unless its lease has expired."""
    stored = rows.reservation(id)
    if stored is None or stored.expires <= moment.time:
        return False
    rows.put_reservation(stored._replace(dispatched=True, expires=moment.time + LEASE))
    return True


def settle(rows: LedgerRows, moment: Moment, id: str, cost: int, use: Use, requests: int) -> Settled | None:
    """Replace a reservation, or its tombstone, by the cost of its request."""
    now = _now(rows, moment)
    stored = rows.reservation(id)
    if stored is not None:
        row = _row(rows, stored.day)
        row = Day(row.day, _sum(row.spent, cost), row.forgiven, row.reserved - stored.amount, row.warned)
        counts = Counts(requests, use.input_tokens, use.output_tokens, cost)
        rows.add_history(stored.day, stored.model, stored.backend, counts)
        rows.drop_reservation(id)
        rows.put_day(row)
        return Settled(_status(row, now), stored.amount, late=False)
    tombstone = rows.tombstone(id)
    if tombstone is None:
        return None
    row = _row(rows, tombstone.day)
    change = cost - tombstone.charged
    # A forgiven charge that was too high: take the difference out of the forgiven sum as well.
    pardon = min(change, 0) if tombstone.forgiven else 0
    row = row._replace(spent=_sum(row.spent, change), forgiven=row.forgiven + pardon)
    counts = Counts(requests - (tombstone.charged > 0), use.input_tokens, use.output_tokens, change)
    rows.add_history(tombstone.day, tombstone.model, tombstone.backend, counts)
    rows.drop_tombstone(id)
    rows.put_day(row)
    return Settled(_status(row, now), tombstone.amount, late=True)


def record(rows: LedgerRows, moment: Moment, cost: int, use: Use) -> DayStatus:
    """Add a cost to the current day, also when the ledger is ahead or the caller has another time zone."""
    now = _now(rows, moment)
    row = _current(rows, now)
    row = row._replace(spent=_sum(row.spent, cost))
    _keep_zone(rows, now)
    rows.add_history(row.day, use.model, use.backend, Counts(1, use.input_tokens, use.output_tokens, cost))
    rows.put_day(row)
    return _status(row, now)


def warn_once(rows: LedgerRows, day: date) -> bool:
    """True for the first caller of a day."""
    row = _row(rows, day)
    if row.warned:
        return False
    rows.put_day(row._replace(warned=True))
    return True


def reset(rows: LedgerRows, moment: Moment) -> Reset:
    """Forgive the clock's day, and move later days to it. Raises `LedgerError` for another time zone."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    sweep(rows, now.time)
    row, moved = _row(rows, now.day), rows.days_after(now.day)
    forgiven = row.spent - row.forgiven
    for later in moved:
        row = row._replace(spent=_sum(row.spent, later.spent), reserved=_sum(row.reserved, later.reserved))
        forgiven += later.spent - later.forgiven
    for later in moved:
        rows.move(later.day, now.day)
    rows.forgive(now.day, now.time + LEASE)
    rows.put_day(row._replace(forgiven=row.spent, warned=False))
    rows.put_zoning(Zoning(now.zone, now.next, None if now.earliest is None else min(now.earliest, now.day)))
    return Reset(now.day, forgiven, tuple(later.day for later in moved))


def rezone(rows: LedgerRows, moment: Moment, zone: str) -> Rezoned:
    """Change the zone when the current day has ended. Raises `LedgerError` when the ledger is ahead."""
    now = _now(rows, moment)
    if rows.newest() is None and now.earliest is None:
        rows.put_zoning(Zoning(zone))
        return Rezoned(zone, None, before=now.zone)
    row = _current(rows, now)
    changed = None if zone == now.zone else zone
    if changed and _is_ahead(row, now):
        raise ahead(row.day, now.day)
    rows.put_zoning(Zoning(now.zone, changed, row.day if changed or now.earliest else None))
    return Rezoned(now.zone, changed, before=now.next or now.zone)


def sweep(rows: LedgerRows, time: int) -> bool:
    """Turn expired reservations into tombstones. Returns whether there were any."""
    expired = rows.expired(time)
    for stored in expired:
        row = _expire(_row(rows, stored.day), stored)
        charged = stored.amount if stored.dispatched else 0
        if stored.dispatched:
            rows.add_history(stored.day, stored.model, stored.backend, Counts(1, 0, 0, charged))
        left = Tombstone(stored.id, stored.day, stored.amount, charged, False, time, stored.model, stored.backend)
        rows.put_tombstone(left)
        rows.drop_reservation(stored.id)
        rows.put_day(row)
    if expired:
        rows.drop_tombstones_before(time - REMEMBERED)
    return bool(expired)


def ahead(newest: date, today: date) -> LedgerError:
    """The error for a ledger whose newest day is in the future."""
    return LedgerError(
        f"the ledger's newest day is {newest}, but the clock says {today}: paid requests are refused",
        hint=f"if the clock is wrong, set it; if it is right, repair the ledger: {REPAIR}",
    )


def other_zone(kept: str, given: str) -> LedgerError:
    """The error for a caller whose time zone is not the ledger's."""
    return LedgerError(
        f"the ledger counts days in {kept}, but the budget's time zone is {given}: paid requests are refused",
        hint=f"to keep {kept}: {REZONE} {kept}\nto change both from the next day on: {REZONE} {given}",
    )


def _now(rows: LedgerRows, moment: Moment) -> _Now:
    found = rows.zoning()
    kept = found or Zoning(moment.zone)
    day, zone, following = _day_in(kept.zone, moment), kept.zone, kept.next
    if following is not None and kept.after is not None and day > kept.after:
        day, zone, following = _day_in(following, moment), following, None
    return _Now(moment.time, day, zone, following, kept.after, kept=found is not None)


def _day_in(zone: str, moment: Moment) -> date:
    if zone == moment.zone:
        return moment.day
    try:
        return day_at(moment.time / 1000, time_zone(zone))
    except UsageError as unknown:
        raise LedgerError(
            "the ledger counts days in a time zone that this system does not know",
            hint="install the tzdata package, or begin a new ledger: move the file away, then: " + REPAIR,
        ) from unknown


def _require_zone(now: _Now, moment: Moment) -> None:
    if moment.zone not in (now.zone, now.next):
        raise other_zone(now.zone, moment.zone)


def _keep_zone(rows: LedgerRows, now: _Now) -> None:
    if not now.kept:
        rows.put_zoning(Zoning(now.zone))


def _expire(row: Day, stored: StoredReservation) -> Day:
    row = row._replace(reserved=row.reserved - stored.amount)
    return row._replace(spent=_sum(row.spent, stored.amount)) if stored.dispatched else row


def _current(rows: LedgerRows, now: _Now) -> Day:
    day = now.day if now.earliest is None else max(now.day, now.earliest)
    newest = rows.newest()
    return newest if newest is not None and newest.day >= day else Day(day)


def _row(rows: LedgerRows, day: date) -> Day:
    return rows.day(day) or Day(day)


def _status(row: Day, now: _Now) -> DayStatus:
    return DayStatus(
        row.day,
        row.spent - row.forgiven,
        row.reserved,
        row.warned,
        ahead=_is_ahead(row, now),
        zone=now.zone,
        next_zone=now.next,
    )


def _is_ahead(row: Day, now: _Now) -> bool:
    return row.day > now.day and row.day > now.day + timedelta(days=1)


def _sum(one: int, other: int) -> int:
    if one + other > GREATEST:
        raise LedgerError("the sum of a day's spending exceeds the ledger's largest number; nothing was written")
    return one + other
