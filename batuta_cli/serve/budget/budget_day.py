"""The days of a budget: which one it is, and when the next begins, by the clock of a time zone.

A day is what the calendar of the zone says, however long it is: 23 or 25 hours where the clock changes; and some
midnights never come, or come twice.
"""

import datetime as dt

from batuta_cli.errors import UsageError

_LONGEST_WAIT = 4 * 24 * 3600
"""Seconds to the next day, at most: a ledger may be a day ahead, and days have up to 25 hours, or 48 where one was left
out (Samoa had no 30 December 2011)."""


def time_zone(name: str) -> dt.tzinfo:
    """The time zone of that name in the IANA database. Raises `UsageError` that suggests the nearest."""
    if name == "UTC":
        return dt.UTC
    from zoneinfo import ZoneInfo

    from batuta_cli.config.kinds import RefusedValueError, TimeZone

    try:
        return ZoneInfo(TimeZone().check(name))
    except RefusedValueError as refused:
        raise UsageError(f"the time zone {refused}", hint=refused.hint) from None


def day_at(time: float, zone: dt.tzinfo) -> dt.date:
    """The day it is at a Unix time."""
    return dt.datetime.fromtimestamp(time, zone).date()


def day_after(day: dt.date, time: float, zone: dt.tzinfo) -> dt.datetime:
    """The instant, to the second, at which `day` is over, seen from a Unix time on it, or on the day before it.

    Found by halving, because midnight is no safe answer: it may not exist, or be there twice.
    """
    before, after = int(time), int(time) + _LONGEST_WAIT
    while after - before > 1:
        middle = (before + after) // 2
        if day_at(middle, zone) > day:
            after = middle
        else:
            before = middle
    return dt.datetime.fromtimestamp(after, zone)
