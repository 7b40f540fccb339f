"""The first difference of two prompts, its place and its kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.templates.difference import common_length, difference, excerpt

BOS = ("<s>", "<s>")


@pytest.mark.parametrize(
    ("first", "second", "kind", "offset"),
    [
        ("<s>Hello", "Hello", "bos", 0),
        ("<|im_start|>user\nHello<|im_end|>", "<|im_start|>user\nHello<|im_end|>\n", "white-space", 32),
        ("[INST] Hello", "[INST]Hello", "white-space", 6),
        ("a\n\nb", "a\nb", "white-space", 2),
        ("<|user|>Hello<|end|>", "<|user|>Hello<|eot|>", "control-token", 16),
        ("Hello</s>", "Hello", "control-token", 5),
        ("user: Hello there", "user: there", "message", 6),
        ("USER: Hello", "User: Hello", "text", 1),
        ("Hello", "", "message", 0),
    ],
)
def test_a_difference_has_a_kind(first: str, second: str, kind: str, offset: int) -> None:
    texts = ["Hello there", "Hello"]
    found = difference(first, second, texts, BOS)
    assert found is not None and (found.kind, found.offset, found.token) == (kind, offset, None)
    back = difference(second, first, texts, BOS)
    assert back is not None and (back.kind, back.offset) == (kind, offset)


def test_with_a_tokenizer_the_place_is_one_of_tokens_too() -> None:
    found = difference("one two three", "one two four", [], BOS, lambda text: [hash(word) for word in text.split()])
    assert found is not None and (found.offset, found.token) == (8, 2)


@given(st.text(max_size=20), st.text(max_size=20))
def test_equal_prompts_have_no_difference_and_others_one_at_the_first_other_character(a: str, b: str) -> None:
    found = difference(a, b, [], ("", ""))
    assert (found is None) == (a == b)
    if found is not None:
        assert a[: found.offset] == b[: found.offset]
        assert a[found.offset : found.offset + 1] != b[found.offset : found.offset + 1]


def test_what_is_common_is_counted() -> None:
    assert (common_length("abc", "abd"), common_length("ab", "abc"), common_length([], [1])) == (2, 2, 0)


def test_an_excerpt_shows_the_text_around_a_place_without_control_characters() -> None:
    assert excerpt("Hello", 2) == '"Hello"'
    shown = excerpt("x" * 50 + '\x1b"\n' + "y" * 50, 50)
    assert shown.startswith('…"x') and shown.endswith('y"…')
    assert "\x1b" not in shown and '\\"' in shown and "\n" not in shown
