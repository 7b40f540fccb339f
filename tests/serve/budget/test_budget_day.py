"""Which day it is, and when the next one begins: in every time zone, also where midnight does not exist."""

import datetime as dt
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UsageError
from batuta_cli.serve.budget.budget_day import day_after, day_at, time_zone

# 1970 to 2100; `zdump -v` knows no change of any zone after 2100 that is not one before.
TIMES = st.integers(0, 4_102_444_800)
ZONES = st.sampled_from(sorted(available_timezones() - {"localtime"}))


def utc(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("zone", "now", "day", "over"),
    [
        ("UTC", "2026-11-23T22:00", "2026-11-23", "2026-11-24T00:00"),
        ("UTC", "2028-02-28T23:59:59", "2028-02-28", "2028-02-29T00:00"),
        ("UTC", "2028-02-29T00:00", "2028-02-29", "2028-03-01T00:00"),
        ("UTC", "2100-02-28T12:00", "2100-02-28", "2100-03-01T00:00"),
        ("Europe/Berlin", "2026-11-23T23:00", "2026-11-24", "2026-11-24T23:00"),
        # 23 and 25 hours.
        ("Europe/Berlin", "2026-03-28T23:00", "2026-03-29", "2026-03-29T22:00"),
        ("Europe/Berlin", "2026-10-24T22:00", "2026-10-25", "2026-10-25T23:00"),
        ("America/New_York", "2026-03-08T05:00", "2026-03-08", "2026-03-09T04:00"),
        # Midnight does not exist: the clock jumps from 24:00 to 01:00.
        ("America/Sao_Paulo", "2018-11-03T12:00", "2018-11-03", "2018-11-04T03:00"),
        ("Africa/Cairo", "2026-04-23T12:00", "2026-04-23", "2026-04-23T22:00"),
        ("Asia/Beirut", "2026-03-28T12:00", "2026-03-28", "2026-03-28T22:00"),
        # 24:00 becomes 23:00 again: the day is an hour longer.
        ("America/Sao_Paulo", "2018-02-18T01:30", "2018-02-17", "2018-02-18T03:00"),
        ("Africa/Cairo", "2026-10-29T20:30", "2026-10-29", "2026-10-29T22:00"),
        ("Asia/Beirut", "2026-10-24T20:30", "2026-10-24", "2026-10-24T22:00"),
        # Samoa had no 30 December 2011.
        ("Pacific/Apia", "2011-12-30T09:59:59", "2011-12-29", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-31", "2011-12-31T10:00"),
        ("Asia/Kathmandu", "2026-11-23T18:15", "2026-11-24", "2026-11-24T18:15"),
        ("Pacific/Kiritimati", "2026-11-23T10:00", "2026-11-24", "2026-11-24T10:00"),
        ("Etc/GMT+12", "2026-11-23T11:59:59", "2026-11-22", "2026-11-23T12:00"),
    ],
)
def test_days_are_those_of_the_calendar(zone: str, now: str, day: str, over: str) -> None:
    found = day_at(utc(now), time_zone(zone))
    assert found.isoformat() == day
    end = day_after(found, utc(now), time_zone(zone))
    assert end.timestamp() == utc(over)
    assert end.tzinfo is not None


@given(TIMES, ZONES)
def test_the_next_day_begins_at_the_first_second_that_belongs_to_it(now: int, name: str) -> None:
    zone = time_zone(name)
    day = dt.datetime.fromtimestamp(now, ZoneInfo(name)).date()
    assert day_at(now, zone) == day
    end = int(day_after(day, now, zone).timestamp())
    assert now < end <= now + 49 * 3600
    before, after = (dt.datetime.fromtimestamp(t, ZoneInfo(name)).date() for t in (end - 1, end))
    assert before <= day < after


@given(TIMES, ZONES)
def test_it_also_ends_when_the_ledger_is_a_day_ahead_of_the_clock(now: int, name: str) -> None:
    day = day_at(now, time_zone(name)) + dt.timedelta(days=1)
    end = day_after(day, now, time_zone(name)).timestamp()
    assert day_at(end - 1, time_zone(name)) <= day < day_at(end, time_zone(name))


@pytest.mark.parametrize("name", ["Europe/Berln", "", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "Europe"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        time_zone(name)


def test_the_nearest_time_zone_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean Europe/Berlin"):
        time_zone("europe/berln")
