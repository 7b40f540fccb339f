"""What one attempt at a backend is charged: the backend's report, within bounds that are known here.

The functions are pure; `leg.py` calls them in a thread, and charges the whole reservation when they fail.

A reported usage is believed between these bounds:

* Output: at least the text that was relayed.
* Input: at least the prompt that was sent; what is missing counts at the cheapest kind that the report has.
* In sum: at most twice the reservation, or what the text that was relayed costs.

The lower bounds are counts where the model's tokenizer is known. Otherwise they are `least_tokens`, which no tokenizer
in use falls below: an upper estimate must not raise what a backend reports.

Without a report, and for a stream that broke off before its report, the upper estimates count: the prompt, and the
text that was relayed up to the limit that was sent with the request.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batuta_cli.serve.models.pricing import TokenPricing
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import CacheWrites, Usage

LONGEST_TOKEN = 128
"""Characters of the longest token that the vocabularies in use have: a run of one symbol in cl100k and o200k."""

_REASONING = ("reasoning_content", "reasoning")
"""Two names of one text; some servers send it under both."""
_BELIEVED = 2
"""The multiple of the reservation up to which a report is believed."""


def least_tokens(text: str) -> int:
    """The least tokens that a text can have, whatever the tokenizer.

    No token of the vocabularies in use has letters or digits on both sides of a blank, so that each word has a token of
    its own; runs of symbols alone are no words here (o200k has the token `//\\n//`). And none is longer than
    `LONGEST_TOKEN`.
    """
    words = sum(1 for word in text.split() if any(map(str.isalnum, word)))
    return max(words, -(-len(text) // LONGEST_TOKEN))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What was agreed with a backend when the request was sent."""

    pricing: TokenPricing
    writes: CacheWrites
    input_most: int
    """An upper bound of the prompt's tokens."""
    input_least: int
    """A lower bound; the count itself where it is exact."""
    output_most: int
    """The limit of the answer's tokens, of all choices together."""

    @property
    def bound(self) -> int:
        """Nano-dollars that the request can cost at most: the amount to reserve."""
        return self.pricing.cost(self.input_most, self.output_most, writes=self.writes)


@dataclass(frozen=True)
class Bill:
    """What is charged."""

    cost: int
    """Nano-dollars."""
    usage: Usage
    """What is paid for, for the ledger's history and the client."""


class Transcript:
    """All that a backend said in one attempt, by choice and kind."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._others: list[str] = []
        self._arguments: dict[tuple[int, object], list[str]] = {}
        self.pieces = 0
        """Pieces with text; local backends send each token by itself."""

    def add(self, piece: Piece) -> None:
        """Take a piece of the answer."""
        if piece.text:
            self.pieces += 1
            self._texts.setdefault((piece.index, ""), []).append(piece.text)
        for name, value in (piece.delta or {}).items():
            if name in _REASONING or name == "refusal":
                if isinstance(value, str):
                    self._texts.setdefault((piece.index, name), []).append(value)
            else:
                self._others += _texts(value)
                self._note_arguments(piece.index, value)

    @property
    def text(self) -> str:
        """The text of all choices, one after the other."""
        return _whole("".join("".join(parts) for (_, name), parts in self._texts.items() if not name))

    def least(self, count: Callable[[str], TokenCount], *, prefix: str = "") -> int:
        """The least tokens of output that this is. A repeated `prefix`, given with the request, is not output.

        Of calls of tools the arguments count, by `least_tokens`: servers write their JSON anew, and add ids and names.
        Raises what `count` raises.
        """

        def lower(text: str) -> int:
            counted = count(text)
            return counted.tokens if counted.exact else least_tokens(text)

        arguments = sum(least_tokens(_whole("".join(parts))) for parts in self._arguments.values())
        return arguments + sum(lower(text.removeprefix(prefix)) for text in self._said())

    def most(self, count: Callable[[str], TokenCount]) -> int:
        """The most tokens that this is, calls of tools included. Raises what `count` raises."""
        return sum(count(text).tokens for text in self._said()) + count(_whole("".join(self._others))).tokens

    def _note_arguments(self, choice: int, calls: Any) -> None:
        """Keep the arguments of `tool_calls`, or of the older `function_call`, by call."""
        for call in calls if isinstance(calls, list) else [{"function": calls}]:
            function = call.get("function") if isinstance(call, Mapping) else None
            arguments = function.get("arguments") if isinstance(function, Mapping) else None
            if isinstance(arguments, str):
                index = call.get("index")
                key = choice, index if isinstance(index, int) else None
                self._arguments.setdefault(key, []).append(arguments)

    def _said(self) -> Iterator[str]:
        for (index, name), parts in self._texts.items():
            text = _whole("".join(parts))
            other = "".join(self._texts.get((index, _REASONING[0]), ())) if name == _REASONING[1] else ""
            if not other or len(text) > len(other):
                yield text


def whole(reported: Usage, terms: Terms, least_output: int) -> Bill:
    """The bill of an answer that is complete, and whose usage was reported."""
    usage = _at_least(reported, terms, least_output)
    cost = terms.pricing.charge(usage, writes=terms.writes)
    limit = _BELIEVED * terms.bound
    if cost <= limit:
        return Bill(cost, usage)
    sure = Usage(terms.input_least, least_output)
    cost = max(limit, terms.pricing.charge(sure))
    return Bill(cost, Usage(min(usage.input_tokens, terms.input_most), max(least_output, terms.output_most)))


def estimated(reported: Usage | None, terms: Terms, least_output: int, most_output: int) -> Bill:
    """The bill of an answer whose usage was not reported, or not at its end."""
    output = max(least_output, min(most_output, terms.output_most))
    if reported is not None:
        return whole(replace(reported, output_tokens=max(reported.output_tokens, output)), terms, least_output)
    cost = terms.pricing.cost(terms.input_most, output, writes=terms.writes)
    return Bill(cost, Usage(terms.input_most, output))


def in_full(terms: Terms) -> Bill:
    """The bill of a request of which nothing is known but that it was sent."""
    return Bill(terms.bound, Usage(terms.input_most, terms.output_most))


def _at_least(reported: Usage, terms: Terms, least_output: int) -> Usage:
    usage = replace(reported, output_tokens=max(reported.output_tokens, least_output))
    missing = terms.input_least - usage.input_tokens
    if missing <= 0:
        return usage
    more = replace(usage, input_tokens=terms.input_least)
    parts = [name for name in ("cached_tokens", "cache_write_tokens") if getattr(usage, name)]
    ways = [replace(more, **{name: getattr(usage, name) + missing}) for name in parts]
    cooldown = usage.input_tokens - sum(getattr(usage, name) for name in parts) - (usage.input_audio_tokens or 0)
    if cooldown or not ways:
        ways.append(more)
    return min(ways, key=lambda way: terms.pricing.charge(way, writes=terms.writes))


def _whole(text: str) -> str:
    """Text that has UTF-8: JSON may split a character in two halves, or have one of them alone."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _texts(value: Any) -> list[str]:
    """All texts in a part of JSON, in their order, however deep they are."""
    found, parts = [], [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, Mapping):
            parts += reversed(list(part.values()))
        elif isinstance(part, list):
            parts += reversed(part)
    return found
