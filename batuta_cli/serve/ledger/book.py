"""The rules of the ledger, once for every place that keeps rows itself.

Each function is the body of one transaction: it reads rows from a `Shelf`, and writes them back. What can fail is
computed before the first row of a step is written.

1. A reservation is a row; day.reserved is the sum of its rows' amounts.
2. The day is the later of the clock's and the ledger's newest, so that a clock set back opens no second budget. More
   than one day apart, one of them is wrong, and nothing may be reserved before somebody has looked (`reset`).
3. A reservation that nobody renews expires: it is spent in full if its request was dispatched, else it is dropped. A
   tombstone stays, so that a late settlement corrects the sums once.
4. What happens to a reservation happens on its own day.
"""

from datetime import date, timedelta
from typing import NamedTuple, Protocol

from batuta_cli.errors import LedgerError
from batuta_cli.serve.ledger.base import GREATEST, LEASE, REMEMBERED, Hold, Moment, Reset, Settled, Standing, Use

REPAIR = "batuta serve budget reset --yes"


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


class Counts(NamedTuple):
    """What is added to a line of the history."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int


class Shelf(Protocol):
    """Rows, within one transaction."""

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


def standing(shelf: Shelf, moment: Moment) -> Standing:
    """How the current day stands, expired reservations as if they had been swept."""
    row = _current(shelf, moment)
    for held in shelf.expired(moment.time):
        if held.day == row.day:
            row = _expire(row, held)
    return _standing(row, moment)


def reserve(shelf: Shelf, moment: Moment, hold: Hold, limit: int) -> tuple[bool, Standing]:
    """Hold an amount if it fits. Raises `LedgerError` when the ledger is ahead."""
    row = _current(shelf, moment)
    if _standing(row, moment).ahead:
        raise ahead(row.day, moment.day)
    if sweep(shelf, moment):
        row = _current(shelf, moment)
    before = _standing(row, moment)
    if before.spent + before.reserved + hold.amount > limit:
        return False, before
    row = row._replace(reserved=_sum(row.reserved, hold.amount))
    expires = moment.time + LEASE
    shelf.put_hold(Held(hold.id, row.day, hold.amount, expires, hold.owner, False, hold.model, hold.backend))
    shelf.put_day(row)
    return True, _standing(row, moment)


def dispatch(shelf: Shelf, moment: Moment, id: str) -> bool:
    """Mark a reservation whose lease has not run out."""
    held = shelf.hold(id)
    if held is None or held.expires <= moment.time:
        return False
    shelf.put_hold(held._replace(dispatched=True, expires=moment.time + LEASE))
    return True


def settle(shelf: Shelf, moment: Moment, id: str, cost: int, use: Use, requests: int) -> Settled | None:
    """Turn a reservation, or what is left of one, into what was spent."""
    held = shelf.hold(id)
    if held is not None:
        row = _row(shelf, held.day)
        row = row._replace(reserved=row.reserved - held.amount, spent=_sum(row.spent, cost))
        counts = Counts(requests, use.input_tokens, use.output_tokens, cost)
        shelf.add_history(held.day, held.model, held.backend, counts)
        shelf.drop_hold(id)
        shelf.put_day(row)
        return Settled(_standing(row, moment), held.amount, late=False)
    tombstone = shelf.tombstone(id)
    if tombstone is None:
        return None
    row = _row(shelf, tombstone.day)
    change = cost - tombstone.charged
    # Less was spent than was charged and then forgiven: the rest of the day's spending still counts.
    pardon = min(change, 0) if tombstone.forgiven else 0
    row = row._replace(spent=_sum(row.spent, change), forgiven=row.forgiven + pardon)
    counts = Counts(requests - (tombstone.charged > 0), use.input_tokens, use.output_tokens, change)
    shelf.add_history(tombstone.day, tombstone.model, tombstone.backend, counts)
    shelf.drop_tombstone(id)
    shelf.put_day(row)
    return Settled(_standing(row, moment), tombstone.amount, late=True)


def record(shelf: Shelf, moment: Moment, cost: int, use: Use) -> Standing:
    """Note what was spent, on the current day: money that is gone is written down even when the ledger is ahead."""
    row = _current(shelf, moment)
    row = row._replace(spent=_sum(row.spent, cost))
    shelf.add_history(row.day, use.model, use.backend, Counts(1, use.input_tokens, use.output_tokens, cost))
    shelf.put_day(row)
    return _standing(row, moment)


def warn_once(shelf: Shelf, day: date) -> bool:
    """True for the first who asks."""
    row = _row(shelf, day)
    if row.warned:
        return False
    shelf.put_day(row._replace(warned=True))
    return True


def reset(shelf: Shelf, moment: Moment) -> Reset:
    """Forgive the clock's day, and move later days to it."""
    sweep(shelf, moment)
    row, moved = _row(shelf, moment.day), shelf.days_after(moment.day)
    forgiven = row.spent - row.forgiven
    for later in moved:
        row = row._replace(spent=_sum(row.spent, later.spent), reserved=_sum(row.reserved, later.reserved))
        forgiven += later.spent - later.forgiven
    for later in moved:
        shelf.move(later.day, moment.day)
    shelf.forgive(moment.day, moment.time + LEASE)
    shelf.put_day(row._replace(forgiven=row.spent, warned=False))
    return Reset(moment.day, forgiven, tuple(later.day for later in moved))


def sweep(shelf: Shelf, moment: Moment) -> bool:
    """Settle what has expired, and tell whether there was any."""
    expired = shelf.expired(moment.time)
    for held in expired:
        row = _expire(_row(shelf, held.day), held)
        charged = held.amount if held.dispatched else 0
        if held.dispatched:
            shelf.add_history(held.day, held.model, held.backend, Counts(1, 0, 0, charged))
        left = Tombstone(held.id, held.day, held.amount, charged, False, moment.time, held.model, held.backend)
        shelf.put_tombstone(left)
        shelf.drop_hold(held.id)
        shelf.put_day(row)
    if expired:
        shelf.drop_tombstones_before(moment.time - REMEMBERED)
    return bool(expired)


def ahead(newest: date, today: date) -> LedgerError:
    """The error for a ledger that has seen the future."""
    return LedgerError(
        f"the ledger's newest day is {newest}, and by the clock it is {today}: one of them is wrong, so nothing that"
        " costs money is sent",
        hint=f"set the clock right; if it is right, repair the ledger: {REPAIR}",
    )


def _expire(row: Day, held: Held) -> Day:
    row = row._replace(reserved=row.reserved - held.amount)
    return row._replace(spent=_sum(row.spent, held.amount)) if held.dispatched else row


def _current(shelf: Shelf, moment: Moment) -> Day:
    newest = shelf.newest()
    return newest if newest is not None and newest.day >= moment.day else Day(moment.day)


def _row(shelf: Shelf, day: date) -> Day:
    return shelf.day(day) or Day(day)


def _standing(row: Day, moment: Moment) -> Standing:
    return Standing(
        row.day, row.spent - row.forgiven, row.reserved, row.warned, row.day > moment.day + timedelta(days=1)
    )


def _sum(one: int, other: int) -> int:
    if one + other > GREATEST:
        raise LedgerError("the sum of a day's spending is larger than the ledger can hold; nothing was written")
    return one + other
