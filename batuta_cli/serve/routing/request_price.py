"""What a request costs at a backend of the configuration: its name, then its price."""

import datetime as dt
from dataclasses import dataclass

from batuta_cli.config import Config
from batuta_cli.serve.backends import ServingBackend, configured_backends, default_backend
from batuta_cli.serve.models.pricing import TokenPricing, own_prices, price_for
from batuta_cli.serve.names import normalised
from batuta_cli.serve.routing.planning import PlanRequest
from batuta_cli.serve.routing.snapshot import Seen, take_snapshot
from batuta_cli.serve.tiers import PrivacyTier


@dataclass(frozen=True)
class PricedBackend:
    """Where a request is run: what the user calls it, and what kind of backend it is."""

    name: str
    kind: ServingBackend


def backend_named(name: str, config: Config) -> PricedBackend:
    """The configured backend of that name, or the kind that it means. Raises `UsageError` that suggests the nearest."""
    for backend in configured_backends(config):
        if normalised(backend.name) == normalised(name):
            return PricedBackend(backend.name, backend.kind)
    kind = ServingBackend.parse(name)
    return PricedBackend(kind.value, kind)


def price_at(model: str, place: PricedBackend | None, config: Config) -> TokenPricing:
    """Today's price of a model there, by the rule that plans go by; without a place, at the model's maker.

    Raises `UnknownPriceError`, and `ConfigError` for the user's own prices.
    """
    day = dt.datetime.now(dt.UTC).date()
    if place is not None:
        named = [backend for backend in configured_backends(config) if backend.name == place.name]
        asked = PlanRequest(PrivacyTier.STANDARD, model)
        snapshot = take_snapshot(config, named or [default_backend(place.kind)], asked, Seen(day, {}))
        if (price := snapshot.backends[0].price) is not None:
            return price
    provider = place.kind.value if place else None
    return price_for(model, local=False, own=own_prices(config.models), provider=provider, at=day)
