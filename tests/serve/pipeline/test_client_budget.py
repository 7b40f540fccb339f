"""The daily budget of a client key, through the whole pipeline: never exceeded, and never in the way of other keys."""

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from batuta_cli.config import Router
from batuta_cli.errors import BatutaError, BudgetReservedError, DailyBudgetExceeded
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from batuta_cli.serve.client_account import ClientAccount
from batuta_cli.serve.gateway.http_errors import http_error_for
from batuta_cli.serve.pipeline.pipeline import Pipeline
from tests.serve.pipeline.test_reserved_money import PRICED, sixteen_tokens
from tests.serve.support_pipeline import MODEL, backends, pipeline, request, servers

DOLLAR = 10**9
CI, LAPTOP = ClientAccount("ci", daily_budget=DOLLAR // 2), ClientAccount("laptop", daily_budget=2 * DOLLAR)


async def outcome(made: Pipeline, client: ClientAccount, number: int) -> str:
    try:
        answer = await made.start(request(request_id=f"r{number}", max_tokens=160, client=client))
        return "served" if await answer.text() == "x" * 16 else "cut"
    except BatutaError as error:
        return error.kind


def test_each_key_gets_what_its_budget_pays_for_and_no_more(tmp_path: Path) -> None:
    ledger = SqliteLedger(str(tmp_path / "ledger"))
    breaker = CostCircuitBreaker(
        CircuitBreakerConfig(daily_budget_usd=10, max_request_cost_usd=1, reservation_wait=60), ledger
    )

    async def run(made: Pipeline) -> dict[str, Counter[str]]:
        async with made:
            clients = [CI, LAPTOP] * 40
            outcomes = await asyncio.gather(*[outcome(made, client, i) for i, client in enumerate(clients)])
        return {
            c.name: Counter(o for o, whose in zip(outcomes, clients, strict=True) if whose is c) for c in (CI, LAPTOP)
        }

    with servers(sixteen_tokens) as (server,):
        tables, router = backends(openai=("openai", server.base_url)), Router(max_queue_depth=1000)
        found = asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED}, router=router)))
    # 0.016 * 21 + 0.16 fits into 0.50, and 0.016 * 22 + 0.16 does not.
    assert found["ci"] == {"served": 22, "daily_budget_exceeded": 18}
    assert found["laptop"] == {"served": 40}
    status = breaker.status(CI)
    assert status.client is not None
    assert (status.client.spent, status.client.reserved) == (16_000_000 * 22, 0)
    assert status.spent == 16_000_000 * 62
    ledger.close()


def test_a_key_that_waits_for_its_own_money_does_not_hold_up_others(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=10, max_request_cost_usd=1, reservation_wait=60))
    own = breaker.reserve("0.45", client=CI)

    async def run(made: Pipeline) -> tuple[str, str]:
        async with made:
            waiting = asyncio.create_task(outcome(made, CI, 1))
            while not len(breaker.queues.of("ci")):
                await asyncio.sleep(0.001)
            other = await outcome(made, LAPTOP, 2)
            assert not waiting.done()
            own.settle("0.01")
            return other, await waiting

    with servers(sixteen_tokens) as (server,):
        tables = backends(openai=("openai", server.base_url))
        assert asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED}))) == ("served",) * 2
    assert len(breaker.queues.of("ci")) == len(breaker.queues.of("")) == 0


@pytest.mark.parametrize(("spent", "status", "code"), [(False, 429, "budget_reserved"), (True, 402, "budget_exceeded")])
def test_the_refusal_says_that_it_is_the_budget_of_the_key(tmp_path: Path, spent: bool, status: int, code: str) -> None:
    breaker = CostCircuitBreaker(
        CircuitBreakerConfig(daily_budget_usd=10, max_request_cost_usd=1, reservation_wait=0.05)
    )
    reservation = breaker.reserve("0.45", client=CI)
    if spent:
        reservation.settle("0.45")

    async def run(made: Pipeline) -> None:
        async with made:
            await made.start(request(max_tokens=160, client=CI))

    with servers(sixteen_tokens) as (server,):
        tables = backends(openai=("openai", server.base_url))
        with pytest.raises(DailyBudgetExceeded) as refused:
            asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED})))
        assert server.requests == []
    error = http_error_for(refused.value)
    assert (error.status, error.code) == (status, code)
    assert "this key's da" in error.message and "$0.05" in error.message


def test_the_budget_of_the_day_limits_every_key(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=1, max_request_cost_usd=1))
    breaker.reserve("0.90")
    with pytest.raises(BudgetReservedError) as refused:
        breaker.reserve("0.20", client=LAPTOP)
    assert not refused.value.of_client and "left of the day's $1.00" in refused.value.message
    assert breaker.status(LAPTOP).remaining_for_client == DOLLAR // 10


def test_a_key_without_a_budget_is_counted_too() -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=1, max_request_cost_usd=1))
    breaker.reserve("0.20", client=ClientAccount("free")).settle("0.10")
    found = breaker.status(ClientAccount("free"))
    assert found.client is not None
    assert (found.client.spent, found.client.remaining, found.remaining_for_client) == (10**8, None, 9 * 10**8)
    assert [(line.client, line.cost) for line in breaker.history(1)] == [("free", 10**8)]


def test_an_attempt_that_costs_more_than_reserved_counts_in_full_for_its_key() -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=10, max_request_cost_usd=1))
    breaker.reserve("0.40", client=CI).settle(Decimal("0.60"))
    with pytest.raises(DailyBudgetExceeded, match="is left of this key's daily"):
        breaker.reserve("0.01", client=CI)
    breaker.reserve("0.01", client=LAPTOP)
