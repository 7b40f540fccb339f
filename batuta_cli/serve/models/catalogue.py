"""The table of hosted models in `data/prices.json`: their providers, prices and context windows.

`make prices` makes it from genai-prices. It is read when it is first needed. A name is looked up by the clauses of
genai-prices, with one more rule. The clauses use `contains` and `starts_with`, so `claude-3-haiku-ultra` would have the
price of Claude 3 Haiku. Here the part of a name that a clause does not cover must be a date, a version or a path;
otherwise the model is unknown. An unknown model costs the user a line of config. A price that is too low costs money.
"""

import datetime as dt
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from batuta_cli.serve.names import normalised

Clause = str | list[Any] | dict[str, list[Any]]
"""`=text` equals, `^text` starts with, `*text` contains, `$text` ends with, `~regex`; a list is any of, `{"and"}` all.

All texts are in lower case."""

Kinds = tuple[tuple[str, str], ...]
"""Kinds of tokens (the fields of `pricing.KindPrices`) with their prices in dollars."""

# Atomic, so that a hostile name cannot make it backtrack without end.
_TAIL = re.compile(
    r"(?>[-@](?:latest|preview|exp|\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{2}-\d{2}|\d{8}|\d{6}|\d{3,4}|v\d)|:\d)*+"
)
_FREE_TAIL = re.compile(r"^ft:|\.ft-")  # the end of a fine-tuned model's name is the customer's choice
_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


@dataclass(kw_only=True, frozen=True)
class ListPrice:
    """Prices valid from a date on (UTC), in dollars for a million tokens, as decimal text."""

    since: str
    input: str
    output: str | None
    """None: the model has no output, it makes embeddings."""
    request: str
    tiers: tuple[tuple[int, str, str, Kinds], ...]
    """(more prompt tokens than, input, output, kinds), ascending."""
    kinds: Kinds = ()
    """Prices of the kinds that have a separate price, by the fields of `pricing.KindPrices`."""
    writes_unasked: bool = False
    """The provider writes prompts to its cache, at a price above that of input, without a request for it."""


@dataclass(kw_only=True, frozen=True)
class HostedModel:
    """A model at a provider. One without prices is free or not sold by the token; its price counts as unknown."""

    provider: str
    id: str
    match: Clause
    window: int | None
    prices: tuple[ListPrice, ...]

    def price(self, at: dt.date) -> ListPrice | None:
        """The price on a date: the latest that is already valid, or else the first."""
        begun = [price for price in self.prices if price.since <= at.isoformat()]
        return begun[-1] if begun else next(iter(self.prices), None)


@dataclass(frozen=True)
class Provider:
    """A company that serves models. `match` covers the names that mean its models when no provider is named."""

    id: str
    match: Clause
    fallback: tuple[str, ...]
    models: tuple[HostedModel, ...]


@dataclass(frozen=True)
class Catalogue:
    """The whole table, with its source and date."""

    source: str
    as_of: str
    providers: dict[str, Provider]

    def find(self, model: str, provider: str | None = None) -> HostedModel | None:
        """The model called `model` at a provider, or None. `provider` is the name of a backend or the id of a provider.

        Without a provider the model is looked up at its maker, and a name such as `groq/llama-3.3-70b-versatile` at the
        provider that it names.
        """
        if provider is None:
            named, rest = split_provider(model)
            if named:
                return self.find(rest, named)
        name = model.lower()
        if provider is None:
            seller = self._maker(name)
        else:
            seller, name = self._at(provider, name)
        if seller is None:
            return None
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", name)
        for spelling in dict.fromkeys((name, dashed)):
            hosted = self._first(seller, spelling)
            if hosted is not None:
                sold = not hosted.id.startswith(_not_sold().get(hosted.provider, ()))
                return hosted if sold and certain(hosted.match, spelling) else None
        return None

    def named(self, model: str) -> Iterator[HostedModel]:
        """The models of all providers that `model` certainly means, the maker's first."""
        maker = self._maker(model.lower())
        for provider in dict.fromkeys([maker.id, *self.providers] if maker else self.providers):
            hosted = self.find(model, provider)
            if hosted is not None:
                yield hosted

    def _maker(self, name: str) -> Provider | None:
        return next((p for p in self.providers.values() if matches(p.match, name)), None)

    def _at(self, backend: str, name: str) -> tuple[Provider | None, str]:
        row = _backends().get(normalised(backend))
        if row is None:
            wanted = normalised(backend)
            return next((p for p in self.providers.values() if normalised(p.id) == wanted), None), name
        identifier = row.get("id", "")
        if "suffix_id" in row:
            name, _, suffix = name.rpartition(":")
            identifier = row["suffix_id"] + suffix
        return self.providers.get(identifier), name.removeprefix(row.get("strip", ""))

    def _first(self, provider: Provider, name: str) -> HostedModel | None:
        places = [provider, *(self.providers[other] for other in provider.fallback)]
        return next((model for place in places for model in place.models if matches(model.match, name)), None)


def split_provider(model: str) -> tuple[str, str]:
    """The provider that a name begins with, and the rest: `groq/llama-3.3-70b` is `("groq", "llama-3.3-70b")`.

    The provider is empty where the name begins with none: an owner of a repository, or a model.
    """
    first, slash, rest = model.partition("/")
    if not slash or not rest:
        return "", model
    alias = _aliases().get(normalised(first[:100]), first)
    return (alias, rest) if normalised(alias) in _provider_names() else ("", model)


def names_its_host(backend: str) -> bool:
    """Whether the name of a model may name the host that runs it at this backend: `MODEL:together`."""
    return "suffix_id" in _backends().get(normalised(backend), {})


def matches(clause: Clause, name: str) -> bool:
    """Whether a clause of genai-prices holds for a name in lower case."""
    if isinstance(clause, list):
        return any(matches(inner, name) for inner in clause)
    if isinstance(clause, dict):
        return all(matches(inner, name) for inner in clause["and"])
    kind, text = clause[0], clause[1:]
    if kind == "=":
        return name == text
    if kind == "^":
        return name.startswith(text)
    if kind == "$":
        return name.endswith(text)
    if kind == "*":
        return text in name
    return re.search(text, name) is not None


def certain(clause: Clause, name: str) -> bool:
    """Whether the part of a name that a matching clause does not cover cannot make it another model."""
    if isinstance(clause, list):
        return any(matches(inner, name) and certain(inner, name) for inner in clause)
    if isinstance(clause, dict):
        return matches(clause, name) and any(certain(inner, name) for inner in clause["and"])
    kind, text = clause[0], clause[1:]
    if kind == "=":
        return True
    if kind == "~":
        found = re.search(text, name)
        return found is not None and found.end() > 0 and _is_tail(name, found.end())
    before, _, _ = name.rpartition(text) if kind == "$" else name.partition(text)
    # The part before is a path, a region or a maker: us.anthropic., accounts/x/models/
    return (before == "" or before[-1] in "./:") and _is_tail(name, len(before) + len(text))


def _is_tail(name: str, end: int) -> bool:
    """Whether a name has only versions after `end`. A clause may end within a version: `claude-sonnet-4-2025`."""
    if _FREE_TAIL.search(name[:end]):
        return True
    while 0 < end < len(name) and name[end - 1].isdigit() and name[end].isdigit():
        end -= 1
    if 0 < end < len(name) and name[end - 1] in "-@:":
        end -= 1
    return _TAIL.fullmatch(name, end) is not None


@cache
def catalogue() -> Catalogue:
    """The table, read once."""
    data = json.loads(files(__package__).joinpath("data", "prices.json").read_bytes())
    return read(data)


def read(data: dict[str, Any]) -> Catalogue:
    """The table in a parsed `prices.json`."""
    providers = {}
    for identifier, row in data["providers"].items():
        models = tuple(
            HostedModel(
                provider=identifier,
                id=name,
                match=match,
                window=window,
                prices=tuple(_list_price(*price) for price in prices),
            )
            for name, match, window, prices in row["models"]
        )
        providers[identifier] = Provider(identifier, row["match"], tuple(row["fallback"]), models)
    return Catalogue(data["source"], data["as_of"], providers)


def _list_price(
    since: str,
    input: str,
    output: str | None,
    request: str = "0",
    tiers: Any = (),
    kinds: Any = (),
    unasked: bool = False,
) -> ListPrice:
    return ListPrice(
        since=since,
        input=input,
        output=output,
        request=request,
        tiers=tuple(_list_tier(*tier) for tier in tiers),
        kinds=_pairs(kinds),
        writes_unasked=unasked,
    )


def _list_tier(above: int, input: str, output: str, kinds: Any = ()) -> tuple[int, str, str, Kinds]:
    return above, input, output, _pairs(kinds)


def _pairs(kinds: Any) -> Kinds:
    return tuple(kinds.items()) if kinds else ()


@cache
def _backends() -> dict[str, dict[str, str]]:
    return {normalised(name): row for name, row in _table()["backends"].items()}


@cache
def _provider_names() -> frozenset[str]:
    return frozenset(_backends()) | {normalised(name) for name in catalogue().providers}


@cache
def _not_sold() -> dict[str, tuple[str, ...]]:
    return {provider: tuple(prefixes) for provider, prefixes in _table()["not_sold"].items()}


@cache
def _aliases() -> dict[str, str]:
    return {normalised(name): provider for name, provider in _table()["aliases"].items()}


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("data", "providers.toml").read_text())
