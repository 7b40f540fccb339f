"""The rules of the ledger, written once for all ledgers that store rows.

Each function is the body of one transaction: it reads rows from a `LedgerRows` and writes them back. It computes
everything that can fail before it writes the first row.

1. A reservation is a row. `day.reserved` is the sum of the amounts of that day's reservations.
2. The current day is the later of the clock's day and the ledger's newest day, so that a clock set back opens no second
   budget. When the ledger is more than one day ahead, nothing can be reserved until the operator runs `reset`.
3. A reservation that is not renewed expires. Its amount is spent in full if its request was dispatched, else nothing
   is. A tombstone row stays, so that a late settlement corrects the sums once.
4. Every change to a reservation counts on the day on which it was made.
5. A client (the name of a client key) has its own sums of a day. Each change of the day's sums that is made for a
   client is made in its sums too, in the same transaction, so a client's sums are never above the day's.
6. Days are counted in the ledger's time zone. A change of the zone takes effect when the current day has ended in the
   old zone. Afterwards no day before that one is current.
"""

from datetime import date, timedelta
from typing import NamedTuple

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
from batuta_cli.serve.budget.ledger.stored_rows import (
    ClientDay,
    Counts,
    Day,
    LedgerRows,
    StoredReservation,
    Tombstone,
    Zoning,
)

REPAIR = "batuta serve budget reset --yes"
REZONE = "batuta serve budget set --timezone"


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


def day_status(rows: LedgerRows, moment: Moment, client: str = "") -> DayStatus:
    """The status of the current day, with expired reservations counted as expired."""
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    sums = _client_row(rows, row.day, client)
    for stored in rows.expired(now.time):
        if stored.day == row.day:
            row = _expire(row, stored)
            if stored.client == client:
                charged = stored.amount if stored.dispatched else 0
                sums = sums.changed(spent=charged, reserved=-stored.amount)
    return _status(row, now, sums)


def reserve(
    rows: LedgerRows, moment: Moment, reservation: ReservationRow, limit: int, client_limit: int | None = None
) -> tuple[bool, DayStatus]:
    """Add a reservation if it fits both limits.

    Raises `LedgerError` when the ledger is ahead or has another time zone.
    """
    now = _now(rows, moment)
    _require_zone(now, moment)
    row = _current(rows, now)
    if _is_ahead(row, now):
        raise ahead(row.day, now.day)
    _keep_zone(rows, now)
    if sweep(rows, now.time):
        row = _current(rows, now)
    sums, amount = _client_row(rows, row.day, reservation.client), reservation.amount
    fits_client = client_limit is None or sums.spent - sums.forgiven + sums.reserved + amount <= client_limit
    if row.spent - row.forgiven + row.reserved + amount > limit or not fits_client:
        return False, _status(row, now, sums)
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
            reservation.client,
        )
    )
    rows.put_day(row)
    sums = _change_client(rows, row.day, reservation.client, reserved=amount)
    return True, _status(row, now, sums)


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
        rows.add_history(stored.day, stored.model, stored.backend, counts, stored.client)
        rows.drop_reservation(id)
        rows.put_day(row)
        sums = _change_client(rows, stored.day, stored.client, spent=cost, reserved=-stored.amount)
        return Settled(_status(row, now, sums), stored.amount, late=False)
    tombstone = rows.tombstone(id)
    if tombstone is None:
        return None
    row = _row(rows, tombstone.day)
    change = cost - tombstone.charged
    # A forgiven charge that was too high: take the difference out of the forgiven sum as well.
    pardon = min(change, 0) if tombstone.forgiven else 0
    row = row._replace(spent=_sum(row.spent, change), forgiven=row.forgiven + pardon)
    counts = Counts(requests - (tombstone.charged > 0), use.input_tokens, use.output_tokens, change)
    rows.add_history(tombstone.day, tombstone.model, tombstone.backend, counts, tombstone.client)
    rows.drop_tombstone(id)
    rows.put_day(row)
    sums = _change_client(rows, tombstone.day, tombstone.client, spent=change, forgiven=pardon)
    return Settled(_status(row, now, sums), tombstone.amount, late=True)


def record(rows: LedgerRows, moment: Moment, cost: int, use: Use) -> DayStatus:
    """Add a cost to the current day, also when the ledger is ahead or the caller has another time zone."""
    now = _now(rows, moment)
    row = _current(rows, now)
    row = row._replace(spent=_sum(row.spent, cost))
    _keep_zone(rows, now)
    counts = Counts(1, use.input_tokens, use.output_tokens, cost)
    rows.add_history(row.day, use.model, use.backend, counts, use.client)
    rows.put_day(row)
    return _status(row, now, _change_client(rows, row.day, use.client, spent=cost))


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
        clients = rows.client_days(later.day)
        rows.move(later.day, now.day)
        for sums in clients:
            _change_client(rows, now.day, sums.client, spent=sums.spent, reserved=sums.reserved)
    for sums in rows.client_days(now.day):
        rows.put_client_day(sums._replace(forgiven=sums.spent))
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
            rows.add_history(stored.day, stored.model, stored.backend, Counts(1, 0, 0, charged), stored.client)
        names = (stored.model, stored.backend, stored.client)
        rows.put_tombstone(Tombstone(stored.id, stored.day, stored.amount, charged, False, time, *names))
        rows.drop_reservation(stored.id)
        rows.put_day(row)
        _change_client(rows, stored.day, stored.client, spent=charged, reserved=-stored.amount)
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


def _client_row(rows: LedgerRows, day: date, client: str) -> ClientDay:
    return (rows.client_day(day, client) if client else None) or ClientDay(day, client)


def _change_client(
    rows: LedgerRows, day: date, client: str, *, spent: int = 0, forgiven: int = 0, reserved: int = 0
) -> ClientDay:
    """Add to the sums of a client; nothing is written without a client. No sum overflows before the day's does."""
    sums = _client_row(rows, day, client).changed(spent, forgiven, reserved)
    if client:
        rows.put_client_day(sums)
    return sums if client else ClientDay(day, "")


def _status(row: Day, now: _Now, sums: ClientDay) -> DayStatus:
    return DayStatus(
        row.day,
        row.spent - row.forgiven,
        row.reserved,
        row.warned,
        ahead=_is_ahead(row, now),
        zone=now.zone,
        next_zone=now.next,
        client_spent=sums.spent - sums.forgiven,
        client_reserved=sums.reserved,
    )


def _is_ahead(row: Day, now: _Now) -> bool:
    return row.day > now.day and row.day > now.day + timedelta(days=1)


def _sum(one: int, other: int) -> int:
    if one + other > GREATEST:
        raise LedgerError("the sum of a day's spending exceeds the ledger's largest number; nothing was written")
    return one + other
