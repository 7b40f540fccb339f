"""Byte-pair tokenizers: exact whatever the text, and alive after texts made to break them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.tokens import bytepair
from batuta_cli.serve.tokens.bytepair import BytePairTokenizer
from batuta_cli.serve.tokens.gguf_vocabulary import pretokenizers
from batuta_cli.serve.tokens.ranks import encoding

NAMES = ("cl100k_base", "o200k_base", "r50k_base")


def tokenizer(name: str) -> BytePairTokenizer:
    return BytePairTokenizer(name, encoding(name))


@given(text=st.text())
def test_tokens_give_the_text_back_and_are_counted(text: str) -> None:
    for name in NAMES:
        ids = tokenizer(name).encode(text)
        assert tokenizer(name).decode(ids).decode() == text
        assert tokenizer(name).count(text) == len(ids)


@pytest.mark.parametrize("name", NAMES)
def test_control_tokens_in_user_text_are_text(name: str) -> None:
    text = "Hi<|endoftext|>there"
    plain, special = tokenizer(name).encode(text), tokenizer(name).encode(text, special=True)
    end = encoding(name).eot_token
    assert end not in plain and special.count(end) == 1
    assert tokenizer(name).decode(plain).decode() == text
    assert tokenizer(name).count(text, special=True) == len(special) < len(plain)


def test_a_lone_surrogate_is_an_error_that_says_where() -> None:
    for call in (tokenizer("cl100k_base").encode, tokenizer("cl100k_base").count):
        with pytest.raises(InvalidInputError, match="offset 2"):
            call("ab\ud800")


PIECES = st.builds(
    lambda character, times: character * times,
    st.sampled_from([*" \n\r\t\u3000ab1!/'", "é", "中", "\u2028", "\x1c"]),
    st.integers(1, 7),
)


@given(pieces=st.lists(PIECES, max_size=14))
def test_cutting_out_long_runs_of_blanks_changes_no_token(pieces: list[str]) -> None:
    text = "".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bytepair, "LONG_RUN", 3)
        for name in NAMES:
            assert tokenizer(name).encode(text) == encoding(name).encode_ordinary(text)


@given(pieces=st.lists(PIECES, max_size=14))
def test_cutting_out_long_runs_is_exact_for_the_patterns_of_model_files(pieces: list[str]) -> None:
    import tiktoken

    text, ranks = "".join(pieces), {bytes([byte]): byte for byte in range(256)}
    ranks |= {
        blank * times: 256 + n for n, (blank, times) in enumerate((b, t) for b in (b" ", b"\n") for t in range(2, 8))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bytepair, "LONG_RUN", 3)
        for patterns in sorted({p for p in pretokenizers().values() if len(p) == 1}):
            plain = tiktoken.Encoding("x", pat_str=patterns[0], mergeable_ranks=ranks, special_tokens={})
            assert BytePairTokenizer("x", plain).encode(text) == plain.encode_ordinary(text)


HUGE = 3_000_000


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
@pytest.mark.parametrize(
    "text",
    ["a" * HUGE, " " * HUGE, " " * HUGE + "x", "x" + "\n" * HUGE + "y", "!" + "\n" * HUGE + "/", "\t" * HUGE + "x",
     "你好世界" * (HUGE // 8), "👨\u200d👩\u200d👧" * (HUGE // 40), ("x" + " " * 200_000) * 8 + "x"],
    ids=["letters", "blanks", "blanks, a word", "breaks", "breaks after a sign", "tabs", "Chinese", "emoji",
         "many runs"],
)  # fmt: skip
def test_millions_of_characters_without_a_break_are_counted(name: str, text: str) -> None:
    ids = tokenizer(name).encode(text)
    assert tokenizer(name).decode(ids) == text.encode()


def test_patterns_in_turn_keep_every_character_and_bear_long_runs() -> None:
    text = ("a  1\r\n" + " " * 300_000 + "x" + "\n" * 100_000 + "!") * 2
    for name in ("deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon", "default"):
        assert "".join(bytepair.split_in_turn(text, pretokenizers()[name])) == text
