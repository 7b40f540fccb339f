"""Waiting for reserved money: in order, for a limited time, also for money that another process has reserved."""

import asyncio
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from batuta_cli.errors import BudgetReservedError, CostError, DailyBudgetExceeded
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker, Reservation
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger


def breaker(budget: str, wait: float, path: Path | None = None) -> CostCircuitBreaker:
    config = CircuitBreakerConfig(daily_budget_usd=budget, max_request_cost_usd=1, reservation_wait=wait)
    return CostCircuitBreaker(config, SqliteLedger(str(path)) if path else None)


async def reserved(made: CostCircuitBreaker, amount: str) -> Reservation:
    place = made.queues.of("").place()
    try:
        while True:
            try:
                place.check_turn()
                return await asyncio.to_thread(made.reserve, amount, dispatched=True)
            except BudgetReservedError:
                if not await place.wait():
                    raise
    finally:
        place.leave()


def test_200_clients_of_one_process_are_served_until_the_money_is_spent(tmp_path: Path) -> None:
    made = breaker("1.00", 60, tmp_path / "ledger")

    async def client() -> str:
        try:
            reservation = await reserved(made, "0.16")
        except CostError as error:
            return error.kind
        await asyncio.sleep(0)
        await asyncio.to_thread(reservation.settle, "0.016")
        return "served"

    async def run() -> list[str]:
        return await asyncio.gather(*[client() for _ in range(200)])

    outcomes = asyncio.run(run())
    # 0.016 * 52 + 0.16 fits into 1.00, and 0.016 * 53 + 0.16 does not.
    assert sorted(outcomes) == ["daily_budget_exceeded"] * 147 + ["served"] * 53
    assert made.status().spent_usd == Decimal("0.848") and made.status().reserved == 0
    assert len(made.queues.of("")) == 0


def test_money_that_only_reservations_take_is_refused_after_the_wait_with_the_time_to_try_again() -> None:
    made = breaker("1.00", 0.05)
    first = made.reserve("0.90")
    with pytest.raises(BudgetReservedError) as refused:
        asyncio.run(reserved(made, "0.20"))
    assert refused.value.exit_code == 5 and refused.value.retry_after >= 1
    assert "$0.10 is left" in refused.value.message and "reserved by running requests $0.90" in refused.value.message
    with pytest.raises(DailyBudgetExceeded) as spent:
        first.settle("0.90")
        asyncio.run(reserved(made, "0.20"))
    assert type(spent.value) is DailyBudgetExceeded
    with pytest.raises(BudgetReservedError):
        second = made.reserve("0.05")
        made.check("0.06")
    second.release()
    made.check("0.06")


def test_requests_are_served_in_their_order_and_a_small_one_does_not_overtake_a_large_one() -> None:
    made, order = breaker("1.00", 60), []

    async def run() -> None:
        first = made.reserve("0.95")

        async def client(name: str, amount: str) -> None:
            reservation = await reserved(made, amount)
            order.append(name)
            reservation.settle("0.01")

        large = asyncio.create_task(client("large", "0.80"))
        while len(made.queues.of("")) < 1:
            await asyncio.sleep(0.001)
        small = asyncio.create_task(client("small", "0.02"))
        while len(made.queues.of("")) < 2:
            await asyncio.sleep(0.001)
        first.settle("0.01")
        await asyncio.gather(large, small)

    asyncio.run(run())
    assert order == ["large", "small"]


def test_a_client_that_leaves_lets_the_next_one_try() -> None:
    made = breaker("1.00", 60)

    async def run() -> None:
        held = made.reserve("0.50")
        large = asyncio.create_task(reserved(made, "0.80"))
        while len(made.queues.of("")) < 1:
            await asyncio.sleep(0.001)
        small = asyncio.create_task(reserved(made, "0.50"))
        while len(made.queues.of("")) < 2:
            await asyncio.sleep(0.001)
        large.cancel()
        (await small).release()
        held.release()

    asyncio.run(run())
    assert made.status().reserved == 0 and len(made.queues.of("")) == 0


def test_money_that_another_process_reserved_is_noticed_when_it_is_free(tmp_path: Path) -> None:
    other, made = breaker("1.00", 60, tmp_path / "ledger"), breaker("1.00", 60, tmp_path / "ledger")
    held = other.reserve("0.90")

    async def run() -> None:
        waiting = asyncio.create_task(reserved(made, "0.50"))
        while len(made.queues.of("")) < 1:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(held.release)
        (await waiting).release()

    asyncio.run(run())
    assert made.status().remaining_usd == 1


def test_a_settlement_after_the_event_loop_has_ended_wakes_nobody_and_fails_nothing() -> None:
    made = breaker("1.00", 0)
    held = made.reserve("0.90")
    with pytest.raises(BudgetReservedError):
        asyncio.run(reserved(made, "0.50"))
    thread = threading.Thread(target=held.settle, args=("0.10",))
    thread.start()
    thread.join()
    assert made.status().spent_usd == Decimal("0.10")
