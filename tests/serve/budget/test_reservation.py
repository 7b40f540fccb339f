"""A reservation ends once, whatever happens to its request, to its process or to the ledger."""

import datetime as dt
import os
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.serve.budget.breaker import Alert, CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import Moment, Settled, Use, open_ledger
from batuta_cli.serve.budget.ledger.memory import MemoryLedger
from batuta_cli.serve.budget.reservation import Renewer

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC).timestamp()


class Clock:
    """A clock that somebody else sets."""

    time = NOON

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def breaker(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[CostCircuitBreaker]:
    ledger = open_ledger("memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/ledger")
    yield CostCircuitBreaker(CircuitBreakerConfig(), ledger, now=clock, on_alert=lambda alert: None)
    ledger.close()


def sums(breaker: CostCircuitBreaker) -> tuple[Decimal, Decimal]:
    status = breaker.status()
    return status.spent_usd, status.reserved_usd


def test_what_is_reserved_is_spent_when_it_is_settled_and_free_when_it_is_released(breaker: CostCircuitBreaker) -> None:
    one, other = breaker.reserve("0.40"), breaker.reserve("0.60")
    assert one.id != other.id
    assert (one.amount_usd, other.amount_usd) == (Decimal("0.4"), Decimal("0.6"))
    assert sums(breaker) == (Decimal(0), Decimal(1))
    one.settle("0.25")
    assert sums(breaker) == (Decimal("0.25"), Decimal("0.6"))
    other.release()
    assert sums(breaker) == (Decimal("0.25"), Decimal(0))


def test_a_reservation_is_settled_once(breaker: CostCircuitBreaker) -> None:
    reservation = breaker.reserve("0.40")
    reservation.settle("0.10")
    with pytest.raises(UsageError, match="settled or released"):
        reservation.settle("0.10")
    with pytest.raises(UsageError, match="settled or released"):
        reservation.dispatched()
    reservation.release()
    reservation.renew()
    assert sums(breaker) == (Decimal("0.10"), Decimal(0))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("dispatched", [False, True])
def test_one_that_is_left_open_is_charged_in_full_when_its_request_may_have_been_sent(
    breaker: CostCircuitBreaker, dispatched: bool, fails: bool
) -> None:
    try:
        with breaker.reserve("0.40") as reservation:
            if dispatched:
                reservation.dispatched()
            if fails:
                raise ConnectionError
    except ConnectionError:
        assert fails
    assert sums(breaker) == (Decimal("0.40") * dispatched, Decimal(0))


def test_one_that_was_settled_inside_is_left_alone(breaker: CostCircuitBreaker) -> None:
    with breaker.reserve("0.40") as reservation:
        reservation.dispatched()
        reservation.settle("0.01")
    assert sums(breaker) == (Decimal("0.01"), Decimal(0))


def test_a_request_is_not_sent_when_its_reservation_has_expired(breaker: CostCircuitBreaker, clock: Clock) -> None:
    reservation = breaker.reserve("0.40")
    clock.time += 60
    with pytest.raises(LedgerError, match="expired"):
        reservation.dispatched()
    reservation.release()
    assert sums(breaker) == (Decimal(0), Decimal(0))


def test_to_renew_holds_it_for_another_minute(breaker: CostCircuitBreaker, clock: Clock) -> None:
    reservation = breaker.reserve("0.40")
    for _ in range(5):
        clock.time += 59
        reservation.renew()
    assert sums(breaker) == (Decimal(0), Decimal("0.40"))
    clock.time += 60
    assert sums(breaker) == (Decimal(0), Decimal(0))


# Python 3.12 warns of what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_what_a_process_that_died_had_reserved_is_settled_by_others(tmp_path: Path, clock: Clock) -> None:
    def another() -> CostCircuitBreaker:
        return CostCircuitBreaker(CircuitBreakerConfig(), open_ledger(f"sqlite:///{tmp_path}/ledger"), now=clock)

    child = os.fork()
    if child == 0:
        try:
            dying = another()
            dying.reserve("0.30").dispatched()
            dying.reserve("0.50")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert sums(another()) == (Decimal(0), Decimal("0.80"))
    clock.time += 60
    assert sums(another()) == (Decimal("0.30"), Decimal(0))


def test_a_request_is_settled_when_the_ledger_that_was_removed_meanwhile_is_put_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ledger = open_ledger(f"sqlite:///{state}/ledger")
    breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger)
    reservation = breaker.reserve("0.40", model="m")
    state.rename(tmp_path / "away")
    with pytest.raises(LedgerError, match="was removed"):
        reservation.settle("0.25")
    assert not state.exists()
    (tmp_path / "away").rename(state)
    reservation.settle("0.25")
    assert sums(breaker) == (Decimal("0.25"), Decimal(0))
    ledger.close()


def test_a_settlement_that_failed_can_be_tried_again(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger")
    breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger)
    reservation = breaker.reserve("0.40")
    ledger.close()
    (tmp_path / "ledger").rename(tmp_path / "away")
    (tmp_path / "ledger").write_bytes(b"garbage" * 1000)
    with pytest.raises(LedgerError):
        reservation.settle("0.25")
    (tmp_path / "away").rename(tmp_path / "ledger")
    reservation.settle("0.25")
    assert sums(breaker) == (Decimal("0.25"), Decimal(0))
    ledger.close()


def test_an_interruption_just_after_it_was_written_charges_it_once() -> None:
    class Interrupted(MemoryLedger):
        def settle(self, moment: Moment, id: str, cost: int, use: Use, *, requests: int = 1) -> Settled | None:
            settled = super().settle(moment, id, cost, use, requests=requests)
            if settled is not None:
                raise KeyboardInterrupt
            return settled

    breaker = CostCircuitBreaker(CircuitBreakerConfig(), Interrupted())
    with pytest.raises(KeyboardInterrupt), breaker.reserve("0.40") as reservation:
        reservation.dispatched()
        reservation.settle("0.25")
    assert sums(breaker) == (Decimal("0.25"), Decimal(0))


def test_a_warning_that_cannot_be_noted_neither_fails_a_settlement_nor_charges_it_twice() -> None:
    class Forgetful(MemoryLedger):
        fails = True

        def warn_once(self, day: dt.date) -> bool:
            if self.fails:
                raise LedgerError("locked")
            return super().warn_once(day)

    heard: list[Alert] = []
    ledger = Forgetful()
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=1), ledger, on_alert=heard.append)
    with breaker.reserve("0.90") as reservation:
        reservation.settle("0.85")
    breaker.record("0.05")
    assert sums(breaker) == (Decimal("0.90"), Decimal(0)) and heard == []
    ledger.fails = False
    breaker.record("0.01")
    assert [alert.kind for alert in heard] == ["budget_warning"]


# The thread that renews.


class Ledger:
    """Hears of renewals; the first of them may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.owners: list[str] = []
        self.heard = threading.Event()

    def renew(self, owner: str) -> None:
        if self.fails:
            self.fails = False
            raise LedgerError("locked")
        self.owners.append(owner)
        self.heard.set()


def renewing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batuta-budget-renewal"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_renews_while_there_are_reservations_and_ends_with_the_last(fails: bool) -> None:
    others = set(renewing())
    ledger = Ledger(fails=fails)
    renewer = Renewer(ledger.renew, interval=0.001)
    renewer.add("a")
    renewer.add("b")
    assert ledger.heard.wait(30)
    (thread,) = set(renewing()) - others
    assert thread.daemon
    renewer.remove("a")
    renewer.remove("b")
    thread.join(30)
    assert not thread.is_alive()
    assert set(ledger.owners) == {renewer.owner}
    ledger.heard.clear()
    renewer.add("c")
    assert ledger.heard.wait(30)
    renewer.remove("c")


def test_it_renews_three_times_within_a_lease() -> None:
    assert Renewer(lambda owner: None)._interval == 20


# Python 3.12 warns of what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_process_renews_nothing_of_its_parents() -> None:
    ledger = Ledger()
    renewer = Renewer(ledger.renew, interval=0.001)
    renewer.add("a")
    owner = renewer.owner
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a lock that was taken when it was forked would be taken for ever
        own = renewer.owner != owner and not renewer._ids and not renewing()
        ledger.heard.clear()
        renewer.add("b")
        own = own and ledger.heard.wait(30) and ledger.owners[-1] == renewer.owner
        os._exit(0 if own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert renewer.owner == owner
    renewer.remove("a")


def test_the_breaker_renews_what_it_has_reserved(clock: Clock) -> None:
    renewed = threading.Event()

    class Heard(MemoryLedger):
        def renew(self, moment: Moment, owner: str) -> None:
            super().renew(moment, owner)
            renewed.set()

    breaker = CostCircuitBreaker(CircuitBreakerConfig(), Heard(), now=clock)
    breaker._operations._renewer._interval = 0.001
    reservation = breaker.reserve("0.40")
    clock.time += 59
    assert renewed.wait(30)
    renewed.clear()
    assert renewed.wait(30)  # one that began after the clock was set
    clock.time += 59
    assert sums(breaker) == (Decimal(0), Decimal("0.40"))
    reservation.release()


def test_one_step_reserves_and_marks_as_dispatched_and_the_end_of_the_block_charges_it(
    breaker: CostCircuitBreaker,
) -> None:
    with pytest.raises(KeyError), breaker.reserve("0.40", dispatched=True):
        raise KeyError
    assert sums(breaker) == (Decimal("0.40"), Decimal(0))
    with breaker.reserve("0.40", dispatched=True) as reservation:
        reservation.dispatched()  # does nothing more
        reservation.release()
    assert sums(breaker) == (Decimal("0.40"), Decimal(0))


def test_a_reservation_that_was_dispatched_in_one_step_is_charged_when_its_process_dies(
    breaker: CostCircuitBreaker, clock: Clock
) -> None:
    for dispatched in (True, False):
        row = breaker.reserve("0.40", dispatched=dispatched)
        breaker._operations._renewer.remove(row.id)  # as if its process had died
    clock.time += 61
    assert sums(breaker) == (Decimal("0.40"), Decimal(0))
