"""What a request costs: against prices copied from the providers' pages, and exact arithmetic done another way."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli import config
from batuta_cli.config import ModelSection
from batuta_cli.errors import ConfigError, UnknownPriceError, UsageError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.models.catalogue import catalogue, read
from batuta_cli.serve.models.pricing import FREE, KindPrices, PriceTier, TokenPricing, own_prices, price_for, pricing
from batuta_cli.serve.money import NANO

TODAY = dt.date(2026, 11, 23)

PRICES = st.integers(0, 10**12)
COUNTS = st.integers(0, 2_000_000)


def prices(model: str, provider: str | None = None, at: dt.date = TODAY) -> tuple[Decimal, Decimal]:
    """The dollars for a million tokens of input and of output."""
    found = price_for(model, local=False, provider=provider, at=at)
    return Decimal(found.input_per_million) / NANO, Decimal(found.output_per_million) / NANO


# The design's table, and each model's dated names.
@pytest.mark.parametrize(
    ("models", "input", "output"),
    [
        ("gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-4-1106-preview gpt-4-0125-preview", "10", "30"),
        ("gpt-4 gpt-4-0314 gpt-4-0613", "30", "60"),
        ("gpt-3.5-turbo gpt-3.5-turbo-0125", "0.50", "1.50"),
        ("claude-3-opus claude-3-opus-20240229 claude-3-opus-latest", "15", "75"),
        ("claude-3-sonnet claude-3-sonnet-20240229", "3", "15"),
        ("claude-3-haiku claude-3-haiku-20240307", "0.25", "1.25"),
        # Their neighbours, whose names begin alike: https://platform.openai.com/docs/pricing
        ("gpt-4-32k gpt-4-32k-0314", "60", "120"),
        ("gpt-4o gpt-4o-2024-08-06 gpt-4o-20240806", "2.50", "10"),
        ("gpt-4o-2024-05-13", "5", "15"),
        ("gpt-4o-mini gpt-4o-mini-2024-07-18", "0.15", "0.60"),
        ("gpt-3.5-turbo-1106", "1", "2"),
        ("gpt-3.5-turbo-0613", "1.50", "2"),
        ("gpt-3.5-turbo-16k", "3", "4"),
    ],
)
def test_list_prices_are_those_of_the_makers_pages(models: str, input: str, output: str) -> None:
    for model in models.split():
        assert prices(model) == (Decimal(input), Decimal(output)), model
        assert prices(model.upper()) == (Decimal(input), Decimal(output)), model


@pytest.mark.parametrize(
    ("model", "provider", "input", "output"),
    [
        ("gpt-4", "OpenAI", "30", "60"),
        ("gpt-4", "azure-openai", "30", "60"),
        ("anthropic.claude-3-opus-20240229-v1:0", "AwsBedrock", "15", "75"),
        ("us.anthropic.claude-3-haiku-20240307-v1:0", "AwsBedrock", "0.25", "1.25"),
        ("claude-3-opus@20240229", "GoogleVertex", "15", "75"),
        ("gemini-2.5-flash-lite", "GoogleVertex", "0.10", "0.40"),
        ("google/gemini-2.5-flash-lite", "GoogleVertex", "0.10", "0.40"),
        ("ft:gpt-4o-2024-08-06:acme::9x8Y7z", "OpenAI", "3.75", "15"),
        # One model, four hosts, four prices.
        ("llama-3.1-8b-instant", "Groq", "0.05", "0.08"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "Together", "0.18", "0.18"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "Fireworks", "0.20", "0.20"),
        ("meta.llama3-1-8b-instruct-v1:0", "AwsBedrock", "0.22", "0.22"),
    ],
)
def test_the_price_is_that_of_the_host(model: str, provider: str, input: str, output: str) -> None:
    assert prices(model, provider) == (Decimal(input), Decimal(output))


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("no-such-model", None),
        ("no-such-model", "OpenAI"),
        ("gpt-4", "Groq"),  # sold by another company only
        ("gpt-4", "no-such-backend"),
        ("gpt-4", "Replicate"),  # sells by the second
        ("llama-2-70b", None),  # nobody's own
        ("meta-llama/llama-3.1-8b-instruct", "HuggingFace"),  # its router chooses the host, and so the price
        ("", None),
        ("gpt-4\x1b[2J", None),
    ],
)
def test_what_is_not_known_is_refused_and_the_hint_says_where_to_write_it(model: str, provider: str | None) -> None:
    with pytest.raises(UnknownPriceError) as caught:
        price_for(model, local=False, provider=provider, at=TODAY)
    assert caught.value.exit_code == 5
    assert "\x1b" not in caught.value.message + (caught.value.hint or "")
    assert "input_usd_per_million" in (caught.value.hint or "") and "--allow-unpriced" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("model", "input"),
    [("text-embedding-3-small", "0.02"), ("text-embedding-3-large", "0.13"), ("text-embedding-ada-002", "0.10")],
)
def test_a_model_that_only_embeds_has_a_price_for_embeddings_and_none_for_text(model: str, input: str) -> None:
    """https://platform.openai.com/docs/pricing"""
    price = price_for(model, local=False, provider="OpenAI", at=TODAY, embeddings=True)
    assert price.cost(1_000_000, 0) == Decimal(input) * 10**9
    with pytest.raises(UnknownPriceError):
        price_for(model, local=False, provider="OpenAI", at=TODAY)


def test_a_model_the_table_has_for_nothing_is_unknown_not_free() -> None:
    free = [offer for provider in catalogue().providers.values() for offer in provider.models if not offer.prices]
    assert any(":free" in offer.id for offer in free)
    for offer in free:
        with pytest.raises(UnknownPriceError):
            price_for(offer.id, local=False, provider=offer.provider, at=TODAY)
    priced = [price for p in catalogue().providers.values() for offer in p.models for price in offer.prices]
    assert all(Decimal(price.input) > 0 and Decimal(price.output or 1) > 0 for price in priced)


def test_a_local_backend_costs_nothing_whatever_it_runs() -> None:
    own = {"llama-2-70b": TokenPricing.usd(input=1, output=1)}
    for model in ("llama-2-70b", "gpt-4", "no-such-model"):
        assert price_for(model, local=True, own=own, at=TODAY) == FREE
    assert FREE.is_free and FREE.cost(10**9, 10**9) == 0
    assert not TokenPricing.usd(input=0, output="0.000000001").is_free


def test_the_users_own_price_comes_before_the_table() -> None:
    own = own_prices(
        {
            "gpt-4": ModelSection(input_usd_per_million=Decimal("1.5"), output_usd_per_million=Decimal(0)),
            "gpt-4o": ModelSection(context_window=4096),
        }
    )
    assert price_for("gpt-4", local=False, own=own, at=TODAY).cost(1_000_000, 1_000_000) == 1_500_000_000
    assert price_for("gpt-4o", local=False, own=own, at=TODAY).cost(1_000_000, 1_000_000) == 12_500_000_000


def test_half_a_price_of_the_users_own_is_an_error() -> None:
    with pytest.raises(ConfigError, match="price for its input only"):
        own_prices({"m": ModelSection(input_usd_per_million=Decimal(1))})
    with pytest.raises(ConfigError, match="price for its output only"):
        own_prices({"m": ModelSection(output_usd_per_million=Decimal(0))})


def test_the_config_that_the_hint_asks_for_gives_the_price(tmp_path: Any) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[models."no-such-model"]\ninput_usd_per_million = "2"\noutput_usd_per_million = "4"\n')
    path.chmod(0o600)
    own = own_prices(config.load(path, {}).models)
    assert price_for("no-such-model", local=False, own=own, at=TODAY) == TokenPricing.usd(input=2, output=4)


@given(PRICES, PRICES, COUNTS, COUNTS)
def test_each_side_is_rounded_up_to_whole_nano_dollars(input: int, output: int, prompt: int, answer: int) -> None:
    cost = TokenPricing(input_per_million=input, output_per_million=output).cost(prompt, answer)
    assert cost == ceil(Fraction(input * prompt, 10**6)) + ceil(Fraction(output * answer, 10**6))


def test_the_cost_in_dollars_is_what_the_breaker_takes_to_the_nano_dollar() -> None:
    price = TokenPricing.usd(input="0.70", output="0.90")
    assert price.cost_usd(1, 0) == Decimal("0.000000700")
    assert price.cost_usd(10**15, 10**15 + 1) == Decimal("1600000000.0000009")


def test_one_token_of_the_cheapest_model_is_not_free() -> None:
    assert TokenPricing(input_per_million=1, output_per_million=1).cost(1, 0) == 1
    assert TokenPricing(input_per_million=1, output_per_million=1).cost(0, 1) == 1
    assert TokenPricing(input_per_million=0, output_per_million=0, per_request=7).cost(0, 0) == 7


@given(
    PRICES,
    PRICES,
    st.lists(st.builds(PriceTier, st.integers(0, 10**6), PRICES, PRICES), max_size=3),
    st.tuples(COUNTS, COUNTS),
    st.tuples(COUNTS, COUNTS),
)
def test_more_tokens_never_cost_less(
    input: int, output: int, tiers: list[PriceTier], one: tuple[int, int], other: tuple[int, int]
) -> None:
    price = TokenPricing(input_per_million=input, output_per_million=output, per_request=5, tiers=tuple(tiers))
    larger = max(one[0], other[0]), max(one[1], other[1])
    assert price.cost(*larger) >= price.cost(*one)


def test_a_long_prompt_is_dearer_from_its_first_token_on() -> None:
    """Claude Sonnet 4.5: 3/15, above 200,000 tokens of prompt 6/22.50 for all of them."""
    price = price_for("claude-sonnet-4-5", local=False, provider="GoogleVertex", at=TODAY)
    assert price.cost(200_000, 1_000_000) == 600_000_000 + 15 * NANO
    assert price.cost(200_001, 1_000_000) == 1_200_006_000 + 22_500_000_000


@pytest.mark.parametrize("counts", [(-1, 0), (0, -1)])
def test_a_negative_count_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        FREE.cost(*counts)


@pytest.mark.parametrize("amount", [10.0, "10", -1, True, None, Decimal(10)])
def test_nano_dollars_that_are_no_whole_number_are_refused(amount: Any) -> None:
    for prices in ((amount, 0), (0, amount), (0, 0, amount)):
        with pytest.raises(UsageError, match="nano-dollars"):
            TokenPricing(**dict(zip(("input_per_million", "output_per_million", "per_request"), prices, strict=False)))


@pytest.mark.parametrize("amount", ["ten", "-1", "nan", "inf", 1e10])
def test_a_price_that_is_no_amount_is_refused(amount: Any) -> None:
    with pytest.raises(UsageError, match="price of input"):
        TokenPricing.usd(input=amount, output=1)


def table(*rows: list[Any]) -> Any:
    """A catalogue with one provider."""
    return read(
        {
            "source": "a test",
            "as_of": "2026-01-01",
            "providers": {"p": {"match": "^m", "fallback": [], "models": list(rows)}},
        }
    )


def test_every_remote_backend_has_a_row_that_says_where_its_prices_are() -> None:
    import tomllib
    from importlib.resources import files

    table = tomllib.loads(files("batuta_cli.serve.models").joinpath("data", "providers.toml").read_text())
    rows = table["backends"]
    assert set(table["not_sold"]) <= set(catalogue().providers)
    assert all(name in rows or name in catalogue().providers for name in table["aliases"].values())
    assert set(rows) == {str(backend) for backend in ServingBackend if not backend.is_local}
    for row in rows.values():
        assert not row.get("id") or row["id"] in catalogue().providers


def test_for_model_is_the_makers_list_price_today() -> None:
    assert TokenPricing.for_model("gpt-4") == TokenPricing.usd(input="30", output=60.0)
    with pytest.raises(UnknownPriceError):
        TokenPricing.for_model("llama-2-70b")


def test_the_prices_of_kinds_are_read_from_the_table_for_each_length_of_prompt() -> None:
    kinds, long_kinds = {"cached": "0.1", "cache_write": "1.25"}, {"cached": "0.2", "cache_write": "2.5"}
    offer = table(["m", "=m", None, [["", "1", "2", "0", [[1000, "2", "4", long_kinds]], kinds, True]]]).find("m")
    listed = offer.price(TODAY)
    price = pricing(listed)
    assert price.kinds == KindPrices(cached=NANO // 10, cache_write=NANO * 5 // 4)
    assert price.tiers == (
        PriceTier(1000, 2 * NANO, 4 * NANO, KindPrices(cached=NANO // 5, cache_write=NANO * 5 // 2)),
    )
    assert price.cost(1000, 0) == 1_250_000 and price.cost(1001, 0) == 2_502_500
