"""OpenAI's models: their encodings, and the tokens that the API adds to messages."""

from typing import Any

import pytest
import tiktoken
import tiktoken.model

from batuta_cli.serve.messages import parse_messages
from batuta_cli.serve.tokens import count_messages, tokenizer_for

COOKBOOK: list[dict[str, Any]] = [
    {"role": "system",
     "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {"role": "system", "name": "example_user",
     "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
    {"role": "system", "name": "example_assistant",
     "content": "Let's talk later when we're less busy about how to do better."},
    {"role": "user",
     "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
]  # fmt: skip


COUNTED = {
    "gpt-3.5-turbo-0301": 127,
    "gpt-3.5-turbo-0613": 129,
    "gpt-4": 129,
    "gpt-4-0613": 129,
    "gpt-4o": 124,
    "gpt-4o-mini": 124,
}


@pytest.mark.parametrize("model", COUNTED)
def test_openai_conversations_are_counted_as_the_api_counts_them(model: str) -> None:
    count = count_messages(model, parse_messages(COOKBOOK))
    assert (count.tokens, count.exact) == (COUNTED[model], True)


@pytest.mark.parametrize(
    ("model", "same_as"),
    [("openai/gpt-4o", "gpt-4o"), ("GPT-4", "gpt-4"), ("gpt-4-turbo-2024-04-09", "gpt-4"),
     ("gpt-4-1106-preview", "gpt-4"), ("gpt-4o-2024-08-06", "gpt-4o"), ("ft:gpt-4o-mini:acme::7", "gpt-4o"),
     ("gpt-4.1-nano", "gpt-4o"),
     ("gpt-35-turbo", "gpt-4"), ("chatgpt-4o-latest", "gpt-4o")],
)  # fmt: skip
def test_dates_sizes_and_fine_tunings_belong_to_their_family(model: str, same_as: str) -> None:
    assert count_messages(model, parse_messages(COOKBOOK)) == count_messages(same_as, parse_messages(COOKBOOK))


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.1-mini", "o1", "o3-mini", "o4-mini", "gpt-oss-20b"])
def test_where_the_overhead_is_not_published_the_count_says_that_it_is_an_estimate(model: str) -> None:
    count = count_messages(model, parse_messages(COOKBOOK))
    assert count.tokens > COUNTED["gpt-4o"] and not count.exact
    assert "o200k" in count.method


def test_every_model_that_tiktoken_knows_has_its_encoding() -> None:
    names = dict(tiktoken.model.MODEL_TO_ENCODING)
    for prefix, encoding in tiktoken.model.MODEL_PREFIX_TO_ENCODING.items():
        names[f"{prefix}2026-11-01" if prefix.endswith("-") else prefix] = encoding
    for name, encoding in names.items():
        expected = "r50k_base" if encoding == "gpt2" else encoding  # the same ranks
        assert tokenizer_for(name).name == f"tiktoken {expected}", name
