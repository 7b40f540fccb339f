"""The gates: each admits or refuses a backend by its own rule, and tells the number that decided."""

from dataclasses import replace

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.models.pricing import FREE, TokenPricing
from batuta_cli.serve.money import to_nano
from batuta_cli.serve.routing.gates import BackendState, GateName, Need, PlanRequest, Snapshot
from batuta_cli.serve.routing.planning import Plan, plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier
DEAR = TokenPricing.usd(input=10, output=30)
LLAMA = BackendState(name="llama", kind=ServingBackend.LLAMA_CPP, tier=SOVEREIGN, price=FREE)
GROQ = BackendState(name="groq", kind=ServingBackend.GROQ, tier=STANDARD, price=DEAR)
AZURE = BackendState(name="azure", kind=ServingBackend.AZURE_OPENAI, tier=PRIVATE, price=DEAR)


def asked(**about: object) -> PlanRequest:
    return PlanRequest(**{"privacy": STANDARD, "model": "m", **about})  # type: ignore[arg-type]


def tokens(count: int) -> TokenCount:
    return TokenCount(count, True, "by hand")


def refused(found: Plan, name: str) -> dict[str, str]:
    """The gates that refused a backend, with what they said."""
    candidate = next(c for c in found.candidates if c.backend == name)
    return {str(gate.name): gate.detail for gate in candidate.gates if not gate.passed}


def number(found: Plan, name: str, gate: GateName) -> int | float | None:
    candidate = next(c for c in found.candidates if c.backend == name)
    return next(g.number for g in candidate.gates if g.name is gate)


def test_every_gate_tells_its_number() -> None:
    request = asked(input_tokens=tokens(1000), max_output_tokens=100)
    state = replace(GROQ, window=8192, depth=3, cooldown=2.5)
    found = plan(request, Snapshot(backends=(state,), budget_remaining=to_nano("0.50"), max_request_cost=to_nano(1)))
    candidate = found.candidates[0]
    assert [str(gate.name) for gate in candidate.gates] == [
        "tier", "capability", "context", "budget", "cooldown", "queue",
    ]  # fmt: skip
    assert number(found, "groq", GateName.CONTEXT) == 1100
    assert number(found, "groq", GateName.BUDGET) == to_nano("0.013")  # 1000 × $10/M + 100 × $30/M
    assert number(found, "groq", GateName.COOLDOWN) == 2.5
    assert number(found, "groq", GateName.QUEUE) == 3
    assert candidate.gates[3].to_json()["number"] == "0.013"
    assert refused(found, "groq") == {"cooldown": "cooling down after a failure, for 2.5 s"}


@pytest.mark.parametrize(
    ("state", "request_", "gate", "detail"),
    [
        (GROQ, asked(privacy=PRIVATE), "tier", "private does not admit standard"),
        (AZURE, asked(privacy=SOVEREIGN), "tier", "sovereign does not admit private"),
        (
            replace(LLAMA, remote_models=frozenset({"m"})),
            asked(privacy=PRIVATE),
            "tier",
            "private does not admit standard: its server forwards this model's requests to another server",
        ),
        (replace(LLAMA, models=("other",)), asked(), "capability", "it does not have m"),
        (
            BackendState(name="claude", kind=ServingBackend.ANTHROPIC, tier=STANDARD, price=FREE),
            asked(needs=frozenset({Need.JSON, Need.TOOLS, Need.CHOICES})),
            "capability",
            "its API has no JSON output or several choices",
        ),
        (
            replace(LLAMA, window=8192),
            asked(input_tokens=tokens(8000), max_output_tokens=193),
            "context",
            "8,193 tokens in a window of 8,192",
        ),
        (
            replace(LLAMA, window=8192, reserve=2048),
            asked(input_tokens=tokens(6145)),
            "context",
            "8,193 tokens in a window of 8,192",
        ),
        (replace(GROQ, price=None), asked(), "budget", "the price of m is not known"),
        (
            replace(LLAMA, cooldown=0.0),
            asked(),
            "cooldown",
            "cooling down after a failure, one trial request in flight",
        ),
        (replace(LLAMA, cooldown=7.0, cools_model=True), asked(), "cooldown", "m is cooling down there, for 7.0 s"),
        (replace(LLAMA, trouble="connection refused"), asked(), "cooldown", "connection refused"),
        (replace(LLAMA, depth=50), asked(), "queue", "50 requests, the limit is 50"),
    ],
)
def test_a_gate_that_refuses_says_why(state: BackendState, request_: PlanRequest, gate: str, detail: str) -> None:
    found = plan(request_, Snapshot(backends=(state,)))
    assert refused(found, state.name) == {gate: detail}
    assert found.decision == "reject" and found.fallbacks == ()


def test_an_estimate_never_refuses_for_context_and_bounds_the_price() -> None:
    small = replace(LLAMA, window=8192)
    request = asked(input_tokens=TokenCount(103_006, False, "estimated"), max_output_tokens=1000)
    found = plan(request, Snapshot(backends=(small,)))
    assert found.backend == "llama" and found.warnings == (
        "llama: the prompt may not fit: at most 104,006 tokens in a window of 8,192; the backend decides",
    )
    gate = found.candidates[0].gates[2]
    assert (gate.name, gate.passed, gate.uncertain) == (GateName.CONTEXT, True, True)
    exact = plan(replace(request, input_tokens=tokens(103_006)), Snapshot(backends=(small,)))
    assert exact.backend is None and exact.warnings == ()
    dear = plan(request, Snapshot(backends=(replace(GROQ, window=8192),), max_request_cost=to_nano("1.00")))
    assert list(refused(dear, "groq")) == ["budget"]


def test_an_output_limit_above_the_window_refuses_whatever_the_prompt_is() -> None:
    small = replace(LLAMA, window=8192)
    request = asked(input_tokens=TokenCount(10, False, "estimated"), max_output_tokens=8193)
    assert list(refused(plan(request, Snapshot(backends=(small,))), "llama")) == ["context"]


@pytest.mark.parametrize(
    ("most", "left", "complaint"),
    [
        ("1.00", "1.00", None),
        ("0.013", "0.013", None),
        ("0.012999999", "1.00", "$0.013, above the limit of $0.012999999 a request"),
        ("1.00", "0.012999999", "$0.013 of $0.012999999 left of the day"),
        ("1.00", "0", "$0.013 of $0.00 left of the day"),
    ],
)
def test_the_budget_is_kept_to_the_nano_dollar(most: str, left: str, complaint: str | None) -> None:
    request = asked(input_tokens=tokens(1000), max_output_tokens=100)
    snapshot = Snapshot(backends=(GROQ, LLAMA), budget_remaining=to_nano(left), max_request_cost=to_nano(most))
    found = plan(request, snapshot)
    assert refused(found, "groq").get("budget") == complaint
    assert refused(found, "llama") == {}


def test_a_model_is_found_under_the_name_that_ollama_lists_it_by() -> None:
    state = BackendState(
        name="ollama", kind=ServingBackend.OLLAMA, tier=SOVEREIGN, models=("llama3:latest", "phi3:mini"), price=FREE
    )
    assert plan(asked(model="llama3"), Snapshot(backends=(state,))).backend == "ollama"
    assert plan(asked(model="phi3"), Snapshot(backends=(state,))).backend is None


def test_a_price_that_is_not_known_can_be_allowed() -> None:
    found = plan(asked(allow_unpriced=True), Snapshot(backends=(replace(GROQ, price=None),)))
    assert found.backend == "groq"
