"""The protocol of tokenizers, the type of a count, and the splitting of texts at control tokens."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from batuta_cli.errors import InvalidInputError, TokenizeError

_RUNS = re.compile(r"\s+|\S+")


@dataclass(frozen=True)
class TokenCount:
    """A number of tokens, exact or an upper estimate. `method` describes how it was counted."""

    tokens: int
    exact: bool
    method: str


class Tokenizer(Protocol):
    """Turns text into tokens.

    By default control tokens in the text are ordinary text. `special=True` is only for a prompt that a chat template
    rendered: there `<|im_start|>` is the control token of that name.
    """

    @property
    def name(self) -> str:
        """The `method` of its counts, in words."""

    @property
    def exact(self) -> bool:
        """Whether it counts as the model does. Otherwise its counts are upper bounds."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of the tokens. Raises `InvalidInputError`, also when the vocabulary is not known."""

    def count(self, text: str, *, special: bool = False) -> int:
        """The number of tokens. Raises `InvalidInputError` for text with lone surrogates."""


def check_text(text: str) -> None:
    """Raise `InvalidInputError` for text that UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the text has a lone surrogate, which is not Unicode text, at offset {error.start:,}"
        ) from None


def cannot_tokenize(text: str) -> TokenizeError:
    """The error for a text with a run of characters that is too long for a native tokenizer.

    Its pattern engine backtracks once for each character of a run, and limits backtracking.
    """
    length, blank = max(
        ((m.end() - m.start(), text[m.start()].isspace()) for m in _RUNS.finditer(text)), default=(0, False)
    )
    kind = "white-space characters" if blank else "characters without a space"
    return TokenizeError(
        f"cannot tokenize: a run of {length:,} {kind}",
        hint="remove white space or repeated characters from the messages",
    )


class ControlTokens:
    """Control tokens by their texts; splits a text at them.

    `always` has the tokens that the model's tokenizer finds in any text, such as Qwen's `<tool_call>`. A token for
    which `strips` is true includes the white space after it.
    """

    def __init__(
        self,
        control: Mapping[str, int],
        always: Mapping[str, int] = MappingProxyType({}),
        strips: Callable[[str], bool] = lambda text: False,
    ) -> None:
        self._ids = {**control, **always}
        self._special = _pattern(self._ids, strips)
        self._plain = _pattern(always, strips)

    def split(self, text: str, *, special: bool) -> Iterator[str | int]:
        """The unchanged text between control tokens, and the ids of the control tokens."""
        pattern = self._special if special else self._plain
        at = 0
        for match in pattern.finditer(text) if pattern else ():
            if match.start() > at:
                yield text[at : match.start()]
            yield self._ids[match[match.lastindex or 0]]
            at = match.end()
        if at < len(text):
            yield text[at:]


def _pattern(ids: Mapping[str, int], strips: Callable[[str], bool]) -> re.Pattern[str] | None:
    if not ids:
        return None
    # Longest first: where two tokens begin alike, the longer one matches.
    swallowing = sorted((text for text in ids if strips(text)), key=len, reverse=True)
    others = sorted((text for text in ids if not strips(text)), key=len, reverse=True)
    kinds = [f"({'|'.join(map(re.escape, others))})"] if others else []
    if swallowing:
        kinds.append(f"({'|'.join(map(re.escape, swallowing))})[ \\t\\n\\v\\f\\r]*")
    return re.compile("|".join(kinds))
