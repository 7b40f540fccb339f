"""The one path of a request: plan → reserve → run → fail over → settle. The command and the gateway both go it.

    async with Pipeline(config) as pipeline:
        answer = await pipeline.start(request)
        async for piece in answer:
            ...

`start` returns when the first piece is there, so that what goes wrong before can be told by a status. An answer that
ends is complete; one that is not raises.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget.breaker import BudgetStatus, CostCircuitBreaker
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.models.pricing import FREE
from batuta_cli.serve.models.windows import LARGEST_RESERVE
from batuta_cli.serve.names import normalised, unknown_name
from batuta_cli.serve.pipeline import input_count
from batuta_cli.serve.pipeline.attempt import AttemptDependencies, Target
from batuta_cli.serve.pipeline.failover import FailoverConfig, FailoverManager
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import UNRESOLVED
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.routing.errors import refusal
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.routing.planning import BackendState, Need, Plan, PlanRequest, Snapshot, plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import cache_writes


@dataclass(frozen=True)
class Gauges:
    """How things stand, for metrics."""

    queue_depth: Mapping[str, int]
    """Requests at each backend, as far as is known."""
    budget: BudgetStatus


T = TypeVar("T")


@dataclass(frozen=True)
class Readiness:
    """Whether requests can be taken, and why not."""

    ok: bool
    reason: str = ""


class Pipeline:
    """Requests from one process. An asynchronous context manager; use it in one event loop.

    Raises `ConfigError` for a configuration that contradicts itself.
    """

    def __init__(
        self,
        config: Config,
        *,
        breaker: CostCircuitBreaker | None = None,
        audit: AuditLog | None = None,
        failover: FailoverConfig | None = None,
        timeouts: Timeouts | None = None,
        backends: Sequence[Backend] | None = None,
        watch: bool = False,
    ) -> None:
        """`watch`: look at the backends when it is opened, and again and again while it is open."""
        self.config = config
        self.tier = PrivacyTier.parse(config.privacy.tier)
        """Of requests that do not say."""
        self.breaker = breaker or CostCircuitBreaker.from_config(config.budget)
        self.manager = FailoverManager(failover or FailoverConfig())
        self.monitor = BackendMonitor(config, audit or AuditLog(), backends)
        self._timeouts = timeouts or Timeouts()
        self._server_counts = input_count.ServerCounts()
        self._watch = watch

    async def __aenter__(self) -> Self:
        if self._watch:
            await self.monitor.refresh(tier=self.tier)
            self.monitor.watch(self.tier)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.monitor.close()

    async def start(self, request: ChatRequest) -> Response:
        """Send a request; returns with the first piece of its answer.

        Raises `PrivacyError`, `CostError`, `NoBackendError`, `ContextOverflowError`, `BackendError`, `AuditError`,
        `LedgerError`, and `UsageError` for a backend that is not configured.
        """
        response = Response(self, request)
        try:
            await response.open()
        except BaseException:
            await response.aclose()
            raise
        return response

    async def explain(self, request: ChatRequest) -> Plan:
        """The plan of a request, which is not sent."""
        return (await self.targets(request, frozenset()))[0]

    def models(self) -> list[str]:
        """The models that the backends are configured with, or said they have."""
        probes = self.monitor.probes
        names = [
            name
            for backend in self.monitor.backends
            for name in backend.models or (probes[backend.name].models if backend.name in probes else ())
        ]
        return sorted(set(names))

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
        return Readiness(False, "no backend answers")

    async def gauges(self) -> Gauges:
        """How things stand. Raises `LedgerError`."""
        now = time.monotonic()
        depths = {backend.name: self.monitor.health.depth(backend.name, now) for backend in self.monitor.backends}
        return Gauges(depths, await self._budget())

    # What answers ask for; see `answer.Source`.

    def dependencies(self, request: ChatRequest) -> AttemptDependencies:
        """What the legs of a request work with."""

        def count(text: str) -> TokenCount:
            tokenizer = tokenizer_for(input_count.tokenizer_name(request.model, self.config.models))
            return TokenCount(tokenizer.count(text), tokenizer.exact, tokenizer.name)

        return AttemptDependencies(self.monitor.session, self.breaker, self.monitor.health, self._timeouts, count)

    async def targets(self, request: ChatRequest, without: frozenset[str]) -> tuple[Plan, Sequence[Target]]:
        """The plan as things stand now, and its backends in order."""
        asked = self._plan_request(request)
        await self.monitor.ask_who_sends_elsewhere(request.privacy)
        snapshot = self.monitor.snapshot(asked, None, without)
        made = plan(asked, snapshot)
        # Small requests to free backends, which are most of them, need neither a tokenizer nor the ledger.
        if made.backend is None or made.warnings or _state(snapshot, str(made.backend)).price is not FREE:
            asked = replace(asked, input_tokens=await _apart(lambda: input_count.count(request, self.config.models)))
            snapshot = self.monitor.snapshot(asked, await self._budget(), without)
            made = plan(asked, snapshot)
            if made.warnings:  # only an estimate exceeds the window: a server that can count decides
                snapshot = await self._counted_by_servers(request, made, snapshot)
                made = plan(asked, snapshot)
        if not without:
            for warning in made.warnings:
                logging.getLogger("batuta").warning("%s", warning)
            self.monitor.spilling = snapshot.limits.spills(made.queue_depth, before=self.monitor.spilling)
        names = [made.backend, *made.fallbacks] if made.backend is not None else []
        return made, [self._target(str(name), snapshot, asked, request) for name in names]

    async def render(self, model: str, messages: Sequence[ChatMessage]) -> str:
        """The prompt for raw completion, as the model was trained on it."""
        from batuta_cli.serve.templates.engine import ChatTemplateEngine

        own = self.config.models.get(model)
        engine = ChatTemplateEngine.from_model(own.template if own and own.template else input_count.model_name(model))
        return engine.apply(messages)

    async def budget_left(self) -> int | None:
        """Nano-dollars that are left of the day."""
        return (await self._budget()).remaining

    def retry_after(self, request: ChatRequest, backends: Collection[str]) -> int | None:
        """Whole seconds until one of these backends can be tried with the request; None when there are none."""
        return self.monitor.retry_after(backends, request.model) if backends else None

    def refusal(self, request: ChatRequest, made: Plan) -> BatutaError:
        """Why no backend takes a request."""
        wait = self.retry_after(request, made.suitable)
        return refusal(made, retry_after=wait, max_request_cost=self.breaker.config.max_request_cost)

    async def _budget(self) -> BudgetStatus:
        return await _apart(self.breaker.status)

    def _plan_request(self, request: ChatRequest) -> PlanRequest:
        options = request.options
        kind = options.get("response_format")
        needs = {
            Need.STREAMING: request.stream,
            Need.TOOLS: bool(options.get("tools")),
            Need.JSON: isinstance(kind, dict) and kind.get("type") not in (None, "text"),
            Need.CHOICES: (options.get("n") or 1) != 1,
        }
        return PlanRequest(
            request.privacy,
            request.model,
            self._named(request.backend) if request.backend else "",
            request.latency,
            input_tokens=input_count.bound(request),
            max_output_tokens=request.max_tokens,
            writes=cache_writes(options),
            needs=frozenset(need for need, asked in needs.items() if asked),
        )

    async def _counted_by_servers(self, request: ChatRequest, made: Plan, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the counts of those servers whose window the estimate exceeds."""
        names = [c.backend for c in made.candidates if c.passed and any(gate.uncertain for gate in c.gates)]
        backends = [backend for backend in self.monitor.backends if backend.name in names]
        session = self.monitor.session(request.privacy)
        counts = await asyncio.gather(
            *(self._server_counts.of(session, backend, self._base_url(backend), request) for backend in backends)
        )
        found = {backend.name: count for backend, count in zip(backends, counts, strict=True) if count is not None}
        return replace(
            snapshot,
            backends=tuple(input_count.with_count(state, found.get(state.name)) for state in snapshot.backends),
        )

    def _base_url(self, backend: Backend) -> str:
        probe = self.monitor.probes.get(backend.name)
        return probe.base_url if probe and probe.base_url else backend.base_urls[0]

    def _named(self, name: str) -> str:
        for backend in self.monitor.backends:
            if normalised(backend.name) == normalised(name):
                return backend.name
        raise unknown_name("backend", name, [backend.name for backend in self.monitor.backends])

    def _target(self, name: str, snapshot: Snapshot, asked: PlanRequest, request: ChatRequest) -> Target:
        state = _state(snapshot, name)
        backend = next(backend for backend in self.monitor.backends if backend.name == name)
        base_url = self._base_url(backend)
        tokens = asked.input_tokens.tokens if asked.input_tokens else 0
        tier = asked.privacy
        if state.price is FREE and state.place == UNRESOLVED and tier is PrivacyTier.STANDARD:
            tier = PrivacyTier.PRIVATE  # it is free because it should be near, so it is not sent anywhere else
        least = 0 if state.price is None or state.price.is_free else input_count.least(request, asked.input_tokens)
        return Target(
            backend=backend,
            base_url=base_url,
            pricing=state.price or FREE,
            input_tokens=tokens,
            least_input_tokens=least,
            max_tokens=_max_tokens(asked, state),
            address_tier=state.tier,
            connection_tier=tier,
        )


async def _apart(work: Callable[[], T]) -> T:
    """Do in a thread what may take its time; others are served meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _state(snapshot: Snapshot, name: str) -> BackendState:
    return next(state for state in snapshot.backends if state.name == name)


def _max_tokens(asked: PlanRequest, state: BackendState) -> int:
    """The limit that is written into the upstream request, so that its price is bounded."""
    if asked.max_output_tokens is not None:
        return asked.max_output_tokens
    return state.reserve or LARGEST_RESERVE
