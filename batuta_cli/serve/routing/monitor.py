"""The state of the backends as probes show it: health, models, queue depth.

`watch` probes in the background: every backend each `REFRESH` seconds, and each `LOAD` seconds while requests are in
flight, so that no queue depth in use is older than it may be; an unhealthy backend each `UNHEALTHY` seconds, so that it
is used soon after it comes up. `probe_unhealthy` does so at once for a request that would be refused.

A backend has one probe at a time. An unhealthy backend keeps the models that it listed before.
"""

import asyncio
import datetime as dt
import logging
import math
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError
from batuta_cli.faults import as_typed
from batuta_cli.serve.backends import Backend, configured_backends
from batuta_cli.serve.backends.configured import no_address
from batuta_cli.serve.budget.breaker import BudgetStatus
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.probe import ProbeResult, probe_all
from batuta_cli.serve.retry import FailoverConfig, retry_after
from batuta_cli.serve.routing.gates import PlanRequest, Snapshot
from batuta_cli.serve.routing.health import BackendHealth
from batuta_cli.serve.routing.snapshot import Observer, Seen, usual_backends
from batuta_cli.serve.tiers import PrivacyTier

REFRESH = 15.0
"""Seconds between two probes of every backend."""

LOAD = 2.0
"""Seconds between two readings of queue depths while requests are in flight; a reading counts for 5 s."""

UNHEALTHY = 0.9
"""Seconds between two probes of an unhealthy backend; with the time of the probe, about one second."""

FRESH = 0.3
"""Seconds for which a probe counts as the present state: a request that would be refused repeats no newer one."""

_TIMEOUT = 2.0  # seconds for each HTTP request of a probe


class BackendMonitor:
    """The backends of a pipeline and their state. Use it in one event loop, and close it."""

    def __init__(
        self,
        config: Config,
        audit: AuditLog,
        backends: Sequence[Backend] | None = None,
        limits: FailoverConfig | None = None,
    ) -> None:
        self.config = config
        self.backends = tuple(_backends(config) if backends is None else backends)
        self.health = BackendHealth(limits)
        self.spilling = False
        self.networks = Networks.configured(config)
        self._audit = audit
        self._observer = Observer(config, self.backends)
        self._probes: dict[str, ProbeResult] = {
            backend.name: ProbeResult(backend=backend, error=no_address(backend))
            for backend in self.backends
            if backend.missing
        }
        self._probed_at: dict[str, float] = {}
        """When the latest probe of a backend ended, in monotonic seconds."""
        self._running: dict[str, asyncio.Task[None]] = {}
        """The probe of a backend that is under way."""
        self._sessions: dict[PrivacyTier, GatedSession] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop probing and close all connections."""
        tasks = [*self._running.values(), *([self._watcher] if self._watcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in self._sessions.values():
            await session.close()

    def session(self, tier: PrivacyTier) -> GatedSession:
        """The connections of a tier; tiers share no connections."""
        if tier not in self._sessions:
            proxy = self.config.network.proxy
            self._sessions[tier] = GatedSession(tier, self._audit, self.networks, proxy=proxy)
        return self._sessions[tier]

    @property
    def probes(self) -> dict[str, ProbeResult]:
        """The latest probe result of each backend, by name."""
        return self._probes

    async def refresh(self, *, tier: PrivacyTier, timeout: float = _TIMEOUT) -> None:
        """Probe every backend that `tier` admits. Raises `AuditError`."""
        await self._probe(self.backends, tier, timeout)

    async def probe_unknown(self, tier: PrivacyTier) -> None:
        """Probe the backends of which a request needs to know more than the configuration has. Raises `AuditError`.

        These are backends at their usual addresses, which may not be running, and, unless the tier is standard, those
        that can forward a model's requests to another server. Each is probed once.
        """
        strict = tier is not PrivacyTier.STANDARD
        unknown = [
            backend
            for backend in self.backends
            if backend.name not in self._probes
            and (not backend.configured or (strict and backend.profile.remote_models.path))
        ]
        if unknown:
            await self._probe(unknown, tier)

    async def probe_unlisted(self, tier: PrivacyTier) -> None:
        """Probe the backends whose models are not known, each once. Raises `AuditError`."""
        unknown = [b for b in self.backends if not b.models and not b.missing and b.name not in self._probes]
        if unknown:
            await self._probe(unknown, tier)

    def models(self) -> frozenset[str]:
        """The models that are configured for the backends, or that the backends list."""
        probes = self._probes
        return frozenset(
            name
            for backend in self.backends
            for name in backend.models or (probes[backend.name].models if backend.name in probes else ())
        )

    async def probe_unhealthy(self, names: Collection[str], tier: PrivacyTier) -> bool:
        """Probe those of these backends that are unhealthy, for a request that would be refused for that.

        Returns whether any was probed: a state newer than `FRESH` is not probed again. Raises `AuditError`.
        """
        now = time.monotonic()
        backends = [
            backend
            for backend in self.backends
            if backend.name in names
            and self._is_unhealthy(backend, now)
            and now - self._probed_at.get(backend.name, -math.inf) >= FRESH
        ]
        if backends:
            await self._probe(backends, tier)
        return bool(backends)

    def retry_after(self, backends: Iterable[str], model: str) -> int:
        """Whole seconds, at least 1, until one of these backends is expected to take a request for a model.

        An unhealthy backend is probed within a second, and used when the probe succeeds.
        """
        now = time.monotonic()
        known = {backend.name: backend for backend in self.backends}
        return retry_after(
            [
                UNHEALTHY if self._is_unhealthy(known[name], now) else self.health.wait(name, now, model)
                for name in backends
            ]
        )

    def watch(self, tier: PrivacyTier) -> None:
        """Keep probing in the background."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(tier))

    async def _watch(self, tier: PrivacyTier) -> None:
        while True:
            await asyncio.sleep(UNHEALTHY)
            now = time.monotonic()
            busy = any(self.health.depth(backend.name, now) for backend in self.backends)
            try:
                self._start([b for b in self.backends if self._is_due(b, now, busy=busy)], tier, _TIMEOUT)
            except BaseException as error:  # probing goes on after any failure, a native panic included
                _log_failure(error)

    def _is_due(self, backend: Backend, now: float, *, busy: bool) -> bool:
        age = now - self._probed_at.get(backend.name, -math.inf)
        # Half a step of tolerance: the background task wakes in steps of `UNHEALTHY`.
        return self._is_unhealthy(backend, now) or age + UNHEALTHY / 2 >= (LOAD if busy else REFRESH)

    def _is_unhealthy(self, backend: Backend, now: float) -> bool:
        """Whether a backend is down and may come up by itself; a rejected key, for example, needs its user."""
        if not backend.profile.health:
            return False
        probe, cooling = self._probes.get(backend.name), self.health.cooling(backend.name, now)
        return (probe is not None and probe.may_recover) or (cooling is not None and not cooling.of_model)

    async def _probe(self, backends: Sequence[Backend], tier: PrivacyTier, timeout: float = _TIMEOUT) -> None:
        """Probe backends, or wait for their probes that are under way. Raises `AuditError`."""
        tasks = self._start(backends, tier, timeout)
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _start(self, backends: Sequence[Backend], tier: PrivacyTier, timeout: float) -> set[asyncio.Task[None]]:
        """The probes of these backends, started where none is under way: one task for all backends at an address."""
        tasks = {self._running[backend.name] for backend in backends if backend.name in self._running}
        places: dict[tuple[str, ...], list[Backend]] = {}
        for backend in backends:
            if backend.name not in self._running and backend.profile.health:
                places.setdefault(backend.base_urls, []).append(backend)
        for group in places.values():
            task = asyncio.get_running_loop().create_task(self._probe_place(group, tier, timeout))
            task.add_done_callback(_log_task)
            tasks.add(task)
            for backend in group:
                self._running[backend.name] = task
        return tasks

    async def _probe_place(self, backends: Sequence[Backend], tier: PrivacyTier, timeout: float) -> None:
        began = time.monotonic()
        try:
            for result in await probe_all(self.session(tier), backends, timeout=timeout):
                self._note(result, began)
        finally:
            ended = time.monotonic()
            for backend in backends:
                del self._running[backend.name]
                self._probed_at[backend.name] = ended

    def _note(self, result: ProbeResult, began: float) -> None:
        name, before = result.backend.name, self._probes.get(result.backend.name)
        if result.queue_depth is not None:
            self.health.report(name, result.queue_depth, time.monotonic())
        if result.healthy:
            self.health.recover(name, began, models=before is not None and not before.healthy)
        elif before is not None and result.identified_as in (None, result.backend.kind):
            known = ("models", "remote_models", "tells_remote", "context_length", "slots")
            result = replace(result, **{field: getattr(before, field) for field in known})
        # A queue depth expires, which `health` keeps track of and the result does not.
        self._probes[name] = replace(result, queue_depth=None)

    def snapshot(self, request: PlanRequest, budget: BudgetStatus | None, without: frozenset[str]) -> Snapshot:
        """The snapshot for a plan, without the backends named in `without`. Raises `ConfigError`."""
        now = time.monotonic()
        seen = Seen(
            day=dt.datetime.now(dt.UTC).date(),
            probes=self._probes,
            health=self.health,
            now=now,
            spilling=self.spilling,
            budget=budget,
        )
        found = self._observer.snapshot(request, seen)
        if not without:
            return found
        return replace(found, backends=tuple(state for state in found.backends if state.name not in without))


def _backends(config: Config) -> Sequence[Backend]:
    """The configured backends; without any, the local ones at their usual addresses, as in `serve route`."""
    if config.backends:
        return configured_backends(config)
    return usual_backends(config, PlanRequest(privacy=PrivacyTier.parse(config.privacy.tier)), local=True)


def _log_task(task: asyncio.Task[None]) -> None:
    """Log why a probe failed; an unwritable audit log is reported by the requests it refuses."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, BatutaError):
        _log_failure(error)


def _log_failure(error: BaseException) -> None:
    """Log a failure of probing. Raises it when it must end the process."""
    if not isinstance(error, Exception) and as_typed(error) is None:
        raise error
    logging.getLogger("batuta").warning("probing the backends failed: %s", type(error).__name__)
