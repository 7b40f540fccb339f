"""A native tokenizer that fails is an error which names the run of characters, and quotes none of them."""

from typing import Any

import pytest
import tiktoken

from batuta_cli.errors import OperationError
from batuta_cli.serve.tokens.bytepair import BytePairTokenizer
from batuta_cli.serve.tokens.huggingface import LONGEST_RUN, JsonTokenizer

PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


class Failing:
    """A native tokenizer that fails with a given exception."""

    _special_tokens: dict[str, int] = {}  # noqa: RUF012 - as tiktoken has it
    encode_special_tokens = False

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def encode(self, text: str, **_: Any) -> Any:
        raise self.error

    def encode_ordinary(self, text: str) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [PanicException("hunter2"), ValueError("Regex error while tokenizing: hunter2")])
def test_a_failure_of_tiktoken_names_the_longest_run(error: BaseException) -> None:
    with pytest.raises(OperationError) as raised:
        BytePairTokenizer("x", Failing(error)).count("hunter2 and  more")  # type: ignore[arg-type]
    assert raised.value.message == "cannot tokenize: a run of 7 characters without a space"
    assert raised.value.__context__ is None


def test_a_panic_of_tokenizers_names_the_longest_run() -> None:
    with pytest.raises(OperationError) as raised:
        JsonTokenizer(Failing(PanicException("hunter2"))).count(f"a{' ' * 30}b")
    assert raised.value.message == "cannot tokenize: a run of 30 white-space characters"
    assert raised.value.__context__ is None


def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(KeyError):
        JsonTokenizer(Failing(KeyError("x"))).count("a")
    with pytest.raises(KeyboardInterrupt):
        BytePairTokenizer("x", Failing(KeyboardInterrupt())).count("a")  # type: ignore[arg-type]


def test_too_long_a_run_of_blanks_is_refused_before_the_engine_panics() -> None:
    never = JsonTokenizer(Failing(AssertionError("was called")))
    with pytest.raises(OperationError, match=f"a run of {LONGEST_RUN + 1:,} white-space characters"):
        never.count("\t" * (LONGEST_RUN + 1))


def test_a_real_pattern_engine_that_runs_out_of_stack_is_an_error() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)}
    # Only runs of blanks are cut out of a text, so tiktoken meets this run whole.
    encoding = tiktoken.Encoding("x", pat_str=r"(?:a|b)+(?!\S)|.", mergeable_ranks=ranks, special_tokens={})
    with pytest.raises(OperationError, match="a run of 3,000,001 characters without a space"):
        BytePairTokenizer("x", encoding).count("ab" * 1_500_000 + "!")
