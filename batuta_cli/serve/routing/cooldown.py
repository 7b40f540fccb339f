"""Cooldowns: how long a backend, or one model at a backend, is left alone after a failure.

A cooldown is longer with each failure in a row. When it is over, one request tries again while the others still pass
by, until its answer begins to come; a complete answer ends the series. A request that began before the latest failure
says nothing new about it.

State machines without a clock: times are arguments, in seconds of any monotonic clock. Requests are told apart by
numbers that grow.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

FIRST_COOLDOWN = 1.0
"""Seconds of the first cooldown, less the jitter; doubled with each further failure in a row."""

LONGEST_COOLDOWN = 60.0
"""Seconds that no cooldown of our own making exceeds."""

LONGEST_RETRY_AFTER = 3600.0
"""Seconds for which a backend's own `Retry-After` is obeyed; a wrong one must not disable it for ever."""

MOST_MODELS = 256
"""Models of one backend whose cooldowns are kept. Clients choose the names, so the number is bounded."""


def cooldown_after(failures: int, jitter: float) -> float:
    """Seconds of cooldown after so many failures in a row: between half of a doubling step and all of it."""
    step = min(FIRST_COOLDOWN * 2.0 ** min(failures - 1, 32), LONGEST_COOLDOWN)
    return step * (1.0 - jitter / 2)


class Ended(NamedTuple):
    """A request that has ended."""

    number: int
    newest: int
    """The number of the newest request so far."""
    now: float
    jitter: float
    """Random, from 0 to 1; spreads the trials of many processes."""
    retry_after: float
    """What the backend asked for, in seconds."""


@dataclass
class Cooldown:
    """The cooldown of one thing; without a failure it is never on."""

    failures: int = 0
    """In a row."""
    newest: int = 0
    """The number of the newest request that had begun when the latest failure was seen."""
    until: float = -math.inf
    trial: int | None = None
    """The number of the one request that tries again."""
    answering: bool = False
    """Since the latest failure an answer has begun to come, so it may be used before that answer is complete."""

    def left(self, now: float) -> float | None:
        """Seconds until it may be tried, 0 while one request tries it; None when it may be used."""
        if not self.failures or self.answering or (now >= self.until and self.trial is None):
            return None
        return max(0.0, self.until - now)

    def begin(self, number: int, now: float) -> bool:
        """Count a request that is about to be sent; True when it is the one that tries again."""
        is_trial = self.failures > 0 and not self.answering and self.trial is None and now >= self.until
        if is_trial:
            self.trial = number
        return is_trial

    def respond(self, number: int) -> None:
        """Note that the answer to a request has begun to come."""
        if self.failures and number > self.newest:
            self.answering = True

    def end(self, ended: Ended, worked: bool | None) -> None:
        """Count a request that has ended; `worked` is None when its end says nothing of this."""
        if self.trial == ended.number:
            self.trial = None
        if worked is None or ended.number <= self.newest:
            return
        self.answering = False
        if worked:
            self.failures = 0
            return
        self.failures += 1
        self.newest = ended.newest
        wait = max(cooldown_after(self.failures, ended.jitter), min(ended.retry_after, LONGEST_RETRY_AFTER))
        self.until = ended.now + wait


class ModelCooldowns:
    """The cooldowns of the models of one backend. Only models that failed take memory, `MOST_MODELS` at most."""

    def __init__(self) -> None:
        self._failed: dict[str, Cooldown] = {}

    def __len__(self) -> int:
        return len(self._failed)

    def left(self, model: str, now: float) -> float | None:
        """As `Cooldown.left`."""
        found = self._failed.get(model)
        return found.left(now) if found else None

    def begin(self, model: str, number: int, now: float) -> bool:
        """As `Cooldown.begin`."""
        found = self._failed.get(model)
        return found is not None and found.begin(number, now)

    def respond(self, model: str, number: int) -> None:
        """As `Cooldown.respond`."""
        if found := self._failed.get(model):
            found.respond(number)

    def end(self, model: str, ended: Ended, worked: bool | None) -> None:
        """As `Cooldown.end`."""
        found = self._failed.get(model)
        if found is None:
            if worked is not False:
                return
            if len(self._failed) >= MOST_MODELS:
                self._evict()
            found = self._failed[model] = Cooldown()
        found.end(ended, worked)
        if not found.failures:
            del self._failed[model]

    def _evict(self) -> None:
        """Forget the model whose cooldown is over for the longest time, or will be over first."""
        del self._failed[min(self._failed, key=lambda model: self._order(self._failed[model]))]

    @staticmethod
    def _order(cooldown: Cooldown) -> tuple[bool, float]:
        return cooldown.trial is not None, cooldown.until
