"""What every tokenizer offers, and what a count is."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from batuta_cli.errors import InvalidInputError, TokenizeError

_RUNS = re.compile(r"\s+|\S+")


@dataclass(frozen=True)
class TokenCount:
    """A number of tokens: exact, or an upper estimate. `method` says in words how it was counted."""

    tokens: int
    exact: bool
    method: str


class Tokenizer(Protocol):
    """Text to tokens.

    User text is never read as control tokens. `special=True` is for a prompt rendered by a chat template alone: there
    `<|im_start|>` is the token that the model knows by this name.
    """

    @property
    def name(self) -> str:
        """How it counts, in words: the `method` of a `TokenCount`."""

    @property
    def exact(self) -> bool:
        """Whether it counts as the model does; otherwise it never counts fewer."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of the model's tokens. Raises `InvalidInputError`, also when the vocabulary is not known."""

    def count(self, text: str, *, special: bool = False) -> int:
        """How many tokens. Raises `InvalidInputError` for text with lone surrogates."""


def check_text(text: str) -> None:
    """Raise `InvalidInputError` for text that has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the text has a lone surrogate, which is not Unicode text, at offset {error.start:,}"
        ) from None


def cannot_tokenize(text: str) -> TokenizeError:
    """The error for a text that a native tokenizer does not take apart, because it has too long a run in it.

    Their pattern engines take a step back for each character of a run, and have a limit to such steps.
    """
    longest = max((match.end() - match.start() for match in _RUNS.finditer(text)), default=0)
    return TokenizeError(
        f"cannot tokenize: a run of {longest:,} characters without a break",
        hint="take blanks or repeated characters out of the messages",
    )


class ControlTokens:
    """Control tokens by their texts, and how a text is taken apart at them.

    `always` are those that the model's own tokenizer finds in any text, such as Qwen's `<tool_call>`; with `strips` a
    control token swallows the blanks after it.
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
        """The text between control tokens, as it stands, and the ids of control tokens."""
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
    # The longest first: of two tokens that begin alike the longer one is meant.
    swallowing = sorted((text for text in ids if strips(text)), key=len, reverse=True)
    others = sorted((text for text in ids if not strips(text)), key=len, reverse=True)
    kinds = [f"({'|'.join(map(re.escape, others))})"] if others else []
    if swallowing:
        kinds.append(f"({'|'.join(map(re.escape, swallowing))})[ \\t\\n\\v\\f\\r]*")
    return re.compile("|".join(kinds))
