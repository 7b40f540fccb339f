"""The circuit breaker: what it lets through, what it refuses and in which words, and whom it warns."""

import datetime as dt
import logging
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.errors import CostError, DailyBudgetExceeded, LedgerError, RequestTooExpensive, UsageError
from batuta_cli.serve.budget.breaker import Alert, CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import Ledger, open_ledger
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp()

CENTS = st.decimals(min_value=0, max_value=20, places=4)
NANOS = st.decimals(min_value=0, max_value=Decimal("2e-8"), places=9)


class Clock:
    """A clock that somebody else sets."""

    def __init__(self, time: float = NOON) -> None:
        self.time = time

    def __call__(self) -> float:
        return self.time


def breaker(
    budget: Any = 10, most: Any = 10, *, clock: Clock | None = None, ledger: Ledger | None = None, **more: Any
) -> CostCircuitBreaker:
    limits = CircuitBreakerConfig(daily_budget_usd=budget, max_request_cost_usd=most, **more)
    return CostCircuitBreaker(limits, ledger, now=clock or Clock(), on_alert=lambda alert: None)


def test_all_that_a_program_needs_comes_from_one_place() -> None:
    from batuta_cli import serve

    limits = serve.CircuitBreakerConfig(daily_budget_usd=1.0, max_request_cost_usd="0.50")
    made = serve.CostCircuitBreaker(limits, ledger=serve.open_ledger("memory:"))
    with pytest.raises(serve.RequestTooExpensive) as dear:
        made.check(0.75)
    made.reserve(0.5).settle(Decimal("0.75"))
    with pytest.raises(serve.DailyBudgetExceeded) as full:
        made.check(0.5)
    assert isinstance(dear.value, serve.CostError) and isinstance(full.value, serve.CostError)


# Limits.


def test_defaults_are_ten_dollars_a_day_one_a_request_and_a_warning_at_eighty_percent() -> None:
    limits = CostCircuitBreaker.with_defaults().config
    assert (limits.daily_budget_usd, limits.max_request_cost_usd, limits.warning_threshold) == (10, 1, 0.8)
    assert limits.timezone == "UTC"


def test_with_defaults_begins_anew_and_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for _ in range(2):
        made = CostCircuitBreaker.with_defaults()
        made.record("9.50")
        assert made.status().remaining_usd == Decimal("0.5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "amount", [-1, "-0.01", "nan", float("nan"), float("inf"), "ten", "1e10", 10**9 + 1, True, None, ""]
)
def test_an_amount_that_is_none_is_refused_everywhere(amount: Any) -> None:
    made = breaker()
    reservation = made.reserve(1)
    attempts: list[Callable[[], object]] = [
        lambda: CircuitBreakerConfig(daily_budget_usd=amount),
        lambda: CircuitBreakerConfig(max_request_cost_usd=amount),
        lambda: made.check(amount),
        lambda: made.record(amount),
        lambda: made.reserve(amount),
        lambda: reservation.settle(amount),
    ]
    for attempt in attempts:
        with pytest.raises(UsageError, match="amount of US dollars"):
            attempt()
    assert made.status().reserved_usd == 1
    reservation.release()


@pytest.mark.parametrize("part", [-0.1, 1.1, float("nan"), Decimal("nan"), float("inf"), "0.5", True, None])
def test_a_threshold_that_is_no_part_is_refused(part: Any) -> None:
    with pytest.raises(UsageError, match="warning_threshold"):
        CircuitBreakerConfig(warning_threshold=part)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean Europe/Berlin"):
        CircuitBreakerConfig(timezone="Europe/Berln")


def test_limits_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[budget]\ndaily_budget_usd = "2.50"\nwarning_threshold = 0.5\nmax_request_cost_usd = "0.25"\n'
        'timezone = "Asia/Tokyo"\n'
    )
    limits = CircuitBreakerConfig.from_config(config.load(tmp_path / "config.toml", {}).budget)
    assert limits == CircuitBreakerConfig(
        daily_budget_usd="2.5", warning_threshold=0.5, max_request_cost_usd="0.25", timezone="Asia/Tokyo"
    )


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_the_ledger_comes_from_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, level: int
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    environment = {"BATUTA_BUDGET_DURABILITY": durability, "BATUTA_BUDGET_DAILY_BUDGET_USD": "3"}
    made = CostCircuitBreaker.from_config(config.load(tmp_path / "none.toml", environment).budget)
    made.record("0.50")
    assert (tmp_path / "batuta" / "ledger.sqlite3").exists()
    assert made.status().remaining_usd == Decimal("2.5")
    assert isinstance(made.ledger, SqliteLedger) and made.ledger._connection is not None
    assert made.ledger._connection.execute("PRAGMA synchronous").fetchone() == (level,)
    made.ledger.close()


# What passes, and what does not.


def test_equality_is_allowed() -> None:
    made = breaker(budget="1.00", most="0.40")
    made.check("0.40")
    with pytest.raises(RequestTooExpensive):
        made.check("0.400000001")
    made.record("0.60")
    made.check("0.40")
    made.record("0.000000001")
    with pytest.raises(DailyBudgetExceeded):
        made.check("0.40")
    made.check("0.399999999")


def test_too_expensive_is_said_first() -> None:
    made = breaker(budget="1.00", most="0.40")
    made.record("1.00")
    with pytest.raises(RequestTooExpensive):
        made.check("0.50")
    with pytest.raises(DailyBudgetExceeded):
        made.check("0.01")


def test_both_refusals_are_cost_errors_that_say_how_much_and_what_to_type() -> None:
    made = breaker(budget="1.00", most="0.40")
    with pytest.raises(CostError) as dear:
        made.check("0.50")
    assert "$0.50" in dear.value.message and "$0.40" in dear.value.message
    assert "set --max-request-cost" in str(dear.value.hint)
    made.record("0.75")
    held = made.reserve("0.05")
    with pytest.raises(CostError) as full:
        made.check("0.40")
    for part in ("$0.40", "$0.20 is left", "$1.00", "spent $0.75", "reserved $0.05", "2026-11-24 00:00 UTC"):
        assert part in full.value.message
    assert "set --daily-budget" in str(full.value.hint)
    assert full.value.result == {
        "estimate_usd": "0.40",
        "remaining_usd": "0.20",
        "daily_budget_usd": "1.00",
        "resets_at": "2026-11-24T00:00:00Z",
    }
    held.release()


def test_record_may_exceed_the_budget_and_then_the_next_check_refuses() -> None:
    made = breaker(budget=1)
    made.record(5)
    status = made.status()
    assert status.spent_usd == 5 and status.remaining_usd == 0
    with pytest.raises(DailyBudgetExceeded, match=r"\$0\.00 is left"):
        made.check("0.000000001")


def test_a_budget_of_zero_refuses_all_that_costs_anything() -> None:
    made = breaker(budget=0)
    made.check(0)
    made.reserve(0).settle(0)
    for attempt in (made.check, made.reserve):
        with pytest.raises(DailyBudgetExceeded):
            attempt("0.000000001")
    assert made.status().warning is False


def test_what_costs_nothing_passes_without_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"garbage" * 1000)
    made = breaker(ledger=open_ledger(f"sqlite:///{tmp_path}/ledger"))
    made.check(0)
    with made.reserve(0, model="llama", backend="Ollama") as reservation:
        reservation.dispatched()
        reservation.renew()
        reservation.settle(0, input_tokens=5)
    with pytest.raises(LedgerError):
        made.check("0.01")
    with pytest.raises(LedgerError):
        made.reserve("0.01")


@given(st.lists(CENTS, max_size=20))
def test_sums_are_exact_however_many_amounts_there_are(amounts: list[Decimal]) -> None:
    made = breaker(budget=1000)
    for amount in amounts:
        made.record(amount)
    assert Fraction(made.status().spent_usd) == sum(map(Fraction, amounts))


def test_a_float_means_the_number_that_it_prints_as() -> None:
    made = breaker(budget="0.3", most=1)
    for _ in range(3):
        made.check(0.1)
        made.record(0.1)
    assert made.status().spent_usd == Decimal("0.3")


@given(st.decimals(min_value=0, max_value=9, places=14))
def test_what_is_smaller_than_a_nano_dollar_is_rounded_up(amount: Decimal) -> None:
    made = breaker()
    made.record(amount)
    spent = Fraction(made.status().spent_usd)
    assert Fraction(amount) <= spent < Fraction(amount) + Fraction(1, 10**9)
    assert (spent * 10**9).denominator == 1


@given(budget=CENTS, requests=st.lists(st.tuples(CENTS, CENTS, st.booleans()), max_size=15))
def test_spent_and_reserved_never_exceed_the_budget_when_requests_keep_to_their_bounds(
    budget: Decimal, requests: list[tuple[Decimal, Decimal, bool]]
) -> None:
    made = breaker(budget=budget, most=20)
    running: list[tuple[Any, Decimal]] = []
    spent = reserved = Decimal(0)
    for bound, actual, ends in requests:
        fits = spent + reserved + bound <= budget or not bound
        try:
            running.append((made.reserve(bound), min(bound, actual)))
            assert fits
            reserved += bound
        except DailyBudgetExceeded:
            assert not fits
        if ends and running:
            reservation, cost = running.pop(0)
            reservation.settle(cost)
            spent, reserved = spent + cost, reserved - reservation.amount_usd
        status = made.status()
        assert (status.spent_usd, status.reserved_usd) == (spent, reserved)
        assert status.spent_usd + status.reserved_usd <= budget
        assert status.remaining_usd == budget - spent - reserved
    for reservation, _ in running:
        reservation.release()
    assert made.status().reserved_usd == 0


def test_threads_together_reserve_no_more_than_there_is() -> None:
    made, held = breaker(budget="0.50"), []

    def reserve() -> None:
        for _ in range(20):
            try:
                held.append(made.reserve("0.01"))
            except DailyBudgetExceeded:
                continue

    threads = [threading.Thread(target=reserve) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 50
    for reservation in held:
        reservation.release()


# Days.


def test_a_new_day_has_the_whole_budget_again() -> None:
    clock = Clock()
    made = breaker(budget=1, clock=clock)
    made.record(1)
    clock.time += 12 * 3600 - 1
    with pytest.raises(DailyBudgetExceeded):
        made.check("0.01")
    clock.time += 1
    made.check(1)
    assert made.status().spent_usd == 0
    assert made.status().resets_at == dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("zone", "before", "after"),
    [
        ("Europe/Berlin", "2026-10-25T22:59:59", "2026-10-25T23:00:00"),  # a day of 25 hours
        ("Europe/Berlin", "2026-03-29T21:59:59", "2026-03-29T22:00:00"),  # of 23
        ("America/Sao_Paulo", "2018-11-04T02:59:59", "2018-11-04T03:00:00"),  # and without a midnight after it
        ("UTC", "2028-02-29T23:59:59", "2028-03-01T00:00:00"),
    ],
)
def test_the_day_ends_at_midnight_of_its_time_zone(zone: str, before: str, after: str) -> None:
    clock = Clock(dt.datetime.fromisoformat(f"{before}+00:00").timestamp())
    made = breaker(budget=1, clock=clock, timezone=zone)
    made.record(1)
    with pytest.raises(DailyBudgetExceeded):
        made.check(1)
    assert made.status().resets_at == dt.datetime.fromisoformat(f"{after}+00:00")
    clock.time += 1
    made.check(1)


@pytest.mark.parametrize("hours", [1, 24])
def test_a_clock_that_is_set_back_to_yesterday_opens_no_second_budget(hours: int) -> None:
    clock = Clock(NOON + 12 * 3600)
    made = breaker(budget=1, clock=clock)
    made.record(1)
    clock.time -= hours * 3600
    with pytest.raises(DailyBudgetExceeded):
        made.check("0.01")
    status = made.status()
    assert (status.day, status.ahead) == (dt.date(2026, 11, 24), False)
    assert status.resets_at == dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


def test_after_a_week_in_the_future_paid_requests_are_refused_until_the_ledger_is_reset() -> None:
    clock = Clock(NOON + 7 * 86400)
    made = breaker(budget=1, clock=clock)
    made.record("0.25", model="m")
    clock.time = NOON
    for attempt in (made.check, made.reserve):
        with pytest.raises(LedgerError, match=r"2026-11-30.*2026-11-23") as refused:
            attempt("0.01")
        assert "batuta serve budget reset" in str(refused.value.hint)
    made.check(0)
    assert made.status().ahead
    assert made.status().resets_at == dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    made.reset()
    made.check(1)
    assert [(e.day, e.model, e.cost) for e in made.history()] == [(dt.date(2026, 11, 23), "m", 25 * 10**7)]


def test_an_hour_ahead_and_back_costs_a_running_request_nothing() -> None:
    clock = Clock()
    made = breaker(budget=1, clock=clock)
    reservation = made.reserve("0.40")
    reservation.dispatched()
    clock.time += 3600
    made.reserve("0.10").release()  # and the lease of the other has run out
    assert made.status().spent_usd == Decimal("0.40")
    clock.time -= 3600
    reservation.settle("0.15")
    assert made.status().spent_usd == Decimal("0.15") and made.status().reserved_usd == 0


def test_a_request_is_charged_to_the_day_on_which_it_was_reserved() -> None:
    clock = Clock(NOON + 12 * 3600 - 1)
    made = breaker(budget=1, clock=clock)
    reservation = made.reserve(1, model="m", backend="B")
    clock.time += 1
    made.check(1)
    reservation.settle("0.75", input_tokens=3, output_tokens=4)
    made.check(1)
    (line,) = made.history()
    assert (line.day.isoformat(), line.cost, line.input_tokens, line.output_tokens) == ("2026-11-23", 75 * 10**7, 3, 4)


# Alerts.


def test_one_warning_a_day_whoever_spends(tmp_path: Path) -> None:
    clock = Clock()
    heard: list[Alert] = []
    limits = CircuitBreakerConfig(daily_budget_usd=1, warning_threshold=0.5)

    def another() -> CostCircuitBreaker:
        return CostCircuitBreaker(limits, open_ledger(f"sqlite:///{tmp_path}/ledger"), on_alert=heard.append, now=clock)

    another().record("0.499999999")
    assert heard == [] and not another().status().warning
    another().record("0.000000001")
    assert [alert.kind for alert in heard] == ["budget_warning"]
    assert "$0.50 of the day's $1.00" in heard[0].message
    another().record("0.10")
    with another().reserve("0.10") as reservation:
        reservation.settle("0.10")
    assert another().status().warning
    assert len(heard) == 1
    clock.time += 86400
    assert not another().status().warning
    another().record("0.60")
    assert len(heard) == 2


@given(st.decimals(min_value=0, max_value=1, places=3), CENTS | NANOS, CENTS | NANOS)
@example(Decimal("0.5"), Decimal("3e-9"), Decimal("1e-9"))
def test_the_warning_comes_at_the_threshold_exactly(part: Decimal, budget: Decimal, spent: Decimal) -> None:
    heard: list[Alert] = []
    limits = CircuitBreakerConfig(daily_budget_usd=budget, warning_threshold=float(part))
    made = CostCircuitBreaker(limits, on_alert=heard.append)
    made.record(spent)
    due = spent > 0 and Fraction(spent) >= Fraction(part) * Fraction(budget)
    assert made.status().warning == due == (len(heard) == 1)


def test_a_request_that_costs_more_than_was_reserved_is_charged_in_full_and_said() -> None:
    heard: list[Alert] = []
    made = CostCircuitBreaker(CircuitBreakerConfig(), on_alert=heard.append)
    made.reserve("0.10", model="m", backend="B").settle("0.35")
    assert made.status().spent_usd == Decimal("0.35")
    made.reserve(0, model="free").settle("0.05")
    assert made.status().spent_usd == Decimal("0.40")
    assert [alert.kind for alert in heard] == ["above_reservation"] * 2
    assert heard[0].message == "a request cost $0.35, more than the $0.10 reserved for it (m, B)"


def test_without_somebody_who_hears_alerts_they_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "batuta"):
        CostCircuitBreaker.with_defaults().record("8.00")
    assert "$8.00 of the day's $10.00 is spent" in caplog.text


# History and status.


def test_history_is_by_day_model_and_backend() -> None:
    clock = Clock()
    made = breaker(clock=clock)
    made.record("0.10", model="a", backend="X", input_tokens=1, output_tokens=2)
    made.record("0.20", model="a", backend="X", input_tokens=10, output_tokens=20)
    made.record("0.30", model="a", backend="Y")
    made.reserve("1", model="never sent").release()
    clock.time += 86400
    made.record("0.40")
    lines = [(e.day.day, e.model, e.backend, e.requests, e.input_tokens, e.output_tokens) for e in made.history()]
    assert lines == [(24, "", "", 1, 0, 0), (23, "a", "X", 2, 11, 22), (23, "a", "Y", 1, 0, 0), *lines[3:]]
    assert [e.cost for e in made.history()][:3] == [4 * 10**8, 3 * 10**8, 3 * 10**8]
    assert [e.day.day for e in made.history(days=1)] == [24]
    assert made.history(days=100_000) == made.history()


@pytest.mark.parametrize("days", [0, -1, 100_001])
def test_days_of_history_have_bounds(days: int) -> None:
    with pytest.raises(UsageError, match="days"):
        breaker().history(days)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 201, "\ud800"])
def test_a_name_that_no_table_could_show_is_refused(name: str) -> None:
    made = breaker()
    for attempt in (
        lambda: made.record(1, model=name),
        lambda: made.record(1, backend=name),
        lambda: made.reserve(1, model=name),
    ):
        with pytest.raises(UsageError, match="one line"):
            attempt()
    assert made.history() == []


@pytest.mark.parametrize("tokens", [-1, 10**13, 1.5, True])
def test_a_number_of_tokens_that_is_none_is_refused(tokens: Any) -> None:
    made = breaker()
    with pytest.raises(UsageError, match="tokens"):
        made.record(1, input_tokens=tokens)
    with pytest.raises(UsageError, match="tokens"):
        made.reserve(1).settle(1, output_tokens=tokens)
    assert made.history() == []


def test_status_in_json_has_money_as_decimal_strings_and_times_in_utc() -> None:
    made = breaker(budget="10", most="0.5", timezone="Asia/Tokyo")
    made.record("0.000000001")
    assert made.status().to_json() == {
        "spent_usd": "0.000000001",
        "reserved_usd": "0.00",
        "remaining_usd": "9.999999999",
        "daily_budget_usd": "10.00",
        "max_request_cost_usd": "0.50",
        "warning": False,
        "warning_at_usd": "8.00",
        "day": "2026-11-23",
        "timezone": "Asia/Tokyo",
        "next_timezone": None,
        "resets_at": "2026-11-23T15:00:00Z",
        "ledger_ahead": False,
    }


def test_to_check_a_budget_in_memory_loads_neither_sqlite_nor_what_other_commands_need() -> None:
    import subprocess

    code = (
        "import sys; from batuta_cli.serve import CostCircuitBreaker; CostCircuitBreaker.with_defaults().check(1);"
        "print(*sorted({'sqlite3', 'asyncio', 'aiohttp', 'tiktoken', 'rich', 'typer'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_the_ledger_of_a_breaker_is_its_own_unless_one_is_given() -> None:
    shared = MemoryLedger()
    breaker(ledger=shared).record(1)
    assert breaker(ledger=shared).status().spent_usd == 1
    assert breaker().status().spent_usd == 0
