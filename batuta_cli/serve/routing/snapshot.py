"""The snapshot that a plan is made from: configuration, price and window tables, and the state of the backends.

It opens no connection and reads no clock: probe results, request counts and the budget are arguments. The tier of a
backend is the tier that its address is expected to have; the privacy gate judges the real address at connection.

Raises `ConfigError` when the `[router]` table names an unknown backend or its numbers contradict each other.
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
from batuta_cli.serve.privacy.gate import Basis, Networks, Verdict, foresee, is_private_host
from batuta_cli.serve.routing.gates import BackendState, Need, PlanRequest, Snapshot
from batuta_cli.serve.routing.health import BackendHealth
from batuta_cli.serve.routing.router import Limits, RouterConfig
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.backends import Backend
    from batuta_cli.serve.budget.breaker import BudgetStatus
    from batuta_cli.serve.providers.probe import ProbeResult


_CACHED_MODELS = 1024
"""Models whose window and price are cached. Clients choose the names, so the number is bounded."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The state of the backends and of the budget at one moment."""

    day: dt.date
    """In UTC; prices change."""
    probes: "Mapping[str, ProbeResult]"
    """By backend name. A backend that was not probed counts as healthy."""
    health: BackendHealth | None = None
    now: float = 0.0
    """Monotonic seconds, by the clock of `health`."""
    spilling: bool = False
    budget: "BudgetStatus | None" = None
    queue_depth: int | None = None
    """As in `Snapshot`."""


def usual_backends(config: "Config", request: PlanRequest, *, local: bool) -> "list[Backend]":
    """The backends to plan with when none is configured, at their usual addresses.

    `local`: all local kinds, to be probed. Otherwise the recommended kinds and at least one local kind. Kinds that the
    `[router]` table names are added. Raises `ConfigError` for an unknown name there.
    """
    from batuta_cli.serve.backends import BackendSelector, default_backend

    kinds = [kind for kind in ServingBackend if kind.is_local and kind.has_usual_address]
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
    """Takes snapshots of the same backends; prices, windows and tiers are cached."""

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
        self._window = lru_cache(_CACHED_MODELS)(self._look_up_window)
        self._price = lru_cache(_CACHED_MODELS)(self._look_up_price)

    def snapshot(self, request: PlanRequest, seen: Seen) -> Snapshot:
        """The snapshot for one request."""
        budget = seen.budget
        return Snapshot(
            backends=tuple(self._state(backend, request, seen) for backend in self._backends),
            limits=self._limits,
            spilling=seen.spilling,
            queue_depth=seen.queue_depth,
            local_backend=self._local,
            spillover_backends=self._spillover,
            budget_remaining=None if budget is None else 0 if budget.ahead else budget.unspent_for_client,
            budget_owner="this key's day" if budget is not None and budget.limited_by_client else "the day",
            max_request_cost=None if budget is None else budget.max_request_cost,
            allow_unbounded_tools=self._config.budget.allow_unbounded_tools,
            refuse_unknown_fields=self._config.budget.unknown_fields == "refuse",
        )

    def _state(self, backend: "Backend", request: PlanRequest, seen: Seen) -> BackendState:
        model, embeddings = request.model, Need.EMBEDDINGS in request.needs
        probe = seen.probes.get(backend.name)
        expected = self._tier[backend.name](probe.base_url if probe else "")
        window, reserve = self._window(model, probe.context_length if probe else None)
        remote = frozenset(probe.remote_models if probe else ())
        if backend.profile.remote_models.has(model, remote):
            remote |= {model}
        # A server of a local kind at a public address, or in a private cloud, may cost money. A host name that is not
        # resolved yet may turn out to be public: the pipeline connects to it under a tier that refuses that.
        free = backend.name in self._own_servers and expected.tier is not PrivacyTier.STANDARD and model not in remote
        free = free and (expected.basis is Basis.ADDRESS or model not in self._own_prices)
        reported = probe.queue_depth if probe else None
        counted = seen.health.depth(backend.name, seen.now) if seen.health else None
        cooling = seen.health.cooling(backend.name, seen.now, model) if seen.health else None
        return BackendState(
            name=backend.name,
            kind=backend.kind,
            tier=expected.tier,
            place=expected.reason,
            basis=expected.basis,
            models=backend.models or (probe.models if probe else ()) or None,
            remote_models=remote,
            tells_remote=probe.tells_remote if probe else True,
            window=window,
            reserve=reserve,
            price=FREE if free else self._price(model, backend.kind, seen.day, embeddings),
            depth=max((depth for depth in (reported, counted) if depth is not None), default=None),
            cooldown=cooling.seconds if cooling else None,
            trouble="" if probe is None or probe.healthy else probe.error or "no response",
            cools_model=cooling is not None and cooling.of_model,
            slots=probe.slots if probe else None,
            lacks=probe.lacks if probe else frozenset(),
        )

    def _look_up_window(self, model: str, served: int | None) -> tuple[int | None, int | None]:
        """Window and output reserve of a model, at a server whose window is `served` tokens."""
        info = known_model(model, self._config.models, files=False) if model else None
        if info is None:
            return served, None if served is None else default_reserve(served)
        if served is None or served >= info.context_window:
            return info.context_window, info.output_reserve
        return served, min(info.output_reserve, default_reserve(served))

    def _look_up_price(self, model: str, kind: ServingBackend, day: dt.date, embeddings: bool) -> TokenPricing | None:
        if not model:
            return None
        try:
            own = self._own_prices
            return price_for(model, local=False, own=own, provider=kind, at=day, embeddings=embeddings)
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


def expected_tier(config: "Config", backend: "Backend", base_url: str = "") -> Verdict:
    """The strictest tier that is expected to admit a backend, and why.

    `base_url`: the address in use of several. Without it the address with the most open tier counts.
    """
    networks = Networks.configured(config)
    urls = [base_url] if base_url else list(backend.base_urls)
    found = [_tier_of(config, backend, url, networks) for url in urls]
    usual = Verdict(True, backend.kind.tier, "its usual address")
    return max(found, key=lambda verdict: verdict.tier.openness, default=usual)


def _tier_of(config: "Config", backend: "Backend", url: str, networks: Networks) -> Verdict:
    verdicts = (foresee(tier, url, networks=networks) for tier in PrivacyTier)
    expected = next(verdict for verdict in verdicts if verdict.allowed)
    own = config.backends.get(backend.name)
    is_usual = own is None or not own.base_url or url in backend.profile.base_urls
    if is_usual and not backend.kind.is_local and PrivacyTier.STANDARD in (expected.tier, backend.kind.tier):
        # The host name of a public service never resolves to a declared network; another name could.
        return Verdict(True, PrivacyTier.STANDARD, "a public service")
    return expected


def _named(name: str, names: Sequence[str], key: str) -> str:
    for known in names:
        if normalised(known) == normalised(name):
            return known
    error = unknown_name("backend", name, names)
    raise ConfigError(f"router.{key}: {error.message}", hint=error.hint)
