"""A ledger counts its days in one time zone: no other zone opens a budget, and a change never gives a day two."""

import contextlib
import datetime as dt
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import CostError, DailyBudgetExceeded, LedgerError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import Ledger, Moment, ReservationRow, Use, open_ledger
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.serve.budget.ledger.support import become_version_2, change, rows

EAST = "Pacific/Kiritimati"  # UTC+14
WEST = "Etc/GMT+12"  # UTC-12
NOON = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC).timestamp()
HOUR = 3600.0


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made = open_ledger("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/ledger")
    yield made
    made.close()


class Clock:
    def __init__(self, time: float = NOON) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


def breaker(ledger: Ledger, zone: str, clock: Clock) -> CostCircuitBreaker:
    config = CircuitBreakerConfig(daily_budget_usd="1", max_request_cost_usd="1", timezone=zone)
    return CostCircuitBreaker(config, ledger, now=clock, on_alert=lambda alert: None)


def test_a_second_zone_is_refused_and_renews_nobodys_budget(ledger: Ledger) -> None:
    clock = Clock()
    utc, east = breaker(ledger, "UTC", clock), breaker(ledger, EAST, clock)
    utc.record("0.60")
    for use in (lambda: east.check("0.50"), lambda: east.reserve("0.50"), east.status, east.reset):
        with pytest.raises(LedgerError) as refused:
            use()
        assert "UTC" in refused.value.message and EAST in refused.value.message
        assert re.sub(r" --ledger \S+", "", str(refused.value.hint)).splitlines() == [
            "to keep UTC: batuta serve budget set --timezone UTC",
            f"to change both from the next day on: batuta serve budget set --timezone {EAST}",
        ]
    east.record("0.10")  # money that is spent is noted, on the ledger's day
    with pytest.raises(DailyBudgetExceeded):
        utc.check("0.50")
    assert utc.status().spent == 7 * 10**8
    assert str(utc.status().day) == "2026-11-26"


def test_a_reservation_is_settled_whatever_the_zone(ledger: Ledger) -> None:
    clock = Clock()
    utc, east = breaker(ledger, "UTC", clock), breaker(ledger, EAST, clock)
    held = utc.reserve("0.60")
    held._operations = east._operations
    held.settle("0.30")
    assert utc.status().spent == 3 * 10**8 and utc.status().reserved == 0


@pytest.mark.parametrize(
    ("old", "new", "change_at", "still", "next_day"),
    [
        # UTC to UTC+14: the day of UTC ends at midnight UTC, and the next one 10 hours later.
        ("UTC", EAST, "2026-11-26T12:00", "2026-11-26T23:59", "2026-11-27T00:00"),
        # UTC+14 to UTC-12: the day named 2026-11-27 lasts until it is over in UTC-12.
        (EAST, WEST, "2026-11-26T12:00", "2026-11-28T11:59", "2026-11-28T12:00"),
        # Berlin changes its clock on 29 March 2026 and on 25 October 2026: days of 23 and 25 hours.
        ("UTC", "Europe/Berlin", "2026-03-28T12:00", "2026-03-28T23:59", "2026-03-29T00:00"),
        ("Europe/Berlin", "UTC", "2026-10-25T12:00", "2026-10-25T23:59", "2026-10-26T00:00"),
    ],
)
def test_a_change_takes_effect_when_the_day_is_over_in_both_zones(
    ledger: Ledger, old: str, new: str, change_at: str, still: str, next_day: str
) -> None:
    def at(text: str) -> float:
        return dt.datetime.fromisoformat(text + "+00:00").timestamp()

    clock = Clock(at(change_at))
    before, after = breaker(ledger, old, clock), breaker(ledger, new, clock)
    before.record("0.90")
    day = before.status().day
    done = before.change_timezone(new)
    assert (done.zone, done.next_zone) == (old, new)
    for one in (before, after):  # until then the configuration may have either
        found = one.status()
        assert (found.day, found.timezone, found.next_timezone) == (day, old, new)
        assert found.resets_at.timestamp() == at(next_day)
    clock.time = at(still)
    with pytest.raises(DailyBudgetExceeded):
        after.check("0.50")
    clock.time = at(next_day)
    after.check("0.50")
    assert after.status().day == day + dt.timedelta(days=1)
    assert (after.status().timezone, after.status().next_timezone) == (new, None)
    with pytest.raises(LedgerError, match="counts days in"):
        before.check("0.50")


def test_the_days_after_a_change_are_those_of_the_new_zone(ledger: Ledger) -> None:
    clock = Clock(dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC).timestamp())
    breaker(ledger, "UTC", clock).record("0.1")
    breaker(ledger, "UTC", clock).change_timezone(EAST)
    clock.time = dt.datetime(2026, 11, 27, 9, 59, tzinfo=dt.UTC).timestamp()
    east = breaker(ledger, EAST, clock)
    east.record("0.9")
    assert str(east.status().day) == "2026-11-27"
    clock.time += 60
    assert (str(east.status().day), east.status().spent) == ("2026-11-28", 0)


def test_a_day_on_which_nothing_was_spent_is_not_gone_back_behind_either(ledger: Ledger) -> None:
    clock = Clock(dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC).timestamp())
    east, west = breaker(ledger, EAST, clock), breaker(ledger, WEST, clock)
    east.record("0.1")
    clock.time = dt.datetime(2026, 11, 26, 9, tzinfo=dt.UTC).timestamp()
    assert str(east.status().day) == "2026-11-26"
    east.change_timezone(WEST)
    clock.time += 2 * HOUR  # 27 November in the east, and 25 November in the west
    assert str(west.status().day) == "2026-11-26"
    west.record("0.9")
    clock.time = dt.datetime(2026, 11, 27, 11, 59, tzinfo=dt.UTC).timestamp()
    assert (str(west.status().day), west.status().spent) == ("2026-11-26", 9 * 10**8)


def test_a_change_can_be_taken_back_on_the_same_day(ledger: Ledger) -> None:
    clock = Clock()
    utc = breaker(ledger, "UTC", clock)
    utc.record("0.60")
    assert utc.change_timezone(EAST).before == "UTC"
    assert utc.change_timezone("UTC").before == EAST
    clock.time += 24 * HOUR
    assert utc.status().timezone == "UTC"
    with pytest.raises(LedgerError):
        breaker(ledger, EAST, clock).status()


def test_before_anything_is_counted_a_change_is_immediate(ledger: Ledger) -> None:
    clock = Clock()
    assert breaker(ledger, "UTC", clock).change_timezone(EAST).next_zone is None
    breaker(ledger, EAST, clock).record("0.5")
    with pytest.raises(LedgerError):
        breaker(ledger, "UTC", clock).check("0.1")


def test_a_ledger_far_ahead_with_another_zone_is_repaired_by_the_commands_that_its_errors_name(ledger: Ledger) -> None:
    clock = Clock(NOON + 5 * 24 * HOUR)
    breaker(ledger, "UTC", clock).record("0.5")
    clock.time = NOON
    east, utc = breaker(ledger, EAST, clock), breaker(ledger, "UTC", clock)
    with pytest.raises(LedgerError, match="counts days"):
        east.check("0.1")
    with pytest.raises(LedgerError, match="newest day"):
        east.change_timezone(EAST)
    assert east.change_timezone("UTC").next_zone is None  # keeps what the ledger has
    utc.reset()
    assert utc.change_timezone(EAST).next_zone == EAST
    utc.check("0.1")


def test_a_change_made_while_the_clock_was_ahead_is_repaired_by_reset(ledger: Ledger) -> None:
    clock = Clock(NOON + 400 * 24 * HOUR)
    utc = breaker(ledger, "UTC", clock)
    utc.record("0.5")
    utc.change_timezone("Asia/Tokyo")
    clock.time = NOON
    with pytest.raises(LedgerError, match="newest day"):
        utc.check("0.1")
    utc.reset()
    utc.check("1")
    assert str(utc.status().day) == "2026-11-26"


ZONES = ["UTC", EAST, WEST, "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]


@settings(max_examples=100)
@given(
    st.sampled_from(ZONES),
    st.lists(st.tuples(st.floats(0, 30 * HOUR), st.sampled_from(ZONES)), min_size=1, max_size=12),
    st.sampled_from(["2026-11-26T12:00", "2026-03-28T03:00", "2026-10-24T03:00", "2011-12-28T20:00"]),
)
def test_however_zones_change_days_only_go_forward_and_each_has_one_budget(
    first: str, steps: list[tuple[float, str]], start: str
) -> None:
    clock = Clock(dt.datetime.fromisoformat(start + "+00:00").timestamp())
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        ledgers = MemoryLedger(), SqliteLedger(f"{directory}/ledger")
        spent: dict[dt.date, int] = {}
        zone, asked, last = first, first, dt.date.min
        for wait, wanted in steps:
            clock.time += wait
            if not accepted(ledgers[0], clock.time, zone):
                zone = asked
            now = moment(clock.time, zone)
            found = ledgers[0].day_status(now)
            assert ledgers[1].day_status(now) == found
            assert found.day >= last
            last = found.day
            # No day begins before it does somewhere on earth, so there are never more budgets than days.
            assert last <= dt.datetime.fromtimestamp(clock.time, ZoneInfo(EAST)).date()
            for ledger in ledgers:
                with contextlib.suppress(CostError), breaker(ledger, zone, clock).reserve("0.6") as held:
                    held.settle("0.6")
                    if ledger is ledgers[0]:
                        spent[last] = spent.get(last, 0) + 6
            assert all(tenths <= 10 for tenths in spent.values())
            assert ledgers[0].rezone(now, wanted) == ledgers[1].rezone(now, wanted)
            asked = wanted
        assert ledgers[0].history(dt.date.min) == ledgers[1].history(dt.date.min)
        ledgers[1].close()


def moment(time: float, zone: str) -> Moment:
    return Moment(int(time * 1000), dt.datetime.fromtimestamp(time, ZoneInfo(zone)).date(), zone)


def accepted(ledger: Ledger, time: float, zone: str) -> bool:
    try:
        ledger.day_status(moment(time, zone))
    except LedgerError:
        return False
    return True


# The file.


def first_version(path: Path) -> None:
    """Turn a ledger into one of the first version, which kept no zone."""
    become_version_2(path)
    change(path, "DROP TABLE zone", "PRAGMA user_version = 1")


def test_a_ledger_of_the_first_version_takes_the_zone_of_its_first_use(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger", Clock()
    ledger = open_ledger(f"sqlite:///{path}")
    tokyo, utc = breaker(ledger, "Asia/Tokyo", clock), breaker(ledger, "UTC", clock)
    tokyo.record("0.4")
    ledger.close()
    first_version(path)
    assert utc.status().spent == 4 * 10**8  # to read writes nothing
    ledger.close()
    assert rows(path, "PRAGMA user_version") == [(1,)]
    tokyo.record("0.1")
    assert tokyo.status().spent == 5 * 10**8
    with pytest.raises(LedgerError, match="counts days in Asia/Tokyo"):
        utc.check("0.1")
    ledger.close()
    assert rows(path, "SELECT name, next, after FROM zone") == [("Asia/Tokyo", None, None)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_change_of_a_ledger_of_the_first_version_waits_for_the_next_day(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger", Clock()
    ledger = open_ledger(f"sqlite:///{path}")
    utc = breaker(ledger, "UTC", clock)
    utc.record("0.6")
    ledger.close()
    first_version(path)
    assert utc.change_timezone(EAST).next_zone == EAST
    with pytest.raises(DailyBudgetExceeded):
        breaker(ledger, EAST, clock).check("0.5")
    ledger.close()


def test_processes_that_race_with_different_zones_agree_on_one(tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[3]); sys.stdin.read()\n"
        "from batuta_cli.errors import LedgerError\n"
        "from batuta_cli.serve.budget.breaker import *\nfrom batuta_cli.serve.budget.ledger import open_ledger\n"
        "c = CircuitBreakerConfig(daily_budget_usd='1', max_request_cost_usd='1', timezone=sys.argv[2])\n"
        "b = CostCircuitBreaker(c, open_ledger('sqlite:///' + sys.argv[1]), now=lambda: 1795694400.0)\n"
        "try: b.reserve('0.6').settle('0.6'); print('spent')\n"
        "except (LedgerError, CostError): print('refused')\n"
    )
    path, root = tmp_path / "ledger", str(Path(__file__).resolve().parents[4])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), zone, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for zone in ("UTC", EAST, WEST, "Asia/Tokyo")
    ]
    said = sorted(child.communicate()[0].strip() for child in children)
    assert [child.returncode for child in children] == [0] * 4
    assert said == ["refused", "refused", "refused", "spent"]
    assert len(rows(path, "SELECT name FROM zone")) == 1


def test_a_zone_that_this_system_does_not_know_refuses(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger", Clock()
    ledger = open_ledger(f"sqlite:///{path}")
    breaker(ledger, "UTC", clock).record("0.1")
    change(path, "UPDATE zone SET name = 'Mars/Olympus'")
    with pytest.raises(LedgerError, match="does not know"):
        ledger.reserve(moment(NOON, "UTC"), ReservationRow("r", 1, "me"), 10)
    with pytest.raises(LedgerError, match="does not know"):
        ledger.record(moment(NOON, "UTC"), 1, Use())
    ledger.close()
