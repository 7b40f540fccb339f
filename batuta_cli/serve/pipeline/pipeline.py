"""The path of a request: plan, reserve, send, fail over, settle. `serve chat` and the gateway both use it.

    async with Pipeline() as pipeline:
        response = await pipeline.start(request)
        async for piece in response:
            ...

`start` returns with the first piece, so that an earlier error can still become an HTTP status. A response that ends is
complete; an incomplete one raises.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from batuta_cli.config import Config
from batuta_cli.config import load as load_config
from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget.breaker import BudgetStatus, CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.pipeline.planner import Planner
from batuta_cli.serve.pipeline.request import ChatRequest, Completion
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.privacy.audit import AuditLog, AuditPolicy
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.providers.model_details import Details
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.routing.gates import Need, PlanRequest
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.routing.planning import Plan
from batuta_cli.serve.routing.substitution import ModelNames, may_fall_back
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount


@dataclass(frozen=True)
class Gauges:
    """The current values of metrics."""

    queue_depth: Mapping[str, int]
    """Requests at each backend, by its name."""
    budget: BudgetStatus


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be taken, and why not."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class ServedModel:
    """What is known of a model."""

    window: int | None
    """Tokens of prompt and output together, at the backend with the smallest window; None: not known."""
    carries: frozenset[Need]
    """What can be sent beside text, to one of its backends."""
    details: Details
    """What an Ollama server reports about it; empty without one."""


class Pipeline:
    """Sends the requests of one process. An asynchronous context manager; use it in one event loop.

    Raises `ConfigError` for an invalid configuration.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        breaker: CostCircuitBreaker | None = None,
        audit: AuditLog | None = None,
        failover: FailoverConfig | None = None,
        timeouts: Timeouts | None = None,
        backends: Sequence[Backend] | None = None,
        watch: bool = False,
    ) -> None:
        """`config`: the user's configuration by default. `watch`: probe the backends in the background."""
        self.config = config = load_config() if config is None else config
        self.names = ModelNames(config)
        self.tier = PrivacyTier.parse(config.privacy.tier)
        """The tier of probes in the background, and of requests that name none."""
        self.breaker = breaker or CostCircuitBreaker.from_config(config.budget, config.redis)
        self.failover = failover or FailoverConfig.configured(config.failover)
        self.timeouts = timeouts or config.timeouts
        self.audit = audit or AuditLog(policy=AuditPolicy.from_config(config.audit))
        self.monitor = BackendMonitor(config, self.audit, backends, self.failover)
        self.planner = Planner(config, self.monitor, self.breaker)
        self._watch = watch

    def reconfigured(self, config: Config) -> Self:
        """A pipeline for another configuration, not yet open, with the ledger, audit log and health of this one."""
        breaker = CostCircuitBreaker(CircuitBreakerConfig.from_config(config.budget), self.breaker.ledger)
        pipeline = type(self)(config, breaker=breaker, audit=self.audit, watch=self._watch)
        pipeline.monitor.health = self.monitor.health
        pipeline.monitor.health.limits = pipeline.failover
        return pipeline

    async def __aenter__(self) -> Self:
        if self._watch:
            await self.monitor.refresh(tier=self.tier)
            self.monitor.watch(self.tier)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.monitor.close()

    async def start(self, request: ChatRequest, opened: list[Response] | None = None) -> Response:
        """Send a request; returns with the first piece of its response.

        An alias is replaced by its model; where the model cannot be reached, its fallbacks are tried. `opened` gets
        each response that was begun, also one that failed: its `attempts` say what was charged. Raises
        `ModelNotAllowedError`, `PrivacyError`, `CostError`, `NoBackendError`, `ContextOverflowError`, `BackendError`,
        `AuditError`, `LedgerError`, and `UsageError` for a backend that is not configured.
        """
        resolved = await self._resolved(request)
        resolved.client.require(resolved.model)
        response = await self._answered(resolved, [] if opened is None else opened)
        response.alias = request.model if resolved.model != request.model else ""
        return response

    async def _answered(self, request: ChatRequest, opened: list[Response]) -> Response:
        """The response of the request's model, or of a fallback. Vectors of another model would mean something else."""
        try:
            return await self._open(request, opened)
        except BatutaError as error:
            if request.inputs or not may_fall_back(error):  # vectors of another model mean something else
                raise
            for model in filter(request.client.may_use, self.names.fallbacks(request.model)):
                with contextlib.suppress(BatutaError):  # the client gets the error of the model that it named
                    response = await self._open(replace(request, model=model), opened)
                    response.fallback = model
                    response.replaced = tuple(report for other in opened[:-1] for report in other.attempts)
                    return response
            raise

    async def _resolved(self, request: ChatRequest) -> ChatRequest:
        """The request with the model that its alias stands for."""
        if not self.names.is_alias(request.model):
            return request
        await self.monitor.probe_unlisted(request.privacy)
        return replace(request, model=self.names.resolve(request.model, self.monitor.models()))

    async def _open(self, request: ChatRequest, opened: list[Response]) -> Response:
        response = Response(request, self.planner, self.monitor, self.breaker, self.failover, self.timeouts)
        opened.append(response)
        try:
            await response.open()
        except BaseException:
            await response.aclose()
            raise
        return response

    def complete(self, request: ChatRequest) -> Completion:
        """Send a request and wait for the whole response; for programs without an event loop.

        Each call opens its own connections and closes them. Raises what `start` and the response raise, and
        `UsageError` when an event loop is running in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._complete(request))
        raise UsageError("complete() cannot be used inside an event loop", hint="await pipeline.start(request)")

    async def _complete(self, request: ChatRequest) -> Completion:
        async with self:
            response = await self.start(request)
            try:
                text = await response.text()
            finally:
                await response.aclose()
            assert response.summary is not None  # noqa: S101 - set at the end of the text
            return Completion(text, response.finish_reason, response.summary)

    async def explain(self, request: ChatRequest) -> Plan:
        """The plan of a request, which is not sent; of its alias's model, or of a fallback that would answer."""
        request = await self._resolved(request)
        planned = (await self.planner.targets(request, frozenset()))[0]
        if planned.backend is None and not request.inputs and may_fall_back(self.planner.error(request, planned)):
            for model in filter(request.client.may_use, self.names.fallbacks(request.model)):
                other = (await self.planner.targets(replace(request, model=model), frozenset()))[0]
                if other.backend is not None:
                    return other
        return planned

    async def count(self, request: ChatRequest) -> TokenCount:
        """The input tokens of a request, which is not sent. Raises as `start`."""
        request = await self._resolved(request)
        request.client.require(request.model)
        return await self.planner.count(request)

    def models(self, client: ClientAccount = ANY_CLIENT) -> list[str]:
        """The models that are configured for the backends, or that the backends list, and aliases of these.

        Only those that `client` may use.
        """
        known = self.monitor.models()
        return [name for name in self.names.listed(known) if client.may_use(self.names.resolve(name, known))]

    def model_facts(self, model: str) -> ServedModel:
        """What is known of a model, or of the model of an alias, at the backends that have it."""
        model = self.names.resolve(model, self.monitor.models()) if self.names.is_alias(model) else model
        request = PlanRequest(privacy=self.tier, model=model)
        states = self.monitor.snapshot(request, None, frozenset()).backends
        having = [state for state in states if state.models is None or model in state.models]
        windows = [state.window for state in having if state.window is not None]
        carries = frozenset[Need]().union(*(state.kind.profile.carried() - state.lacks for state in having))
        probes = self.monitor.probes
        told = [probes[s.name].details.get(model) for s in having if s.name in probes]
        return ServedModel(min(windows, default=None), carries, next(filter(None, told), {}))

    def ready(self) -> Readiness:
        """Whether some backend would take a request now."""
        now = time.monotonic()
        for backend in self.monitor.backends:
            probe = self.monitor.probes.get(backend.name)
            if probe is not None and not probe.healthy:
                continue
            models = backend.models or (probe.models if probe else ()) or ("",)
            if any(self.monitor.health.cooling(backend.name, now, model) is None for model in models):
                return Readiness(True)
        return Readiness(False, "no backend is healthy")

    async def check_storage(self) -> None:
        """Raise `LedgerError` or `AuditError` when the ledger or the audit log cannot be written."""

        def check() -> None:
            self.breaker.status()
            self.audit.check_writable()

        await asyncio.to_thread(check)

    async def gauges(self) -> Gauges:
        """The current values of metrics. Raises `LedgerError`."""
        now = time.monotonic()
        depths = {backend.name: self.monitor.health.depth(backend.name, now) for backend in self.monitor.backends}
        return Gauges(depths, await self.planner.budget())
