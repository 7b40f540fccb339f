"""The cost of a request: prices per million tokens, as whole nano-dollars, rounded up.

A price is looked up for a model *at a provider*, because providers of the same model charge differently. Order: a local
backend is free; the price in the config; `data/prices.json`, which `make prices` makes from the package genai-prices.
An unknown price is an error, never zero. A price of zero in the table counts as unknown.

Each kind of token has a price: cached input, cache writes, reasoning, audio. A kind without a separate price costs the
same as the kind that contains it. Cache writes are the exception, because providers that bill them charge more than for
plain input: without a separate price they cost the highest published multiple of it (see `_WRITE` and `_WRITE_1H`).

The table has list prices of the standard service tier at global endpoints. Regional endpoints of Azure and Vertex and
priority service cost more; put their prices in the config.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from batuta_cli.errors import ConfigError, UnknownPriceError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.models.catalogue import Kinds, ListPrice, catalogue, names_its_host
from batuta_cli.serve.money import Usd, to_nano, to_usd
from batuta_cli.serve.usage import CacheWrites, Usage

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection

_MILLION = 10**6
_WRITE = 125
_WRITE_1H = 200
"""Price of cache writes for 5 minutes and for an hour, in per cent of the input price. They are Anthropic's, the
highest published (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#pricing)."""


@dataclass(frozen=True, kw_only=True)
class KindPrices:
    """Nano-dollars for a million tokens of each kind with a separate price, or None."""

    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    output_audio: int | None = None


@dataclass(frozen=True)
class PriceTier:
    """Prices for all tokens of a request whose prompt has more than `above` tokens."""

    above: int
    input_per_million: int
    output_per_million: int
    kinds: KindPrices = KindPrices()


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """The price of every kind for one prompt length."""

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    input_audio: int
    output_audio: int


@dataclass(kw_only=True, frozen=True)
class TokenPricing:
    """Nano-dollars for a million tokens of input and of output, and for the request itself.

    `TokenPricing.usd` takes dollars. Raises `UsageError` for an amount that is negative or not a whole number.
    """

    input_per_million: int
    output_per_million: int
    per_request: int = 0
    tiers: tuple[PriceTier, ...] = ()
    kinds: KindPrices = KindPrices()
    writes_unasked: bool = False
    """The provider writes prompts to its cache and bills this without a request for it."""

    def __post_init__(self) -> None:
        kinds = [amount for amount in vars(self.kinds).values() if amount is not None]
        for amount in (self.input_per_million, self.output_per_million, self.per_request, *kinds):
            if type(amount) is not int or amount < 0:
                raise UsageError(
                    "a price must be a whole number of nano-dollars, 0 or more", hint="TokenPricing.usd takes dollars"
                )

    @classmethod
    def usd(cls, *, input: Usd, output: Usd) -> Self:
        """Prices in dollars for a million tokens. Raises `UsageError` for an invalid amount."""
        return cls(
            input_per_million=to_nano(input, "the price of input"),
            output_per_million=to_nano(output, "the price of output"),
        )

    @classmethod
    def for_model(cls, model: str, *, provider: str | None = None, at: dt.date | None = None) -> "TokenPricing":
        """The list price of a model at `provider`, by default its maker, on the UTC date `at`, by default today.

        Raises `UnknownPriceError`.
        """
        return price_for(model, local=False, provider=provider, at=at or dt.datetime.now(dt.UTC).date())

    @property
    def is_free(self) -> bool:
        """Whether every request is free."""
        return self == FREE

    def times(self, percent: int) -> "TokenPricing":
        """These prices in per cent, each rounded up."""
        if percent == 100 or self.is_free:
            return self

        def scaled(price: int) -> int:
            return _divide_up(price * percent, 100)

        def kinds(prices: KindPrices) -> KindPrices:
            return KindPrices(**{name: None if p is None else scaled(p) for name, p in vars(prices).items()})

        tiers = tuple(
            PriceTier(t.above, scaled(t.input_per_million), scaled(t.output_per_million), kinds(t.kinds))
            for t in self.tiers
        )
        return replace(
            self,
            input_per_million=scaled(self.input_per_million),
            output_per_million=scaled(self.output_per_million),
            tiers=tiers,
            kinds=kinds(self.kinds),
        )

    def cost(self, input_tokens: int, output_tokens: int, *, writes: CacheWrites = CacheWrites.NONE) -> int:
        """The most nano-dollars that a text request can cost, input and output each rounded up.

        Every token has the highest price that it may have: cache writes where the request asks for them (`writes`) or
        the provider makes them without being asked, reasoning always, and the dearest of all tiers that the prompt
        reaches. The cost never falls when a count grows, so an upper estimate of the tokens bounds the cost. Raises
        `UsageError` for a negative count.
        """
        if input_tokens < 0 or output_tokens < 0:
            raise UsageError("a number of tokens cannot be negative")
        rates = self._rates(input_tokens)
        inputs = [rates.input, rates.cached]
        if self.writes_unasked or writes is not CacheWrites.NONE:
            inputs.append(rates.cache_write)
        if writes is CacheWrites.HOUR:
            inputs.append(rates.cache_write_1h)
        return (
            self.per_request
            + _divide_up(input_tokens * max(inputs), _MILLION)
            + _divide_up(output_tokens * max(rates.output, rates.reasoning), _MILLION)
        )

    def charge(self, usage: Usage, *, writes: CacheWrites = CacheWrites.NONE) -> int:
        """Nano-dollars for a reported usage, each kind at its price. Input and output are each rounded up.

        The prices are those of the tier that the reported prompt reaches. Where the report does not say which tokens
        were written to a cache, or for how long, the higher price counts. The charge never exceeds `cost` of the same
        counts, except for audio. A kind must not exceed the whole that contains it; `usage.py` ensures this.
        """
        rates = self._rates(usage.input_tokens)
        cached, audio = usage.cached_tokens or 0, usage.input_audio_tokens or 0
        written, hour = usage.cache_write_tokens or 0, usage.cache_write_1h_tokens
        if hour is None:
            hour = written if writes is CacheWrites.HOUR else 0
        uncached = usage.input_tokens - cached - audio - written
        may_be_written = self.writes_unasked and usage.cache_write_tokens is None
        input = (
            uncached * (max(rates.input, rates.cache_write) if may_be_written else rates.input)
            + cached * rates.cached
            + (written - hour) * rates.cache_write
            + hour * rates.cache_write_1h
            + audio * rates.input_audio
        )
        reasoning, spoken = usage.reasoning_tokens or 0, usage.output_audio_tokens or 0
        output = (
            (usage.output_tokens - reasoning - spoken) * rates.output
            + reasoning * rates.reasoning
            + spoken * rates.output_audio
        )
        return self.per_request + _divide_up(input, _MILLION) + _divide_up(output, _MILLION)

    def _rates(self, input_tokens: int) -> _Rates:
        """The prices for a prompt of this length: for each kind the highest of all tiers that it reaches."""
        reached = [
            _rates(self.input_per_million, self.output_per_million, self.kinds),
            *(
                _rates(tier.input_per_million, tier.output_per_million, tier.kinds)
                for tier in self.tiers
                if input_tokens > tier.above
            ),
        ]
        if len(reached) == 1:
            return reached[0]
        return _Rates(**{name: max(getattr(rates, name) for rates in reached) for name in vars(reached[0])})

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal:
        """`cost` in dollars, exactly, for `CostCircuitBreaker.check` and `Reservation.settle`."""
        return to_usd(self.cost(input_tokens, output_tokens))


def _rates(input: int, output: int, kinds: KindPrices) -> _Rates:
    write = _known(kinds.cache_write, -(-input * _WRITE // 100))
    return _Rates(
        input=input,
        output=output,
        cached=_known(kinds.cached, input),
        cache_write=write,
        cache_write_1h=_known(kinds.cache_write_1h, max(write, -(-input * _WRITE_1H // 100))),
        reasoning=_known(kinds.reasoning, output),
        input_audio=_known(kinds.input_audio, input),
        output_audio=_known(kinds.output_audio, output),
    )


def _known(price: int | None, otherwise: int) -> int:
    return otherwise if price is None else price


FREE = TokenPricing(input_per_million=0, output_per_million=0)
"""The price of a local backend."""


def price_for(
    model: str,
    *,
    local: bool,
    own: Mapping[str, TokenPricing] = {},
    provider: str | None = None,
    at: dt.date,
    embeddings: bool = False,
) -> TokenPricing:
    """The price of `model` at `provider` on the UTC date `at`.

    `embeddings`: the request has no output, so a model that has a price for input alone has a price.

    `local`: the backend runs on the user's machines and is free. `own` has the configured prices by model (see
    `own_prices`). `provider` is the name of a backend such as `Groq`, or an id of genai-prices such as `openrouter`.
    Without it the list price of the model's maker is returned.

    Raises `UnknownPriceError`.
    """
    if local:
        return FREE
    if model in own:
        return own[model]
    hosted = catalogue().find(model, provider)
    listed = hosted.price(at) if hosted else None
    if listed is not None and (embeddings or listed.output is not None):
        return pricing(listed)
    where = f" at {display(provider)}" if provider else ""
    raise UnknownPriceError(f"the price of {display(model)}{where} is not known", hint=_hint(model, provider))


def own_prices(models: Mapping[str, "ModelSection"]) -> dict[str, TokenPricing]:
    """The prices in the config's `[models]` tables.

    Raises `ConfigError` when a model has only one of the prices for input and output, or a kind without both.
    """
    prices = {}
    for name, model in models.items():
        pair = model.input_usd_per_million, model.output_usd_per_million
        kinds = {kind: getattr(model, key) for kind, key in _OWN_KINDS.items()}
        if pair[0] is not None and pair[1] is not None:
            own = {kind: to_nano(price, f"the price of {kind}") for kind, price in kinds.items() if price is not None}
            both = TokenPricing.usd(input=pair[0], output=pair[1])
            prices[name] = replace(both, kinds=KindPrices(**own))
        elif pair != (None, None):
            known, missing = ("output", "input") if pair[0] is None else ("input", "output")
            raise ConfigError(
                f"the model {display(name)} has a price for its {known} only",
                hint=f'add {missing}_usd_per_million under [models."{display(name)}"]; "0" if it is free',
            )
        elif given := next((_OWN_KINDS[kind] for kind, price in kinds.items() if price is not None), None):
            raise ConfigError(
                f"the model {display(name)} has {given} without input_usd_per_million and output_usd_per_million",
                hint=f'add both under [models."{display(name)}"]; a configured price replaces the whole list price',
            )
    return prices


_OWN_KINDS = {
    "cached": "cached_input_usd_per_million",
    "cache_write": "cache_write_usd_per_million",
    "cache_write_1h": "cache_write_1h_usd_per_million",
    "reasoning": "reasoning_usd_per_million",
}
"""Kinds of tokens, and the keys of their prices in `[models]`."""


def pricing(listed: ListPrice) -> TokenPricing:
    """The prices of a row of the table, in nano-dollars."""
    tiers = (
        PriceTier(above, to_nano(input), to_nano(output), _kinds(kinds)) for above, input, output, kinds in listed.tiers
    )
    return TokenPricing(
        input_per_million=to_nano(listed.input),
        output_per_million=to_nano(listed.input if listed.output is None else listed.output),
        per_request=to_nano(listed.request),
        tiers=tuple(tiers),
        kinds=_kinds(listed.kinds),
        writes_unasked=listed.writes_unasked,
    )


def _kinds(listed: Kinds) -> KindPrices:
    return KindPrices(**{kind: to_nano(price) for kind, price in listed})


def _hint(model: str, provider: str | None) -> str:
    table = f'[models."{display(model)}"]'
    host = "name the host that runs it, such as MODEL:together; or " if provider and names_its_host(provider) else ""
    return (
        f"{host}give it a price in config.toml: {table} input_usd_per_million and output_usd_per_million;"
        " or --allow-unpriced"
    )


def _divide_up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)
