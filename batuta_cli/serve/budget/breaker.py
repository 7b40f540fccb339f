"""The circuit breaker of costs: limits the cost of each request and of each day.

    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd="5.00"), ledger=open_ledger("sqlite"))
    with breaker.reserve("0.42", model="gpt-4", backend="OpenAI") as reservation:
        reservation.dispatched()
        ...
        reservation.settle("0.31")

`check` tests whether a cost fits, `record` adds a cost; between the two another request may spend the rest. `reserve`
tests and reserves in one step, so that spent + reserved never exceeds the budget, for any number of threads and
processes that share the ledger. A cost of 0 passes without reading the ledger. A ledger that cannot be used raises
`LedgerError`; then no paid request may be sent.

Amounts are dollars as `Decimal`, `str`, `int` or `float`, counted in whole nano-dollars, rounded up.
"""

import datetime as dt
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from batuta_cli.errors import BudgetReservedError, CostError, DailyBudgetExceeded, RequestTooExpensive, UsageError
from batuta_cli.serve.budget.budget_day import day_after, time_zone
from batuta_cli.serve.budget.ledger.base import DayStatus, Ledger, LedgerEntry, Moment, Reset, Rezoned
from batuta_cli.serve.budget.operations import Alert, BudgetOperations, log_alert
from batuta_cli.serve.budget.reservation import Reservation
from batuta_cli.serve.budget.waiting import ReservationQueues
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.money import Usd, format_usd, to_nano, to_usd

if TYPE_CHECKING:
    from batuta_cli.config import Budget, RedisSection

__all__ = [
    "Alert",
    "BudgetReservedError",
    "BudgetStatus",
    "CircuitBreakerConfig",
    "CostCircuitBreaker",
    "CostError",
    "DailyBudgetExceeded",
    "RequestTooExpensive",
    "Reservation",
]

_BUDGET_HINT = """see the spending: batuta serve budget history
raise the budget: batuta serve budget set --daily-budget USD"""


_KEY_HINT = """see the spending of the keys: batuta serve budget history --by key
a key with a higher budget: batuta serve keys create NAME --daily-budget USD"""


@dataclass(kw_only=True, frozen=True)
class CircuitBreakerConfig:
    """Limits of spending. Raises `UsageError` if an amount, the threshold or the time zone is invalid."""

    daily_budget_usd: Usd = Decimal("10.00")
    """Dollars a day; 0 refuses every paid request."""
    warning_threshold: float | Decimal = 0.8
    """The part of the daily budget, from 0 to 1, at which one warning a day is sent."""
    max_request_cost_usd: Usd = Decimal("1.00")
    """Dollars that one request may cost."""
    timezone: str = "UTC"
    """The time zone whose midnight begins a day, a name of the IANA database."""
    reservation_wait: float = 2.0
    """Seconds that a request waits for reserved money; see `waiting.py`."""

    def __post_init__(self) -> None:
        for name in ("daily_budget_usd", "max_request_cost_usd"):
            object.__setattr__(self, name, to_usd(to_nano(getattr(self, name), name)))
        part = self.warning_threshold
        # NaN is tested first, because ordering a Decimal NaN raises.
        if isinstance(part, bool) or not isinstance(part, int | float | Decimal) or part != part or not 0 <= part <= 1:
            raise UsageError("warning_threshold must be a number from 0 to 1")
        time_zone(self.timezone)

    @classmethod
    def from_config(cls, budget: "Budget") -> Self:
        """The limits of the configuration's `[budget]` table."""
        return cls(
            daily_budget_usd=budget.daily_budget_usd,
            warning_threshold=budget.warning_threshold,
            max_request_cost_usd=budget.max_request_cost_usd,
            timezone=budget.timezone,
            reservation_wait=budget.reservation_wait,
        )

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
        """Nano-dollars of spending at which the warning is due: the threshold, rounded up."""
        part = Decimal(
            repr(self.warning_threshold) if isinstance(self.warning_threshold, float) else self.warning_threshold
        )
        return int((part * self.daily_budget).to_integral_value(ROUND_CEILING))


@dataclass(kw_only=True, frozen=True)
class BudgetStatus:
    """The sums and limits of a day, in nano-dollars; properties named `*_usd` are in dollars."""

    spent: int
    reserved: int
    daily_budget: int
    max_request_cost: int
    warn_at: int
    day: dt.date
    timezone: str
    """The time zone in which the ledger counts days."""
    resets_at: dt.datetime
    """The time at which the next day begins, in the budget's time zone."""
    ahead: bool
    """The ledger is more than a day ahead of the clock, so that paid requests are refused."""
    next_timezone: str | None = None
    """The time zone from the next day on; None when it stays the same."""
    client: "ClientStatus | None" = None
    """The sums of the client for which it was asked."""

    @property
    def remaining(self) -> int:
        """The amount that can still be reserved; 0 also when `record` has exceeded the budget."""
        return max(0, self.daily_budget - self.spent - self.reserved)

    @property
    def unspent(self) -> int:
        """The amount that is not spent; running requests may have reserved a part of it."""
        return max(0, self.daily_budget - self.spent)

    @property
    def unspent_for_client(self) -> int:
        """The amount of `unspent` that the client may spend."""
        own = self.client.unspent if self.client is not None else None
        return self.unspent if own is None else min(self.unspent, own)

    @property
    def limited_by_client(self) -> bool:
        """Whether the client may spend less than is left of the day."""
        return self.unspent_for_client < self.unspent

    @property
    def remaining_for_client(self) -> int:
        """The amount of `remaining` that can be reserved for the client."""
        own = self.client.remaining if self.client is not None else None
        return self.remaining if own is None else min(self.remaining, own)

    @property
    def warning(self) -> bool:
        """Whether spending has reached the warning threshold."""
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
        } | ({} if self.client is None else {"key": self.client.to_json()})


@dataclass(frozen=True)
class ClientStatus:
    """The sums of a client key on a day, in nano-dollars."""

    name: str
    spent: int
    reserved: int
    daily_budget: int | None
    """None: no separate budget."""

    @property
    def unspent(self) -> int | None:
        """The part of its budget that is not spent."""
        return None if self.daily_budget is None else max(0, self.daily_budget - self.spent)

    @property
    def remaining(self) -> int | None:
        """The part of its budget that can still be reserved."""
        return None if self.daily_budget is None else max(0, self.daily_budget - self.spent - self.reserved)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: money as decimal strings."""
        return {
            "name": self.name,
            "spent_usd": format_usd(self.spent),
            "reserved_usd": format_usd(self.reserved),
            "remaining_usd": None if self.remaining is None else format_usd(self.remaining),
            "daily_budget_usd": None if self.daily_budget is None else format_usd(self.daily_budget),
        }


class CostCircuitBreaker:
    """Refuses requests that exceed the limits of a `CircuitBreakerConfig`, and stores spending in a ledger.

    Without a ledger it counts in the memory of this process. `on_alert` receives the daily warning, and alerts of
    requests that cost more than their reservation; the default writes them to the logger `batuta`. `now` is the clock,
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
        self.queues = ReservationQueues(self.config.reservation_wait)
        """The requests that wait for reserved money."""
        limits = (self.config.daily_budget, self.config.warn_at)
        self._operations = BudgetOperations(ledger, self.config.timezone, limits, on_alert, now, self.queues)

    @classmethod
    def with_defaults(cls) -> Self:
        """10 dollars a day, 1 dollar a request, in memory."""
        return cls()

    @classmethod
    def from_config(
        cls,
        budget: "Budget",
        redis: "RedisSection | None" = None,
        *,
        on_alert: Callable[[Alert], None] = log_alert,
    ) -> Self:
        """A breaker with the limits and the ledger of the configuration; `redis` is that of a Redis ledger."""
        from batuta_cli.serve.budget.ledger import open_ledger

        ledger = open_ledger(budget.ledger, durability=budget.durability, redis=redis)
        return cls(CircuitBreakerConfig.from_config(budget), ledger, on_alert=on_alert)

    def check(self, estimate: Usd) -> None:
        """Test whether a request of that cost fits the budget now, without reserving it.

        Raises `RequestTooExpensive`, `DailyBudgetExceeded` (`BudgetReservedError` when the cost fits what is not spent,
        and running requests have reserved it), `UsageError` for an invalid amount, and `LedgerError`.
        """
        cost = self._affordable(estimate)
        if not cost:
            return
        moment = self._operations.moment()
        day_status = self.ledger.day_status(moment)
        if day_status.ahead:
            from batuta_cli.serve.budget.ledger.rules import ahead

            raise ahead(day_status.day, moment.day)
        if day_status.spent + day_status.reserved + cost > self.config.daily_budget:
            raise self._exceeded(cost, day_status, moment)

    def reserve(
        self,
        estimate: Usd,
        *,
        model: str | None = None,
        backend: str | None = None,
        dispatched: bool = False,
        client: ClientAccount = ANY_CLIENT,
    ) -> Reservation:
        """Reserve the highest cost of a request until it is settled. Raises the errors of `check`.

        The amount must fit the day's budget and that of `client`, both in one step.

        `dispatched`: the request is sent at once, so the reservation is marked in the same step as by
        `Reservation.dispatched`: it is charged in full if it expires without a settlement.
        """
        cost, moment = self._affordable(estimate), self._operations.moment()
        reservation = self._operations.reserve(cost, moment, model, backend, dispatched=dispatched, client=client)
        if isinstance(reservation, DayStatus):
            raise self._exceeded(cost, reservation, moment, client)
        return reservation

    def record(
        self,
        actual: Usd,
        *,
        model: str | None = None,
        backend: str | None = None,
        input_tokens: int = 0,
        output_tokens: int = 0,
    ) -> None:
        """Add a cost. It may exceed the budget; then the next check refuses.

        Raises `UsageError` and `LedgerError`.
        """
        self._operations.record(to_nano(actual), model, backend, (input_tokens, output_tokens))

    def alert(self, alert: Alert) -> None:
        """Pass an alert to `on_alert`. Raises nothing."""
        self._operations.send_alert(alert)

    def status(self, client: ClientAccount = ANY_CLIENT) -> BudgetStatus:
        """The sums and limits of the current day, and of `client`. Raises `LedgerError`."""
        moment = self._operations.moment()
        day_status = self.ledger.day_status(moment, client.name)
        spent, reserved = day_status.client_spent, day_status.client_reserved
        own = ClientStatus(client.name, spent, reserved, client.daily_budget) if client.name else None
        return BudgetStatus(
            client=own,
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
        """The spending of the last days, today included, by day, model, backend and client; the newest first.

        Raises `UsageError` unless 1 ≤ days ≤ 100,000, and `LedgerError`.
        """
        if not 1 <= days <= 100_000:
            raise UsageError("days must be from 1 to 100000")
        moment = self._operations.moment()
        day_status = self.ledger.day_status(moment)
        today = moment.day if day_status.ahead else day_status.day
        return self.ledger.history(max(today, dt.date.min + dt.timedelta(days)) - dt.timedelta(days - 1))

    def reset(self) -> Reset:
        """Forgive today's spending, and repair a ledger that is ahead of the clock. Raises `LedgerError`.

        The history keeps the spending. Running requests keep their reservations.
        """
        return self.ledger.reset(self._operations.moment())

    def change_timezone(self, zone: str) -> Rezoned:
        """Let the ledger count days in another time zone from the next day on.

        This does not change the configuration; a breaker configured with neither zone is refused. Raises `UsageError`
        for an unknown time zone, and `LedgerError`.
        """
        time_zone(zone)
        return self.ledger.rezone(self._operations.moment(), zone)

    def _affordable(self, estimate: Usd) -> int:
        cost = to_nano(estimate, "the estimate")
        if cost > self.config.max_request_cost:
            most = self.config.max_request_cost
            raise RequestTooExpensive(
                f"the request may cost ${format_usd(cost)}, and max_request_cost_usd is ${format_usd(most)}",
                hint="limit the output tokens, or raise the limit: batuta serve budget set --max-request-cost USD",
                result={"estimate_usd": format_usd(cost), "max_request_cost_usd": format_usd(most)},
            )
        return cost

    def _exceeded(
        self, cost: int, day_status: DayStatus, moment: Moment, client: ClientAccount = ANY_CLIENT
    ) -> DailyBudgetExceeded:
        """The error for a cost that does not fit: the day's budget, or when it fits that, the client's."""
        budget, spent, reserved = self.config.daily_budget, day_status.spent, day_status.reserved
        of_client = client.daily_budget is not None and spent + reserved + cost <= budget
        if of_client and client.daily_budget is not None:
            budget, spent, reserved = client.daily_budget, day_status.client_spent, day_status.client_reserved
        whose, hint = ("this key's daily", _KEY_HINT) if of_client else ("the day's", _BUDGET_HINT)
        left = max(0, budget - spent - reserved)
        over = self._over(day_status, moment)
        shown = f"{over:%Y-%m-%d %H:%M} {day_status.zone}"
        result = {
            "estimate_usd": format_usd(cost),
            "remaining_usd": format_usd(left),
            "daily_budget_usd": format_usd(budget),
            "resets_at": f"{over.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        if spent + cost <= budget:
            wait = self._operations.expected_wait(client.name if of_client else "")
            return BudgetReservedError(
                f"the request may cost ${format_usd(cost)}, and ${format_usd(left)} is left of {whose}"
                f" ${format_usd(budget)} (spent ${format_usd(spent)}; reserved by running requests"
                f" ${format_usd(reserved)})",
                hint=f"try again in {math.ceil(wait)} s, when running requests have ended",
                result=result,
                retry_after=wait,
                of_client=of_client,
            )
        return DailyBudgetExceeded(
            f"the request may cost ${format_usd(cost)}, and ${format_usd(left)} is left of {whose}"
            f" ${format_usd(budget)} (spent ${format_usd(spent)}, reserved ${format_usd(reserved)}); the next day"
            f" begins at {shown}",
            hint=hint,
            result=result,
        )

    def _over(self, day_status: DayStatus, moment: Moment) -> dt.datetime:
        # A ledger that is ahead is repaired, not waited for: report the end of the clock's day.
        day = moment.day if day_status.ahead else day_status.day
        now, zone = moment.time / 1000, time_zone(day_status.zone)
        over = day_after(day, now, zone)
        if day_status.next_zone:  # the day ends when it has ended in both zones
            over = max(over, day_after(day, now, time_zone(day_status.next_zone)).astimezone(zone))
        return over
