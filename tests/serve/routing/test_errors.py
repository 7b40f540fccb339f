"""The error of a request that no backend can take: its kind, its exit code, and what to do."""

from dataclasses import replace
from typing import Any

import pytest

from batuta_cli.errors import (
    BatutaError,
    ContextOverflowError,
    DailyBudgetExceeded,
    NoBackendError,
    QueueFullError,
    RequestTooExpensive,
    UnboundedCostError,
    UnknownPriceError,
)
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.models.pricing import FREE, TokenPricing
from batuta_cli.serve.money import to_nano
from batuta_cli.serve.routing.demands import Demands
from batuta_cli.serve.routing.errors import routing_error
from batuta_cli.serve.routing.gates import BackendState, Need, PlanRequest, Snapshot
from batuta_cli.serve.routing.planning import plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount

PRICE = TokenPricing.usd(input=10, output=30)
CLAUDE = BackendState(
    name="claude", kind=ServingBackend.ANTHROPIC, tier=PrivacyTier.STANDARD, price=PRICE, window=200_000, reserve=1000
)
GROQ = replace(CLAUDE, name="groq", kind=ServingBackend.GROQ)
LLAMA = replace(CLAUDE, name="llama", kind=ServingBackend.LLAMA_CPP, tier=PrivacyTier.SOVEREIGN, price=FREE)


def test_a_request_that_every_backend_lacks_something_for_is_the_clients_error() -> None:
    request = PlanRequest(privacy=PrivacyTier.STANDARD, model="m", needs=frozenset({Need.FILES}))
    error = routing_error(plan(request, Snapshot(backends=(LLAMA, GROQ))), retry_after=None, max_request_cost=1)
    assert (error.exit_code, error.kind) == (2, "invalid_input")
    assert error.message == ("no backend can take the request: llama: its API has no files; groq: its API has no files")


def error(
    *states: BackendState, known_models: tuple[str, ...] = (), most: str = "1", left: str = "1", **about: Any
) -> BatutaError:
    """The error for a request of 1,000 input and 100 output tokens."""
    asked = {"privacy": PrivacyTier.STANDARD, "model": "m", "input_tokens": TokenCount(1000, True, "by hand")}
    request = PlanRequest(**(asked | about), max_output_tokens=100)  # type: ignore[arg-type]
    snapshot = Snapshot(backends=states, budget_remaining=to_nano(left), max_request_cost=to_nano(most))
    found = plan(request, snapshot)
    return routing_error(found, retry_after=7, max_request_cost=to_nano(most), known_models=known_models)


@pytest.mark.parametrize(
    ("state", "most", "left", "kind", "hint"),
    [
        (CLAUDE, "1", "0.01", DailyBudgetExceeded, "--daily-budget"),  # it may cost $0.013
        (CLAUDE, "0.012", "1", RequestTooExpensive, "--max-request-cost"),
        (replace(CLAUDE, price=None), "1", "1", UnknownPriceError, "give the model a price"),
        (replace(CLAUDE, window=1099), "1", "1", ContextOverflowError, "--max-tokens"),
        (replace(CLAUDE, depth=50), "1", "1", QueueFullError, ""),
        (replace(CLAUDE, models=("other",)), "1", "1", NoBackendError, ""),
    ],
)
def test_each_cause_has_its_error_and_its_remedy(
    state: BackendState, most: str, left: str, kind: type[BatutaError], hint: str
) -> None:
    found = error(state, most=most, left=left)
    assert type(found) is kind
    assert hint in (found.hint or "")


def test_a_tool_without_a_limit_has_its_own_error() -> None:
    found = error(CLAUDE, demands=Demands(unbounded_tools=("web_search_20250305",)))
    assert isinstance(found, UnboundedCostError)
    assert "web_search_20250305" in found.message and "max_uses" in (found.hint or "")


def test_a_cause_that_passes_with_time_comes_before_the_budget_and_tells_the_time() -> None:
    found = error(replace(CLAUDE, cooldown=3.0), replace(GROQ, price=TokenPricing.usd(input=10_000, output=1)))
    assert isinstance(found, NoBackendError) and not isinstance(found, QueueFullError)
    assert found.retry_after == 7


def test_the_nearest_name_is_suggested_for_an_unknown_model_only() -> None:
    state = replace(CLAUDE, models=("claude-sonnet-4-5",))
    assert "did you mean claude-sonnet-4-5" in (
        error(state, model="claude-sonet-4-5", known_models=("claude-sonnet-4-5",)).hint or ""
    )
    away = error(state, model="claude-sonnet-4", known_models=("claude-sonnet-4", "claude-sonnet-4-5"))
    assert "did you mean" not in (away.hint or "")
