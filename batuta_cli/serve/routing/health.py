"""How busy each backend is, and what cools down after a failure: what one process knows of the backends it uses.

Our own count of requests in flight is exact and immediate; what a backend reports of itself adds the traffic from
elsewhere, and is believed for `READING_AGE`. A failure is attributed to what failed: the backend when it cannot be
reached, else the model that was asked for at that backend, and nothing when the request itself was at fault.

A state machine without a clock: times are arguments, in seconds of any monotonic clock, and so is randomness. Not
thread-safe: it belongs to one event loop. Memory: one entry a backend, one a request in flight, and one a failed model
of a backend, of which there are at most `cooldown.MOST_MODELS`.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from batuta_cli.errors import UsageError
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.routing.cooldown import LONGEST_COOLDOWN, LONGEST_RETRY_AFTER, Cooldown, Ended, ModelCooldowns

READING_AGE = 5.0
"""Seconds after which what a backend reported counts for nothing (docs/gateway.md#queue-depth)."""

_PACE = 8  # intervals between answers that the pace of a backend is the mean of


class AttemptOutcome(NameEnum):
    """How a request ended, as far as it says something of the backend or of the model."""

    WORKED = "worked"
    FAILED = "failed"
    """The backend cannot be reached."""
    MODEL_FAILED = "model_failed"
    """The backend answered that it cannot serve the model now: a 401, 403, 404, 429 or 5xx."""
    BROKEN = "broken"
    """The backend was reached, but the model's answer did not come, or not to its end."""
    REQUEST_REFUSED = "request_refused"
    """The backend answered that the request itself is wrong."""
    UNKNOWN = "unknown"
    """The client left, or nothing was sent."""


_SAYS: dict[AttemptOutcome, tuple[bool | None, bool | None]] = {
    AttemptOutcome.WORKED: (True, True),
    AttemptOutcome.FAILED: (False, None),
    AttemptOutcome.MODEL_FAILED: (True, False),
    AttemptOutcome.BROKEN: (None, False),
    AttemptOutcome.REQUEST_REFUSED: (True, None),
    AttemptOutcome.UNKNOWN: (None, None),
}
"""Whether the backend works, and whether the model does there; None: not known."""


class Ticket(NamedTuple):
    """One request in flight; `finish` takes it back."""

    backend: str
    number: int
    is_trial: bool
    """It tries a backend, or a model there, again whose cooldown is over."""
    model: str = ""


class Cooling(NamedTuple):
    """What keeps a request from a backend after a failure."""

    seconds: float
    """Until it may be tried; 0 while one request tries it."""
    of_model: bool
    """Only the model cools down there, not the backend."""


@dataclass
class _State:
    in_flight: int = 0
    reported: int = 0
    reported_at: float = -math.inf
    cooldown: Cooldown = field(default_factory=Cooldown)
    models: ModelCooldowns = field(default_factory=ModelCooldowns)
    answers: deque[float] = field(default_factory=lambda: deque(maxlen=_PACE + 1))


class BackendHealth:
    """The load and the cooldowns of all backends, by name."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self._open: set[int] = set()
        self._number = 0
        self.latest = 0.0
        """The latest time that any method was told."""

    def start(self, backend: str, now: float, model: str = "") -> Ticket:
        """Count a request that is about to be sent."""
        state = self._at(backend, now)
        state.in_flight += 1
        self._number += 1
        self._open.add(self._number)
        is_trial = state.cooldown.begin(self._number, now)
        is_trial |= state.models.begin(model, self._number, now)
        return Ticket(backend, self._number, is_trial, model)

    def respond(self, ticket: Ticket) -> None:
        """Note that the answer to a request has begun to come: other requests need not wait for its end."""
        state = self._at(ticket.backend, self.latest)
        state.cooldown.respond(ticket.number)
        state.models.respond(ticket.model, ticket.number)

    def finish(
        self, ticket: Ticket, outcome: AttemptOutcome, now: float, *, jitter: float = 0.0, retry_after: float = 0.0
    ) -> None:
        """Take back a request that has ended.

        `jitter`, random from 0 to 1, keeps many processes from trying a backend again all at once. `retry_after` is
        what the backend asked for, in seconds; it counts for what failed. Raises `UsageError` for a ticket that was
        taken back before.
        """
        if ticket.number not in self._open:
            raise UsageError(f"the request {ticket.number} to {ticket.backend} has ended already")
        self._open.remove(ticket.number)
        state = self._at(ticket.backend, now)
        state.in_flight -= 1
        state.answers.append(now)
        backend_works, model_works = _SAYS[outcome]
        ended = Ended(ticket.number, newest=self._number, now=now, jitter=jitter, retry_after=retry_after)
        state.cooldown.end(ended, backend_works)
        state.models.end(ticket.model, ended, model_works)

    def report(self, backend: str, depth: int, now: float) -> None:
        """Remember how many requests a backend said it has, running and waiting."""
        state = self._at(backend, now)
        state.reported, state.reported_at = depth, now

    def depth(self, backend: str, now: float) -> int:
        """Requests that a backend has: our own, or what it reported when that is more and not too old."""
        state = self._at(backend, now)
        fresh = now - state.reported_at <= READING_AGE
        return max(state.in_flight, state.reported) if fresh else state.in_flight

    def cooling(self, backend: str, now: float, model: str = "") -> Cooling | None:
        """What keeps a request for a model from a backend, the backend's cooldown or the model's; None: nothing."""
        state = self._at(backend, now)
        whole, own = state.cooldown.left(now), state.models.left(model, now)
        if own is not None and (whole is None or own > whole):
            return Cooling(own, of_model=True)
        return None if whole is None else Cooling(whole, of_model=False)

    def cooldown(self, backend: str, now: float, model: str = "") -> float | None:
        """None when a backend may be asked for a model; else the seconds of `cooling`."""
        found = self.cooling(backend, now, model)
        return None if found is None else found.seconds

    def retry_after(self, backends: Iterable[str], now: float, model: str = "") -> int:
        """Whole seconds, at least 1, until one of these backends can be expected to take a request for a model."""
        waits = [self._wait(backend, now, model) for backend in backends]
        return math.ceil(min(max(min(waits, default=LONGEST_COOLDOWN), 1.0), LONGEST_RETRY_AFTER))

    def _wait(self, backend: str, now: float, model: str) -> float:
        if cooldown := self.cooldown(backend, now, model):
            return cooldown
        answers = self._at(backend, now).answers
        return (answers[-1] - answers[0]) / (len(answers) - 1) if len(answers) > 1 else 1.0

    def _at(self, backend: str, now: float) -> _State:
        if now > self.latest:
            self.latest = now
        state = self._states.get(backend)
        if state is None:
            state = self._states[backend] = _State()
        return state
