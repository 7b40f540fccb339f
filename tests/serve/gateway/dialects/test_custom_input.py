"""The free text of a custom tool's call, from arguments that arrive in parts."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.gateway.dialects.custom_input import CustomInput


def read(*parts: str) -> tuple[list[str], str]:
    """What each part adds, with the end as the last, and the whole text."""
    reader = CustomInput()
    added = [*(reader.add(part) for part in parts), reader.end()]
    return added, reader.text


@given(st.text(), st.booleans(), st.lists(st.integers(0, 200)))
def test_the_text_is_the_same_however_its_json_is_cut(text: str, ascii_only: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    places = [0, *sorted(cuts), len(arguments)]
    added, whole = read(*(arguments[a:b] for a, b in pairwise(places)))
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert whole == "".join(added) == expected


def test_the_text_grows_with_the_parts() -> None:
    added, whole = read('{"inp', 'ut" : "a', "b\\", 'n\\"c', '"}')
    assert added == ["", "a", "b", '\n"c', "", ""]
    assert whole == 'ab\n"c'


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "a"}', "a"),
        ('{"x": "y", "input": "a"}', "a"),
        ('{"patch": "*** Begin"}', "*** Begin"),
        ('"just text"', "just text"),
        ("*** Begin Patch\n", "*** Begin Patch\n"),
        ('{"a": "b", "c": "d"}', '{"a": "b", "c": "d"}'),
        ('{"input": 7}', '{"input": 7}'),
        ('{"input": "line\nbreak"}', "line\nbreak"),
        (r'{"input": "\d+ \u12"}', r"\d+ \u12"),
        (r'{"input": "\ud83d\ude00 \ud83d! \ude00"}', "😀 �! �"),
        ("[" * 5000, "[" * 5000),
        ("", ""),
        ('{"input": "cut off', "cut off"),
        ('{"input": "cut \\u01', r"cut \u01"),
        ('{"input": "a"} and more "quoted"', "a"),
    ],
)
def test_arguments_of_any_form_give_a_text(arguments: str, text: str) -> None:
    assert read(arguments)[1] == text
    assert read(*arguments)[1] == text
