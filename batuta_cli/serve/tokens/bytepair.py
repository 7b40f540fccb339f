"""Byte-pair encodings: those of tiktoken, and those of model files, run by tiktoken.

A pattern splits a text into pieces, and the bytes of each piece are merged. tiktoken does both. Two kinds of splitting
are done here with the `regex` package, because tiktoken cannot do them. Merging is always tiktoken's.

* Several patterns, applied in turn: each splits the pieces that the one before has left.
* Long runs of white space. tiktoken's pattern engine fails at about a million characters in a row (with a panic or a
  ValueError, depending on the version), because it keeps one state for each. A run of 100,000 or more is split here.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from batuta_cli.faults import is_panic
from batuta_cli.serve.tokens.tokenizer import ControlTokens, cannot_tokenize, check_text

if TYPE_CHECKING:
    import tiktoken

LONG_RUN: Final = 100_000
"""White-space characters in a row that are not passed to tiktoken. Its limit is 1,000,000 (`fancy_regex`'s stack)."""

_FURTHER_BLANKS = (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)

BLANKS: Final = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), *_FURTHER_BLANKS)))
"""Unicode's White_Space property, which is `\\s` in the pattern engines."""


class BytePairTokenizer:
    """A byte-pair encoding. Exact."""

    exact = True

    def __init__(
        self,
        name: str,
        encoding: "tiktoken.Encoding",
        *,
        patterns: Sequence[str] = (),
        ids: Sequence[int] | None = None,
        spelt: Mapping[int, Sequence[int]] = MappingProxyType({}),
        control: ControlTokens | None = None,
    ) -> None:
        """`patterns` are applied in turn instead of the encoding's own.

        `ids` are the model's ids by rank. `spelt` has the ranks that the model writes as several ids, or as no id.
        """
        self.name = name
        self._encoding = encoding
        self._patterns = tuple(patterns)
        self._ids = ids
        self._spelt = spelt
        self._control = control or ControlTokens(encoding._special_tokens)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The model's ids."""
        found: list[int] = []
        self._walk(text, special, lambda ranks: found.extend(self._numbers(ranks)), found.append)
        return found

    def count(self, text: str, *, special: bool = False) -> int:
        """How many tokens."""
        total = 0

        def add(ranks: Sequence[int]) -> None:
            nonlocal total
            total += len(ranks) if not self._spelt else sum(1 for _ in self._numbers(ranks))

        def add_one(_: int) -> None:
            nonlocal total
            total += 1

        self._walk(text, special, add, add_one)
        return total

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens of ordinary text."""
        ranks = tokens if self._ids is None else [self._rank_of[token] for token in tokens]
        return self._encoding.decode_bytes(ranks)

    @functools.cached_property
    def _rank_of(self) -> dict[int, int]:
        return {number: rank for rank, number in enumerate(self._ids or ()) if number >= 0}

    def _numbers(self, ranks: Sequence[int]) -> Iterable[int]:
        ids, spelt = self._ids, self._spelt
        if ids is None:
            return ranks
        if not spelt:
            return map(ids.__getitem__, ranks)
        return (number for rank in ranks for number in spelt.get(rank) or (ids[rank],) if number >= 0)

    def _walk(
        self, text: str, special: bool, ordinary: Callable[[Sequence[int]], None], control: Callable[[int], None]
    ) -> None:
        check_text(text)
        for part in self._control.split(text, special=special):
            if isinstance(part, int):
                control(part)
            elif self._patterns:
                for piece in split_in_turn(part, self._patterns):
                    ordinary(self._merge(piece))
            else:
                for ranks in self._ordinary(part):
                    ordinary(ranks)

    def _ordinary(self, text: str) -> Iterator[Sequence[int]]:
        done = 0
        while run := long_run(text, done):
            start = _piece_boundary(text, done, run[0])
            yield self._tiktoken(text[done:start])
            done = start
            for match in _compiled(self._encoding._pat_str).finditer(text, start):
                if run[1] - match.start() < LONG_RUN:
                    break  # the rest of the run is short enough for tiktoken
                yield self._merge(match[0])
                done = match.end()
        yield self._tiktoken(text[done:] if done else text)

    def _tiktoken(self, text: str) -> Sequence[int]:
        try:
            return self._encoding.encode_ordinary(text)
        except BaseException as error:
            if not (is_panic(error) or isinstance(error, ValueError)):  # by its version
                raise
        raise cannot_tokenize(text)  # outside the except block, because tiktoken's error may quote the text

    def _merge(self, piece: str) -> Sequence[int]:
        core: Any = self._encoding._core_bpe
        ranks: list[int] = core.encode_single_piece(piece.encode())
        return ranks


def split_in_turn(text: str, patterns: Sequence[str]) -> list[str]:
    """Split a text by each pattern in turn. Text between matches becomes separate pieces."""
    pieces = [text]
    for pattern in patterns:
        compiled = _compiled(pattern)
        pieces = [part for piece in pieces for part in _split(piece, compiled)]
    return pieces


def _split(text: str, pattern: Any) -> Iterator[str]:
    at = 0
    for start, end in sorted(match.span() for match in pattern.finditer(text)):  # (?r) matches from the right
        if start > at:
            yield text[at:start]
        if end > start:
            yield text[start:end]
        at = end
    if at < len(text):
        yield text[at:]


@functools.cache
def _compiled(pattern: str) -> Any:
    import regex  # type: ignore[import-untyped]

    return regex.compile(pattern)


def long_run(text: str, start: int = 0) -> tuple[int, int] | None:
    """Start and end of the first run of at least `LONG_RUN` white-space characters after `start`.

    Such a run covers a multiple of `LONG_RUN`, so only every `LONG_RUN`-th character is examined.
    """
    for at in range(start + LONG_RUN - 1, len(text), LONG_RUN):
        if text[at] in BLANKS:
            near = max(start, at + 1 - LONG_RUN)  # an earlier step has found a run that begins earlier
            first = near + len(text[near : at + 1].rstrip(BLANKS))
            last = _compiled(r"\s*+").match(text, at).end()
            if last - first >= LONG_RUN:
                return first, last
    return None


def _piece_boundary(text: str, start: int, at: int) -> int:
    """The last position in `start`..`at` at which every pattern ends a piece; a run of white space begins at `at`.

    No pattern has white space after other characters in one piece, with one exception: punctuation includes the line
    breaks after it.
    """
    if text[at] not in "\r\n" or at == start:
        return at
    match = _compiled(r"(?r)\S[^\S\r\n]").search(text, start, at)
    return match.start() + 1 if match else start
