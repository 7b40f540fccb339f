"""What a request costs at a backend of the configuration: its name, then its price."""

import datetime as dt
from dataclasses import dataclass

from batuta_cli.config import Config
from batuta_cli.serve.backends import ServingBackend, configured_backends
from batuta_cli.serve.pricing import TokenPricing, own_prices, price_for
from batuta_cli.serve.words import folded


@dataclass(frozen=True)
class Place:
    """Where a request is run: what the user calls it, and what kind of backend it is."""

    name: str
    kind: ServingBackend


def place_named(name: str, config: Config) -> Place:
    """The configured backend of that name, or the kind that it means. Raises `UsageError` that suggests the nearest."""
    for backend in configured_backends(config):
        if folded(backend.name) == folded(name):
            return Place(backend.name, backend.kind)
    kind = ServingBackend.parse(name)
    return Place(kind.value, kind)


def price_at(model: str, place: Place | None, config: Config) -> TokenPricing:
    """Today's price of a model there; without a place, at the model's maker.

    Raises `UnknownPriceError`, and `ConfigError` for the user's own prices.
    """
    return price_for(
        model,
        local=place is not None and place.kind.is_local,
        own=own_prices(config.models),
        provider=place.kind.value if place else None,
        at=dt.datetime.now(dt.UTC).date(),
    )
