"""The table of hosted models: names are looked up with certainty or not at all, prices by their day."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UnknownPriceError
from batuta_cli.serve.models.catalogue import catalogue, read
from batuta_cli.serve.models.pricing import price_for, pricing
from batuta_cli.serve.money import NANO
from batuta_cli.serve.usage import Usage

TODAY = dt.date(2026, 11, 23)


def prices(model: str, provider: str | None = None, at: dt.date = TODAY) -> tuple[Decimal, Decimal]:
    """The dollars for a million tokens of input and of output."""
    found = price_for(model, local=False, provider=provider, at=at)
    return Decimal(found.input_per_million) / NANO, Decimal(found.output_per_million) / NANO


def table(*rows: list[Any]) -> Any:
    """A catalogue with one provider."""
    return read(
        {
            "source": "a test",
            "as_of": "2026-01-01",
            "providers": {"p": {"match": "^m", "fallback": [], "models": list(rows)}},
        }
    )


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-3-haiku-ultra", None),
        ("claude-3-haiku-20240307-large", None),
        ("claude-3-haikus", None),
        ("gpt-4-turbo-pro", None),
        ("gpt-5-nano-max", None),
        ("o4-mini-deep-research", "AzureOpenAI"),
        ("not-gpt-4o-mini", "AzureOpenAI"),
        ("gemini-1.5-flash-max", "GoogleVertex"),
        ("amazon.nova-lite-v1:0:premium", "AwsBedrock"),
        ("xclaude-3-haiku-20240307", "AwsBedrock"),
        ("claude-opus-4-10", None),
    ],
)
def test_a_name_that_only_begins_like_a_cheaper_model_is_not_billed_as_that_model(
    model: str, provider: str | None
) -> None:
    with pytest.raises(UnknownPriceError):
        price_for(model, local=False, provider=provider, at=TODAY)


@given(
    st.sampled_from(["claude-3-haiku", "claude-3-haiku-20240307", "gpt-4o-mini", "gemini-2.5-flash-lite"]),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-.:@/_\0\ud800é", min_size=1, max_size=12),
)
def test_no_ending_with_a_word_in_it_is_billed_as_the_cheap_model_before_it(model: str, ending: str) -> None:
    offer = catalogue().find(model + ending)
    harmless = ("latest", "preview", "exp", "v")
    if offer is not None and offer.id == model:
        for word in harmless:
            ending = ending.replace(word, "")
        assert not any(character.isalpha() for character in ending)


def test_the_price_is_that_of_the_day() -> None:
    offer = table(["m", "=m", None, [["", "1", "2"], ["2026-03-01", "3", "4"], ["2026-06-01", "5", "6"]]]).find("m")
    assert offer is not None
    by_day = {"2020-01-01": 1, "2026-02-28": 1, "2026-03-01": 3, "2026-05-31": 3, "2026-06-01": 5, "2030-01-01": 5}
    for day, dollars in by_day.items():
        listed = offer.price(dt.date.fromisoformat(day))
        assert listed and pricing(listed).input_per_million == dollars * NANO, day


def test_a_price_cut_of_the_real_table_takes_effect_on_its_day() -> None:
    """OpenAI made o3 80 % cheaper on 10 June 2025."""
    assert prices("o3", at=dt.date(2025, 6, 9)) == (Decimal(10), Decimal(40))
    assert prices("o3", at=dt.date(2025, 6, 10)) == (Decimal(2), Decimal(8))


def test_a_model_without_a_price_hides_a_cheaper_one_with_a_broader_rule() -> None:
    found = table(["m-audio", "^m-audio", None, []], ["m", "^m", None, [["", "1", "1"]]])
    offer = found.find("m-audio-2026-01-01")
    assert offer is not None and offer.price(TODAY) is None


def test_hugging_face_is_priced_when_the_name_says_whose_servers_run_it() -> None:
    offers = catalogue().providers["huggingface_together"].models
    model = next(offer for offer in offers if offer.prices)
    listed = model.price(TODAY)
    assert listed is not None
    with pytest.raises(UnknownPriceError) as caught:
        price_for(model.id, local=False, provider="HuggingFace", at=TODAY)
    assert ":together" in (caught.value.hint or "")
    found = price_for(f"{model.id}:together", local=False, provider="HuggingFace", at=TODAY)
    assert found == pricing(listed)


def test_the_table_says_where_it_comes_from() -> None:
    assert "genai-prices" in catalogue().source
    assert dt.date.fromisoformat(catalogue().as_of) >= dt.date(2026, 11, 23)


def test_every_price_of_the_real_table_can_be_counted_with() -> None:
    """A cached token is never dearer than its bound, and the kinds have names that the prices know."""
    for provider in catalogue().providers.values():
        for offer in provider.models:
            for listed in offer.prices:
                price, usage = pricing(listed), Usage(10**6, 10, cached_tokens=10**6)
                assert price.charge(usage) <= price.cost(10**6, 10), offer.id
