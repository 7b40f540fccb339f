"""The first difference of two prompts: its place, in characters and in tokens, and its kind.

Kinds: only the BOS at the beginning differs (`bos`); a control token (`control-token`); white space (`white-space`);
text of a message (`message`), such as trimmed content or arguments in another spelling; other text of the template
(`text`).
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from batuta_cli.files import display

Tokenize = Callable[[str], Sequence[int]]
"""The ids of a prompt's tokens."""

_CONTROL: Final = r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?[A-Z][A-Z_]{2,30}\]|</?s>|</?[a-z_]{2,30}>"
_PIECES: Final = re.compile(rf"{_CONTROL}|\s+|\w+|.", re.DOTALL)
_IS_CONTROL: Final = re.compile(_CONTROL)
_SHOWN: Final = 24  # characters around a difference


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The number of elements before the first difference."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def excerpt(prompt: str, at: int) -> str:
    """The text around a position, in quotes and with control characters escaped."""
    start, end = max(at - _SHOWN, 0), at + _SHOWN
    shown = display(prompt[start:end]).replace('"', '\\"')
    return f'{"…" * (start > 0)}"{shown}"{"…" * (end < len(prompt))}'


@dataclass(kw_only=True, frozen=True)
class Difference:
    """The first difference of two prompts."""

    kind: str
    offset: int
    """Characters before it."""
    token: int | None
    """Tokens before it; None without a tokenizer."""
    first: str
    """The text around it in the first prompt, as `excerpt` shows it."""
    second: str


def difference(
    first: str, second: str, texts: Collection[str], bos: tuple[str, str], tokenize: Tokenize | None = None
) -> Difference | None:
    """The first difference of two prompts, or None if they are equal.

    `texts` are the texts of the messages, `bos` the BOS tokens of the two templates.
    """
    if first == second:
        return None
    at = common_length(first, second)
    token = None if tokenize is None else common_length(tokenize(first), tokenize(second))
    return Difference(
        kind=_kind(first, second, texts, bos),
        offset=at,
        token=token,
        first=excerpt(first, at),
        second=excerpt(second, at),
    )


def _kind(first: str, second: str, texts: Collection[str], bos: tuple[str, str]) -> str:
    if first.removeprefix(bos[0]) == second.removeprefix(bos[1]):
        return "bos"
    a, b = _PIECES.findall(first), _PIECES.findall(second)
    at = common_length(a, b)
    here, there = "".join(a[at : at + 1]), "".join(b[at : at + 1])
    if a[at + 1 : at + 2] == [there]:  # the first prompt has one piece more
        judged = [here]
    elif b[at + 1 : at + 2] == [here]:
        judged = [there]
    else:
        judged = [piece for piece in (here, there) if piece]
    if any(map(_IS_CONTROL.fullmatch, judged)):
        return "control-token"
    if any(piece.isspace() for piece in judged):
        return "white-space"
    return "message" if all(any(piece in text for text in texts) for piece in judged) else "text"
