"""JSON that servers write and the standard forbids is read, and all of it can be sent on."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.providers.tolerant_json import DEEPEST, TextJoiner, json_object, json_value, mended
from batuta_cli.serve.providers.wire import BackendError


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b'{"a": "\\ud83d"}', {"a": "\ufffd"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": "\xed\xa0\xbd\xed\xb8\x80"}', {"a": "😀"}),  # CESU-8
        (b'{"a": "x\xf0\x9f"}', {"a": "x\ufffd"}),  # half a character
        (b"[-Infinity, NaN, 1e999]", [None, None, None]),
        (b"[123456789012345678901234567890]", [123456789012345678901234567890.0]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ],
)
def test_it_is_read_and_can_be_sent_on(data: bytes, wanted: object) -> None:
    assert orjson.loads(orjson.dumps(mended(json_value(data)))) == wanted


@pytest.mark.parametrize("data", [b"", b"{oops", b"<html>", b"[" * 100_000])
def test_what_is_not_json_is_the_backends_error(data: bytes) -> None:
    with pytest.raises(BackendError, match="not JSON"):
        json_value(data)
    with pytest.raises(BackendError, match="not a JSON object"):
        json_object(data)


def test_nesting_is_bounded() -> None:
    deep: object = "x"
    for _ in range(DEEPEST):
        deep = [deep]
    assert mended(deep) == deep
    with pytest.raises(BackendError, match="nested too deeply"):
        mended([deep])


@given(st.text(st.characters(exclude_categories=())), st.lists(st.integers(0, 20), max_size=4))
def test_a_text_that_is_cut_anywhere_is_joined_again(text: str, cuts: list[int]) -> None:
    whole = text.encode("utf-16-le", "surrogatepass")
    units = [whole[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(whole), 2)]
    joiner, joined, start = TextJoiner(), "", 0
    for end in [*sorted(min(cut, len(units)) for cut in cuts), len(units)]:
        joined += joiner.add("".join(units[start:end]))
        start = end
    assert joined + joiner.add("", ended=True) == whole.decode("utf-16-le", "replace")
