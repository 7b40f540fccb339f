"""The ledger of one's own in the docstring of `ledger/base.py` runs, and keeps the contract."""

import inspect
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from batuta_cli.errors import DailyBudgetExceeded
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import base


def example(path: Path) -> Any:
    found = re.search(r"\n( {4}import contextlib.*?)\n\n(?=\S)", inspect.getdoc(base) or "", re.DOTALL)
    assert found
    code = dedent(found[1])
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102
    return namespace["PickleLedger"](str(path))


def test_the_documented_ledger_keeps_a_budget_across_two_breakers(tmp_path: Path) -> None:
    first = CostCircuitBreaker(
        CircuitBreakerConfig(daily_budget_usd="1.00", max_request_cost_usd="1"), example(tmp_path / "ledger")
    )
    with first.reserve("0.75", model="m", backend="B") as reservation:
        second = CostCircuitBreaker(
            CircuitBreakerConfig(daily_budget_usd="1.00", max_request_cost_usd="1"), example(tmp_path / "ledger")
        )
        with pytest.raises(DailyBudgetExceeded):
            second.reserve("0.26")
        reservation.dispatched()
        reservation.settle("0.5", input_tokens=7, output_tokens=1)
    status = second.status()
    assert (str(status.spent_usd), str(status.reserved_usd)) == ("0.500000000", "0E-9")
    (entry,) = second.history()
    assert (entry.model, entry.backend, entry.requests, entry.input_tokens, entry.cost) == ("m", "B", 1, 7, 500_000_000)


def test_the_documented_ledger_changes_nothing_when_a_step_fails(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="1.00"), example(tmp_path / "ledger"))
    breaker.record("0.25")
    before = (tmp_path / "ledger").read_bytes()

    def fail(rows: Any) -> None:
        rows.put_day(rows.newest()._replace(spent=0))
        raise OSError

    with pytest.raises(OSError):
        breaker.ledger.write(fail)  # type: ignore[attr-defined]
    assert (tmp_path / "ledger").read_bytes() == before
    assert breaker.status().spent == 250_000_000
