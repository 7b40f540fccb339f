"""The router: when a request leaves the local backend for another one, and when it is turned away.

`decide` is the rule, a pure function; `SpilloverRouter` is the rule over a state of its own; `planning` uses the same
rule, so the two cannot differ. What the privacy tier forbids is passed over, never used because all else is busy.

A state machine without I/O and without a clock. Not thread-safe: one router belongs to one event loop.
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
    """Why a request goes where it goes."""

    BELOW_THRESHOLD = "below_threshold"
    NO_SPILLOVER = "no_spillover"
    """Local although it is busy: nothing else may or can take it."""
    LOCAL_BUSY = "local_busy"
    LOCAL_UNAVAILABLE = "local_unavailable"
    """There is no local backend, or it rests, or it may not or cannot take the request."""
    QUEUE_FULL = "queue_full"
    NO_BACKENDS = "no_backends"
    PRIVACY_VIOLATION = "privacy_violation"


@dataclass(frozen=True, kw_only=True)
class RoutingDecision:
    """Where a request goes: `Local`, `Spillover` or `Reject`."""

    decision: ClassVar[str]
    backend: str | None = None
    reason: Reason
    queue_depth: int
    """Of the local backend; 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class Local(RoutingDecision):
    """To the local backend."""

    decision: ClassVar[str] = "local"
    backend: str


@dataclass(frozen=True, kw_only=True)
class Spillover(RoutingDecision):
    """To another backend."""

    decision: ClassVar[str] = "spillover"
    backend: str


@dataclass(frozen=True, kw_only=True)
class Reject(RoutingDecision):
    """Nowhere; `reason` is QUEUE_FULL, NO_BACKENDS or PRIVACY_VIOLATION."""

    decision: ClassVar[str] = "reject"


class Lane(NamedTuple):
    """A backend as the rule sees it."""

    backend: str
    depth: int = 0
    allowed: bool = True
    """By the privacy tier."""
    ready: bool = True
    """It answers and does not rest."""


@dataclass(frozen=True)
class Limits:
    """The numbers of the rule. Raises `UsageError` when they contradict each other."""

    spillover_threshold: int = 10
    """Depth of the local backend from which requests go to another one."""
    max_queue_depth: int = 50
    """Depth from which a backend takes no further request."""
    spillover_enabled: bool = True
    return_depth: int | None = None
    """Depth below which requests come back once they have begun to spill over; None: the threshold itself."""

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


@dataclass(frozen=True)
class RouterConfig:
    """What a router works with. Names of backends and tiers may be given as text.

    A backend that `privacy` does not admit may be named; it is passed over. Raises `UsageError` for an unknown name,
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
        """Everything stays on this machine."""
        return cls(spillover_backends=(ServingBackend.OLLAMA, ServingBackend.LLAMA_CPP), privacy=PrivacyTier.SOVEREIGN)

    @property
    def limits(self) -> Limits:
        """Its numbers."""
        return Limits(self.spillover_threshold, self.max_queue_depth, self.spillover_enabled, self.return_depth)


class SpilloverRouter:
    """Routes requests among kinds of backends, and counts them: `router.loads.start(…)`, `.finish(…)`, `.report(…)`."""

    def __init__(self, config: RouterConfig) -> None:
        self.config = config
        self.health = BackendHealth()
        self._spilling = False

    @classmethod
    def with_defaults(cls) -> Self:
        """A router with the default configuration."""
        return cls(RouterConfig())

    def route(self, queue_depth: int | None = None, *, now: float | None = None, model: str = "") -> RoutingDecision:
        """Where the next request goes.

        `queue_depth` is what is known of the local backend's queue beside our own count; `now`, in seconds, is the
        latest time that `loads` was told by default. A backend where `model` cools down is passed over.

        Raises `UsageError` for a negative depth.
        """
        if queue_depth is not None and queue_depth < 0:
            raise UsageError("a queue depth cannot be negative")
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
    """The rule.

    Below the threshold the local backend; else the first other one that is allowed, ready and not full; else the
    local one while it is not full. `spilling`: requests spilled over until now.
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
    asked = ([local] if local else []) + (list(others) if limits.spillover_enabled else [])
    return Reject(reason=_refusal(asked), queue_depth=depth)


def _refusal(asked: Sequence[Lane]) -> Reason:
    """Waiting helps while an allowed backend is full or rests; it does not help against the privacy tier."""
    if any(lane.allowed and lane.ready for lane in asked):
        return Reason.QUEUE_FULL
    if asked and not any(lane.allowed for lane in asked):
        return Reason.PRIVACY_VIOLATION
    return Reason.NO_BACKENDS
