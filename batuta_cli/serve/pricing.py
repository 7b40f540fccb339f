"""What a request costs: prices per million tokens, as whole nano-dollars, rounded up.

A price is looked up for a model *at a provider*, because hosts of the same model differ. Order: a local backend is
free, then the user's own price from the config, then `data/prices.json`, which `make prices` makes from the package
genai-prices. A price that is not known is an error, never zero; nor is a price of zero in the table believed.

The table has list prices of text, uncached, in the standard service tier, at global endpoints. Who pays more (regional
endpoints of Azure and Vertex, priority service) says so in the config.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from batuta_cli.errors import ConfigError, UnknownPriceError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.catalogue import ListPrice, catalogue, names_its_host
from batuta_cli.serve.money import Usd, to_nano, to_usd

if TYPE_CHECKING:
    from batuta_cli.config import Model

_MILLION = 10**6


@dataclass(frozen=True)
class PriceTier:
    """Prices of a request whose prompt has more than `above` tokens; they hold for all of its tokens."""

    above: int
    input_per_million: int
    output_per_million: int


@dataclass(frozen=True)
class TokenPricing:
    """Nano-dollars for a million tokens of prompt and of answer, and for the request itself.

    `TokenPricing.usd` takes dollars. Raises `UsageError` for an amount that is negative or no whole number.
    """

    input_per_million: int
    output_per_million: int
    per_request: int = 0
    tiers: tuple[PriceTier, ...] = ()

    def __post_init__(self) -> None:
        for amount in (self.input_per_million, self.output_per_million, self.per_request):
            if type(amount) is not int or amount < 0:
                raise UsageError(
                    "a price is a whole number of nano-dollars, from 0", hint="TokenPricing.usd takes dollars"
                )

    @classmethod
    def usd(cls, *, input: Usd, output: Usd) -> Self:
        """Prices in dollars for a million tokens. Raises `UsageError` for what is no amount."""
        return cls(to_nano(input, "the price of input"), to_nano(output, "the price of output"))

    @classmethod
    def for_model(cls, model: str, *, provider: str | None = None, at: dt.date | None = None) -> "TokenPricing":
        """The list price of a model at `provider`, by default its maker, on the UTC date `at`, by default today.

        Raises `UnknownPriceError`.
        """
        return price_for(model, local=False, provider=provider, at=at or dt.datetime.now(dt.UTC).date())

    @property
    def is_free(self) -> bool:
        """Whether no request can cost anything."""
        return self == FREE

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars for a request, input and output each rounded up.

        Never falls when a count grows, so that the cost of an upper estimate bounds the cost of the request: of
        all tiers that the prompt reaches the dearest counts. Raises `UsageError` for a negative count.
        """
        if input_tokens < 0 or output_tokens < 0:
            raise UsageError("a number of tokens cannot be negative")
        reached = [tier for tier in self.tiers if input_tokens > tier.above]
        input_price = max([self.input_per_million, *(tier.input_per_million for tier in reached)])
        output_price = max([self.output_per_million, *(tier.output_per_million for tier in reached)])
        return (
            self.per_request
            + _divide_up(input_tokens * input_price, _MILLION)
            + _divide_up(output_tokens * output_price, _MILLION)
        )

    def cost_usd(self, input_tokens: int, output_tokens: int) -> Decimal:
        """The same in dollars, exactly: what `CostCircuitBreaker.check` and `Reservation.settle` take."""
        return to_usd(self.cost(input_tokens, output_tokens))


FREE = TokenPricing(0, 0)
"""What a local backend costs."""


def price_for(
    model: str, *, local: bool, own: Mapping[str, TokenPricing] = {}, provider: str | None = None, at: dt.date
) -> TokenPricing:
    """The price of `model` at `provider` on the UTC date `at`.

    `local` says that the backend runs on the user's machines and costs nothing. `own` has the user's prices by model
    (see `own_prices`). `provider` is the name of a backend such as `Groq`, or an id of genai-prices such as
    `openrouter`; without one the list price of the model's maker is meant.

    Raises `UnknownPriceError`.
    """
    if local:
        return FREE
    if model in own:
        return own[model]
    offer = catalogue().find(model, provider)
    listed = offer.price(at) if offer else None
    if listed is not None:
        return pricing(listed)
    where = f" at {display(provider)}" if provider else ""
    raise UnknownPriceError(f"the price of {display(model)}{where} is not known", hint=_hint(model, provider))


def own_prices(models: Mapping[str, "Model"]) -> dict[str, TokenPricing]:
    """The prices that the config's `[models]` tables give.

    Raises `ConfigError` when a model has a price for its input or its output alone.
    """
    prices = {}
    for name, model in models.items():
        pair = model.input_usd_per_million, model.output_usd_per_million
        if pair[0] is not None and pair[1] is not None:
            prices[name] = TokenPricing.usd(input=pair[0], output=pair[1])
        elif pair != (None, None):
            known, missing = ("output", "input") if pair[0] is None else ("input", "output")
            raise ConfigError(
                f"the model {display(name)} has a price for its {known} alone",
                hint=f'under [models."{display(name)}"] belongs {missing}_usd_per_million as well; "0" if it is free',
            )
    return prices


def pricing(listed: ListPrice) -> TokenPricing:
    """A price of the table, to count with."""
    tiers = (PriceTier(above, to_nano(input), to_nano(output)) for above, input, output in listed.tiers)
    return TokenPricing(to_nano(listed.input), to_nano(listed.output), to_nano(listed.request), tuple(tiers))


def _hint(model: str, provider: str | None) -> str:
    table = f'[models."{display(model)}"]'
    host = "name the host that runs it, such as MODEL:together; or " if provider and names_its_host(provider) else ""
    return (
        f"{host}give it a price in config.toml: {table} input_usd_per_million and output_usd_per_million;"
        " or --allow-unpriced"
    )


def _divide_up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)
