"""Failover: the state of a request in flight, and how another backend may take the request over.

There is no I/O and no clock in this module. `FailoverState` keeps the text that the client of one request has received;
`continuation` decides what the next backend may do with it. `splice.py` joins the texts. `FailoverManager` keeps the
states of several requests by id, for programs that relay streams themselves.

A text that cannot be continued exactly is not continued, and the client receives an error, unless
`FailoverConfig.prompted` allows an instruction to continue. No request goes to a backend that its privacy tier does not
admit. Memory is bounded: `MAX_TRACKED` requests, `MAX_TEXT` characters each; a longer text cannot be continued.

Not thread-safe: use a manager in one event loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from batuta_cli.errors import NoBackendError, QueueFullError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.backends.profile import Continuation, ContinuationMethod
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.tiers import PrivacyTier

MAX_TRACKED = 100_000
"""The most requests in flight at once; ten times the requests a second of one process."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters kept of one response; eight times the longest output of any model in the table."""


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
    UNKNOWN = "content of an unknown kind"
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


@dataclass(frozen=True, kw_only=True)
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


class FailoverState:
    """The failover state of one request: the text that its client has received, and the attempts that are left."""

    def __init__(
        self,
        request_id: str,
        prompt: str,
        config: FailoverConfig,
        *,
        tier: PrivacyTier = PrivacyTier.SOVEREIGN,
        obstacles: Iterable[Obstacle] = (),
    ) -> None:
        """`obstacles`: those of the request itself.

        The default tier is the strictest, so that a missing argument cannot leak data.
        """
        self.config = config
        self.reached_client = False
        """Whether any part of the response has been sent to the client."""
        self._request_id = request_id
        self._prompt = prompt
        self._tier = tier
        self._own_obstacles = frozenset(obstacles)
        self._obstacles: set[Obstacle] = set()
        self._texts: list[str] = []
        self._length = 0
        self._attempts = 0

    def append(self, text: str, *, sent: bool = True) -> None:
        """Add text from a backend; `sent`: the client has received it, or may have received a part."""
        self.reached_client |= sent and bool(text)
        self._length += len(text)
        if self._length <= MAX_TEXT:
            self._texts.append(text)
        else:
            self._texts.clear()
            self._obstacles.add(Obstacle.TOO_LONG)

    def mark_sent(self) -> None:
        """Note that the client has received a part of the response other than text."""
        self.reached_client = True

    def obstruct(self, obstacle: Obstacle) -> None:
        """Note that the response has a part that cannot be continued."""
        self._obstacles.add(obstacle)

    def context(self) -> StreamingContext:
        """The state, for `continuation`."""
        text, whole = _joined(self._texts)
        obstacles = self._own_obstacles | self._obstacles | (set() if whole else {Obstacle.HALF_CHARACTER})
        return StreamingContext(
            request_id=self._request_id,
            prompt=self._prompt,
            generated=text,
            tier=self._tier,
            reached_client=self.reached_client,
            obstacles=obstacles,
        )

    @property
    def has_attempts(self) -> bool:
        """Whether another backend may be tried."""
        return self._attempts < self.config.max_retries

    def prepare(self) -> FailoverRequest:
        """Use up one attempt. Raises `NoBackendError` when none is left."""
        if not self.has_attempts:
            tries = 1 + self._attempts
            raise NoBackendError(
                f"{tries} backend{'s' * (tries > 1)} tried the request {display(self._request_id[:100])} and failed;"
                f" max_retries is {self.config.max_retries}"
            )
        self._attempts += 1
        return FailoverRequest(self._request_id, self._prompt, _joined(self._texts)[0], self._attempts)

    def restart(self) -> None:
        """Forget the text: the next backend starts over. Raises `UsageError` when the client has a part of it."""
        if self.reached_client:
            raise UsageError(
                f"the client of the request {display(self._request_id[:100])} has received a part of the response"
            )
        self._texts.clear()
        self._length = 0
        self._obstacles.clear()


class FailoverManager:
    """The failover states of several requests, by request id.

    Each method but `start_tracking` and `should_failover` raises `UnknownRequestError` for an id that is not tracked.
    """

    def __init__(self, config: FailoverConfig) -> None:
        self.config = config
        self._tracked: dict[str, FailoverState] = {}

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
        """Track a request; see `FailoverState`.

        Raises `UsageError` for an id that is tracked already, `QueueFullError` for more than `MAX_TRACKED` requests.
        """
        if request_id in self._tracked:
            raise UsageError(f"the request {display(request_id[:100])} is tracked already")
        if len(self._tracked) >= MAX_TRACKED:
            raise QueueFullError(f"{MAX_TRACKED:,} requests are in flight already")
        self._tracked[request_id] = FailoverState(request_id, prompt, self.config, tier=tier, obstacles=obstacles)

    def append_tokens(self, request_id: str, text: str, *, sent: bool = True) -> None:
        """Add text from a backend; `sent`: the client has received it, or may have received a part."""
        self._of(request_id).append(text, sent=sent)

    def mark_sent(self, request_id: str) -> None:
        """Note that the client has received a part of the response other than text."""
        self._of(request_id).mark_sent()

    def obstruct(self, request_id: str, obstacle: Obstacle) -> None:
        """Note that the response has a part that cannot be continued."""
        self._of(request_id).obstruct(obstacle)

    def context(self, request_id: str) -> StreamingContext:
        """The state of a request, for `continuation`."""
        return self._of(request_id).context()

    def should_failover(self, request_id: str) -> bool:
        """Whether a request is tracked, not complete, and has attempts left."""
        tracked = self._tracked.get(request_id)
        return tracked is not None and tracked.has_attempts

    def prepare_failover(self, request_id: str) -> FailoverRequest:
        """Use up one attempt. Raises `NoBackendError` when none is left."""
        return self._of(request_id).prepare()

    def restart(self, request_id: str) -> None:
        """Forget the text of a request. Raises `UsageError` when the client has received a part of it."""
        self._of(request_id).restart()

    def complete(self, request_id: str) -> None:
        """Stop tracking a request that has ended."""
        self._of(request_id)
        del self._tracked[request_id]

    def _of(self, request_id: str) -> FailoverState:
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
