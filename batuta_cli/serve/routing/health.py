"""The queue depth and the cooldowns of each backend, as one process knows them.

The count of our own requests in flight is exact. The depth that a backend reports includes the requests of other
clients and counts for `READING_AGE`. A failure is attributed to the backend when it cannot be reached, to the (backend,
model) pair when it was reached, and to neither when the request itself was invalid.

There is no clock and no randomness in this module: both are arguments. Not thread-safe: use it in one event loop.
Memory: one entry a backend, one a request in flight, and at most `retry.MOST_MODELS` failed models a backend.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from batuta_cli.errors import UsageError
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.retry import Cooldown, Ended, FailoverConfig, ModelCooldowns, retry_after

READING_AGE = 5.0
"""Seconds for which a reported queue depth counts (docs/gateway.md#queue-depth)."""

_PACE = 8  # intervals between responses, of which a backend's pace is the mean


class AttemptOutcome(NameEnum):
    """What the end of a request shows about the backend and the model."""

    WORKED = "worked"
    FAILED = "failed"
    """The backend cannot be reached."""
    MODEL_FAILED = "model_failed"
    """The backend answered that it cannot serve the model now: HTTP 401, 403, 404, 429 or 5xx, but not 501."""
    BROKEN = "broken"
    """The backend was reached, but its response is missing or incomplete."""
    REQUEST_REFUSED = "request_refused"
    """The backend answered that the request is invalid, or that it does not implement the route (501)."""
    UNKNOWN = "unknown"
    """The client disconnected, or nothing was sent."""


_SAYS: dict[AttemptOutcome, tuple[bool | None, bool | None]] = {
    AttemptOutcome.WORKED: (True, True),
    AttemptOutcome.FAILED: (False, None),
    AttemptOutcome.MODEL_FAILED: (True, False),
    AttemptOutcome.BROKEN: (None, False),
    AttemptOutcome.REQUEST_REFUSED: (True, None),
    AttemptOutcome.UNKNOWN: (None, None),
}
"""Whether the backend works, and whether the model works there; None: not known."""


class Ticket(NamedTuple):
    """One request in flight, from `start` to `finish`."""

    backend: str
    number: int
    is_trial: bool
    """It is the trial request after a cooldown of the backend or of the model."""
    model: str = ""


class Cooling(NamedTuple):
    """A cooldown that keeps a request from a backend."""

    seconds: float
    """Until the trial request; 0 while the trial is in flight."""
    of_model: bool
    """Only the model cools down at this backend, not the backend."""


@dataclass(kw_only=True)
class _State:
    in_flight: int = 0
    reported: int = 0
    reported_at: float = -math.inf
    cooldown: Cooldown = field(default_factory=Cooldown)
    models: ModelCooldowns = field(default_factory=ModelCooldowns)
    responses: deque[float] = field(default_factory=lambda: deque(maxlen=_PACE + 1))

    @property
    def has_failures(self) -> bool:
        """Whether the backend or one of its models has failed since its last success."""
        return self.cooldown.failures > 0 or bool(self.models.failed)


class BackendHealth:
    """The queue depths and cooldowns of all backends, by name."""

    def __init__(self, limits: FailoverConfig | None = None) -> None:
        self.limits = limits or FailoverConfig()
        """Of the cooldowns that begin from now on."""
        self._states: dict[str, _State] = {}
        self._open: set[int] = set()
        self._number = 0
        self.latest = 0.0
        """The latest time given to any method."""

    def start(self, backend: str, now: float, model: str = "") -> Ticket:
        """Count a request that will be sent."""
        state = self._at(backend, now)
        state.in_flight += 1
        self._number += 1
        self._open.add(self._number)
        is_trial = False
        if state.has_failures:
            is_trial = state.cooldown.begin(self._number, now)
            is_trial |= state.models.begin(model, self._number, now)
        return Ticket(backend, self._number, is_trial, model)

    def respond(self, ticket: Ticket) -> None:
        """Note that the response to a request has begun: other requests need not wait for its end."""
        state = self._at(ticket.backend, self.latest)
        if state.has_failures:
            state.cooldown.respond(ticket.number)
            state.models.respond(ticket.model, ticket.number)

    def finish(
        self, ticket: Ticket, outcome: AttemptOutcome, now: float, *, jitter: float = 0.0, retry_after: float = 0.0
    ) -> None:
        """Note that a request has ended.

        `jitter`: random, from 0 to 1; spreads the trial requests of many processes. `retry_after`: seconds that the
        backend asked to wait; it applies to the backend or the model that failed. Raises `UsageError` for a request
        that has ended before.
        """
        if ticket.number not in self._open:
            raise UsageError(f"the request {ticket.number} to {ticket.backend} has ended already")
        self._open.remove(ticket.number)
        state = self._at(ticket.backend, now)
        state.in_flight -= 1
        state.responses.append(now)
        backend_works, model_works = _SAYS[outcome]
        if False not in (backend_works, model_works) and not state.has_failures:
            return
        ended = Ended(ticket.number, self._number, now, jitter, retry_after, self.limits)
        state.cooldown.end(ended, backend_works)
        state.models.end(ticket.model, ended, model_works)

    def report(self, backend: str, depth: int, now: float) -> None:
        """Note the queue depth that a backend reports: requests running and waiting."""
        state = self._at(backend, now)
        state.reported, state.reported_at = depth, now

    def recover(self, backend: str, since: float, *, models: bool) -> None:
        """End a backend's cooldown, because a probe that began at `since` succeeded.

        `models`: the backend was unhealthy before, so the failures of its models do not count either.
        """
        state = self._at(backend, since)
        state.cooldown.recover(since)
        if models:
            state.models.recover(since)

    def depth(self, backend: str, now: float) -> int:
        """Requests at a backend: our own count, or a reported depth that is larger and not older than `READING_AGE`."""
        state = self._at(backend, now)
        fresh = now - state.reported_at <= READING_AGE
        return max(state.in_flight, state.reported) if fresh else state.in_flight

    def cooling(self, backend: str, now: float, model: str = "") -> Cooling | None:
        """The longer of the backend's and the model's cooldown; None when there is neither."""
        state = self._at(backend, now)
        if not state.has_failures:
            return None
        whole, own = state.cooldown.left(now), state.models.left(model, now)
        if own is not None and (whole is None or own > whole):
            return Cooling(own, of_model=True)
        return None if whole is None else Cooling(whole, of_model=False)

    def cooldown(self, backend: str, now: float, model: str = "") -> float | None:
        """The seconds of `cooling`; None when there is no cooldown."""
        cooling = self.cooling(backend, now, model)
        return None if cooling is None else cooling.seconds

    def retry_after(self, backends: Iterable[str], now: float, model: str = "") -> int:
        """Whole seconds, at least 1, until one of these backends is expected to take a request for a model."""
        return retry_after([self.wait(backend, now, model) for backend in backends] or [self.limits.max_cooldown])

    def wait(self, backend: str, now: float, model: str) -> float:
        """Seconds until a backend is expected to take a request for a model: its cooldown, else its pace."""
        if cooldown := self.cooldown(backend, now, model):
            return cooldown
        responses = self._at(backend, now).responses
        return (responses[-1] - responses[0]) / (len(responses) - 1) if len(responses) > 1 else 1.0

    def _at(self, backend: str, now: float) -> _State:
        if now > self.latest:
            self.latest = now
        state = self._states.get(backend)
        if state is None:
            state = self._states[backend] = _State()
        return state
