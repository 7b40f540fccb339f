"""Failover: what is known of a request in flight, and how another backend may take it over.

A state machine without I/O and without a clock. `FailoverManager` remembers of each request what its client has
seen; `continuation` says what the next backend may do with that. The joint itself is in `seam.py`.

It fails towards an error that the client sees: what cannot be continued exactly is not continued, unless the owner
opted in, and no request goes to a backend that its privacy tier does not admit. Memory is bounded: `MAX_TRACKED`
requests, and of each `MAX_TEXT` characters; a longer text is forgotten and cannot be continued.

Not thread-safe: one manager belongs to one event loop.
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
"""Requests in flight at once; ten times what one process relays in a second."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters kept of one request; eight times the longest output any model of the table has."""

MAX_RETRIES = 100
"""The most retries that can be configured."""


class UnknownRequestError(UsageError, KeyError):
    """No request of this id is tracked: it never was, or it is complete. Exit 2."""

    kind = "unknown_request"
    __str__ = UsageError.__str__  # KeyError shows the repr


class Obstacle(NameEnum):
    """Why a text must not be continued by another backend."""

    TOOL_CALLS = "tool calls"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    JSON = "a JSON response format"
    CHOICES = "several choices"
    TOO_LONG = "a text too long to keep"
    HALF_CHARACTER = "half a character"


class Takeover(NameEnum):
    """How a backend may take over a request.

    EXACT: it continues what was said. RESTART: it gets the request as it was, from the start. PROMPTED: it is asked in
    words to continue, which the client must be told. ERROR: it may not, and the client gets an error it can see.
    """

    EXACT = "exact"
    RESTART = "restart"
    PROMPTED = "prompted"
    ERROR = "error"


@dataclass(frozen=True)
class FailoverConfig:
    """How often a request is handed on. Raises `UsageError` for a number out of range."""

    max_retries: int = 2
    """Backends that are tried after the first one has failed; from 0 to `MAX_RETRIES`."""
    prompted: bool = False
    """Whether a backend that cannot continue a text exactly may be asked to in words."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise UsageError(f"max_retries must be a whole number from 0 to {MAX_RETRIES}")


@dataclass(frozen=True)
class StreamingContext:
    """What is known of a request whose backend has failed."""

    request_id: str
    prompt: str
    generated: str
    """The text that backends have said so far, echoes taken off."""
    tier: PrivacyTier
    """How far the request may go; it never changes."""
    reached_client: bool
    """Whether so much as one byte of the answer has been sent to the client."""
    obstacles: frozenset[Obstacle]


@dataclass(frozen=True)
class FailoverRequest:
    """The order to try again."""

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
    """The requests in flight, and what each has sent to its client."""

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
        """Begin with a request; `obstacles` are those that the request itself brings.

        The strictest tier is the default, so that one that was forgotten cannot leak. Raises `UsageError` for an id
        that is tracked already, `QueueFullError` for more than `MAX_TRACKED` requests.
        """
        if request_id in self._tracked:
            raise UsageError(f"the request {display(request_id[:100])} is tracked already")
        if len(self._tracked) >= MAX_TRACKED:
            raise QueueFullError(f"{MAX_TRACKED:,} requests are in flight already")
        self._tracked[request_id] = _Tracked(prompt, tier, frozenset(obstacles))

    def append_tokens(self, request_id: str, text: str, *, sent: bool = True) -> None:
        """Remember what a backend said; `sent`: the client has it, or may have a part of it.

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
        """Remember that the client has got something of the answer that is no text. Raises `UnknownRequestError`."""
        self._of(request_id).reached_client = True

    def obstruct(self, request_id: str, obstacle: Obstacle) -> None:
        """Remember that the answer had what cannot be continued. Raises `UnknownRequestError`."""
        self._of(request_id).obstacles.add(obstacle)

    def context(self, request_id: str) -> StreamingContext:
        """What is known of a request, for `continuation`. Raises `UnknownRequestError`."""
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
                f"the request {display(request_id[:100])} was given to {tries} backend{'s' * (tries > 1)}, and none"
                " could finish it"
            )
        tracked.attempts += 1
        return FailoverRequest(request_id, tracked.prompt, _joined(tracked.pieces)[0], tracked.attempts)

    def restart(self, request_id: str) -> None:
        """Forget what was said, because the next backend begins anew.

        Raises `UnknownRequestError`, or `UsageError` when the client has some of it already.
        """
        tracked = self._of(request_id)
        if tracked.reached_client:
            raise UsageError(f"the client of the request {display(request_id[:100])} has a part of the answer already")
        tracked.pieces.clear()
        tracked.length = 0
        tracked.obstacles.clear()

    def complete(self, request_id: str) -> None:
        """Forget a request that has ended, well or not. Raises `UnknownRequestError`."""
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
    """How a backend may take over; `capability` is its profile's, `tier` that of its address.

    EXACT with nothing said yet means the request as it was, whose answer is joined to what the client has.
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
    """Whether a backend continues a text of this model exactly; what is not known is a no."""
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
