"""Retry rules without a network: `Retry-After` as RFC 9110 has it, the growth of cooldowns, their bounds.

How requests and backends use them is in tests/serve/routing/test_health.py and tests/serve/pipeline/test_cooldowns.py.
"""

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UsageError
from batuta_cli.serve.retry import (
    MOST_MODELS,
    Cooldown,
    Ended,
    FailoverConfig,
    ModelCooldowns,
    read_retry_after,
    retry_after,
)

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def failure(number: int, now: float, *, jitter: float = 0.0, asked: float = 0.0, **limits: float) -> Ended:
    return Ended(number, number, now, jitter, asked, FailoverConfig(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("86400", 3600.0),  # at most an hour
        ("9" * 400, 3600.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),  # the three forms of RFC 9110, section 5.6.7
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:40:00 GMT", 0.0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_compared_with_the_response_s_own(value: str, seconds: float) -> None:
    assert read_retry_after(value, DATE) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "²", "Sun, 99 Nov 1994 08:49:37 GMT"])
def test_an_invalid_retry_after_counts_nothing(value: str) -> None:
    assert read_retry_after(value, DATE) is None


def test_without_a_date_of_the_response_our_clock_counts() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    seconds = read_retry_after(format_datetime(soon, usegmt=True))
    assert seconds is not None and 95 < seconds <= 100


@given(st.lists(st.floats(-10, 10_000)))
def test_clients_are_told_the_shortest_wait_in_whole_seconds_within_an_hour(waits: list[float]) -> None:
    told = retry_after(waits)
    assert 1 <= told <= 3600
    assert told >= min(min(waits, default=0.0), 3600)


def test_each_failure_doubles_the_cooldown_up_to_its_bound() -> None:
    cooldown, now, waits = Cooldown(), 0.0, []
    for number in range(1, 10):
        cooldown.end(failure(number, now), worked=False)
        left = cooldown.left(now)
        assert left is not None
        waits.append(left)
        now += left
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_takes_at_most_half_of_a_cooldown(failures: int, jitter: float) -> None:
    whole = FailoverConfig().cooldown_after(failures, 0.0)
    assert whole / 2 <= FailoverConfig().cooldown_after(failures, jitter) <= whole <= 60


def test_a_longer_wait_that_the_backend_asks_for_is_kept_within_its_bound() -> None:
    for asked, expected in ((0.5, 1.0), (30.0, 30.0), (9_999.0, 3600.0)):
        cooldown = Cooldown()
        cooldown.end(failure(1, 0.0, asked=asked), worked=False)
        assert cooldown.left(0.0) == expected


def test_the_end_of_a_request_that_shows_nothing_changes_nothing_but_ends_a_trial() -> None:
    cooldown = Cooldown()
    cooldown.end(failure(1, 0.0), worked=False)
    assert cooldown.begin(2, 1.0)
    assert not cooldown.begin(3, 1.0)  # one trial at a time
    assert cooldown.left(1.0) == 0.0
    cooldown.end(failure(2, 1.5), worked=None)
    assert cooldown.failures == 1
    assert cooldown.begin(4, 1.5)


def test_a_probe_ends_a_cooldown_unless_a_failure_came_after_the_probe_began() -> None:
    cooldown = Cooldown()
    cooldown.end(failure(1, 10.0), worked=False)
    cooldown.recover(since=9.0)
    assert cooldown.left(10.0) is not None
    cooldown.recover(since=10.5)
    assert cooldown.left(10.0) is None


def test_only_failed_models_are_remembered_and_the_soonest_to_recover_is_forgotten_first() -> None:
    models = ModelCooldowns()
    models.end("good", failure(1, 0.0), worked=True)
    assert len(models) == 0
    for number in range(MOST_MODELS + 1):
        models.end(f"m{number}", failure(number + 1, float(number)), worked=False)
    assert len(models) == MOST_MODELS
    assert models.left("m0", 0.0) is None
    assert models.left(f"m{MOST_MODELS}", float(MOST_MODELS)) == 1.0


@pytest.mark.parametrize("retries", [-1, 101])
def test_a_number_of_retries_out_of_range_is_refused(retries: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 100"):
        FailoverConfig(max_retries=retries)
