"""Requests that wait for reserved money, through the whole pipeline."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from batuta_cli.config import ModelSection, Router
from batuta_cli.errors import BatutaError, BudgetReservedError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.gateway.http_errors import http_error_for
from batuta_cli.serve.pipeline.pipeline import Pipeline
from tests.serve.support_backend import Script, chunk, stream_head
from tests.serve.support_pipeline import MODEL, backends, pipeline, request, servers

# A reservation of 160 tokens is $0.16, an answer of 16 tokens costs $0.016.
PRICED = ModelSection(100_000, 64, input_usd_per_million=Decimal(0), output_usd_per_million=Decimal(1000))


def sixteen_tokens(*_: object) -> Script:
    return [stream_head(), chunk("x") * 16 + chunk(finish="stop") + chunk(usage=(9, 16)) + b"data: [DONE]\n\n"]


def test_200_clients_of_one_process_get_all_the_answers_that_the_budget_pays_for(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=1, max_request_cost_usd=1, reservation_wait=60))

    async def client(made: Pipeline, number: int) -> str:
        try:
            answer = await made.start(request(request_id=f"r{number}", max_tokens=160))
            return "served" if await answer.text() == "x" * 16 else "cut"
        except BatutaError as error:
            return error.kind

    async def run(made: Pipeline) -> list[str]:
        async with made:
            return await asyncio.gather(*[client(made, number) for number in range(200)])

    with servers(sixteen_tokens) as (server,):
        tables, router = backends(openai=("openai", server.base_url)), Router(max_queue_depth=1000)
        made = pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED}, router=router)
        outcomes = asyncio.run(run(made))
    # 0.016 * 52 + 0.16 fits into 1.00, and 0.016 * 53 + 0.16 does not. Before, 6 were served.
    assert sorted(outcomes) == ["daily_budget_exceeded"] * 147 + ["served"] * 53
    assert breaker.status().spent_usd == Decimal("0.848")


def test_a_request_that_waited_in_vain_is_429_with_the_time_to_try_again_and_is_not_sent(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(
        CircuitBreakerConfig(daily_budget_usd=1, max_request_cost_usd=1, reservation_wait=0.05)
    )
    other = breaker.reserve("0.90")

    async def run(made: Pipeline) -> str:
        async with made:
            return await (await made.start(request(max_tokens=160))).text()

    with servers(sixteen_tokens) as (server,):
        tables = backends(openai=("openai", server.base_url))
        with pytest.raises(BudgetReservedError) as refused:
            asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED})))
        assert server.requests == []
        error = http_error_for(refused.value)
        assert (error.status, error.code) == (429, "budget_reserved")
        assert int(dict(error.all_headers)[b"retry-after"]) >= 1
        other.settle("0.01")
        assert asyncio.run(run(pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED}))) == "x" * 16
