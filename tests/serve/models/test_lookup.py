"""One lookup for a model's name in any spelling: what is found, and what must not be found."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import NotFoundError, UnknownPriceError
from batuta_cli.serve.models.catalogue import split_provider
from batuta_cli.serve.models.lookup import look_up
from batuta_cli.serve.models.pricing import TokenPricing, price_for
from batuta_cli.serve.tokens.openai_models import openai_model

TODAY = dt.date(2026, 11, 26)


@pytest.mark.parametrize(
    ("name", "format", "window", "tokenizer"),
    [
        ("qwen3:8b", "qwen3", 40_960, None),
        ("Qwen/Qwen3-8B", "qwen3", 40_960, None),
        ("unsloth/Qwen3-8B-GGUF:Q4_K_M", "qwen3", 40_960, None),
        ("gpt-oss:120b", "gpt-oss", 128_000, "o200k_harmony"),
        ("openai/gpt-oss-120b", "gpt-oss", 128_000, "o200k_harmony"),
        ("unsloth/gpt-oss-20b-GGUF", "gpt-oss", 128_000, "o200k_harmony"),
        ("gemma3:4b", "gemma3", 131_072, None),
        ("gemma3:1b", "gemma3", 32_768, None),
        ("google/gemma-3-4b-it", "gemma3", 131_072, None),
        ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q8_0", "llama3.1", 131_072, None),
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "qwen2.5", 32_768, None),
        ("groq/llama-3.3-70b-versatile", "llama3.1", 131_072, None),
        ("openai/gpt-4o", None, 128_000, "o200k_base"),
        ("openrouter/openai/gpt-4o", None, 128_000, "o200k_base"),
        ("gpt-5.6", None, 1_050_000, "o200k_base"),
        ("anthropic/claude-3-5-sonnet-20241022", None, 200_000, None),
    ],
)
def test_every_spelling_finds_format_window_and_tokenizer(
    name: str, format: str | None, window: int, tokenizer: str | None
) -> None:
    facts = look_up(name)
    assert (facts.template.name if facts.template else None) == format
    assert facts.window is not None and facts.window.context_window == window and facts.window.source
    assert (facts.tokenizer.tokenizer.name if facts.tokenizer else None) == (tokenizer and f"tiktoken {tokenizer}")


@pytest.mark.parametrize(
    ("name", "input", "output", "source"),
    [
        ("openai/gpt-4o", "2.5", "10", "openai gpt-4o"),
        ("azure/gpt-4o", "2.5", "10", "openai gpt-4o"),
        ("anthropic/claude-3-opus-20240229", "15", "75", "anthropic claude-3-opus"),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "0.25", "1.25", "aws "),
        ("groq/llama-3.3-70b-versatile", "0.59", "0.79", "groq llama-3.3-70b-versatile"),
    ],
)
def test_a_provider_before_the_name_has_its_own_price(name: str, input: str, output: str, source: str) -> None:
    price = look_up(name, at=TODAY).price
    assert price is not None and price.source.startswith(source)
    listed = TokenPricing.usd(input=Decimal(input), output=Decimal(output))
    assert price.price.input_per_million == listed.input_per_million
    assert price.price.output_per_million == listed.output_per_million


@pytest.mark.parametrize(
    "name",
    [
        "qwen3:8b", "deepseek-r1:8b", "unsloth/gpt-oss-20b-GGUF", "openai/gpt-oss-120b", "gpt-oss-120b",
        "nobody/gpt-4o",
        "openai/gpt-4o-ultra", "groq/gpt-4o", "anthropic/gpt-4o", "openai/openai/gpt-4o", "openai/", "/gpt-4o",
        "claude-3-haiku-ultra", "anthropic/claude-3-haiku-ultra", "ollama/gpt-4o", "gpt-4o.gguf",
    ],
)  # fmt: skip
def test_a_price_that_could_be_too_low_is_not_known(name: str) -> None:
    with pytest.raises(UnknownPriceError):
        price_for(name, local=False, at=TODAY)
    assert look_up(name if name != "/gpt-4o" else "gpt-4o-x", at=TODAY).price is None


def test_a_name_with_a_provider_costs_at_a_backend_what_the_backend_calls_so() -> None:
    with pytest.raises(UnknownPriceError):  # Groq has no model of this name
        price_for("openai/gpt-4o", local=False, provider="Groq", at=TODAY)
    assert price_for("openai/gpt-4o", local=False, provider="openrouter", at=TODAY).input_per_million > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("groq/x", ("groq", "x")),
        ("Azure_OpenAI/x", ("Azure_OpenAI", "x")),
        ("vertex_ai/x/y", ("GoogleVertex", "x/y")),
        ("meta-llama/x", ("", "meta-llama/x")),
        ("x", ("", "x")),
        ("groq/", ("", "groq/")),
    ],
)
def test_the_provider_before_a_name(name: str, expected: tuple[str, str]) -> None:
    assert split_provider(name) == expected


def test_a_hostile_name_takes_no_time() -> None:
    assert openai_model("openai/" * 200_000 + "gpt-4o") is None


def test_the_configuration_comes_first_and_is_named(gguf: Path) -> None:
    own = ModelSection(
        context_window=5000,
        tokenizer=str(gguf),
        template="chatml",
        input_usd_per_million=Decimal(1),
        output_usd_per_million=Decimal(2),
    )
    facts = look_up("openai/gpt-4o", {"openai/gpt-4o": own})
    assert facts.template and facts.template.name == "chatml"
    assert facts.window and (facts.window.context_window, facts.window.source) == (5000, "the config")
    assert facts.tokenizer and facts.tokenizer.source == "the config" and "smollm" in facts.tokenizer.tokenizer.name
    assert facts.price and facts.price.source == "the config"


def test_the_files_of_a_model_are_their_own_source(gguf: Path) -> None:
    facts = look_up(str(gguf))
    assert facts.template and facts.template.template
    assert facts.window and facts.window.source == str(gguf)
    assert facts.tokenizer and facts.tokenizer.source == str(gguf) and facts.price is None
    with pytest.raises(NotFoundError):
        look_up("./there-is-no-such-file")
