"""The days of a budget in a time zone: the day of a time, and the time at which the next day begins.

A day of the calendar has 23 or 25 hours when the clock changes. Some zones skip or repeat a midnight.
"""

import datetime as dt

from batuta_cli.errors import UsageError

_LONGEST_WAIT = 4 * 24 * 3600
"""Seconds until the next day at most: a ledger may be a day ahead, days have up to 25 hours, and Samoa skipped a whole
day (30 December 2011)."""


def time_zone(name: str) -> dt.tzinfo:
    """The time zone of that name in the IANA database. Raises `UsageError` that suggests the nearest name."""
    if name == "UTC":
        return dt.UTC
    from zoneinfo import ZoneInfo

    from batuta_cli.config.kinds import RefusedValueError, TimeZone

    try:
        return ZoneInfo(TimeZone().check(name))
    except RefusedValueError as refused:
        raise UsageError(f"the time zone {refused}", hint=refused.hint) from None


def day_at(time: float, zone: dt.tzinfo) -> dt.date:
    """The day at a Unix time."""
    return dt.datetime.fromtimestamp(time, zone).date()


def day_after(day: dt.date, time: float, zone: dt.tzinfo) -> dt.datetime:
    """The time, to the second, at which `day` ends; `time` is a Unix time on that day or on the day before.

    Found by bisection, because a midnight may be skipped or repeated.
    """
    before, after = int(time), int(time) + _LONGEST_WAIT
    while after - before > 1:
        middle = (before + after) // 2
        if day_at(middle, zone) > day:
            after = middle
        else:
            before = middle
    return dt.datetime.fromtimestamp(after, zone)
