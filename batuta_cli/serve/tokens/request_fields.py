"""The fields of a chat request that become part of the prompt beside the messages: tools and response formats.

Where the template is not known, the JSON text of a field is counted by the tokenizer, plus a margin:

* `JSON_LINE` tokens for each line that the JSON has when it is indented, because some templates indent it.
* the field's own margin, for the instructions that a service adds.

The sum is an upper estimate.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from batuta_cli.serve.tokens.tokenizer import Tokenizer

JSON_LINE: Final = 2
"""Tokens for a line break and an indentation."""

MARGINS: Final[Mapping[str, int]] = {"tools": 600, "functions": 600, "response_format": 0, "documents": 100}
"""Fields of OpenAI's request, and the tokens of instructions that come with them. Claude 3 Opus has the longest
instructions for tools, 530 tokens (https://docs.anthropic.com/en/docs/build-with-claude/tool-use/overview)."""


def field_texts(options: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The JSON text of each field in `options` that becomes part of the prompt, and its margin in tokens."""
    for name, margin in MARGINS.items():
        if value := options.get(name):
            yield json.dumps(value, ensure_ascii=False, default=str), margin + JSON_LINE * _lines(value)


def count_fields(tokenizer: Tokenizer, options: Mapping[str, Any]) -> int:
    """An upper estimate of the tokens that the fields in `options` add to a prompt; 0 when it has none of them.

    Raises `InvalidInputError` for text with lone surrogates.
    """
    return sum(tokenizer.count(text) + margin for text, margin in field_texts(options))


def _lines(document: object) -> int:
    """The lines of a JSON document with one value on each; objects and lists take one more for their end."""
    lines, pending = 0, [document]
    while pending:
        value = pending.pop()
        lines += 1
        if isinstance(value, (Mapping, list, tuple)):
            lines += 1
            pending += value.values() if isinstance(value, Mapping) else value
    return lines
