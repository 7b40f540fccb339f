"""The rules of the ledger, once for every place that keeps rows itself.

Each function is the body of one transaction: it reads rows from a `LedgerRows`, and writes them back. What can fail is
computed before the first row of a step is written.

1. A reservation is a row; day.reserved is the sum of its rows' amounts.
2. The day is the later of the clock's and the ledger's newest, so that a clock set back opens no second budget. More
   than one day apart, one of them is wrong, and nothing may be reserved before somebody has looked (`reset`).
3. A reservation that nobody renews expires: it is spent in full if its request was dispatched, else it is dropped. A
   tombstone stays, so that a late settlement corrects the sums once.
4. What happens to a reservation happens on its own day.
5. Days are counted in the zone that the ledger keeps. A change of zone takes effect when the day it was made on is over
   in the old zone, and that day is the earliest that there is from then on.
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


class Held(NamedTuple):
    """A reservation as it is kept."""

    id: str
    day: date
    amount: int
    expires: int
    owner: str
    dispatched: bool
    model: str
    backend: str


class Tombstone(NamedTuple):
    """What is left of an expired reservation."""

    id: str
    day: date
    amount: int
    charged: int
    """What was added to the day's spending for it: its amount, or nothing."""
    forgiven: bool
    """The charge has been forgiven since."""
    at: int
    model: str
    backend: str


class Zoning(NamedTuple):
    """The time zone that days are counted in, and a change of it."""

    zone: str
    next: str | None = None
    """The zone that replaces it when the day `after` is over."""
    after: date | None = None
    """The day on which the last change was made; the current day is never before it."""


class Counts(NamedTuple):
    """What is added to a line of the history."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int


class LedgerRows(Protocol):
    """Rows, within one transaction."""

    def zoning(self) -> Zoning | None: ...
    def put_zoning(self, row: Zoning) -> None: ...
    def newest(self) -> Day | None: ...
    def day(self, day: date) -> Day | None: ...
    def put_day(self, row: Day) -> None: ...
    def hold(self, id: str) -> Held | None: ...
    def put_hold(self, row: Held) -> None: ...
    def drop_hold(self, id: str) -> None: ...
    def expired(self, time: int) -> list[Held]: ...
    def tombstone(self, id: str) -> Tombstone | None: ...
    def put_tombstone(self, row: Tombstone) -> None: ...
    def drop_tombstone(self, id: str) -> None: ...
    def drop_tombstones_before(self, time: int) -> None: ...
    def add_history(self, day: date, model: str, backend: str, counts: Counts) -> None: ...
    def days_after(self, day: date) -> list[Day]: ...
    def move(self, day: date, to: date) -> None:
        """Give reservations, tombstones and history of a day to another, and drop its sums."""

    def forgive(self, day: date, latest: int) -> None:
        """Mark the day's tombstones as forgiven; no reservation expires later than `latest`."""


class _Now(NamedTuple):
    """A moment by the ledger's own calendar."""

    time: int
    day: date
    """The clock's day in `zone`."""
    zone: str
    next: str | None
    earliest: date | None
    kept: bool
    """The ledger has recorded the zone."""


def day_status(rows: LedgerRows, moment: Moment) -> DayStatus:
    """How the current day stands, expired reservations as if they had been swept."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    for held in rows.expired(now.time):
        if held.day == row.day:
            row = _expire(row, held)
    return _standing(row, now)


def reserve(rows: LedgerRows, moment: Moment, hold: ReservationRow, limit: int) -> tuple[bool, DayStatus]:
    """Hold an amount if it fits. Raises `LedgerError` when the ledger is ahead, or has another time zone."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    if _standing(row, now).ahead:
        raise ahead(row.day, now.day)
    _keep_zone(rows, now)
    if sweep(rows, now.time):
        row = _current(rows, now)
    before = _standing(row, now)
    if before.spent + before.reserved + hold.amount > limit:
        return False, before
    row = row._replace(reserved=_sum(row.reserved, hold.amount))
    expires = now.time + LEASE
    rows.put_hold(Held(hold.id, row.day, hold.amount, expires, hold.owner, False, hold.model, hold.backend))
    rows.put_day(row)
    return True, _standing(row, now)


def dispatch(rows: LedgerRows, moment: Moment, id: str) -> bool:
    """Mark a reservation whose lease has not run out."""
    held = rows.hold(id)
    if held is None or held.expires <= moment.time:
        return False
    rows.put_hold(held._replace(dispatched=True, expires=moment.time + LEASE))
    return True


def settle(rows: LedgerRows, moment: Moment, id: str, cost: int, use: Use, requests: int) -> Settled | None:
    """Turn a reservation, or what is left of one, into what was spent."""
    now = _now(rows, moment)
    held = rows.hold(id)
    if held is not None:
        row = _row(rows, held.day)
        row = row._replace(reserved=row.reserved - held.amount, spent=_sum(row.spent, cost))
        counts = Counts(requests, use.input_tokens, use.output_tokens, cost)
        rows.add_history(held.day, held.model, held.backend, counts)
        rows.drop_hold(id)
        rows.put_day(row)
        return Settled(_standing(row, now), held.amount, late=False)
    tombstone = rows.tombstone(id)
    if tombstone is None:
        return None
    row = _row(rows, tombstone.day)
    change = cost - tombstone.charged
    # Less was spent than was charged and then forgiven: the rest of the day's spending still counts.
    pardon = min(change, 0) if tombstone.forgiven else 0
    row = row._replace(spent=_sum(row.spent, change), forgiven=row.forgiven + pardon)
    counts = Counts(requests - (tombstone.charged > 0), use.input_tokens, use.output_tokens, change)
    rows.add_history(tombstone.day, tombstone.model, tombstone.backend, counts)
    rows.drop_tombstone(id)
    rows.put_day(row)
    return Settled(_standing(row, now), tombstone.amount, late=True)


def record(rows: LedgerRows, moment: Moment, cost: int, use: Use) -> DayStatus:
    """Note what was spent, on the current day: also when the ledger is ahead or the caller's zone is another one."""
    now = _now(rows, moment)
    row = _current(rows, now)
    row = row._replace(spent=_sum(row.spent, cost))
    _keep_zone(rows, now)
    rows.add_history(row.day, use.model, use.backend, Counts(1, use.input_tokens, use.output_tokens, cost))
    rows.put_day(row)
    return _standing(row, now)


def warn_once(rows: LedgerRows, day: date) -> bool:
    """True for the first who asks."""
    row = _row(rows, day)
    if row.warned:
        return False
    rows.put_day(row._replace(warned=True))
    return True


def reset(rows: LedgerRows, moment: Moment) -> Reset:
    """Forgive the clock's day, and move later days to it. Raises `LedgerError` when the zone is another one."""
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
    """Change the zone when the current day is over. Raises `LedgerError` when the ledger is ahead."""
    now = _now(rows, moment)
    if rows.newest() is None and now.earliest is None:
        rows.put_zoning(Zoning(zone))
        return Rezoned(zone, None, before=now.zone)
    row = _current(rows, now)
    changed = None if zone == now.zone else zone
    if changed and _standing(row, now).ahead:
        raise ahead(row.day, now.day)
    rows.put_zoning(Zoning(now.zone, changed, row.day if changed or now.earliest else None))
    return Rezoned(now.zone, changed, before=now.next or now.zone)


def sweep(rows: LedgerRows, time: int) -> bool:
    """Settle what has expired, and tell whether there was any."""
    expired = rows.expired(time)
    for held in expired:
        row = _expire(_row(rows, held.day), held)
        charged = held.amount if held.dispatched else 0
        if held.dispatched:
            rows.add_history(held.day, held.model, held.backend, Counts(1, 0, 0, charged))
        left = Tombstone(held.id, held.day, held.amount, charged, False, time, held.model, held.backend)
        rows.put_tombstone(left)
        rows.drop_hold(held.id)
        rows.put_day(row)
    if expired:
        rows.drop_tombstones_before(time - REMEMBERED)
    return bool(expired)


def ahead(newest: date, today: date) -> LedgerError:
    """The error for a ledger that has seen the future."""
    return LedgerError(
        f"the ledger's newest day is {newest}, and by the clock it is {today}: one of them is wrong, so nothing that"
        " costs money is sent",
        hint=f"set the clock right; if it is right, repair the ledger: {REPAIR}",
    )


def other_zone(kept: str, given: str) -> LedgerError:
    """The error for a caller whose days are not the ledger's."""
    return LedgerError(
        f"the ledger counts its days in {kept}, and the budget's time zone is {given}: nothing that costs money is sent"
        " while they differ",
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
            "the ledger counts its days in a time zone that this system does not know",
            hint="install the tzdata package, or begin a new ledger: move the file away, then: " + REPAIR,
        ) from unknown


def _require_zone(now: _Now, moment: Moment) -> None:
    if moment.zone not in (now.zone, now.next):
        raise other_zone(now.zone, moment.zone)


def _keep_zone(rows: LedgerRows, now: _Now) -> None:
    if not now.kept:
        rows.put_zoning(Zoning(now.zone))


def _expire(row: Day, held: Held) -> Day:
    row = row._replace(reserved=row.reserved - held.amount)
    return row._replace(spent=_sum(row.spent, held.amount)) if held.dispatched else row


def _current(rows: LedgerRows, now: _Now) -> Day:
    day = now.day if now.earliest is None else max(now.day, now.earliest)
    newest = rows.newest()
    return newest if newest is not None and newest.day >= day else Day(day)


def _row(rows: LedgerRows, day: date) -> Day:
    return rows.day(day) or Day(day)


def _standing(row: Day, now: _Now) -> DayStatus:
    return DayStatus(
        row.day,
        row.spent - row.forgiven,
        row.reserved,
        row.warned,
        ahead=row.day > now.day + timedelta(days=1),
        zone=now.zone,
        next_zone=now.next,
    )


def _sum(one: int, other: int) -> int:
    if one + other > GREATEST:
        raise LedgerError("the sum of a day's spending is larger than the ledger can hold; nothing was written")
    return one + other
