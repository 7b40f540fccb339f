"""The rules of the ledger, on rows in memory: what each transaction changes, and that a refused one changes nothing.

test_contract.py compares all ledgers with a model that has no running sums.
"""

import copy
import datetime as dt

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger import rules
from batuta_cli.serve.budget.ledger.base import GREATEST, LEASE, REMEMBERED, Moment, ReservationRow, Use
from batuta_cli.serve.budget.ledger.memory import MemoryRows
from batuta_cli.serve.budget.ledger.stored_rows import Day, Zoning
from tests.serve.budget.ledger.support import START, at

TODAY = at(START).day
DAY = 24 * 3_600_000


def reserved(rows: MemoryRows, id: str, amount: int, *, dispatched: bool = False, time: int = START) -> bool:
    return rules.reserve(rows, at(time), ReservationRow(id, amount, "me", "m", "B", dispatched), 1000)[0]


def state(rows: MemoryRows) -> dict[str, object]:
    return copy.deepcopy(vars(rows))


def test_the_limit_counts_spent_and_reserved_money_together_and_equality_fits() -> None:
    rows = MemoryRows()
    rules.record(rows, at(START), 500, Use())
    assert reserved(rows, "a", 400)
    before = state(rows)
    assert not reserved(rows, "b", 101)
    assert state(rows) == before
    assert reserved(rows, "b", 100)


def test_forgiven_spending_does_not_count_against_the_limit() -> None:
    rows = MemoryRows()
    rules.record(rows, at(START), 1000, Use())
    assert not reserved(rows, "a", 1)
    assert rules.reset(rows, at(START)).forgiven == 1000
    assert reserved(rows, "a", 1000)
    assert rows.days[TODAY].spent == 1000


def test_a_sweep_charges_what_was_dispatched_and_leaves_tombstones_for_a_week() -> None:
    rows = MemoryRows()
    reserved(rows, "sent", 60, dispatched=True)
    reserved(rows, "unsent", 40)
    assert not rules.sweep(rows, START + LEASE - 1)
    assert rules.sweep(rows, START + LEASE)
    assert rows.days[TODAY] == Day(TODAY, spent=60, forgiven=0, reserved=0)
    assert {id: tombstone.charged for id, tombstone in rows.tombstones.items()} == {"sent": 60, "unsent": 0}
    later = START + LEASE + REMEMBERED
    reserved(rows, "next", 1, time=later)
    rules.sweep(rows, later + LEASE)
    assert set(rows.tombstones) == {"next"}


def test_a_sum_above_the_greatest_is_refused_and_nothing_has_changed() -> None:
    rows = MemoryRows()
    rules.record(rows, at(START), GREATEST - 5, Use())
    before = state(rows)
    with pytest.raises(LedgerError, match="largest number"):
        rules.record(rows, at(START), 6, Use())
    assert state(rows) == before


def test_a_caller_with_another_zone_is_refused_and_told_how_to_change_it() -> None:
    rows = MemoryRows()
    rules.record(rows, at(START), 1, Use())
    with pytest.raises(LedgerError, match="counts days in UTC, but the budget's time zone is Asia/Tokyo") as caught:
        rules.day_status(rows, Moment(START, TODAY, "Asia/Tokyo"))
    assert "serve budget set --timezone UTC" in str(caught.value.hint)


def test_a_change_of_the_zone_waits_for_the_end_of_the_day_unless_the_ledger_is_empty() -> None:
    rows = MemoryRows()
    assert rules.rezone(rows, at(START), "Asia/Tokyo").next_zone is None
    assert rows.zone == Zoning("Asia/Tokyo")
    rows = MemoryRows()
    rules.record(rows, at(START), 1, Use())
    changed = rules.rezone(rows, at(START), "Asia/Tokyo")
    assert (changed.zone, changed.next_zone) == ("UTC", "Asia/Tokyo")


def test_a_ledger_ahead_of_the_clock_refuses_and_a_reset_moves_its_days_to_today() -> None:
    rows = MemoryRows()
    rules.record(rows, at(START + 5 * DAY), 7, Use("m", "B"))
    with pytest.raises(LedgerError, match="newest day is 2028-03-04"):
        reserved(rows, "a", 1)
    done = rules.reset(rows, at(START))
    assert (done.day, done.forgiven, done.moved) == (TODAY, 7, (dt.date(2028, 3, 4),))
    assert reserved(rows, "a", 1000)
    assert [(entry.day, entry.cost) for entry in rows.history(dt.date.min)] == [(TODAY, 7)]
