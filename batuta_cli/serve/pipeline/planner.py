"""Plans a request: counts its tokens, takes a snapshot of the backends, and gives the targets in order.

A request to a free backend needs neither a tokenizer nor the ledger: a bound of its tokens is enough. Otherwise tokens
are counted and the budget is read, both in a thread.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError, PrivacyError
from batuta_cli.files import display
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget.breaker import BudgetStatus, CostCircuitBreaker
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.messages import template_input_of
from batuta_cli.serve.models.pricing import FREE, TokenPricing
from batuta_cli.serve.models.windows import LARGEST_RESERVE
from batuta_cli.serve.names import normalised, unknown_name
from batuta_cli.serve.pipeline import content, input_count
from batuta_cli.serve.pipeline.needs import needs_of
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.privacy.gate import Basis
from batuta_cli.serve.providers.server_count import ServerCount
from batuta_cli.serve.routing.errors import routing_error
from batuta_cli.serve.routing.gates import (
    BackendState,
    GateName,
    PlanRequest,
    Snapshot,
    hands_out,
    most_input,
    price_of,
)
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.routing.planning import Plan, plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import CacheWrites

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A backend that may take a request, with everything needed to send it there."""

    backend: Backend
    base_url: str
    pricing: TokenPricing
    input_tokens: int
    """An upper bound of the prompt's tokens."""
    writes: CacheWrites = CacheWrites.NONE
    call_cost: int = 0
    """Nano-dollars for the uses of hosted tools, at most."""
    least_input_tokens: int = 0
    """A lower bound of the prompt's tokens; the count itself where it is exact."""
    max_tokens: int | None
    """The output limit in the upstream request; None: no limit is sent."""
    usual_max_tokens: int
    """The output limit to send where the wire format cannot do without one."""
    address_tier: PrivacyTier
    """The strictest tier that admits the backend's address."""
    connection_tier: PrivacyTier
    """The tier of the connection: the request's, or a stricter one."""


class Planner:
    """Plans requests with the state of the backends and of the budget."""

    def __init__(self, config: Config, monitor: BackendMonitor, breaker: CostCircuitBreaker) -> None:
        self._config = config
        self._monitor = monitor
        self._breaker = breaker
        self._server_counts = input_count.ServerCounts()

    async def targets(self, request: ChatRequest, without: frozenset[str]) -> tuple[Plan, Sequence[Target]]:
        """The plan as of now and its targets in order, without the backends named in `without`.

        Raises `UsageError` for a backend that is not configured, `AuditError`, `LedgerError`.
        """
        await self._monitor.probe_unknown(request.privacy)
        planned, targets = await self._plan(request, without)
        if planned.unhealthy and await self._monitor.probe_unhealthy(planned.unhealthy, request.privacy):
            planned, targets = await self._plan(request, without)
        return planned, targets

    async def _plan(self, request: ChatRequest, without: frozenset[str]) -> tuple[Plan, Sequence[Target]]:
        plan_request = self._plan_request(request)
        snapshot = self._monitor.snapshot(plan_request, None, without)
        planned = plan(plan_request, snapshot)
        chosen = planned.routing.backend
        if chosen is None or planned.warnings or _state(snapshot, chosen).price is not FREE:
            counted, longest = await _in_thread(lambda: self._counts(request))
            plan_request = replace(plan_request, input_tokens=counted, longest_input=longest)
            snapshot = self._monitor.snapshot(plan_request, await self.budget(request.client), without)
            planned = plan(plan_request, snapshot)
            if planned.warnings:  # only an estimate exceeds the window
                snapshot = await self._counted_by_servers(request, planned, snapshot)
                planned = plan(plan_request, snapshot)
        if not without:
            for warning in planned.warnings:
                logging.getLogger("batuta").warning("%s", warning)
            self._monitor.spilling = snapshot.limits.spills(planned.routing.queue_depth, before=self._monitor.spilling)
        chosen = planned.routing.backend
        names = [] if chosen is None else [chosen, *planned.fallbacks]
        return planned, [self._target(name, snapshot, plan_request, request) for name in names]

    async def count(self, request: ChatRequest) -> TokenCount:
        """The input tokens of a request that is not sent: by the server that would get it, else counted here.

        Raises as `targets`, and the error of a request that no backend may take, unless its cost or its health or queue
        is the reason.
        """
        planned, targets = await self.targets(request, frozenset())
        if not targets and not any(c.passes(GateName.TIER, GateName.CAPABILITY) for c in planned.candidates):
            raise self.error(request, planned)
        for target in targets:
            session = self._monitor.session(target.connection_tier)
            found = await input_count.counted_by(session, target.backend, target.base_url, request)
            if found is not None:
                return found
        return await _in_thread(lambda: input_count.count(request, self._config.models))

    def error(self, request: ChatRequest, planned: Plan) -> BatutaError:
        """The error for a request that no backend in the plan may take."""
        if detail := hands_out(self._plan_request(request)):
            return PrivacyError(detail, hint="leave it out, or use the tier standard", result=planned.to_json())
        wait = self.retry_after(request, planned.suitable)
        return routing_error(
            planned,
            retry_after=wait,
            max_request_cost=self._breaker.config.max_request_cost,
            known_models=[name for name in self._monitor.models() if request.client.may_use(name)],
        )

    def retry_after(self, request: ChatRequest, backends: Collection[str]) -> int | None:
        """Whole seconds until one of these backends is expected to take the request; None without backends."""
        return self._monitor.retry_after(backends, request.model) if backends else None

    async def budget(self, client: ClientAccount = ANY_CLIENT) -> BudgetStatus:
        """The state of the budget, and of that of `client`. Raises `LedgerError`."""
        return await _in_thread(lambda: self._breaker.status(client))

    def counter(self, model: str) -> Callable[[str], TokenCount]:
        """A function that counts the tokens of a text for a model; an upper estimate where its tokenizer is unknown."""

        def count(text: str) -> TokenCount:
            tokenizer = tokenizer_for(input_count.tokenizer_name(model, self._config.models))
            return TokenCount(tokenizer.count(text), tokenizer.exact, tokenizer.name)

        return count

    async def render(self, request: ChatRequest) -> str:
        """The prompt for raw completion. Logs what the template does not read.

        Raises `UsageError` for a model whose format is not known, and the errors of `ChatTemplateEngine.apply`.
        """
        from batuta_cli.serve.templates.engine import ChatTemplateEngine

        own = self._config.models.get(request.model)

        def work() -> str:
            if own and own.template:
                engine = ChatTemplateEngine(own.template)
            else:
                engine = ChatTemplateEngine.from_model(input_count.model_name(request.model))
            given = template_input_of(request.options).arguments()
            prompt = engine.apply(request.messages, **given)
            for line in engine.unread(request.messages, prompt=prompt, **given):
                logging.getLogger("batuta").warning("raw completion of %s: %s", display(request.model), line)
            return prompt

        return await _in_thread(work)

    def _plan_request(self, request: ChatRequest) -> PlanRequest:
        counted, longest = input_count.bound_inputs(request) if request.inputs else (input_count.bound(request), None)
        return PlanRequest(
            privacy=request.privacy,
            model=request.model,
            backend=self._backend_name(request.backend) if request.backend else "",
            latency=request.latency,
            input_tokens=counted,
            longest_input=longest,
            max_output_tokens=0 if request.inputs else request.max_tokens,
            writes=content.cache_writes_of(request),
            needs=needs_of(request),
            demands=content.demands_of(request),
        )

    async def _counted_by_servers(self, request: ChatRequest, planned: Plan, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the counts of the servers whose window an estimate exceeds."""
        names = {c.backend for c in planned.candidates if c.passed and any(gate.uncertain for gate in c.gates)}
        backends = [backend for backend in self._monitor.backends if backend.name in names]
        counts = await asyncio.gather(*(self._server_count(request, backend, snapshot) for backend in backends))
        found = dict(zip((backend.name for backend in backends), counts, strict=True))
        states = tuple(input_count.with_count(state, found.get(state.name)) for state in snapshot.backends)
        return replace(snapshot, backends=states)

    def _counts(self, request: ChatRequest) -> tuple[TokenCount, TokenCount | None]:
        models = self._config.models
        return (
            input_count.count_inputs(request, models) if request.inputs else (input_count.count(request, models), None)
        )

    def _least(self, request: ChatRequest, plan_request: PlanRequest) -> int:
        return input_count.least(request, plan_request.input_tokens, self._config.models)

    async def _server_count(self, request: ChatRequest, backend: Backend, snapshot: Snapshot) -> ServerCount | None:
        session = self._monitor.session(_connection_tier(_state(snapshot, backend.name), request.privacy))
        return await self._server_counts.of(session, backend, self._base_url(backend), request)

    def _base_url(self, backend: Backend) -> str:
        probe = self._monitor.probes.get(backend.name)
        return probe.base_url if probe and probe.base_url else backend.base_urls[0]

    def _backend_name(self, name: str) -> str:
        for backend in self._monitor.backends:
            if normalised(backend.name) == normalised(name):
                return backend.name
        raise unknown_name("backend", name, [backend.name for backend in self._monitor.backends])

    def _target(self, name: str, snapshot: Snapshot, plan_request: PlanRequest, request: ChatRequest) -> Target:
        state = _state(snapshot, name)
        backend = next(backend for backend in self._monitor.backends if backend.name == name)
        is_paid = state.price is not None and not state.price.is_free
        usual = state.reserve or LARGEST_RESERVE
        needs_limit = bool(request.messages) and (is_paid or backend.profile.wire.needs_limit)
        return Target(
            backend=backend,
            base_url=self._base_url(backend),
            pricing=price_of(plan_request, state.price or FREE),
            writes=plan_request.writes,
            call_cost=plan_request.demands.call_cost,
            input_tokens=most_input(plan_request, state) or 0,
            least_input_tokens=self._least(request, plan_request) if is_paid else 0,
            max_tokens=request.max_tokens or (usual if needs_limit else None),
            usual_max_tokens=request.max_tokens or usual,
            address_tier=state.tier,
            connection_tier=_connection_tier(state, plan_request.privacy),
        )


def _connection_tier(state: BackendState, privacy: PrivacyTier) -> PrivacyTier:
    """The tier of a connection for a request of the tier `privacy`.

    Price 0 because the host is expected to be local: connect under PRIVATE, so that the gate refuses a public address.
    """
    is_expected_local = state.price is FREE and state.basis is Basis.UNRESOLVED_NAME
    return PrivacyTier.PRIVATE if is_expected_local and privacy is PrivacyTier.STANDARD else privacy


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _state(snapshot: Snapshot, name: str) -> BackendState:
    return next(state for state in snapshot.backends if state.name == name)
