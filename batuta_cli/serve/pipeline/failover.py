"""Failover: the state of a request in flight, and how another backend may take the request over.

There is no I/O and no clock in this module. `FailoverManager` keeps for each request the text that its client has
received; `continuation` decides what the next backend may do with it. `splice.py` joins the texts.

A text that cannot be continued exactly is not continued, and the client receives an error, unless
`FailoverConfig.prompted` allows an instruction to continue. No request goes to a backend that its privacy tier does not
admit. Memory is bounded: `MAX_TRACKED` requests, `MAX_TEXT` characters each; a longer text cannot be continued.

Not thread-safe: use a manager in one event loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Self

from batuta_cli.errors import NoBackendError, QueueFullError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.backends.profile import Continuation, ContinuationMethod
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.tiers import PrivacyTier

MAX_TRACKED = 100_000
"""The most requests in flight at once; ten times the requests a second of one process."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters kept of one response; eight times the longest output of any model in the table."""

MAX_RETRIES = 100
"""The most retries that can be configured."""


class UnknownRequestError(UsageError, KeyError):
    """No request with this id is tracked: the id is unknown, or the request is complete. Exit 2."""

    kind = "unknown_request"
    __str__ = UsageError.__str__  # KeyError shows the repr


class Obstacle(NameEnum):
    """Why another backend must not continue a text."""

    TOOL_CALLS = "tool calls"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    JSON = "a JSON response format"
    CHOICES = "several choices"
    TOO_LONG = "a text too long to keep"
    HALF_CHARACTER = "half a character"


class Takeover(NameEnum):
    """How a backend may take over a request.

    EXACT: it continues the text exactly. RESTART: it receives the original request. PROMPTED: it receives the text
    with an instruction to continue, and the client is told. ERROR: it may not; the client receives an error.
    """

    EXACT = "exact"
    RESTART = "restart"
    PROMPTED = "prompted"
    ERROR = "error"


@dataclass(frozen=True)
class FailoverConfig:
    """The limits of failover. Raises `UsageError` for a number out of range."""

    max_retries: int = 2
    """Backends to try after the first one has failed; from 0 to `MAX_RETRIES`."""
    prompted: bool = False
    """Whether a backend that cannot continue a text exactly may receive an instruction to continue it."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise UsageError(f"max_retries must be a whole number from 0 to {MAX_RETRIES}")


@dataclass(frozen=True)
class StreamingContext:
    """The state of a request whose backend has failed."""

    request_id: str
    prompt: str
    generated: str
    """The text received from backends so far, without echoes."""
    tier: PrivacyTier
    """How far the request may go; it never changes."""
    reached_client: bool
    """Whether any part of the response has been sent to the client."""
    obstacles: frozenset[Obstacle]


@dataclass(frozen=True)
class FailoverRequest:
    """A further attempt at a request."""

    request_id: str
    prompt: str
    generated_prefix: str
    attempt: int
    """1 for the first retry."""


@dataclass
class _Tracked:
    prompt: str
    tier: PrivacyTier
    own_obstacles: frozenset[Obstacle]
    obstacles: set[Obstacle] = field(default_factory=set)
    pieces: list[str] = field(default_factory=list)
    length: int = 0
    reached_client: bool = False
    attempts: int = 0


class FailoverManager:
    """The requests in flight, with the text that each client has received."""

    def __init__(self, config: FailoverConfig) -> None:
        self.config = config
        self._tracked: dict[str, _Tracked] = {}

    @classmethod
    def with_defaults(cls) -> Self:
        """A manager with the default configuration."""
        return cls(FailoverConfig())

    def start_tracking(
        self,
        request_id: str,
        prompt: str,
        *,
        tier: PrivacyTier = PrivacyTier.SOVEREIGN,
        obstacles: Iterable[Obstacle] = (),
    ) -> None:
        """Track a request; `obstacles`: those of the request itself.

        The default tier is the strictest, so that a missing argument cannot leak data. Raises `UsageError` for an id
        that is tracked already, `QueueFullError` for more than `MAX_TRACKED` requests.
        """
        if request_id in self._tracked:
            raise UsageError(f"the request {display(request_id[:100])} is tracked already")
        if len(self._tracked) >= MAX_TRACKED:
            raise QueueFullError(f"{MAX_TRACKED:,} requests are in flight already")
        self._tracked[request_id] = _Tracked(prompt, tier, frozenset(obstacles))

    def append_tokens(self, request_id: str, text: str, *, sent: bool = True) -> None:
        """Add text from a backend; `sent`: the client has received it, or may have received a part.

        Raises `UnknownRequestError`.
        """
        tracked = self._of(request_id)
        tracked.reached_client |= sent and bool(text)
        tracked.length += len(text)
        if tracked.length <= MAX_TEXT:
            tracked.pieces.append(text)
        else:
            tracked.pieces.clear()
            tracked.obstacles.add(Obstacle.TOO_LONG)

    def mark_sent(self, request_id: str) -> None:
        """Note that the client has received a part of the response other than text. Raises `UnknownRequestError`."""
        self._of(request_id).reached_client = True

    def obstruct(self, request_id: str, obstacle: Obstacle) -> None:
        """Note that the response has a part that cannot be continued. Raises `UnknownRequestError`."""
        self._of(request_id).obstacles.add(obstacle)

    def context(self, request_id: str) -> StreamingContext:
        """The state of a request, for `continuation`. Raises `UnknownRequestError`."""
        tracked = self._of(request_id)
        text, whole = _joined(tracked.pieces)
        obstacles = tracked.own_obstacles | tracked.obstacles | (set() if whole else {Obstacle.HALF_CHARACTER})
        return StreamingContext(request_id, tracked.prompt, text, tracked.tier, tracked.reached_client, obstacles)

    def should_failover(self, request_id: str) -> bool:
        """Whether a request is tracked, not complete, and has attempts left."""
        tracked = self._tracked.get(request_id)
        return tracked is not None and tracked.attempts < self.config.max_retries

    def prepare_failover(self, request_id: str) -> FailoverRequest:
        """Use up one attempt. Raises `UnknownRequestError`, or `NoBackendError` when none is left."""
        tracked = self._of(request_id)
        if not self.should_failover(request_id):
            tries = 1 + tracked.attempts
            raise NoBackendError(
                f"{tries} backend{'s' * (tries > 1)} tried the request {display(request_id[:100])} and failed;"
                f" max_retries is {self.config.max_retries}"
            )
        tracked.attempts += 1
        return FailoverRequest(request_id, tracked.prompt, _joined(tracked.pieces)[0], tracked.attempts)

    def restart(self, request_id: str) -> None:
        """Forget the text, because the next backend starts over.

        Raises `UnknownRequestError`, or `UsageError` when the client has received a part of it.
        """
        tracked = self._of(request_id)
        if tracked.reached_client:
            raise UsageError(
                f"the client of the request {display(request_id[:100])} has received a part of the response"
            )
        tracked.pieces.clear()
        tracked.length = 0
        tracked.obstacles.clear()

    def complete(self, request_id: str) -> None:
        """Stop tracking a request that has ended. Raises `UnknownRequestError`."""
        self._of(request_id)
        del self._tracked[request_id]

    def _of(self, request_id: str) -> _Tracked:
        tracked = self._tracked.get(request_id)
        if tracked is None:
            raise UnknownRequestError(f"no request {display(request_id[:100])} is in flight")
        return tracked


def continuation(
    capability: Continuation, context: StreamingContext, *, model: str, tier: PrivacyTier, prompted: bool = False
) -> Takeover:
    """How a backend may take over; `capability`: from its profile, `tier`: of its address.

    EXACT with no text yet means the original request, whose response follows the parts that the client has.
    """
    if not context.tier.admits(tier):
        return Takeover.ERROR
    if can_continue(capability, model) and not context.obstacles and (context.generated or context.reached_client):
        return Takeover.EXACT
    if not context.reached_client:
        return Takeover.RESTART
    if prompted and not context.obstacles:
        return Takeover.PROMPTED
    return Takeover.ERROR


def can_continue(capability: Continuation, model: str) -> bool:
    """Whether a backend continues a text of this model exactly; False when that is not known."""
    if capability.method is ContinuationMethod.NONE:
        return False
    return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in capability.models)


def _joined(pieces: list[str]) -> tuple[str, bool]:
    # JSON can split a character over two events, as "\ud83d" and "\ude00".
    text = "".join(pieces)
    try:
        text.encode()
        return text, True
    except UnicodeEncodeError:
        units = text.encode("utf-16-le", "surrogatepass")
    try:
        return units.decode("utf-16-le"), True
    except UnicodeDecodeError:
        return text, False
