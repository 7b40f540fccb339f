"""Operations of a budget at the current time: days, alerts, names, and how long a request may have to wait."""

import datetime as dt
from collections.abc import Callable

import pytest

from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.serve.budget.ledger.base import DayStatus, Moment, Settled, Use
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.operations import Alert, BudgetOperations, log_alert
from batuta_cli.serve.budget.reservation import Reservation
from batuta_cli.serve.budget.waiting import ReservationQueues

NOON = dt.datetime(2028, 2, 28, 12, tzinfo=dt.UTC).timestamp()


def operations(
    alerts: list[Alert] | None = None,
    *,
    zone: str = "UTC",
    now: Callable[[], float] = lambda: NOON,
    ledger: MemoryLedger | None = None,
    on_alert: Callable[[Alert], None] | None = None,
) -> BudgetOperations:
    received = on_alert or (alerts if alerts is not None else []).append
    return BudgetOperations(ledger or MemoryLedger(), zone, (1000, 800), received, now, ReservationQueues(1.0))


def reserved(budget: BudgetOperations, cost: int, *, dispatched: bool = False) -> Reservation:
    found = budget.reserve(cost, budget.moment(), "m", "B", dispatched=dispatched)
    assert isinstance(found, Reservation)
    return found


@pytest.mark.parametrize(("zone", "day"), [("UTC", dt.date(2028, 2, 28)), ("Pacific/Kiritimati", dt.date(2028, 2, 29))])
def test_the_day_is_that_of_the_zone(zone: str, day: dt.date) -> None:
    assert operations(zone=zone).moment() == Moment(int(NOON * 1000), day, zone)


def test_the_day_changes_at_midnight_and_back_when_the_clock_is_set_back() -> None:
    times = [NOON, NOON + 43_199, NOON + 43_200, NOON]
    budget = operations(now=lambda: times.pop(0))
    assert [budget.moment().day.day for _ in range(4)] == [28, 28, 29, 28]


def test_a_reservation_that_does_not_fit_gives_the_sums_of_the_day() -> None:
    budget = operations()
    reserved(budget, 900)
    refused = budget.reserve(101, budget.moment(), "m", "B", dispatched=False)
    assert isinstance(refused, DayStatus)
    assert (refused.spent, refused.reserved) == (0, 900)


def test_the_warning_is_sent_once_at_the_threshold() -> None:
    alerts: list[Alert] = []
    budget = operations(alerts)
    budget.record(799, "m", "B", (0, 0))
    assert alerts == []
    budget.record(1, "m", "B", (0, 0))
    budget.record(1, "m", "B", (0, 0))
    assert [alert.kind for alert in alerts] == ["budget_warning"]


def test_a_request_above_its_reservation_is_charged_in_full_and_told() -> None:
    alerts: list[Alert] = []
    budget = operations(alerts)
    reserved(budget, 5).settle("0.000000007")
    assert [alert.kind for alert in alerts] == ["above_reservation"]
    assert alerts[0].message.endswith("(m, B)")


def test_a_receiver_of_alerts_that_fails_undoes_nothing() -> None:
    def fails(alert: Alert) -> None:
        raise RuntimeError(alert.kind)

    ledger = MemoryLedger()
    budget = operations(ledger=ledger, on_alert=fails)
    reserved(budget, 5).settle("0.000000900")
    assert ledger.day_status(budget.moment()).spent == 900


def test_a_reservation_that_the_ledger_no_longer_knows_is_still_charged() -> None:
    class Forgetful(MemoryLedger):
        def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
            return None

    ledger = Forgetful()
    budget = operations(ledger=ledger)
    reserved(budget, 5).settle("0.000000004")
    assert ledger.day_status(budget.moment()).spent == 4


def test_a_thread_that_cannot_be_started_leaves_no_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", no_thread)
    ledger = MemoryLedger()
    budget = operations(ledger=ledger)
    with pytest.raises(LedgerError, match="cannot start the thread"):
        budget.reserve(5, budget.moment(), "m", "B", dispatched=True)
    assert ledger.day_status(budget.moment()).reserved == 0


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "x" * 201, "\ud800"])
def test_a_name_that_no_table_can_show_is_refused(name: str) -> None:
    budget = operations()
    with pytest.raises(UsageError, match="one line of at most 200 characters"):
        budget.record(1, name, "B", (0, 0))


@pytest.mark.parametrize("tokens", [(-1, 0), (0, 10**12 + 1), (True, 0)])
def test_a_number_of_tokens_out_of_range_is_refused(tokens: tuple[int, int]) -> None:
    budget = operations()
    with pytest.raises(UsageError, match="number of tokens"):
        budget.record(1, "m", "B", tokens)


def test_the_expected_wait_is_between_one_second_and_a_minute() -> None:
    budget = operations()
    assert budget.expected_wait() == 1.0
    reserved(budget, 1).settle("0")
    assert 1.0 <= budget.expected_wait() <= 60.0


def test_alerts_are_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    log_alert(Alert("budget_warning", "$8.00 of the day's $10.00 is spent"))
    assert [record.getMessage() for record in caplog.records] == ["$8.00 of the day's $10.00 is spent"]
