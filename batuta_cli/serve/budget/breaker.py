"""The daily budget: what a request may cost, what is left of the day, and what was spent.

    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="5.00"), ledger=open_ledger("sqlite"))
    with breaker.reserve("0.42", model="gpt-4", backend="OpenAI") as reservation:
        reservation.dispatched()
        ...
        reservation.settle("0.31")

`check` asks, `record` notes; between the two another request may be faster. `reserve` is both in one step, so that
spent + reserved never exceeds the budget, whatever the number of threads and processes that share the ledger. What
costs nothing passes without a look at the ledger. A ledger that cannot be used is a `LedgerError`: nothing paid for
may be sent.

Amounts are dollars as `Decimal`, `str`, `int` or `float`, counted in whole nano-dollars, rounded up.
"""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from batuta_cli.errors import CostError, DailyBudgetExceeded, RequestTooExpensive, UsageError
from batuta_cli.serve.budget.budget_day import day_after, time_zone
from batuta_cli.serve.budget.ledger.base import DayStatus, Ledger, LedgerEntry, Moment, Reset, Rezoned
from batuta_cli.serve.budget.operations import Alert, BudgetOperations, log_alert
from batuta_cli.serve.budget.reservation import Reservation
from batuta_cli.serve.money import Usd, format_usd, to_nano, to_usd

if TYPE_CHECKING:
    from batuta_cli.config import Budget

__all__ = [
    "Alert",
    "BudgetStatus",
    "CircuitBreakerConfig",
    "CostCircuitBreaker",
    "CostError",
    "DailyBudgetExceeded",
    "RequestTooExpensive",
    "Reservation",
]


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """What may be spent. Raises `UsageError` for an amount, a part or a time zone that is none."""

    daily_budget_usd: Usd = Decimal("10.00")
    """Dollars a day; 0 refuses all that costs anything."""
    warning_threshold: float | Decimal = 0.8
    """The part of the daily budget, from 0 to 1, at which one warning a day is given."""
    max_request_cost_usd: Usd = Decimal("1.00")
    """Dollars that a single request may cost."""
    timezone: str = "UTC"
    """The zone of the IANA database whose midnight begins a day."""

    def __post_init__(self) -> None:
        for name in ("daily_budget_usd", "max_request_cost_usd"):
            object.__setattr__(self, name, to_usd(to_nano(getattr(self, name), name)))
        part = self.warning_threshold
        # A comparison with a Decimal NaN raises, so that it is asked for first.
        if isinstance(part, bool) or not isinstance(part, int | float | Decimal) or part != part or not 0 <= part <= 1:
            raise UsageError("warning_threshold must be a number from 0 to 1")
        time_zone(self.timezone)

    @classmethod
    def from_config(cls, budget: "Budget") -> Self:
        """As the `[budget]` table of the configuration has it."""
        return cls(budget.daily_budget_usd, budget.warning_threshold, budget.max_request_cost_usd, budget.timezone)

    @cached_property
    def daily_budget(self) -> int:
        """In nano-dollars."""
        return to_nano(self.daily_budget_usd)

    @cached_property
    def max_request_cost(self) -> int:
        """In nano-dollars."""
        return to_nano(self.max_request_cost_usd)

    @cached_property
    def warn_at(self) -> int:
        """Nano-dollars from which there is a warning: the smallest amount that is the threshold, or above it."""
        part = Decimal(
            repr(self.warning_threshold) if isinstance(self.warning_threshold, float) else self.warning_threshold
        )
        return int((part * self.daily_budget).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True)
class BudgetStatus:
    """How a day stands; amounts in nano-dollars, and in dollars under the same name with `_usd`."""

    spent: int
    reserved: int
    daily_budget: int
    max_request_cost: int
    warn_at: int
    day: dt.date
    timezone: str
    """The time zone that the ledger counts its days in."""
    resets_at: dt.datetime
    """When the next day begins, in the budget's time zone."""
    ahead: bool
    """The ledger is more than a day ahead of the clock, so that all that costs anything is refused."""
    next_timezone: str | None = None
    """The time zone from the next day on, when it is another one."""

    @property
    def remaining(self) -> int:
        """What may still be reserved; never below 0, though `record` may have spent more than there was."""
        return max(0, self.daily_budget - self.spent - self.reserved)

    @property
    def warning(self) -> bool:
        """What was spent has reached the warning threshold."""
        return 0 < self.spent >= self.warn_at

    @property
    def spent_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.spent)

    @property
    def reserved_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.reserved)

    @property
    def remaining_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.remaining)

    @property
    def daily_budget_usd(self) -> Decimal:
        """Dollars."""
        return to_usd(self.daily_budget)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: money as decimal strings, times as RFC 3339 in UTC."""
        return {
            "spent_usd": format_usd(self.spent),
            "reserved_usd": format_usd(self.reserved),
            "remaining_usd": format_usd(self.remaining),
            "daily_budget_usd": format_usd(self.daily_budget),
            "max_request_cost_usd": format_usd(self.max_request_cost),
            "warning": self.warning,
            "warning_at_usd": format_usd(self.warn_at),
            "day": self.day.isoformat(),
            "timezone": self.timezone,
            "next_timezone": self.next_timezone,
            "resets_at": f"{self.resets_at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "ledger_ahead": self.ahead,
        }


class CostCircuitBreaker:
    """Keeps requests within a `CircuitBreakerConfig`, and spending in a ledger.

    Without a ledger it keeps count in memory, for this process alone. `on_alert` hears of the warning threshold and of
    requests that cost more than was reserved for them; by default they go to the logger `batuta`. `now` is the clock,
    in Unix seconds.
    """

    def __init__(
        self,
        config: CircuitBreakerConfig | None = None,
        ledger: Ledger | None = None,
        *,
        on_alert: Callable[[Alert], None] = log_alert,
        now: Callable[[], float] = time.time,
    ) -> None:
        if ledger is None:
            from batuta_cli.serve.budget.ledger.memory import MemoryLedger

            ledger = MemoryLedger()
        self.config = config or CircuitBreakerConfig()
        self.ledger = ledger
        limits = (self.config.daily_budget, self.config.warn_at)
        self._account = BudgetOperations(ledger, self.config.timezone, limits, on_alert, now)

    @classmethod
    def with_defaults(cls) -> Self:
        """10 dollars a day, 1 dollar a request, in memory."""
        return cls()

    @classmethod
    def from_config(cls, budget: "Budget", *, on_alert: Callable[[Alert], None] = log_alert) -> Self:
        """The budget and the ledger that the configuration names."""
        from batuta_cli.serve.budget.ledger import open_ledger

        ledger = open_ledger(budget.ledger, durability=budget.durability)
        return cls(CircuitBreakerConfig.from_config(budget), ledger, on_alert=on_alert)

    def check(self, estimate: Usd) -> None:
        """Whether a request of that cost would pass now; nothing is held for it.

        Raises `RequestTooExpensive`, `DailyBudgetExceeded`, `UsageError` for what is no amount, and `LedgerError`.
        """
        cost = self._affordable(estimate)
        if not cost:
            return
        moment = self._account.moment()
        day_status = self.ledger.day_status(moment)
        if day_status.ahead:
            from batuta_cli.serve.budget.ledger.rules import ahead

            raise ahead(day_status.day, moment.day)
        if day_status.spent + day_status.reserved + cost > self.config.daily_budget:
            raise self._exceeded(cost, day_status, moment)

    def reserve(self, estimate: Usd, *, model: str | None = None, backend: str | None = None) -> Reservation:
        """Hold the most that a request can cost, until it is settled. Raises as `check`."""
        cost, moment = self._affordable(estimate), self._account.moment()
        held = self._account.reserve(cost, moment, model, backend)
        if isinstance(held, DayStatus):
            raise self._exceeded(cost, held, moment)
        return held

    def record(
        self,
        actual: Usd,
        *,
        model: str | None = None,
        backend: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> None:
        """Note what was spent; it may exceed the budget, and then the next check refuses.

        Raises `UsageError` and `LedgerError`.
        """
        self._account.record(to_nano(actual), model, backend, (input_tokens, output_tokens))

    def alert(self, alert: Alert) -> None:
        """Hand an alert to `on_alert`. Raises nothing."""
        self._account.tell(alert)

    def status(self) -> BudgetStatus:
        """How the day stands. Raises `LedgerError`."""
        moment = self._account.moment()
        day_status = self.ledger.day_status(moment)
        return BudgetStatus(
            spent=day_status.spent,
            reserved=day_status.reserved,
            daily_budget=self.config.daily_budget,
            max_request_cost=self.config.max_request_cost,
            warn_at=self.config.warn_at,
            day=day_status.day,
            timezone=day_status.zone,
            resets_at=self._over(day_status, moment),
            ahead=day_status.ahead,
            next_timezone=day_status.next_zone,
        )

    def history(self, days: int = 30) -> list[LedgerEntry]:
        """What was spent on the last days, today included, by day, model and backend; the newest first.

        Raises `UsageError` unless 1 ≤ days ≤ 100,000, and `LedgerError`.
        """
        if not 1 <= days <= 100_000:
            raise UsageError("days must be from 1 to 100000")
        moment = self._account.moment()
        day_status = self.ledger.day_status(moment)
        today = moment.day if day_status.ahead else day_status.day
        return self.ledger.history(max(today, dt.date.min + dt.timedelta(days)) - dt.timedelta(days - 1))

    def reset(self) -> Reset:
        """Forgive what was spent today, and set a ledger right that is ahead of the clock. Raises `LedgerError`.

        The history keeps what was spent, running requests keep their reservations.
        """
        return self.ledger.reset(self._account.moment())

    def change_timezone(self, zone: str) -> Rezoned:
        """Have the ledger count its days in another time zone from the next day on.

        The configuration is not changed: a breaker whose configuration has neither zone is refused. Raises
        `UsageError` for a time zone that does not exist, and `LedgerError`.
        """
        time_zone(zone)
        return self.ledger.rezone(self._account.moment(), zone)

    def _affordable(self, estimate: Usd) -> int:
        cost = to_nano(estimate, "the estimate")
        if cost > self.config.max_request_cost:
            most = self.config.max_request_cost
            raise RequestTooExpensive(
                f"the request would cost ${format_usd(cost)}, and a single one may cost ${format_usd(most)}",
                hint="ask for fewer tokens, or allow more: batuta serve budget set --max-request-cost USD",
                result={"estimate_usd": format_usd(cost), "max_request_cost_usd": format_usd(most)},
            )
        return cost

    def _exceeded(self, cost: int, day_status: DayStatus, moment: Moment) -> DailyBudgetExceeded:
        left = max(0, self.config.daily_budget - day_status.spent - day_status.reserved)
        over = self._over(day_status, moment)
        shown = f"{over:%Y-%m-%d %H:%M} {day_status.zone}"
        return DailyBudgetExceeded(
            f"the request would cost ${format_usd(cost)}, and ${format_usd(left)} is left of the day's"
            f" ${format_usd(self.config.daily_budget)} (spent ${format_usd(day_status.spent)}, reserved"
            f" ${format_usd(day_status.reserved)}); the next day begins at {shown}",
            hint="where it went: batuta serve budget history; more: batuta serve budget set --daily-budget USD",
            result={
                "estimate_usd": format_usd(cost),
                "remaining_usd": format_usd(left),
                "daily_budget_usd": format_usd(self.config.daily_budget),
                "resets_at": f"{over.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
            },
        )

    def _over(self, day_status: DayStatus, moment: Moment) -> dt.datetime:
        # A day that lies far ahead has no end to wait for: the clock's own is told.
        day = moment.day if day_status.ahead else day_status.day
        now, zone = moment.time / 1000, time_zone(day_status.zone)
        over = day_after(day, now, zone)
        if day_status.next_zone:  # the day is over when it is over in both zones
            over = max(over, day_after(day, now, time_zone(day_status.next_zone)).astimezone(zone))
        return over
