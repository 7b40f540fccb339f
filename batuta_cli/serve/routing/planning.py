"""The plan of a request: which backend takes it, which ones may take it over, and why the others are refused.

`plan` is a pure function of the request and a snapshot of the backends; `snapshot.py` takes the snapshots, and
`gates.py` judges each backend. The backends that pass all gates go to the router's rule. The pipeline executes the plan
and `serve route --explain` prints it, so the two cannot differ.

A plan never names a backend that a gate refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from batuta_cli.errors import BatutaError, NoBackendError, PrivacyError, QueueFullError
from batuta_cli.serve.backends import BackendSelector, ServingBackend
from batuta_cli.serve.routing.gates import BackendState, Candidate, GateName, PlanRequest, Snapshot, judged
from batuta_cli.serve.routing.router import Lane, Reason, Reject, RoutingDecision, decide
from batuta_cli.serve.tiers import CostTier, LatencyTier, PrivacyTier, ThroughputTier

_SHOWN = 5  # refusals in a message; --explain shows all

_REFUSALS: dict[Reason, tuple[type[BatutaError], str, str]] = {
    Reason.PRIVACY_VIOLATION: (
        PrivacyError,
        "the privacy tier refuses",
        "to see the tier of each backend, and why: batuta serve backends",
    ),
    Reason.QUEUE_FULL: (
        QueueFullError,
        "the queue of every backend that may take the request is full",
        "try again later, or allow longer queues: batuta config set router.max_queue_depth NUMBER",
    ),
    Reason.NO_BACKENDS: (
        NoBackendError,
        "no backend can take the request",
        "to see the state of each backend: batuta serve backends --probe; to add one: batuta config init",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The backend for a request, the backends that may take it over, and the results of all gates."""

    routing: RoutingDecision
    candidates: tuple[Candidate, ...]
    """In the order in which they are considered."""
    fallbacks: tuple[str, ...]
    """Backends that may take the request over, in this order."""
    suitable: tuple[str, ...]
    """Backends that may take it once they are healthy and their queue is not full: waiting helps for these."""
    model: str = ""
    """The model of the request."""
    unhealthy: tuple[str, ...] = ()
    """Of a rejected request: the suitable backends that only their health keeps from taking it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is uncertain about the chosen backend, in words."""
        chosen = next((c for c in self.candidates if c.backend == self.backend), None)
        uncertain = [gate.detail for gate in chosen.gates if gate.uncertain] if chosen else []
        return tuple(f"{self.backend}: the prompt may not fit: {detail}" for detail in uncertain)

    @property
    def decision(self) -> str:
        """`local`, `spillover` or `reject`."""
        return self.routing.decision

    @property
    def backend(self) -> str | None:
        """The chosen backend; None when the request is rejected."""
        return self.routing.backend

    @property
    def reason(self) -> str:
        """A value of `Reason`."""
        return str(self.routing.reason)

    @property
    def queue_depth(self) -> int:
        """Requests at the local backend; 0 without a local backend."""
        return self.routing.queue_depth

    def error(self) -> BatutaError | None:
        """The error of a rejected request: `PrivacyError`, `QueueFullError` or `NoBackendError`; None otherwise."""
        if not isinstance(self.routing, Reject):
            return None
        kind, what, hint = _REFUSALS[self.routing.reason]
        refused = [(c.backend, c.refused_by) for c in self.candidates]
        reasons = [f"{name}: {gate.detail}" for name, gate in refused if gate is not None]
        more = f", and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        message = what + (": " if reasons else "") + "; ".join(reasons[:_SHOWN]) + more
        return kind(message, hint=hint, result=self.to_json())

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, as `serve route --json` prints it."""
        return {
            "decision": self.decision,
            "backend": None if self.backend is None else str(self.backend),
            "reason": self.reason,
            "queue_depth": self.queue_depth,
            "plan": [candidate.to_json() for candidate in self.candidates],
        }


def plan(request: PlanRequest, snapshot: Snapshot) -> Plan:
    """Plan a request. Equal arguments give equal plans."""
    if request.backend:  # naming a backend allows it
        snapshot = replace(snapshot, limits=replace(snapshot.limits, spillover_enabled=True))
    states = {state.name: state for state in _ordered(request, snapshot)}
    found = {name: judged(request, state, snapshot) for name, state in states.items()}
    local = _local(list(found.values()), states, snapshot)
    if snapshot.spillover_backends and not request.backend:
        found = {n: c for n, c in found.items() if n == local or n in snapshot.spillover_backends}
    measured = local or (next(iter(found), None) if request.backend else None)
    if measured and snapshot.queue_depth is not None:
        depth = max(states[measured].depth or 0, snapshot.queue_depth)
        states[measured] = replace(states[measured], depth=depth)
        found[measured] = judged(request, states[measured], snapshot)
    candidates = tuple(sorted(found.values(), key=lambda candidate: candidate.backend != local))
    lanes = [_lane(c, states[c.backend]) for c in candidates if _is_lane(c)]
    first = next((lane for lane in lanes if lane.backend == local), None)
    others = [lane for lane in lanes if lane.backend != local]
    routing = decide(first, others, snapshot.limits, spilling=snapshot.spilling)
    if local and not first:  # it cannot take this request; its queue depth is reported all the same
        routing = replace(routing, queue_depth=states[local].depth or 0)
    may = [c for c in candidates if snapshot.limits.spillover_enabled or c.backend == local]
    suitable = tuple(c.backend for c in may if c.passes(GateName.TIER, *_CAN_SERVE))
    unhealthy = tuple(
        name
        for name in suitable
        if isinstance(routing, Reject) and found[name].passes(GateName.QUEUE) and _is_unhealthy(states[name])
    )
    return Plan(
        routing=routing,
        candidates=candidates,
        fallbacks=_fallbacks(routing, may),
        suitable=suitable,
        model=request.model,
        unhealthy=unhealthy,
    )


_CAN_SERVE = (GateName.CAPABILITY, GateName.CONTEXT, GateName.BUDGET)
"""A backend that one of these gates refuses is not given to the router's rule."""


def _is_unhealthy(state: BackendState) -> bool:
    return bool(state.trouble) or (state.cooldown is not None and not state.cools_model)


def _is_lane(candidate: Candidate) -> bool:
    # A backend that the tier refuses is given to the rule as not allowed, so that the privacy tier is the reason shown.
    forbidden = not candidate.passes(GateName.TIER) and candidate.passes(GateName.CAPABILITY)
    return forbidden or candidate.passes(*_CAN_SERVE)


def _ordered(request: PlanRequest, snapshot: Snapshot) -> list[BackendState]:
    if request.backend:
        return [state for state in snapshot.backends if state.name == request.backend]
    if snapshot.spillover_backends:
        place = {name: n for n, name in enumerate(snapshot.spillover_backends)}
        # Backends that are not named there can only be the local one.
        return sorted(snapshot.backends, key=lambda state: place.get(state.name, -1))
    rank = _ranks(request.privacy, request.latency, request.throughput, request.cost)
    last = max((rank[state.kind] for state in snapshot.backends if state.kind.is_local and state.is_free), default=0)

    def position(state: BackendState) -> tuple[int, bool, float]:
        # A server of a local kind at a public address costs money, so each free one comes first.
        if state.kind.is_local and not state.is_free:
            return max(rank[state.kind], last), True, state.load
        return rank[state.kind], False, state.load

    return sorted(snapshot.backends, key=position)


@cache
def _ranks(
    privacy: PrivacyTier, latency: LatencyTier, throughput: ThroughputTier, cost: CostTier
) -> dict[ServingBackend, int]:
    """The rank of every kind in the selector's recommendation; kinds it does not list come last.

    A local kind that it does not list ranks with the best local one that it lists, because both cost nothing.
    """
    chosen = BackendSelector(privacy, latency, throughput, cost).recommend()
    local = next((place for place, kind in enumerate(chosen) if kind.is_local), len(chosen))
    unlisted = {kind: local if kind.is_local else len(chosen) for kind in ServingBackend}
    return unlisted | {kind: place for place, kind in enumerate(chosen)}


def _local(found: Sequence[Candidate], states: Mapping[str, BackendState], snapshot: Snapshot) -> str | None:
    """The local backend: the one that the configuration names, or the first local one that can take the request.

    One that costs money is the local backend only where no free one can take the request.
    """
    if snapshot.local_backend:
        return next((c.backend for c in found if c.backend == snapshot.local_backend), None)
    local = [c for c in found if c.kind.is_local]
    serving = [c for c in local if c.passes(GateName.TIER, *_CAN_SERVE)]
    serving = [c for c in serving if states[c.backend].is_free] or serving
    healthy = [c for c in serving if c.passes(GateName.COOLDOWN)]
    return next((c.backend for c in healthy or serving or local), None)


def _lane(candidate: Candidate, state: BackendState) -> Lane:
    return Lane(
        candidate.backend, state.depth or 0, candidate.passes(GateName.TIER), candidate.passes(GateName.COOLDOWN)
    )


def _fallbacks(routing: RoutingDecision, may: Sequence[Candidate]) -> tuple[str, ...]:
    if isinstance(routing, Reject):
        return ()
    return tuple(c.backend for c in may if c.passed and c.backend != routing.backend)
