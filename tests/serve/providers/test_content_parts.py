"""The texts of a message: as text, as parts, and under the names that servers give the reasoning."""

from typing import Any

import pytest

from batuta_cli.serve.providers.content_parts import read_content
from batuta_cli.serve.providers.wire import BackendError


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"content": "a"}, ("a", "", "")),
        ({"content": None, "refusal": "no"}, ("", "", "no")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}]}, ("ab", "", "")),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, ("", "", "no")),
        ({"content": [{"type": "thinking", "thinking": "t"}, "a"]}, ("a", "t", "")),
        ({"reasoning": {"content": "t", "effort": "low"}}, ("", "t", "")),
        ({"reasoning": [{"text": "t"}, {"text": "u"}]}, ("", "tu", "")),
        ({"reasoning_content": "t", "reasoning": "t", "thinking": "t"}, ("", "t", "")),
        ({"thinking": True, "reasoning": 5}, ("", "", "")),
    ],
)
def test_the_texts_are_read(message: dict[str, Any], wanted: tuple[str, str, str]) -> None:
    found = read_content(message)
    assert (found.text, found.reasoning, found.refusal) == wanted


@pytest.mark.parametrize("content", [5, True, [5], [{"type": "image_url"}], [{"type": ["text"]}], [{"type": "text"}]])
def test_content_that_would_be_lost_is_the_backends_error(content: Any) -> None:
    with pytest.raises(BackendError):
        read_content({"content": content})
