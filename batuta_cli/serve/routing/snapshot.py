"""The snapshot that a plan is made from: the configuration, the tables and what was seen of the backends.

It opens no connection and reads no clock: what was probed, counted and spent is handed in. The tier of a backend is
the one that its address can be expected to have; the privacy gate judges again when it connects.

Raises `ConfigError` for a `[router]` table that names a backend there is not, or whose numbers contradict each other.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batuta_cli.errors import ConfigError, UnknownPriceError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.models.pricing import FREE, TokenPricing, own_prices, price_for
from batuta_cli.serve.models.windows import default_reserve, known_model
from batuta_cli.serve.names import normalised, unknown_name
from batuta_cli.serve.privacy.gate import UNRESOLVED, Networks, foresee, is_private_host
from batuta_cli.serve.routing.health import BackendHealth
from batuta_cli.serve.routing.planning import BackendState, PlanRequest, Snapshot
from batuta_cli.serve.routing.router import Limits, RouterConfig
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.budget.breaker import BudgetStatus
    from batuta_cli.serve.providers.probe import ProbeResult


_REMEMBERED = 1024
"""Models whose window and price are kept at hand; clients name them, so there must be an end to it."""


@dataclass(frozen=True)
class Seen:
    """What is known of the world beside the configuration."""

    day: dt.date
    """In UTC; prices change."""
    probes: "Mapping[str, ProbeResult]"
    """By the name of the backend; those that were not asked are taken to be well."""
    health: BackendHealth | None = None
    now: float = 0.0
    """The time by the clock of `loads`, in seconds."""
    spilling: bool = False
    budget: "BudgetStatus | None" = None
    queue_depth: int | None = None
    """As in `Snapshot`."""


def usual_backends(config: "Config", request: PlanRequest, *, local: bool) -> "list[Backend]":
    """What a request is planned among when no backend is configured: at their usual addresses.

    `local`: the local ones, to be probed; otherwise those that are recommended for it, a local one among them. The
    ones that the `[router]` table names are there too. Raises `ConfigError` for a name that it gets wrong.
    """
    from batuta_cli.serve.backends import BackendSelector, default_backend

    kinds = [kind for kind in ServingBackend if kind.is_local]
    if not local:
        kinds = BackendSelector(request.privacy, request.latency, request.throughput, request.cost).recommend()
        if not any(kind.is_local for kind in kinds):
            kinds.append(RouterConfig().local_backend)
    all_kinds = list(ServingBackend)
    router = config.router
    if router.local_backend:
        kinds.append(ServingBackend(_named(router.local_backend, all_kinds, "local_backend")))
    kinds += [ServingBackend(_named(name, all_kinds, "spillover_backends")) for name in router.spillover_backends]
    return [default_backend(kind) for kind in dict.fromkeys(kinds)]


class Observer:
    """Takes snapshots of the same backends again and again, and remembers what is in the tables."""

    def __init__(self, config: "Config", backends: "Sequence[Backend]") -> None:
        """Raises `ConfigError`."""
        names = [backend.name for backend in backends]
        router = config.router
        self._config = config
        self._backends = backends
        self._limits = Limits.configured(router)
        self._local = _named(router.local_backend, names, "local_backend") if router.local_backend else ""
        self._spillover = tuple(_named(name, names, "spillover_backends") for name in router.spillover_backends)
        self._own_prices = own_prices(config.models)
        self._own_servers = frozenset(
            b.name for b in backends if b.kind.is_local and not any(map(_is_private_cloud, b.base_urls))
        )
        self._tier = {backend.name: lru_cache(16)(partial(expected_tier, config, backend)) for backend in backends}
        self._window = lru_cache(_REMEMBERED)(self._look_up_window)
        self._price = lru_cache(_REMEMBERED)(self._look_up_price)

    def snapshot(self, request: PlanRequest, seen: Seen) -> Snapshot:
        """The snapshot for one request."""
        budget = seen.budget
        return Snapshot(
            tuple(self._state(backend, request.model, seen) for backend in self._backends),
            self._limits,
            seen.spilling,
            seen.queue_depth,
            self._local,
            self._spillover,
            None if budget is None else 0 if budget.ahead else budget.remaining,
            None if budget is None else budget.max_request_cost,
        )

    def _state(self, backend: "Backend", model: str, seen: Seen) -> BackendState:
        probe = seen.probes.get(backend.name)
        tier, place = self._tier[backend.name](probe.base_url if probe else "")
        window, reserve = self._window(model, probe.context_length if probe else None)
        remote = frozenset(probe.remote_models if probe else ())
        if backend.profile.remote_models.has(model, remote):
            remote |= {model}
        # A server of a local kind that stands somewhere public is somebody's, who may send a bill; so does a private
        # cloud. A host name that may yet turn out to be elsewhere is held to be near when a request is sent.
        free = backend.name in self._own_servers and tier is not PrivacyTier.STANDARD and model not in remote
        free = free and (place != UNRESOLVED or model not in self._own_prices)
        reported = probe.queue_depth if probe else None
        counted = seen.health.depth(backend.name, seen.now) if seen.health else None
        cooling = seen.health.cooling(backend.name, seen.now, model) if seen.health else None
        return BackendState(
            backend.name,
            backend.kind,
            tier,
            place,
            backend.models or (probe.models if probe else ()) or None,
            remote,
            probe.tells_remote if probe else True,
            window,
            reserve,
            FREE if free else self._price(model, backend.kind, seen.day),
            max((depth for depth in (reported, counted) if depth is not None), default=None),
            cooling.seconds if cooling else None,
            "" if probe is None or probe.healthy else probe.error or "it does not answer",
            cools_model=cooling is not None and cooling.of_model,
        )

    def _look_up_window(self, model: str, served: int | None) -> tuple[int | None, int | None]:
        """Window and reserve of a model, at a server that allows `served` tokens."""
        info = known_model(model, self._config.models, files=False) if model else None
        if info is None:
            return served, None if served is None else default_reserve(served)
        if served is None or served >= info.context_window:
            return info.context_window, info.output_reserve
        return served, min(info.output_reserve, default_reserve(served))

    def _look_up_price(self, model: str, kind: ServingBackend, day: dt.date) -> TokenPricing | None:
        if not model:
            return None
        try:
            return price_for(model, local=False, own=self._own_prices, provider=kind, at=day)
        except UnknownPriceError:
            return None


def _is_private_cloud(url: str) -> bool:
    try:
        return is_private_host(urlsplit(url).hostname or "")
    except ValueError:
        return False


def take_snapshot(config: "Config", backends: "Sequence[Backend]", request: PlanRequest, seen: Seen) -> Snapshot:
    """One snapshot. Raises `ConfigError`."""
    return Observer(config, backends).snapshot(request, seen)


def expected_tier(config: "Config", backend: "Backend", base_url: str = "") -> tuple[PrivacyTier, str]:
    """The strictest tier that a backend can be expected to be admitted under, and why.

    `base_url` is the one that is used of several; otherwise the one that is the farthest away counts.
    """
    networks = Networks.configured(config)
    urls = [base_url] if base_url else list(backend.base_urls)
    found = [_tier_of(config, backend, url, networks) for url in urls]
    usual = (backend.kind.tier, "its usual place")
    return max(found, key=lambda tier_and_reason: tier_and_reason[0].openness, default=usual)


def _tier_of(config: "Config", backend: "Backend", url: str, networks: Networks) -> tuple[PrivacyTier, str]:
    verdicts = (foresee(tier, url, networks=networks) for tier in PrivacyTier)
    tier, reason = next((verdict.tier, verdict.reason) for verdict in verdicts if verdict.allowed)
    own = config.backends.get(backend.name)
    is_usual = own is None or not own.base_url or url in backend.profile.base_urls
    if is_usual and not backend.kind.is_local and PrivacyTier.STANDARD in (tier, backend.kind.tier):
        # Another host name could turn out to lie in a declared network, that of a public service will not.
        return PrivacyTier.STANDARD, "a public service"
    return tier, reason


def _named(name: str, names: Sequence[str], key: str) -> str:
    for known in names:
        if normalised(known) == normalised(name):
            return known
    error = unknown_name("backend", name, names)
    raise ConfigError(f"router.{key}: {error.message}", hint=error.hint)
