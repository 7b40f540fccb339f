"""The charge for one attempt at a backend: the usage that it reports, within bounds that are computed here.

The functions are pure. `attempt.py` calls them in a thread and charges the whole reservation when they fail.

A reported usage is accepted within these bounds:

* Output: at least the text that was relayed.
* Input: at least the prompt that was sent; missing tokens count at the cheapest kind in the report.
* Total: at most twice the reservation, or the cost of the relayed text when that is more.

The lower bounds are exact counts where the model's tokenizer is known. Otherwise they are `least_tokens`, a bound that
no tokenizer in use falls below: an upper estimate must not raise a reported usage.

Without a report, and for a stream that broke off before its report, the upper estimates are charged: the prompt, and
the relayed text up to the output limit of the request.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batuta_cli.serve.models.pricing import TokenPricing
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import CacheWrites, Usage

LONGEST_TOKEN = 128
"""Characters of the longest token in the vocabularies in use: a run of one symbol in cl100k and o200k."""

_REASONING = ("reasoning_content", "reasoning")
"""Two field names of the same text; some servers send both."""
_BELIEVED = 2
"""The multiple of the reservation up to which a report is accepted."""


def least_tokens(text: str) -> int:
    """A lower bound of a text's tokens for every tokenizer in use.

    No token in their vocabularies has letters or digits on both sides of white space, so each word has at least one
    token. Runs of symbols do not count as words (o200k has the token `//\\n//`). No token is longer than
    `LONGEST_TOKEN`.
    """
    words = sum(1 for word in text.split() if any(map(str.isalnum, word)))
    return max(words, -(-len(text) // LONGEST_TOKEN))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The price and the bounds of an attempt, known before it is sent."""

    pricing: TokenPricing
    writes: CacheWrites
    input_most: int
    """An upper bound of the prompt's tokens."""
    input_least: int
    """A lower bound of the prompt's tokens; the count itself where it is exact."""
    output_most: int
    """The output limit in tokens, of all choices together."""
    call_cost: int = 0
    """Nano-dollars that the uses of hosted tools cost at most. Reports do not tell them in one form, so they are
    charged in full."""

    @property
    def bound(self) -> int:
        """The most that the attempt can cost, in nano-dollars: the amount to reserve."""
        return self.pricing.cost(self.input_most, self.output_most, writes=self.writes) + self.call_cost


@dataclass(frozen=True)
class Bill:
    """The charge for an attempt."""

    cost: int
    """Nano-dollars."""
    usage: Usage
    """The tokens charged, for the ledger's history and the client."""


class Transcript:
    """Everything a backend sent in one attempt, by choice and kind."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._others: list[str] = []
        self._arguments: dict[tuple[int, object], list[str]] = {}
        self.pieces = 0
        """Pieces with text; local backends send each token by itself."""

    def add(self, piece: Piece) -> None:
        """Add a piece of the response."""
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
        """A lower bound of the output tokens. A repeated `prefix` of the request is not output.

        Of tool calls only the arguments count, by `least_tokens`: servers reformat their JSON and add ids and names.
        Raises what `count` raises.
        """

        def lower(text: str) -> int:
            counted = count(text)
            return counted.tokens if counted.exact else least_tokens(text)

        arguments = sum(least_tokens(_whole("".join(parts))) for parts in self._arguments.values())
        return arguments + sum(lower(text.removeprefix(prefix)) for text in self._sent_texts())

    def most(self, count: Callable[[str], TokenCount]) -> int:
        """An upper bound of the output tokens, tool calls included. Raises what `count` raises."""
        return sum(count(text).tokens for text in self._sent_texts()) + count(_whole("".join(self._others))).tokens

    def _note_arguments(self, choice: int, calls: Any) -> None:
        """Keep the arguments of `tool_calls`, or of the older `function_call`, by call."""
        for call in calls if isinstance(calls, list) else [{"function": calls}]:
            function = call.get("function") if isinstance(call, Mapping) else None
            arguments = function.get("arguments") if isinstance(function, Mapping) else None
            if isinstance(arguments, str):
                index = call.get("index")
                key = choice, index if isinstance(index, int) else None
                self._arguments.setdefault(key, []).append(arguments)

    def _sent_texts(self) -> Iterator[str]:
        for (index, name), parts in self._texts.items():
            text = _whole("".join(parts))
            other = "".join(self._texts.get((index, _REASONING[0]), ())) if name == _REASONING[1] else ""
            if not other or len(text) > len(other):
                yield text


def complete_bill(reported: Usage, terms: Terms, least_output: int) -> Bill:
    """The charge for a complete response with a reported usage."""
    usage = _at_least(reported, terms, least_output)
    cost = terms.pricing.charge(usage, writes=terms.writes) + terms.call_cost
    limit = _BELIEVED * terms.bound
    if cost <= limit:
        return Bill(cost, usage)
    relayed = Usage(terms.input_least, least_output)
    cost = max(limit, terms.pricing.charge(relayed))
    return Bill(cost, Usage(min(usage.input_tokens, terms.input_most), max(least_output, terms.output_most)))


def estimated_bill(reported: Usage | None, terms: Terms, least_output: int, most_output: int) -> Bill:
    """The charge for a response without a usage at its end."""
    output = max(least_output, min(most_output, terms.output_most))
    if reported is not None:
        return complete_bill(replace(reported, output_tokens=max(reported.output_tokens, output)), terms, least_output)
    cost = terms.pricing.cost(terms.input_most, output, writes=terms.writes) + terms.call_cost
    return Bill(cost, Usage(terms.input_most, output))


def full_bill(terms: Terms) -> Bill:
    """The charge for a request that was sent and whose response is lost: the upper bound."""
    return Bill(terms.bound, Usage(terms.input_most, terms.output_most))


def _at_least(reported: Usage, terms: Terms, least_output: int) -> Usage:
    usage = replace(reported, output_tokens=max(reported.output_tokens, least_output))
    missing = terms.input_least - usage.input_tokens
    if missing <= 0:
        return usage
    more = replace(usage, input_tokens=terms.input_least)
    parts = [name for name in ("cached_tokens", "cache_write_tokens") if getattr(usage, name)]
    ways = [replace(more, **{name: getattr(usage, name) + missing}) for name in parts]
    uncached = usage.input_tokens - sum(getattr(usage, name) for name in parts) - (usage.input_audio_tokens or 0)
    if uncached or not ways:
        ways.append(more)
    return min(ways, key=lambda way: terms.pricing.charge(way, writes=terms.writes))


def _whole(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced, so that it can be encoded as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _texts(value: Any) -> list[str]:
    """All strings in a JSON value, in order, at any depth."""
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
