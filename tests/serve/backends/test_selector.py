"""Whom to recommend: the design's table, and what the other wishes do to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UsageError
from batuta_cli.serve.backends import BackendSelector, ServingBackend
from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier

TABLE = """
realtime    | Realizar LlamaCpp        | Realizar LlamaCpp AzureOpenAI         | Groq Realizar Fireworks
interactive | Realizar Ollama LlamaCpp | Realizar Ollama AzureOpenAI AwsBedrock | Realizar Groq Together Fireworks
batch       | Realizar Ollama          | Realizar Ollama AwsBedrock            | Together HuggingFace Replicate
"""
CELLS = [
    (latency.strip(), privacy, names.split())
    for latency, *row in (line.split("|") for line in TABLE.strip().splitlines())
    for privacy, names in zip(("sovereign", "private", "standard"), row, strict=True)
]

tiers = {
    "privacy": st.sampled_from(PrivacyTier),
    "latency": st.sampled_from(LatencyTier),
    "throughput": st.sampled_from(ThroughputTier),
    "cost": st.sampled_from(CostTier),
}
some = st.lists(st.sampled_from(ServingBackend), max_size=8)


def names(selector: BackendSelector) -> list[str]:
    return [backend.value for backend in selector.recommend()]


@pytest.mark.parametrize(("latency", "privacy", "expected"), CELLS)
def test_the_table_of_the_design(latency: str, privacy: str, expected: list[str]) -> None:
    assert names(BackendSelector(privacy=privacy, latency=latency)) == expected


def test_without_wishes_an_interactive_standard_request_is_meant() -> None:
    assert names(BackendSelector()) == ["Realizar", "Groq", "Together", "Fireworks"]


def test_high_throughput_puts_vllm_and_tgi_first_among_the_local_ones() -> None:
    def high(privacy: str, latency: str) -> list[str]:
        return names(BackendSelector(privacy=privacy, latency=latency, throughput="high"))

    assert high("sovereign", "interactive") == ["Vllm", "Tgi", "Realizar", "Ollama", "LlamaCpp"]
    assert high("standard", "realtime") == ["Groq", "Vllm", "Tgi", "Realizar", "Fireworks"]
    assert high("standard", "batch") == ["Together", "HuggingFace", "Replicate", "Vllm", "Tgi"]


def test_low_and_medium_throughput_change_nothing() -> None:
    for latency, privacy, expected in CELLS:
        for throughput in ("low", "medium"):
            assert names(BackendSelector(privacy, latency, throughput)) == expected


def test_frugal_orders_by_price_and_puts_local_ones_first() -> None:
    assert names(BackendSelector(latency="realtime", cost="frugal")) == ["Realizar", "Groq", "Fireworks"]
    assert names(BackendSelector(privacy="private", cost="frugal")) == [
        "Realizar",
        "Ollama",
        "AwsBedrock",
        "AzureOpenAI",
    ]
    assert names(BackendSelector(latency="batch", throughput="high", cost="frugal")) == [
        "Vllm",
        "Tgi",
        "Together",
        "HuggingFace",
        "Replicate",
    ]


def test_premium_puts_hosted_ones_first_and_changes_nothing_where_there_are_none() -> None:
    assert names(BackendSelector(cost="premium")) == ["Groq", "Together", "Fireworks", "Realizar"]
    assert names(BackendSelector(privacy="sovereign", cost="premium")) == ["Realizar", "Ollama", "LlamaCpp"]


def test_what_is_preferred_comes_first_even_from_outside_the_table() -> None:
    assert names(BackendSelector(prefer=["Fireworks"])) == ["Fireworks", "Realizar", "Groq", "Together"]
    assert names(BackendSelector(prefer=["anthropic", "groq"]))[:3] == ["Anthropic", "Groq", "Realizar"]
    assert names(BackendSelector(privacy="sovereign", prefer=["groq", "vllm"])) == [
        "Vllm",
        "Realizar",
        "Ollama",
        "LlamaCpp",
    ]


def test_what_is_disabled_is_not_there_even_when_it_is_preferred() -> None:
    assert names(BackendSelector(disable=["realizar", "groq"], prefer=["groq"])) == ["Together", "Fireworks"]


def test_a_misspelt_wish_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="privacy tier soverign, did you mean sovereign"):
        BackendSelector(privacy="soverign")
    with pytest.raises(UsageError, match="backend Grok, did you mean Groq"):
        BackendSelector(prefer=["Grok"])


@given(st.fixed_dictionaries({**tiers, "prefer": some, "disable": some}))
def test_nothing_is_recommended_that_the_tier_forbids_or_that_is_disabled(wishes: dict[str, object]) -> None:
    selector = BackendSelector(**wishes)  # type: ignore[arg-type]
    recommended = selector.recommend()
    assert len(set(recommended)) == len(recommended)
    for backend in recommended:
        assert selector.privacy.admits(backend.tier)
        assert backend not in selector.disable


@given(st.fixed_dictionaries({**tiers, "prefer": some}))
def test_what_is_preferred_and_allowed_is_always_first(wishes: dict[str, object]) -> None:
    selector = BackendSelector(**wishes)  # type: ignore[arg-type]
    allowed = [b for b in selector.prefer if selector.privacy.admits(b.tier)]
    assert selector.recommend()[: len(allowed)] == allowed


@given(st.fixed_dictionaries(tiers))
def test_speed_and_price_change_the_order_but_never_lose_what_the_table_has(wishes: dict[str, object]) -> None:
    plain = BackendSelector(wishes["privacy"], wishes["latency"]).recommend()  # type: ignore[arg-type]
    assert set(plain) <= set(BackendSelector(**wishes).recommend())  # type: ignore[arg-type]
