"""The upper estimate is never low, beside every tokenizer at hand, and not absurdly high for prose and code."""

import inspect
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.tokens import tokenizer_for
from batuta_cli.serve.tokens.gguf_vocabulary import gguf_tokenizer
from batuta_cli.serve.tokens.tokenizer import Tokenizer
from batuta_cli.serve.tokens.upper_estimate import Estimator
from tests.serve.tokens.support_tokens import ROWS, mistral_v1


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> list[Tokenizer]:
    spm = gguf_tokenizer(mistral_v1(tmp_path_factory.mktemp("spm")))
    return [tokenizer_for("gpt-4"), tokenizer_for("gpt-4o"), gguf_tokenizer(gguf), spm]


WORDS = st.sampled_from(
    ["the", "of", "internationalization", "antidisestablishmentarianism", "Donaudampfschifffahrt", "xqzjkv", "QWRTP",
     "iPhone", "aaaaaaaa", "camelCaseName", "SCREAMING_CASE", "3.14159", "0x7fff", "https://example.org/a?b=c", "{'k':",
     "[1,", "2]}", "::=", "!==", "naïve", "Привет", "日本語", "สวัสดี", "👨\u200d👩\u200d👧", "\xa0", "\t", "\n", "\r\n"]
)  # fmt: skip


@settings(max_examples=400)
@given(
    text=st.one_of(
        st.text(),
        st.text(alphabet=st.characters(max_codepoint=126)),
        st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ  "),
        st.lists(WORDS).map("".join),
        st.builds(
            lambda text, times: text * times, st.text("abcdefghijklmnopqrstuvwxyz", max_size=4), st.integers(1, 40)
        ),
        st.lists(WORDS).map(" ".join),
        st.lists(WORDS).map("   ".join),
    )
)
def test_the_estimate_is_never_low(real: list[Tokenizer], text: str) -> None:
    estimate = Estimator().count(text)
    for tokenizer in real:
        assert estimate >= tokenizer.count(text)


def test_the_estimate_is_never_low_for_llama_cpps_own_test_texts(real: list[Tokenizer]) -> None:
    for row in ROWS:
        assert Estimator().count(row["text"]) >= max(tokenizer.count(row["text"]) for tokenizer in real)


def test_prose_and_code_are_counted_no_more_than_about_three_times(real: list[Tokenizer]) -> None:
    prose = Path(__file__).parents[3].joinpath("README.md").read_text()
    code = inspect.getsource(inspect)
    for text in (prose, code):
        assert Estimator().count(text) <= 3.2 * real[0].count(text)


def test_control_tokens_are_counted_as_text() -> None:
    assert Estimator().count("<|im_start|>", special=True) >= 1


def test_nothing_is_no_token_and_there_are_no_ids() -> None:
    assert Estimator().count("") == 0
    with pytest.raises(InvalidInputError, match="tokenizer is not known") as caught:
        Estimator().encode("a")
    assert "tokenizer.json" in (caught.value.hint or "")
