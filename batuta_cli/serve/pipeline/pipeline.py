"""The one path of a request: plan → reserve → run → fail over → settle. The command and the gateway both go it.

    async with Pipeline(config) as pipeline:
        answer = await pipeline.start(request)
        async for piece in answer:
            ...

`start` returns when the first piece is there, so that what goes wrong before can be told by a status. An answer that
ends is complete; one that is not raises.
"""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError, InvalidInputError, UsageError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget.breaker import BudgetStatus, CostCircuitBreaker
from batuta_cli.serve.messages import template_input_of
from batuta_cli.serve.models.pricing import FREE
from batuta_cli.serve.models.windows import LARGEST_RESERVE
from batuta_cli.serve.names import normalised, unknown_name
from batuta_cli.serve.pipeline.attempt import AttemptDependencies, Target
from batuta_cli.serve.pipeline.failover import FailoverConfig, FailoverManager
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.pipeline.response import Response
from batuta_cli.serve.pipeline.settlement import least_tokens
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import UNRESOLVED
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.routing.errors import refusal
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.routing.planning import BackendState, Need, Plan, PlanRequest, Snapshot, plan
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens import count_messages, tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import cache_writes


@dataclass(frozen=True)
class Gauges:
    """How things stand, for metrics."""

    queue_depth: Mapping[str, int]
    """Requests at each backend, as far as is known."""
    budget: BudgetStatus


T = TypeVar("T")

_NO_MODEL = "a model that is not named"
_FILES = (".gguf", ".json")
"""How names end that `tokenizer_for` takes for files, there or not."""


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
            tokenizer = tokenizer_for(self._counted_as(request.model))
            return TokenCount(tokenizer.count(text), tokenizer.exact, tokenizer.name)

        return AttemptDependencies(self.monitor.session, self.breaker, self.monitor.health, self._timeouts, count)

    async def targets(self, request: ChatRequest, without: frozenset[str]) -> tuple[Plan, Sequence[Target]]:
        """The plan as things stand now, and its backends in order."""
        asked = self._plan_request(request)
        await self.monitor.ask_who_sends_elsewhere(request.privacy)
        snapshot = self.monitor.snapshot(asked, None, without)
        made = plan(asked, snapshot)
        # Small requests to free backends, which are most of them, need neither a tokenizer nor the ledger.
        if made.backend is None or _state(snapshot, str(made.backend)).price is not FREE:
            asked = replace(asked, input_tokens=await _apart(lambda: self._input_tokens(request)))
            snapshot = self.monitor.snapshot(asked, await self._budget(), without)
            made = plan(asked, snapshot)
        if not without:
            self.monitor.spilling = snapshot.limits.spills(made.queue_depth, before=self.monitor.spilling)
        names = [made.backend, *made.fallbacks] if made.backend is not None else []
        return made, [self._target(str(name), snapshot, asked, request) for name in names]

    async def render(self, request: ChatRequest) -> str:
        """The prompt for raw completion, as the model was trained on it."""
        from batuta_cli.serve.templates.engine import ChatTemplateEngine

        own = self.config.models.get(request.model)
        name = own.template if own and own.template else self._named_alone(request.model)
        given = template_input_of(request.options).arguments()
        return ChatTemplateEngine.from_model(name).apply(request.messages, **given)

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
            input_tokens=_bound(request),
            max_output_tokens=request.max_tokens,
            writes=cache_writes(options),
            needs=frozenset(need for need, asked in needs.items() if asked),
        )

    def _input_tokens(self, request: ChatRequest) -> TokenCount:
        try:
            counted = count_messages(self._counted_as(request.model), request.messages)
        except (UsageError, InvalidInputError):  # its template cannot render this; the backend's own may
            return _bound(request)
        more = sum(overhead + len(text.encode()) for text, overhead in _described(request))
        if not more:
            return counted
        return TokenCount(counted.tokens + more, False, f"{counted.method}; tools and formats by their bytes")

    def _counted_as(self, model: str) -> str:
        """What tells the tokenizer of a model: its own file, as configured, or its name."""
        own = self.config.models.get(model)
        if own and own.tokenizer:
            return own.tokenizer
        return self._named_alone(model)

    @staticmethod
    def _named_alone(model: str) -> str:
        """The name of a model: a client's is never taken for a file of this machine."""
        return _NO_MODEL if model.endswith(_FILES) or os.path.lexists(os.path.expanduser(model)) else model

    def _named(self, name: str) -> str:
        for backend in self.monitor.backends:
            if normalised(backend.name) == normalised(name):
                return backend.name
        raise unknown_name("backend", name, [backend.name for backend in self.monitor.backends])

    def _target(self, name: str, snapshot: Snapshot, asked: PlanRequest, request: ChatRequest) -> Target:
        state = _state(snapshot, name)
        backend = next(backend for backend in self.monitor.backends if backend.name == name)
        probe = self.monitor.probes.get(name)
        base_url = probe.base_url if probe and probe.base_url else backend.base_urls[0]
        tokens = asked.input_tokens.tokens if asked.input_tokens else 0
        tier = asked.privacy
        if state.price is FREE and state.place == UNRESOLVED and tier is PrivacyTier.STANDARD:
            tier = PrivacyTier.PRIVATE  # it is free because it should be near, so it is not sent anywhere else
        least = 0 if state.price is None or state.price.is_free else _least(request, asked.input_tokens)
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


_TOOLS_PROMPT = 600
"""Tokens that a service adds to explain tools to its model; Claude 3 Opus has the most, 530
(https://docs.anthropic.com/en/docs/build-with-claude/tool-use/overview)."""

_BYTES = 4  # of a character, at most
_MESSAGE = 32  # tokens around a message, a call or a result, at most


def _bound(request: ChatRequest) -> TokenCount:
    """Tokens that a conversation cannot exceed: no tokenizer makes more than one of a byte."""
    size = sum(len(message.content) * _BYTES + _MESSAGE for message in request.messages)
    for message in request.messages:
        if message.name or message.tool_calls or message.tool_call_id:
            texts = [message.name or "", message.tool_call_id or ""]
            for call in message.tool_calls:
                texts += [call.id, call.name, call.arguments]
            size += sum(len(text) * _BYTES + _MESSAGE for text in texts)
    size += sum(overhead + len(text) * _BYTES for text, overhead in _described(request))
    return TokenCount(size, False, "one token a byte")


def _least(request: ChatRequest, counted: TokenCount | None) -> int:
    """Tokens that the prompt has at least: the count where it is exact, else what no tokenizer falls below."""
    if counted is not None and counted.exact:
        return counted.tokens
    return sum(max(1, least_tokens(message.content)) for message in request.messages)


def _described(request: ChatRequest) -> list[tuple[str, int]]:
    """What a service writes into the prompt beside the messages, and the tokens it adds to that."""
    kinds = (("tools", _TOOLS_PROMPT), ("response_format", 0))
    return [(str(found), overhead) for name, overhead in kinds if (found := request.options.get(name))]


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
