"""Retries, cooldowns and `Retry-After`: what happens after a backend has failed, as `[failover]` configures it.

A cooldown is the time for which a backend, or one model at a backend, is not used after a failure. Each consecutive
failure doubles it. When it is over, one trial request is sent while other requests still avoid the backend. When the
trial's response begins, the backend is used again; a complete response resets the count. The result of a request that
was sent before the latest failure does not count.

There is no clock in this module: times are arguments, in seconds of any monotonic clock. Requests are identified by
increasing numbers.
"""

import datetime as dt
import math
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Self

from batuta_cli.config import FailoverSection
from batuta_cli.errors import UsageError

MAX_RETRIES = 100
"""The most retries that can be configured."""

MOST_MODELS = 256
"""Models of one backend whose cooldowns are kept. Clients choose the names, so the number is bounded."""


_MOST_SECONDS = 3600.0  # of any `Retry-After`, read or sent


@dataclass(frozen=True, kw_only=True)
class FailoverConfig:
    """The limits of retries and cooldowns. Raises `UsageError` for a number out of range."""

    max_retries: int = 2
    """Backends to try after the first one has failed; from 0 to `MAX_RETRIES`."""
    prompted: bool = False
    """Whether a backend that cannot continue a text exactly may receive an instruction to continue it."""
    cooldown: float = 1.0
    """Seconds of the first cooldown, before jitter; doubled with each further consecutive failure."""
    max_cooldown: float = 60.0
    """The longest cooldown in seconds, unless the backend asks for a longer one."""
    max_retry_after: float = 3600.0
    """The longest `Retry-After` of a backend that is obeyed, in seconds: a wrong value must not disable it for days."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= MAX_RETRIES:
            raise UsageError(f"max_retries must be a whole number from 0 to {MAX_RETRIES}")

    @classmethod
    def configured(cls, section: FailoverSection) -> Self:
        """The limits of `[failover]` in the configuration."""
        return cls(**{each.name: getattr(section, each.name) for each in fields(cls)})

    def cooldown_after(self, failures: int, jitter: float) -> float:
        """Seconds of cooldown after this many consecutive failures: from half of the doubled step up to all of it."""
        step = min(self.cooldown * 2.0 ** min(failures - 1, 32), max(self.cooldown, self.max_cooldown))
        return step * (1.0 - jitter / 2)


def read_retry_after(value: str, date: str = "") -> float | None:
    """Seconds to wait, from 0 to an hour, by a `Retry-After` header; None when it is invalid.

    It holds seconds or a date (RFC 9110, section 10.2.3). `date` is the response's own `Date` header: the difference of
    the two does not depend on our clock. Without a valid one our clock counts.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), _MOST_SECONDS)
    until = _http_date(value)
    if until is None:
        return None
    return min(max((until - (_http_date(date) or dt.datetime.now(dt.UTC))).total_seconds(), 0.0), _MOST_SECONDS)


def retry_after(waits: list[float]) -> int:
    """Whole seconds for a `Retry-After` header, from 1 to an hour: the shortest of these waits."""
    return math.ceil(min(max(min(waits, default=1.0), 1.0), _MOST_SECONDS))


def _http_date(value: str) -> dt.datetime | None:
    """A date in one of the three forms of RFC 9110, section 5.6.7; None when it is invalid."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)


class Ended(NamedTuple):
    """The end of a request."""

    number: int
    newest: int
    """The number of the newest request when this one ended."""
    now: float
    jitter: float
    """Random, from 0 to 1; spreads the trial requests of many processes."""
    retry_after: float
    """Seconds that the backend asked to wait; 0 when it did not."""
    limits: FailoverConfig = FailoverConfig()


@dataclass
class Cooldown:
    """The cooldown of one backend, or of one model at a backend. Inactive until there is a failure."""

    failures: int = 0
    """Consecutive failures."""
    newest: int = 0
    """The number of the newest request at the time of the latest failure."""
    failed_at: float = -math.inf
    """The time of the latest failure."""
    until: float = -math.inf
    trial: int | None = None
    """The number of the trial request in flight; None without one."""
    responding: bool = False
    """Whether a response has begun since the latest failure: the backend is used before that response is complete."""

    def left(self, now: float) -> float | None:
        """Seconds until the trial request; 0 while the trial is in flight; None when there is no cooldown."""
        if not self.failures or self.responding or (now >= self.until and self.trial is None):
            return None
        return max(0.0, self.until - now)

    def begin(self, number: int, now: float) -> bool:
        """Note that a request will be sent; True when it is the trial request."""
        is_trial = self.failures > 0 and not self.responding and self.trial is None and now >= self.until
        if is_trial:
            self.trial = number
        return is_trial

    def respond(self, number: int) -> None:
        """Note that the response to a request has begun."""
        if self.failures and number > self.newest:
            self.responding = True

    def recover(self, since: float) -> None:
        """End the cooldown, because a probe that began at `since` succeeded, unless there was a later failure."""
        if self.failed_at < since:
            self.failures, self.trial, self.until = 0, None, -math.inf

    def end(self, ended: Ended, worked: bool | None) -> None:
        """Note that a request has ended; `worked` is None when its end shows neither success nor failure."""
        if self.trial == ended.number:
            self.trial = None
        if worked is None or ended.number <= self.newest:
            return
        self.responding = False
        if worked:
            self.failures = 0
            return
        self.failures += 1
        self.newest, self.failed_at = ended.newest, ended.now
        limits = ended.limits
        own = limits.cooldown_after(self.failures, ended.jitter)
        wait = max(own, min(ended.retry_after, limits.max_retry_after))
        self.until = ended.now + wait


class ModelCooldowns:
    """The cooldowns of the models of one backend. Only failed models take memory, at most `MOST_MODELS`."""

    def __init__(self) -> None:
        self.failed: dict[str, Cooldown] = {}
        """By the name of the model."""

    def __len__(self) -> int:
        return len(self.failed)

    def left(self, model: str, now: float) -> float | None:
        """As `Cooldown.left`."""
        cooldown = self.failed.get(model)
        return cooldown.left(now) if cooldown else None

    def begin(self, model: str, number: int, now: float) -> bool:
        """As `Cooldown.begin`."""
        cooldown = self.failed.get(model)
        return cooldown is not None and cooldown.begin(number, now)

    def respond(self, model: str, number: int) -> None:
        """As `Cooldown.respond`."""
        if cooldown := self.failed.get(model):
            cooldown.respond(number)

    def end(self, model: str, ended: Ended, worked: bool | None) -> None:
        """As `Cooldown.end`."""
        cooldown = self.failed.get(model)
        if cooldown is None:
            if worked is not False:
                return
            if len(self.failed) >= MOST_MODELS:
                self._evict()
            cooldown = self.failed[model] = Cooldown()
        cooldown.end(ended, worked)
        if not cooldown.failures:
            del self.failed[model]

    def recover(self, since: float) -> None:
        """As `Cooldown.recover`, for all models."""
        for cooldown in self.failed.values():
            cooldown.recover(since)
        self.failed = {model: cooldown for model, cooldown in self.failed.items() if cooldown.failures}

    def _evict(self) -> None:
        """Forget the model whose cooldown ended or ends first."""
        del self.failed[min(self.failed, key=lambda model: self._order(self.failed[model]))]

    @staticmethod
    def _order(cooldown: Cooldown) -> tuple[bool, float]:
        return cooldown.trial is not None, cooldown.until
