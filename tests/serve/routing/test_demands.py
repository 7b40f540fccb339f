"""What a request asks beside text: which backends have it, and that its cost has a bound before it is sent."""

from dataclasses import replace
from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.models.pricing import FREE, TokenPricing
from batuta_cli.serve.money import to_nano
from batuta_cli.serve.routing.demands import Demands
from batuta_cli.serve.routing.gates import BackendState, GateName, GateResult, Need, PlanRequest, Snapshot
from batuta_cli.serve.routing.planning import plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount

PRICE = TokenPricing.usd(input=10, output=30)
CLAUDE = BackendState(
    name="claude", kind=ServingBackend.ANTHROPIC, tier=PrivacyTier.STANDARD, price=PRICE, window=200_000, reserve=1000
)
GROQ = replace(CLAUDE, name="groq", kind=ServingBackend.GROQ)
LLAMA = replace(CLAUDE, name="llama", kind=ServingBackend.LLAMA_CPP, tier=PrivacyTier.SOVEREIGN, price=FREE)
CANDLE = replace(LLAMA, name="candle", kind=ServingBackend.CANDLE)


def gate(name: GateName, state: BackendState, *, snapshot: dict[str, Any] | None = None, **demands: Any) -> GateResult:
    """The result of one gate for a request of 1,000 input and 100 output tokens."""
    request = PlanRequest(
        privacy=demands.pop("privacy", PrivacyTier.STANDARD),
        needs=demands.pop("needs", frozenset()),
        model="m",
        input_tokens=TokenCount(1000, False, "by hand"),
        max_output_tokens=100,
        demands=Demands(**demands),
    )
    found = plan(request, Snapshot(backends=(state,), **(snapshot or {})))
    return next(result for result in found.candidates[0].gates if result.name is name)


def dollars(amount: str) -> int:
    return to_nano(amount)


def test_text_alone_costs_its_tokens() -> None:
    assert gate(GateName.BUDGET, CLAUDE).number == dollars("0.013")


def test_images_count_as_the_profile_says() -> None:
    assert gate(GateName.BUDGET, CLAUDE, images=2).number == dollars("0.013") + 2 * 8_464 * dollars("0.00001")
    assert gate(GateName.BUDGET, GROQ, images=1).number == dollars("0.013") + 16_384 * dollars("0.00001")


def test_content_without_a_bound_counts_as_the_whole_window() -> None:
    assert gate(GateName.BUDGET, CLAUDE, windows=1).number == dollars("2.003")
    assert gate(GateName.BUDGET, CLAUDE, windows=3, call_cost=dollars("0.02")).number == dollars("6.023")


def test_content_without_a_bound_is_refused_where_the_window_is_not_known() -> None:
    found = gate(GateName.BUDGET, replace(CLAUDE, window=None), windows=1)
    assert (found.passed, found.hint) == (False, "give the model a context_window under [models] in config.toml")


def test_a_dearer_service_costs_more() -> None:
    assert gate(GateName.BUDGET, CLAUDE, price_percent=600).number == dollars("0.078")


def test_a_hosted_tool_without_a_limit_is_refused_unless_the_operator_allows_it() -> None:
    found = gate(GateName.BUDGET, CLAUDE, unbounded_tools=("web_search_20250305",))
    assert not found.passed
    assert "web_search_20250305" in found.detail and "max_uses" in found.hint
    assert gate(GateName.BUDGET, LLAMA, unbounded_tools=("web_search_20250305",)).passed
    allowed: dict[str, Any] = {"allow_unbounded_tools": True}
    assert gate(GateName.BUDGET, CLAUDE, unbounded_tools=("web_search_20250305",), snapshot=allowed).passed


def test_unknown_fields_are_refused_at_priced_backends_only_when_the_operator_says_so() -> None:
    assert gate(GateName.BUDGET, CLAUDE, unknown_fields=("x",)).passed
    refuses: dict[str, Any] = {"refuse_unknown_fields": True}
    assert not gate(GateName.BUDGET, CLAUDE, unknown_fields=("x",), snapshot=refuses).passed
    assert gate(GateName.BUDGET, LLAMA, unknown_fields=("x",), snapshot=refuses).passed
    assert gate(GateName.BUDGET, CLAUDE, snapshot=refuses).passed


@pytest.mark.parametrize(
    ("state", "need", "has"),
    [
        (CLAUDE, Need.IMAGES, True),
        (CLAUDE, Need.FILES, True),
        (CLAUDE, Need.AUDIO, False),
        (CLAUDE, Need.HOSTED_TOOLS, True),
        (LLAMA, Need.IMAGES, True),
        (LLAMA, Need.FILES, False),
        (LLAMA, Need.HOSTED_TOOLS, False),
        (CANDLE, Need.IMAGES, False),
        (CANDLE, Need.TOOLS, True),
    ],
)
def test_content_goes_to_backends_that_take_it(state: BackendState, need: Need, has: bool) -> None:
    found = gate(GateName.CAPABILITY, state, needs=frozenset({need}))
    assert (found.passed, found.lacks) == (has, not has)
    assert has or found.detail == f"its API has no {need}"


def test_what_only_one_api_has_goes_only_to_backends_that_speak_it() -> None:
    only: dict[str, Any] = {"api": ClientApi.ANTHROPIC_MESSAGES, "native_only": ("container",)}
    assert gate(GateName.CAPABILITY, CLAUDE, **only).passed
    assert gate(GateName.CAPABILITY, LLAMA, **only).passed
    assert gate(GateName.CAPABILITY, GROQ, **only).detail == "its API has no container"


def test_a_backend_that_speaks_the_clients_api_has_what_a_translation_would_lose() -> None:
    needs: dict[str, Any] = {"needs": frozenset({Need.JSON})}
    assert not gate(GateName.CAPABILITY, CLAUDE, **needs).passed
    assert gate(GateName.CAPABILITY, CLAUDE, api=ClientApi.ANTHROPIC_MESSAGES, **needs).passed


@pytest.mark.parametrize("tier", [PrivacyTier.PRIVATE, PrivacyTier.SOVEREIGN])
def test_what_hands_data_out_is_refused_by_the_tier(tier: PrivacyTier) -> None:
    found = gate(GateName.TIER, LLAMA, privacy=tier, outside=("store",))
    assert not found.passed and "store" in found.detail
    assert gate(GateName.TIER, LLAMA, outside=("store",)).passed


def test_a_url_goes_only_to_a_public_service() -> None:
    azure = replace(CLAUDE, kind=ServingBackend.AZURE_OPENAI, tier=PrivacyTier.PRIVATE)
    away = replace(LLAMA, tier=PrivacyTier.STANDARD)  # a local kind at an address that is not declared as local
    for state in (LLAMA, azure, away):
        assert not gate(GateName.TIER, state, fetches=True).passed
    assert gate(GateName.TIER, CLAUDE, fetches=True).passed
