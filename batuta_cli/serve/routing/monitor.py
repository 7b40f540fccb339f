"""The state of the backends as probes show it: health, models, queue depth.

`refresh` probes all backends. A background task (`watch`) does so every `REFRESH` seconds, and every `LOAD` seconds
while requests are in flight, so that no queue depth in use is older than it may be.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError
from batuta_cli.faults import as_typed
from batuta_cli.serve.backends import Backend, configured_backends
from batuta_cli.serve.budget.breaker import BudgetStatus
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.probe import ProbeResult, probe_all
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.routing.health import BackendHealth
from batuta_cli.serve.routing.planning import PlanRequest, Snapshot
from batuta_cli.serve.routing.snapshot import Observer, Seen, usual_backends
from batuta_cli.serve.tiers import PrivacyTier

REFRESH = 15.0
"""Seconds between two probes of every backend."""

LOAD = 2.0
"""Seconds between two readings of queue depths while requests are in flight; a reading counts for 5 s."""


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
        self._probes: dict[str, ProbeResult] = {}
        self._sessions: dict[PrivacyTier, GatedSession] = {}
        self._task: asyncio.Task[None] | None = None
        self._probed_at = time.monotonic()
        """When all backends were last probed, in monotonic seconds."""

    async def close(self) -> None:
        """Stop probing and close all connections."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
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

    async def refresh(self, *, tier: PrivacyTier, timeout: float = 2.0) -> None:
        """Probe every backend that `tier` admits. Raises `AuditError`."""
        self._probed_at = time.monotonic()
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
            await self._probe(unknown, tier, 2.0)

    async def _probe(self, backends: Sequence[Backend], tier: PrivacyTier, timeout: float) -> None:
        results = await probe_all(self.session(tier), backends, timeout=timeout)
        now = time.monotonic()
        for result in results:
            name = result.backend.name
            if result.queue_depth is not None:
                self.health.report(name, result.queue_depth, now)
            # A queue depth expires, which `health` keeps track of and the result does not.
            self._probes[name] = replace(result, queue_depth=None)

    def retry_after(self, backends: Iterable[str], model: str) -> int:
        """Whole seconds, at least 1, until one of these backends is expected to take a request for a model.

        An unhealthy backend is not used before the next probe.
        """
        now = time.monotonic()
        asked_again = math.ceil(max(1.0, self._probed_at + REFRESH - now))
        waits = []
        for name in backends:
            probe, wait = self._probes.get(name), self.health.retry_after([name], now, model)
            waits.append(wait if probe is None or probe.healthy else max(wait, asked_again))
        return min(waits)

    def watch(self, tier: PrivacyTier) -> None:
        """Keep probing in the background."""
        self._task = asyncio.get_running_loop().create_task(self._watch(tier))

    async def _watch(self, tier: PrivacyTier) -> None:
        while True:
            await asyncio.sleep(LOAD)
            busy = any(self.health.depth(b.name, time.monotonic()) for b in self.backends)
            if not busy and time.monotonic() - self._probed_at < REFRESH:
                continue
            try:
                await self.refresh(tier=tier)
            except BatutaError:  # an unwritable audit log is reported by the requests it refuses
                continue
            except BaseException as error:  # probing goes on after any failure, a native panic included
                if not isinstance(error, Exception) and as_typed(error) is None:
                    raise
                logging.getLogger("batuta").warning("probing the backends failed: %s", type(error).__name__)

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
