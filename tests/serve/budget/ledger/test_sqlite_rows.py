"""Rows in SQLite are those in memory: every step on both, and what is flushed is read by another connection."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.serve.budget.ledger import sqlite_file
from batuta_cli.serve.budget.ledger.memory import MemoryRows
from batuta_cli.serve.budget.ledger.sqlite_rows import SqliteRows
from batuta_cli.serve.budget.ledger.stored_rows import Counts, Day, LedgerRows, StoredReservation, Tombstone, Zoning
from tests.serve.budget.ledger.support import START, at

TODAY, TOMORROW = at(START).day, at(START + 24 * 3_600_000).day


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = str(tmp_path / "ledger")
    sqlite_file.make(path)
    with closing(sqlite_file.connect(path, 1.0, "normal")) as opened:
        yield opened


def stored(id: str, amount: int = 5, expires: int = START, owner: str = "me") -> StoredReservation:
    return StoredReservation(id, TODAY, amount, expires, owner, True, "m", "B")


def fill(rows: LedgerRows) -> None:
    """Two days with sums that match their rows, a reservation, a tombstone and a zone."""
    rows.put_zoning(Zoning("UTC", "Asia/Tokyo", TODAY))
    rows.put_day(Day(TODAY, spent=7, reserved=5))
    rows.put_day(Day(TOMORROW, spent=2))
    rows.put_reservation(stored("r"))
    rows.put_tombstone(Tombstone("t", TODAY, 3, 3, False, START, "m", "B"))
    rows.add_history(TODAY, "m", "B", Counts(1, 10, 20, 4))
    rows.add_history(TODAY, "m", "B", Counts(1, 0, 0, 3))
    rows.add_history(TOMORROW, "", "", Counts(0, 0, 0, 2))


def shown(rows: LedgerRows) -> list[object]:
    return [
        rows.zoning(),
        rows.newest(),
        rows.day(TODAY),
        rows.days_after(TODAY),
        rows.reservation("r"),
        rows.reservation("none"),
        rows.expired(START),
        rows.tombstone("t"),
        rows.history(TODAY),
    ]


def test_what_is_written_is_read_before_and_after_it_is_flushed(connection: sqlite3.Connection) -> None:
    rows, expected = SqliteRows(connection), MemoryRows()
    connection.execute("BEGIN IMMEDIATE")
    rows.begin()
    fill(rows)
    fill(expected)
    assert shown(rows) == shown(expected)
    rows.flush()
    connection.execute("COMMIT")
    again = SqliteRows(connection)
    again.begin()
    assert shown(again) == shown(expected)


def test_days_are_moved_with_all_that_belongs_to_them(connection: sqlite3.Connection) -> None:
    rows, expected = SqliteRows(connection), MemoryRows()
    connection.execute("BEGIN IMMEDIATE")
    rows.begin()
    for each in (rows, expected):
        fill(each)
        each.move(TODAY, TOMORROW)
        each.forgive(TOMORROW, START - 1)
        each.renew("somebody", START + 9)
    assert shown(rows) == shown(expected)


def test_a_transaction_that_was_rolled_back_leaves_nothing_behind(connection: sqlite3.Connection) -> None:
    rows = SqliteRows(connection)
    connection.execute("BEGIN IMMEDIATE")
    rows.begin()
    fill(rows)
    rows.flush()
    connection.execute("ROLLBACK")
    rows.forget()
    connection.execute("BEGIN")
    rows.begin()
    assert shown(rows) == shown(MemoryRows())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30))
def test_many_changes_to_a_few_reservations_end_like_those_in_memory(changes: list[tuple[int, bool]]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in sqlite_file._TABLES.values():
            connection.execute(statement)
        rows, expected = SqliteRows(connection), MemoryRows()
        connection.execute("BEGIN")
        rows.begin()
        for number, (name, put) in enumerate(changes):
            for each in (rows, expected):
                known = each.reservation(f"r{name}")
                if put:
                    each.put_reservation(stored(f"r{name}", number + 1, START + number))
                elif known:
                    each.drop_reservation(f"r{name}")
        rows.flush()
        for each in (rows, expected):
            assert {row.id for row in each.expired(START + 99)} == set(expected.reservations)
        assert [rows.reservation(f"r{name}") for name in range(6)] == [
            expected.reservation(f"r{name}") for name in range(6)
        ]
