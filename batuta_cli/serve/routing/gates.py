"""The gates of a plan: each one admits or refuses one backend for a request.

Every backend passes the same gates in the same order: tier, capability, context, budget, cooldown, queue. Each gate
keeps the number that decided. Unknown facts pass and are marked "not known". An unknown price is refused.

The gates are pure functions of the types here: the request, the state of a backend, and the snapshot of all backends.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import Need as Need
from batuta_cli.serve.money import format_usd
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.privacy.gate import Basis
from batuta_cli.serve.routing.demands import NO_DEMANDS, Demands
from batuta_cli.serve.routing.router import Limits
from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier
from batuta_cli.serve.usage import CacheWrites

if TYPE_CHECKING:
    from batuta_cli.serve.models.pricing import TokenPricing
    from batuta_cli.serve.tokens.tokenizer import TokenCount


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What the plan needs to know of a request."""

    privacy: PrivacyTier
    model: str = ""
    """Empty: any model."""
    backend: str = ""
    """The name of the only backend that may take it; empty: any backend."""
    latency: LatencyTier = LatencyTier.INTERACTIVE
    throughput: ThroughputTier = ThroughputTier.MEDIUM
    cost: CostTier = CostTier.BALANCED
    input_tokens: "TokenCount | None" = None
    longest_input: "TokenCount | None" = None
    """Of several separate inputs, each of which must fit the window; None: `input_tokens` is one prompt."""
    max_output_tokens: int | None = None
    needs: frozenset[Need] = frozenset()
    allow_unpriced: bool = False
    writes: CacheWrites = CacheWrites.NONE
    """The cache writes that the request asks for."""
    demands: Demands = NO_DEMANDS


@dataclass(frozen=True, kw_only=True)
class BackendState:
    """A backend at one moment."""

    name: str
    kind: ServingBackend
    tier: PrivacyTier
    """The strictest tier that admits its address."""
    place: str = ""
    """Why it has that tier."""
    basis: Basis = Basis.ADDRESS
    """Whether that tier depends on an address that is not known yet."""
    models: tuple[str, ...] | None = None
    """None: not known, so it may have any model."""
    remote_models: frozenset[str] = frozenset()
    """The models whose requests its server forwards to another server."""
    tells_remote: bool = True
    """False when a server of this kind may forward requests and does not list for which models."""
    window: int | None = None
    """Tokens of prompt and output together, of the request's model; None: not known."""
    reserve: int | None = None
    """Output tokens that are assumed when the request has no output limit."""
    price: "TokenPricing | None" = None
    """The price of the request's model; None: not known."""
    depth: int | None = None
    """Requests running and waiting; None: not known."""
    cooldown: float | None = None
    """Seconds until the backend, or the request's model there, may be tried after a failure; None: no cooldown."""
    trouble: str = ""
    """Why it cannot take requests now; empty: it can."""
    cools_model: bool = False
    """Only the request's model cools down there; other models of the backend may be used."""
    slots: int | None = None
    """Requests it can run at once; None: not known."""
    lacks: frozenset[Need] = frozenset()
    """Content beside text that its server says its model does not take."""
    counted: "TokenCount | None" = None
    """The server's own count of the request's prompt; None: it was not asked."""

    @property
    def is_free(self) -> bool:
        """Whether the request costs nothing there."""
        return self.price is not None and self.price.is_free

    @property
    def load(self) -> float:
        """Requests for each slot of a local backend; equal local backends are used in this order."""
        return (self.depth or 0) / (self.slots or 1) if self.kind.is_local else 0.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything a plan depends on beside the request. Amounts are in nano-dollars."""

    backends: tuple[BackendState, ...]
    limits: Limits = field(default_factory=Limits)
    spilling: bool = False
    """Whether the previous request was above the spillover threshold."""
    queue_depth: int | None = None
    """A given queue depth of the local backend, or of the backend that the request names; None: none was given."""
    local_backend: str = ""
    """Empty: the first local one that can take the request."""
    spillover_backends: tuple[str, ...] = ()
    """Empty: in the order that the selector recommends, then the others."""
    budget_remaining: int | None = None
    """The unspent part of the day's budget; None: not known."""
    budget_owner: str = "the day"
    """Whose budget it is: the day's, or that of the client key when less is left of it."""
    max_request_cost: int | None = None
    allow_unbounded_tools: bool = False
    refuse_unknown_fields: bool = False


class GateName(NameEnum):
    """The gates, in their order."""

    TIER = "tier"
    CAPABILITY = "capability"
    CONTEXT = "context"
    BUDGET = "budget"
    COOLDOWN = "cooldown"
    QUEUE = "queue"


class GateResult(NamedTuple):
    """The result of one gate for one backend."""

    name: GateName
    passed: bool
    detail: str
    number: int | float | None = None
    """CONTEXT: tokens needed. BUDGET: upper bound in nano-dollars. COOLDOWN: seconds left. QUEUE: requests. None: not
    known."""
    lacks: bool = False
    """CAPABILITY: it has the model, but not what the request needs beside text."""
    hint: str = ""
    """BUDGET: what to do, when the cost has no bound."""
    uncertain: bool = False
    """Passed although an estimate exceeds the limit. The true number may be within it."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; money as a decimal string of dollars."""
        number: int | float | str | None = self.number
        if self.name is GateName.BUDGET and isinstance(number, int):
            number = format_usd(number)
        return {
            "gate": str(self.name),
            "passed": self.passed,
            "detail": self.detail,
            "number": number,
            "uncertain": self.uncertain,
        }


@dataclass(frozen=True)
class Candidate:
    """A backend with the results of all gates."""

    backend: str
    kind: ServingBackend
    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate let it through."""
        return self.refused_by is None

    @property
    def refused_by(self) -> GateResult | None:
        """The first gate that refused it."""
        for gate in self.gates:
            if not gate.passed:
                return gate
        return None

    def passes(self, *names: GateName) -> bool:
        """Whether these gates let it through."""
        return not [gate for gate in self.gates if not gate.passed and gate.name in names]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "backend": self.backend,
            "kind": str(self.kind),
            "passed": self.passed,
            "gates": [gate.to_json() for gate in self.gates],
        }


def judged(request: PlanRequest, state: BackendState, snapshot: Snapshot) -> Candidate:
    """A backend with the results of all gates, in their order."""
    gates = (
        _tier(request, state),
        _capability(request, state),
        _context(request, state),
        _budget(request, state, snapshot),
        _cooldown(request, state),
        _queue(state, snapshot.limits),
    )
    return Candidate(state.name, state.kind, gates)


def _tier(request: PlanRequest, state: BackendState) -> GateResult:
    tier, place = state.tier, state.place
    if request.model in state.remote_models:
        tier, place = PrivacyTier.STANDARD, "its server forwards this model's requests to another server"
    elif not state.tells_remote:
        tier, place = PrivacyTier.STANDARD, "its server does not list the models whose requests it forwards"
    if detail := hands_out(request):
        return GateResult(GateName.TIER, False, detail)
    if request.demands.fetches and (state.kind.is_local or tier is not PrivacyTier.STANDARD):
        detail = "the content has a URL, which it would fetch from inside; [gateway] media_hosts names allowed hosts"
        return GateResult(GateName.TIER, False, detail)
    passed = request.privacy.admits(tier)
    detail = f"{tier}" if passed else f"{request.privacy} does not admit {tier}"
    return GateResult(GateName.TIER, passed, detail + (f": {place}" if place else ""))


def hands_out(request: PlanRequest) -> str:
    """Why the request's own tier refuses it at every backend; empty when it does not."""
    outside = request.demands.outside
    if not outside or request.privacy is PrivacyTier.STANDARD:
        return ""
    return f"{request.privacy} does not admit what hands data to a service's own tools or storage: {', '.join(outside)}"


def _capability(request: PlanRequest, state: BackendState) -> GateResult:
    # Ollama lists `llama3:latest` and takes `llama3`.
    if request.model and state.models is not None and not {request.model, f"{request.model}:latest"} & {*state.models}:
        return GateResult(GateName.CAPABILITY, False, f"it does not have {request.model}")
    if lacking := _lacking(request, state):
        return GateResult(GateName.CAPABILITY, False, f"its API has no {' or '.join(lacking)}", lacks=True)
    if not request.model:
        return GateResult(GateName.CAPABILITY, True, "no model was named")
    if state.models is None:
        return GateResult(GateName.CAPABILITY, True, "its models are not known")
    return GateResult(GateName.CAPABILITY, True, f"it has {request.model}")


def _lacking(request: PlanRequest, state: BackendState) -> list[str]:
    """What the request needs and the backend's API does not have."""
    profile, demands = state.kind.profile, request.demands
    native = profile.takes(demands.api)
    if demands.native_only and not native:
        return list(demands.native_only)
    if not request.needs:
        return []
    carried = profile.carried(native=native) - state.lacks
    return [need for need in Need if need in request.needs - carried]


def _context(request: PlanRequest, state: BackendState) -> GateResult:
    count = state.counted or request.longest_input or request.input_tokens
    if count is None:
        return GateResult(GateName.CONTEXT, True, "the prompt's tokens are not known")
    output = _output_limit(request, state) or 0
    needed = count.tokens + output
    if state.window is None:
        return GateResult(GateName.CONTEXT, True, f"{needed:,} tokens, the window is not known", needed)
    detail = f"{needed:,} tokens in a window of {state.window:,}"
    if needed > state.window >= output and not count.exact:
        # An estimate is an upper bound. The backend counts exactly, and refuses a prompt that is too long.
        return GateResult(GateName.CONTEXT, True, f"at most {detail}; the backend decides", needed, uncertain=True)
    return GateResult(GateName.CONTEXT, needed <= state.window, detail, needed)


def _output_limit(request: PlanRequest, state: BackendState) -> int | None:
    return state.reserve if request.max_output_tokens is None else request.max_output_tokens


def _budget(request: PlanRequest, state: BackendState, snapshot: Snapshot) -> GateResult:
    def gate(passed: bool, detail: str, cost: int | None = None) -> GateResult:
        return GateResult(GateName.BUDGET, passed, detail, cost)

    if state.price is not None and state.price.is_free:
        return gate(True, "free", 0)
    if not request.model:
        return gate(True, "no model was named")
    if state.price is None:
        return gate(request.allow_unpriced, f"the price of {request.model} is not known")
    if open_end := _unbounded(request, state, snapshot):
        return GateResult(GateName.BUDGET, False, open_end[0], hint=open_end[1])
    output, input = _output_limit(request, state), most_input(request, state)
    if input is None or output is None:
        return gate(True, "the number of tokens is not known")
    cost = price_of(request, state.price).cost(input, output, writes=request.writes) + request.demands.call_cost
    most, left = snapshot.max_request_cost, snapshot.budget_remaining
    if most is not None and cost > most:
        return gate(False, f"${format_usd(cost)}, above the limit of ${format_usd(most)} a request", cost)
    if left is None:
        return gate(True, f"${format_usd(cost)} at most", cost)
    return gate(cost <= left, f"${format_usd(cost)} of ${format_usd(left)} left of {snapshot.budget_owner}", cost)


def most_input(request: PlanRequest, state: BackendState) -> int | None:
    """An upper bound of the prompt's tokens at a backend; None when the text was not counted."""
    demands = request.demands
    if request.input_tokens is None:
        return None
    tokens = request.input_tokens.tokens + demands.images * state.kind.profile.image_tokens
    return max(tokens, demands.windows * (state.window or 0))


def price_of(request: PlanRequest, price: "TokenPricing") -> "TokenPricing":
    """The price of the service tier that the request asks for."""
    return price.times(request.demands.price_percent)


def _unbounded(request: PlanRequest, state: BackendState, snapshot: Snapshot) -> tuple[str, str] | None:
    """Why the cost at a priced backend has no bound, and what to do; None when it has one."""
    demands = request.demands
    if demands.unbounded_tools and not snapshot.allow_unbounded_tools:
        names = ", ".join(demands.unbounded_tools)
        hint = "give it max_uses, or set [budget] allow_unbounded_tools"
        return f"a hosted tool has no limit of its uses, so its cost has no bound: {names}", hint
    if demands.unknown_fields and snapshot.refuse_unknown_fields:
        return "fields that batuta does not know may cost money", "leave them out, or set [budget] unknown_fields"
    if demands.windows and state.window is None:
        hint = "give the model a context_window under [models] in config.toml"
        return "the content may fill the context window, which is not known, so its cost has no bound", hint
    return None


def _cooldown(request: PlanRequest, state: BackendState) -> GateResult:
    if state.trouble:
        return GateResult(GateName.COOLDOWN, False, state.trouble, state.cooldown)
    if state.cooldown is None:
        return GateResult(GateName.COOLDOWN, True, "healthy")
    what = f"{request.model} is cooling down there" if state.cools_model else "cooling down after a failure"
    then = f"for {state.cooldown:.1f} s" if state.cooldown else "one trial request in flight"
    return GateResult(GateName.COOLDOWN, False, f"{what}, {then}", state.cooldown)


def _queue(state: BackendState, limits: Limits) -> GateResult:
    if state.depth is None:
        return GateResult(GateName.QUEUE, True, f"not known, the limit is {limits.max_queue_depth}")
    detail = f"{state.depth} requests, the limit is {limits.max_queue_depth}"
    return GateResult(GateName.QUEUE, state.depth < limits.max_queue_depth, detail, state.depth)
