"""The router: when a request goes to another backend than the local one, and when it is rejected.

`decide` is the rule, a pure function. `SpilloverRouter` applies it to state that it keeps; `planning` applies the same
function to a snapshot. A backend that the privacy tier does not admit is never used, also when all others are busy.

There is no I/O and no clock in this module. Not thread-safe: use a router in one event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from batuta_cli.errors import ConfigError, UsageError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.routing.health import BackendHealth
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Router as Table


class Reason(NameEnum):
    """The reason of a routing decision."""

    BELOW_THRESHOLD = "below_threshold"
    NO_SPILLOVER = "no_spillover"
    """Local although it is busy: no other backend may or can take the request."""
    LOCAL_BUSY = "local_busy"
    LOCAL_UNAVAILABLE = "local_unavailable"
    """There is no local backend, or it is unhealthy or cooling down, or it may not or cannot take the request."""
    QUEUE_FULL = "queue_full"
    NO_BACKENDS = "no_backends"
    PRIVACY_VIOLATION = "privacy_violation"


@dataclass(frozen=True, kw_only=True)
class RoutingDecision:
    """The decision for a request: `Local`, `Spillover` or `Reject`."""

    decision: ClassVar[str]
    backend: str | None = None
    reason: Reason
    queue_depth: int
    """Requests at the local backend; 0 without a local backend."""


@dataclass(frozen=True, kw_only=True)
class Local(RoutingDecision):
    """The request goes to the local backend."""

    decision: ClassVar[str] = "local"
    backend: str


@dataclass(frozen=True, kw_only=True)
class Spillover(RoutingDecision):
    """The request goes to another backend."""

    decision: ClassVar[str] = "spillover"
    backend: str


@dataclass(frozen=True, kw_only=True)
class Reject(RoutingDecision):
    """The request is rejected; `reason` is QUEUE_FULL, NO_BACKENDS or PRIVACY_VIOLATION."""

    decision: ClassVar[str] = "reject"


class Lane(NamedTuple):
    """A backend as the rule sees it."""

    backend: str
    depth: int = 0
    allowed: bool = True
    """Whether the privacy tier admits it."""
    ready: bool = True
    """Whether it is healthy and not cooling down."""


@dataclass(frozen=True)
class Limits:
    """The numbers of the rule. Raises `UsageError` when they contradict each other."""

    spillover_threshold: int = 10
    """Depth of the local backend from which requests go to another one."""
    max_queue_depth: int = 50
    """Depth from which a backend takes no further request."""
    spillover_enabled: bool = True
    return_depth: int | None = None
    """Depth below which requests return to the local backend after spilling over; None: the threshold itself."""

    def __post_init__(self) -> None:
        if self.max_queue_depth < 1:
            raise UsageError("max_queue_depth must be at least 1")
        if not 0 <= self.spillover_threshold <= self.max_queue_depth:
            raise UsageError(f"spillover_threshold must be from 0 to max_queue_depth, which is {self.max_queue_depth}")
        if self.return_depth is not None and not 0 <= self.return_depth <= self.spillover_threshold:
            raise UsageError(f"return_depth must be from 0 to spillover_threshold, which is {self.spillover_threshold}")

    @classmethod
    def configured(cls, table: "Table") -> Self:
        """The limits of the configuration; requests come back at four fifths of the threshold.

        Raises `ConfigError`.
        """
        try:
            return cls(
                table.spillover_threshold,
                table.max_queue_depth,
                table.spillover_enabled,
                table.spillover_threshold * 4 // 5,
            )
        except UsageError as error:
            raise ConfigError(f"router: {error.message}", hint="batuta config show --origin") from None

    def spills(self, depth: int, *, before: bool) -> bool:
        """Whether requests spill over at a depth of the local backend; `before`: they did until now."""
        back = self.spillover_threshold if self.return_depth is None else self.return_depth
        return depth >= (back if before else self.spillover_threshold)


@dataclass(kw_only=True, frozen=True)
class RouterConfig:
    """The configuration of a `SpilloverRouter`. Backends and tiers may be given by name.

    A backend that `privacy` does not admit may be listed and is never used. Raises `UsageError` for an unknown name,
    or for numbers that contradict each other.
    """

    spillover_threshold: int = 10
    max_queue_depth: int = 50
    local_backend: ServingBackend = ServingBackend.REALIZAR
    spillover_backends: tuple[ServingBackend, ...] = (
        ServingBackend.GROQ,
        ServingBackend.TOGETHER,
        ServingBackend.FIREWORKS,
    )
    privacy: PrivacyTier = PrivacyTier.STANDARD
    spillover_enabled: bool = True
    return_depth: int | None = None
    """As in `Limits`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "local_backend", ServingBackend.parse(self.local_backend))
        spillover = tuple(ServingBackend.parse(name) for name in self.spillover_backends)
        object.__setattr__(self, "spillover_backends", spillover)
        object.__setattr__(self, "privacy", PrivacyTier.parse(self.privacy))
        self.limits  # noqa: B018 - checks the numbers

    @classmethod
    def with_defaults(cls) -> Self:
        """The default configuration."""
        return cls()

    @classmethod
    def sovereign(cls) -> Self:
        """The sovereign tier: local backends only."""
        return cls(spillover_backends=(ServingBackend.OLLAMA, ServingBackend.LLAMA_CPP), privacy=PrivacyTier.SOVEREIGN)

    @property
    def limits(self) -> Limits:
        """The numbers of the rule."""
        return Limits(self.spillover_threshold, self.max_queue_depth, self.spillover_enabled, self.return_depth)


class SpilloverRouter:
    """Routes requests among kinds of backends and counts them: `router.health.start(…)`, `.finish(…)`, `.report(…)`."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.health = BackendHealth()
        self._spilling = False

    @classmethod
    def with_defaults(cls) -> Self:
        """A router with the default configuration."""
        return cls(RouterConfig())

    def route(self, queue_depth: int | None = None, *, now: float | None = None, model: str = "") -> RoutingDecision:
        """The decision for the next request.

        `queue_depth`: requests that the local backend reports; its own count in `health` is used when larger. `now`:
        monotonic seconds, by default the latest time given to `health`. A backend where `model` cools down is skipped.

        Raises `UsageError` for a negative depth.
        """
        if queue_depth is not None and queue_depth < 0:
            raise UsageError(f"queue_depth is {queue_depth}; it must be 0 or more")
        config, now = self.config, self.health.latest if now is None else now
        local = self._lane(config.local_backend, now, model, queue_depth or 0)
        lanes = [self._lane(b, now, model) for b in config.spillover_backends if b is not config.local_backend]
        decision = decide(local, lanes, config.limits, spilling=self._spilling)
        self._spilling = config.limits.spills(local.depth, before=self._spilling)
        return decision

    def _lane(self, backend: ServingBackend, now: float, model: str, known: int = 0) -> Lane:
        return Lane(
            backend,
            max(self.health.depth(backend, now), known),
            self.config.privacy.admits(backend.tier),
            self.health.cooling(backend, now, model) is None,
        )


def decide(local: Lane | None, others: Sequence[Lane], limits: Limits, *, spilling: bool = False) -> RoutingDecision:
    """Decide by the router's rule.

    Below the threshold: the local backend. Else the first other backend that is allowed, ready and below the maximum
    depth. Else the local backend while it is below the maximum. `spilling`: the previous request was above the
    threshold.
    """
    depth = local.depth if local else 0
    usable = local if local and local.allowed and local.ready else None
    if usable and not limits.spills(depth, before=spilling):
        return Local(backend=usable.backend, reason=Reason.BELOW_THRESHOLD, queue_depth=depth)
    if limits.spillover_enabled:
        for lane in others:
            if lane.allowed and lane.ready and lane.depth < limits.max_queue_depth:
                why = Reason.LOCAL_BUSY if usable else Reason.LOCAL_UNAVAILABLE
                return Spillover(backend=lane.backend, reason=why, queue_depth=depth)
    if usable and depth < limits.max_queue_depth:
        return Local(backend=usable.backend, reason=Reason.NO_SPILLOVER, queue_depth=depth)
    lanes = ([local] if local else []) + (list(others) if limits.spillover_enabled else [])
    return Reject(reason=_reject_reason(lanes), queue_depth=depth)


def _reject_reason(lanes: Sequence[Lane]) -> Reason:
    """The privacy tier is the reason only when it refuses every backend."""
    if any(lane.allowed and lane.ready for lane in lanes):
        return Reason.QUEUE_FULL
    if lanes and not any(lane.allowed for lane in lanes):
        return Reason.PRIVACY_VIOLATION
    return Reason.NO_BACKENDS
