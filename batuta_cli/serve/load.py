"""How busy each backend is, and whether it rests after a failure: what one process knows of the ones it uses.

Our own count of requests in flight is exact and immediate; what a backend reports of itself adds the traffic from
elsewhere, and is believed for `READING_AGE`. A backend that fails rests, longer each time; then one request tries it
while the others still pass it by.

A state machine without a clock: times are arguments, in seconds of any monotonic clock, and so is randomness. Not
thread-safe: it belongs to one event loop. Memory: one entry a backend and one a request in flight.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from batuta_cli.errors import UsageError
from batuta_cli.serve.words import Word

READING_AGE = 5.0
"""Seconds after which what a backend reported counts for nothing (docs/gateway.md#queue-depth)."""

FIRST_REST = 1.0
"""Seconds a backend rests after its first failure, less the jitter; doubled with each further one."""

LONGEST_REST = 60.0
"""Seconds no rest of our own making exceeds."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds for which a backend's own `Retry-After` is obeyed; a wrong one must not put it away for ever."""

_PACE = 8  # intervals between answers that the pace of a backend is the mean of


class Outcome(Word):
    """How a request ended, as far as it says something of the backend."""

    WORKED = "worked"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The client left, or the request itself was at fault."""


class Ticket(NamedTuple):
    """One request in flight; `finish` takes it back."""

    backend: str
    number: int
    failures: int
    """Of the backend when the request began. One that began before a failure says nothing new after it."""
    is_trial: bool


@dataclass
class _State:
    in_flight: int = 0
    reported: int = 0
    reported_at: float = -math.inf
    failures: int = 0
    in_a_row: int = 0
    rests_until: float = -math.inf
    on_trial: bool = False
    answers: deque[float] = field(default_factory=lambda: deque(maxlen=_PACE + 1))


class Loads:
    """The load and the rests of all backends, by name."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self._open: set[int] = set()
        self._number = 0
        self.latest = 0.0
        """The latest time that any method was told."""

    def start(self, backend: str, now: float) -> Ticket:
        """Count a request that is about to be sent."""
        state = self._at(backend, now)
        state.in_flight += 1
        self._number += 1
        self._open.add(self._number)
        is_trial = state.in_a_row > 0 and not state.on_trial and now >= state.rests_until
        state.on_trial |= is_trial
        return Ticket(backend, self._number, state.failures, is_trial)

    def finish(
        self, ticket: Ticket, outcome: Outcome, now: float, *, jitter: float = 0.0, retry_after: float = 0.0
    ) -> None:
        """Take back a request that has ended.

        `jitter`, random from 0 to 1, keeps many processes from trying a backend again all at once. `retry_after` is
        what the backend asked for, in seconds. Raises `UsageError` for a ticket that was taken back before.
        """
        if ticket.number not in self._open:
            raise UsageError(f"the request {ticket.number} to {ticket.backend} has ended already")
        self._open.remove(ticket.number)
        state = self._at(ticket.backend, now)
        state.in_flight -= 1
        state.answers.append(now)
        if ticket.is_trial:
            state.on_trial = False
        if ticket.failures != state.failures or outcome is Outcome.UNKNOWN:
            return
        if outcome is Outcome.WORKED:
            state.in_a_row = 0
            return
        state.failures += 1
        state.in_a_row += 1
        rest = max(rest_after(state.in_a_row, jitter), min(retry_after, LONGEST_RETRY_AFTER))
        state.rests_until = now + rest

    def report(self, backend: str, depth: int, now: float) -> None:
        """Remember how many requests a backend said it has, running and waiting."""
        state = self._at(backend, now)
        state.reported, state.reported_at = depth, now

    def depth(self, backend: str, now: float) -> int:
        """Requests that a backend has: our own, or what it reported when that is more and not too old."""
        state = self._at(backend, now)
        fresh = now - state.reported_at <= READING_AGE
        return max(state.in_flight, state.reported) if fresh else state.in_flight

    def rest(self, backend: str, now: float) -> float | None:
        """None when a backend may be used; else the seconds until it may be tried, 0 while one request tries it."""
        state = self._at(backend, now)
        if state.in_a_row == 0 or (now >= state.rests_until and not state.on_trial):
            return None
        return max(0.0, state.rests_until - now)

    def retry_after(self, backends: Iterable[str], now: float) -> int:
        """Whole seconds, at least 1, until one of these backends can be expected to take a request."""
        waits = [self._wait(backend, now) for backend in backends]
        return math.ceil(min(max(min(waits, default=LONGEST_REST), 1.0), LONGEST_RETRY_AFTER))

    def _wait(self, backend: str, now: float) -> float:
        if rest := self.rest(backend, now):
            return rest
        answers = self._at(backend, now).answers
        return (answers[-1] - answers[0]) / (len(answers) - 1) if len(answers) > 1 else 1.0

    def _at(self, backend: str, now: float) -> _State:
        if now > self.latest:
            self.latest = now
        state = self._states.get(backend)
        if state is None:
            state = self._states[backend] = _State()
        return state


def rest_after(failures: int, jitter: float) -> float:
    """Seconds of rest after so many failures in a row: between half of a doubling step and all of it."""
    step = min(FIRST_REST * 2.0 ** min(failures - 1, 32), LONGEST_REST)
    return step * (1.0 - jitter / 2)
