"""Each kind of token is read, charged at its own price, reserved at the dearest, and passed on to the client."""

import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.config import ModelSection
from batuta_cli.errors import ConfigError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.gateway.dialects.anthropic_reply import MessageReply
from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.openai import ChatReply
from batuta_cli.serve.models.pricing import KindPrices, PriceTier, TokenPricing, own_prices, price_for
from batuta_cli.serve.money import NANO
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.formats.anthropic_messages import MessagesReader
from batuta_cli.serve.providers.formats.openai_chat import ChatReader
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.usage import CacheWrites, Usage, cache_writes
from tests.serve.pipeline.test_attempt import PRICED
from tests.serve.support_backend import FaultServer, response
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, request

TODAY = dt.date(2026, 11, 23)


def of_openai(usage: dict[str, Any]) -> Usage | None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    return next((piece.usage for piece in ChatReader().whole(answer) if piece.usage), None)


def of_anthropic(start: dict[str, Any], end: dict[str, Any]) -> Usage | None:
    reader = MessagesReader()
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": start}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
    ]
    pieces = [piece for event in events for piece in reader.event(Event(event["type"], json.dumps(event).encode()))]
    return pieces[-1].usage


# Reading.


def test_the_kinds_of_openais_usage_are_read() -> None:
    """The example of https://platform.openai.com/docs/guides/prompt-caching, with audio."""
    usage = {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 6, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 250, "audio_tokens": 5, "accepted_prediction_tokens": 0},
    }
    assert of_openai(usage) == Usage(
        2006,
        300,
        cached_tokens=1920,
        cache_write_tokens=10,
        reasoning_tokens=250,
        input_audio_tokens=6,
        output_audio_tokens=5,
    )


@pytest.mark.parametrize(
    "more", [{"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, {"cached_tokens": 64}]
)
def test_other_names_of_the_cached_tokens_are_read(more: dict[str, Any]) -> None:
    assert of_openai({"prompt_tokens": 100, "completion_tokens": 1, **more}) == Usage(100, 1, cached_tokens=64)


def test_the_kinds_of_anthropics_usage_are_read() -> None:
    """Its input_tokens are those after the last breakpoint: https://docs.anthropic.com/en/docs/build-with-claude/…"""
    start = {
        "input_tokens": 50,
        "cache_read_input_tokens": 100_000,
        "cache_creation_input_tokens": 556,
        "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 1,
    }
    wanted = Usage(
        100_606, 503, cached_tokens=100_000, cache_write_tokens=556, cache_write_1h_tokens=100, reasoning_tokens=None
    )
    assert of_anthropic(start, {"output_tokens": 503}) == wanted
    assert of_anthropic(start, {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 503}) == wanted
    assert of_anthropic({}, {**start, "output_tokens": 503}) == wanted


@pytest.mark.parametrize(
    ("start", "end", "wanted"),
    [
        ({}, {"output_tokens": 3}, None),  # a prompt of no tokens is no report
        ({"input_tokens": 3}, {}, None),
        ({"input_tokens": -3}, {"output_tokens": 3}, None),
        ({"input_tokens": 3, "cache_read_input_tokens": "9.5"}, {"output_tokens": 3}, Usage(3, 3)),
        (
            {"input_tokens": 3, "cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 9}},
            {"output_tokens": 3},
            Usage(12, 3, cache_write_tokens=9, cache_write_1h_tokens=9),
        ),
        ({"input_tokens": 3}, {"output_tokens": True}, None),
    ],
)
def test_nonsense_of_anthropics_shape_is_not_believed(
    start: dict[str, Any], end: dict[str, Any], wanted: Usage | None
) -> None:
    assert of_anthropic(start, end) == wanted


NAMES = st.sampled_from([
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "input_tokens", "output_tokens",
    "cache_creation", "cache_read_input_tokens", "cache_creation_input_tokens", "ephemeral_1h_input_tokens",
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)
SMALL = st.dictionaries(NAMES, st.integers(-3, 30) | st.dictionaries(NAMES, st.integers(-3, 30)), max_size=9)


@given(SMALL | st.dictionaries(NAMES, JSON, max_size=9))
def test_whatever_is_reported_every_kind_is_a_part_of_its_whole(usage: dict[str, Any]) -> None:
    for found in (of_openai(usage), of_anthropic(usage, {}), of_anthropic({}, usage)):
        if found:
            assert found.input_tokens >= (found.cached_tokens or 0) + (found.cache_write_tokens or 0) + (
                found.input_audio_tokens or 0
            )
            assert found.output_tokens >= (found.reasoning_tokens or 0) + (found.output_audio_tokens or 0)
            assert (found.cache_write_tokens or 0) >= (found.cache_write_1h_tokens or 0)
            price = TokenPricing.usd(input=3, output=15)
            assert (
                0 <= price.charge(found) <= price.cost(found.input_tokens, found.output_tokens, writes=CacheWrites.HOUR)
            )


# Prices.


def nano(*parts: tuple[int, str]) -> int:
    """Tokens at dollars for a million, rounded up."""
    return ceil(sum(Fraction(dollars) * NANO * tokens / 10**6 for tokens, dollars in parts))


def test_claude_sonnet_4_5_is_charged_by_kind() -> None:
    """Its prices, from https://docs.anthropic.com/en/docs/about-claude/pricing: 3, 0.30, 3.75, 6 and 15 dollars."""
    price = price_for("claude-sonnet-4-5", local=False, provider="Anthropic", at=TODAY)
    usage = Usage(100_606, 503, cached_tokens=100_000, cache_write_tokens=556, cache_write_1h_tokens=100)
    wanted = nano((50, "3"), (100_000, "0.3"), (456, "3.75"), (100, "6")) + nano((503, "15"))
    assert price.charge(usage) == wanted


def test_the_price_of_a_long_prompt_is_that_of_the_prompt_that_was_reported() -> None:
    """Above 200,000 tokens of prompt, cached ones included: 6, 0.60, 7.50, 12 and 22.50 dollars."""
    price = price_for("claude-sonnet-4-5", local=False, provider="Anthropic", at=TODAY)
    short = Usage(200_000, 10, cached_tokens=199_000)
    long = Usage(200_001, 10, cached_tokens=199_000, cache_write_tokens=1, cache_write_1h_tokens=1)
    assert price.charge(short) == nano((199_000, "0.3"), (1000, "3")) + nano((10, "15"))
    assert price.charge(long) == nano((199_000, "0.6"), (1000, "6"), (1, "12")) + nano((10, "22.5"))


def test_gpt_4o_charges_half_for_what_was_cached() -> None:
    price = price_for("gpt-4o", local=False, provider="OpenAI", at=TODAY)
    assert price.charge(Usage(2006, 300, cached_tokens=1920)) == nano((86, "2.5"), (1920, "1.25")) + nano((300, "10"))


def test_reasoning_and_audio_have_their_own_prices_where_they_are_known() -> None:
    price = TokenPricing(
        input_per_million=10, output_per_million=20, kinds=KindPrices(reasoning=5, input_audio=100, output_audio=200)
    )
    usage = Usage(10**6, 10**6, reasoning_tokens=10**6, input_audio_tokens=10**6)
    assert price.charge(usage) == 5 + 100
    assert price.charge(replace(usage, reasoning_tokens=None, output_audio_tokens=10**6)) == 100 + 200
    assert price.charge(Usage(10**6, 10**6)) == 30
    assert price.cost(10**6, 10**6) == 30


def test_without_a_price_of_its_own_no_kind_is_charged_less_than_what_anthropic_asks_for_it() -> None:
    """1.25 and 2 times the price of input for the two lifetimes; 0.1 times for what was cached."""
    price = TokenPricing.usd(input=1, output=2)
    assert price.charge(Usage(10**6, 0, cached_tokens=10**6)) == NANO
    assert price.charge(Usage(10**6, 0, cache_write_tokens=10**6)) == 125 * NANO // 100
    assert price.charge(Usage(10**6, 0, cache_write_tokens=10**6, cache_write_1h_tokens=10**6)) == 2 * NANO
    assert price.charge(Usage(0, 10**6, reasoning_tokens=10**6)) == 2 * NANO


def test_a_provider_that_writes_unasked_is_paid_for_writing_what_it_does_not_break_down() -> None:
    """GPT-5.6 bills cache writes above input, unasked: https://platform.openai.com/docs/pricing."""
    price = price_for("gpt-5.6-cyber", local=False, provider="OpenAI", at=TODAY)
    assert price.charge(Usage(1000, 0)) == price.cost(1000, 0) == nano((1000, "15.625"))
    assert price.charge(Usage(1000, 0, cache_write_tokens=0)) == nano((1000, "12.5"))
    assert price.charge(Usage(1000, 0, cache_write_tokens=400)) == nano((600, "12.5"), (400, "15.625"))


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, CacheWrites.NONE),
        ({"tools": [{"function": {"name": "f"}}]}, CacheWrites.NONE),
        ({"tools": [{"function": {"name": "f"}, "cache_control": {"type": "ephemeral"}}]}, CacheWrites.MINUTES),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, CacheWrites.MINUTES),
        ({"tools": [{"cache_control": {"ttl": "1h"}}, {"cache_control": {"ttl": "5m"}}]}, CacheWrites.HOUR),
        ({"cache_control": {"ttl": "7 days"}}, CacheWrites.HOUR),
        ({"cache_control": None}, CacheWrites.NONE),
    ],
)
def test_cache_writes_are_reserved_only_where_the_request_asks_for_them(
    options: dict[str, Any], asked: CacheWrites
) -> None:
    assert cache_writes(options) is asked
    price = price_for("claude-sonnet-4-5", local=False, provider="Anthropic", at=TODAY)
    dollars = {CacheWrites.NONE: "3", CacheWrites.MINUTES: "3.75", CacheWrites.HOUR: "6"}[asked]
    assert price.cost(1000, 0, writes=asked) == nano((1000, dollars))


def test_a_write_whose_lifetime_is_not_told_costs_what_the_request_asked_for() -> None:
    price = price_for("claude-sonnet-4-5", local=False, provider="Anthropic", at=TODAY)
    usage = Usage(1000, 0, cache_write_tokens=1000)
    assert price.charge(usage, writes=CacheWrites.MINUTES) == nano((1000, "3.75"))
    assert price.charge(usage, writes=CacheWrites.HOUR) == nano((1000, "6"))


AMOUNTS = st.integers(0, 10**10)
KINDS = st.builds(
    KindPrices,
    cached=st.none() | AMOUNTS,
    cache_write=st.none() | AMOUNTS,
    cache_write_1h=st.none() | AMOUNTS,
    reasoning=st.none() | AMOUNTS,
)


@given(
    AMOUNTS,
    AMOUNTS,
    KINDS,
    st.lists(
        st.builds(PriceTier, st.integers(0, 3000), st.integers(0, 10**10), st.integers(0, 10**10), KINDS), max_size=2
    ),
    st.lists(st.integers(0, 1000), min_size=6, max_size=6),
    st.sampled_from(CacheWrites),
    st.booleans(),
)
def test_no_report_within_the_counts_costs_more_than_its_reservation(
    input: int, output: int, kinds: KindPrices, tiers: list[PriceTier], n: list[int], writes: CacheWrites, unasked: bool
) -> None:
    price = TokenPricing(
        input_per_million=input,
        output_per_million=output,
        per_request=3,
        tiers=tuple(tiers),
        kinds=kinds,
        writes_unasked=unasked,
    )
    written = n[2] if writes is not CacheWrites.NONE or unasked else 0
    hour = min(n[3], written) if writes is CacheWrites.HOUR else 0
    usage = Usage(
        n[0] + n[1] + written,
        n[4] + n[5],
        cached_tokens=n[1],
        cache_write_tokens=written,
        cache_write_1h_tokens=hour,
        reasoning_tokens=n[5],
    )
    assert price.charge(usage, writes=writes) <= price.cost(usage.input_tokens, usage.output_tokens, writes=writes)


def test_own_prices_of_kinds_come_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[models.m]\n"
        'input_usd_per_million = "2"\noutput_usd_per_million = "4"\ncached_input_usd_per_million = "0.5"\n'
        'cache_write_usd_per_million = "3"\ncache_write_1h_usd_per_million = "5"\nreasoning_usd_per_million = "6"\n'
    )
    path.chmod(0o600)
    price = own_prices(config.load(path, {}).models)["m"]
    usage = Usage(600, 200, cached_tokens=100, cache_write_tokens=300, cache_write_1h_tokens=200, reasoning_tokens=50)
    wanted = nano((200, "2"), (100, "0.5"), (100, "3"), (200, "5")) + nano((150, "4"), (50, "6"))
    assert price.charge(usage) == wanted


def test_the_price_of_a_kind_alone_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cached_input_usd_per_million without input_usd_per_million"):
        own_prices({"m": ModelSection(cached_input_usd_per_million=Decimal(1))})


# Through the pipeline, and on to the client.


def test_an_answer_is_charged_and_told_by_kind(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 5}
    answer = {"type": "message", "content": [{"type": "text", "text": "Said."}], "stop_reason": "end_turn"}
    model = replace(PRICED, cached_input_usd_per_million=Decimal("0.1"), cache_write_usd_per_million=Decimal("1.25"))
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    with FaultServer(lambda *_: [response(json.dumps(answer | {"usage": usage}).encode())]) as server:
        tables = backends(claude=("anthropic", server.base_url))
        made = pipeline(tmp_path, tables, breaker=breaker, models={MODEL: model})
        told, pieces = ask(made, request(stream=False))
    assert breaker.status().spent == nano((10, "1"), (100, "0.1"), (20, "1.25")) + nano((5, "1"))
    assert pieces[-1].usage == Usage(130, 5, cached_tokens=100, cache_write_tokens=20)
    assert told.summary and told.summary.tokens == pieces[-1].usage and told.summary.exact


WHOLE = Usage(130, 9, cached_tokens=100, cache_write_tokens=20, cache_write_1h_tokens=5, reasoning_tokens=7)
SUMMARY = Summary(
    backend="b",
    input_tokens=130,
    output_tokens=9,
    exact=True,
    cost=0,
    budget_left=None,
    attempts=(),
    usage=WHOLE,
)


def test_clients_of_openais_shape_get_the_kinds() -> None:
    wanted = {
        "prompt_tokens": 130,
        "completion_tokens": 9,
        "total_tokens": 139,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    reply = ChatReply(ParsedRequest(model="m", messages=()), "x", 0)
    assert json.loads(reply.whole([], SUMMARY))["usage"] == wanted
    last = [json.loads(line[6:]) for line in reply.end(SUMMARY).split(b"\n\n") if line.startswith(b"data: {")][-1]
    assert last["usage"] == wanted


def test_clients_of_anthropics_shape_get_the_kinds() -> None:
    wanted = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 7},
    }
    reply = MessageReply(ParsedRequest(model="m", messages=()), "x")
    assert json.loads(reply.whole([], SUMMARY))["usage"] == wanted
    events = [json.loads(line[6:]) for line in reply.end(SUMMARY).split(b"\n") if line.startswith(b"data: {")]
    assert next(event for event in events if event["type"] == "message_delta")["usage"] == wanted
