"""The price of a model at a backend, for commands that take a backend's name."""

import datetime as dt
from dataclasses import dataclass

from batuta_cli.config import Config
from batuta_cli.serve.backends import ServingBackend, configured_backends, default_backend
from batuta_cli.serve.models.pricing import TokenPricing, own_prices, price_for
from batuta_cli.serve.names import normalised
from batuta_cli.serve.routing.gates import PlanRequest
from batuta_cli.serve.routing.snapshot import Seen, take_snapshot
from batuta_cli.serve.tiers import PrivacyTier


@dataclass(frozen=True)
class PricedBackend:
    """A backend by its name, with its kind."""

    name: str
    kind: ServingBackend


def backend_named(name: str, config: Config) -> PricedBackend:
    """The configured backend of that name, else the kind. Raises `UsageError` that suggests the nearest."""
    for backend in configured_backends(config):
        if normalised(backend.name) == normalised(name):
            return PricedBackend(backend.name, backend.kind)
    kind = ServingBackend.parse(name)
    return PricedBackend(kind.value, kind)


def price_at(model: str, backend: PricedBackend | None, config: Config) -> TokenPricing:
    """Today's price of a model at `backend`, as a plan has it; None: at the model's maker.

    Raises `UnknownPriceError`, and `ConfigError` for an invalid price in the configuration.
    """
    day = dt.datetime.now(dt.UTC).date()
    if backend is not None:
        named = [each for each in configured_backends(config) if each.name == backend.name]
        request = PlanRequest(privacy=PrivacyTier.STANDARD, model=model)
        snapshot = take_snapshot(config, named or [default_backend(backend.kind)], request, Seen(day=day, probes={}))
        if (price := snapshot.backends[0].price) is not None:
            return price
    provider = backend.kind.value if backend else None
    return price_for(model, local=False, own=own_prices(config.models), provider=provider, at=day)
