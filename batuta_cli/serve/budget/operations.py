"""Applies the operations of a budget to its ledger at the current time, renews leases, sends alerts.

Part of the circuit breaker: `breaker.py` decides what may be spent, `ledger/` stores it.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.files import is_control
from batuta_cli.serve.budget.budget_day import day_after, day_at, time_zone
from batuta_cli.serve.budget.ledger.base import DayStatus, Ledger, Moment, ReservationRow, Use
from batuta_cli.serve.budget.reservation import Renewer, Reservation
from batuta_cli.serve.budget.waiting import ReservationQueues
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.money import format_usd

_LABEL = 200  # characters of a model's or backend's name, the limit of the configuration
_TOKENS = 10**12


@dataclass(frozen=True)
class Alert:
    """A message for the owner of the budget, sent once."""

    kind: Literal["budget_warning", "above_reservation", "charged_in_full", "settled_later"]
    message: str


class BudgetOperations:
    """A ledger with a clock, a thread that renews its reservations, and a receiver of alerts.

    Methods raise `LedgerError`, and `UsageError` for an invalid name or number of tokens.
    """

    def __init__(
        self,
        ledger: Ledger,
        zone: str,
        limits: tuple[int, int],
        on_alert: Callable[[Alert], None],
        now: Callable[[], float],
        queues: ReservationQueues,
    ) -> None:
        self._ledger = ledger
        self._zone = zone
        self._calendar = time_zone(zone)
        self._day = (date.min, 0.0, 0.0)
        """The last day, with a time on it and the time of its end."""
        self._began: dict[str, float] = {}
        """The times at which the reservations of this process began."""
        self._duration = 0.0
        """Seconds that a reservation lasts, a moving average; 0 when unknown."""
        self._limit, self._warn_at = limits
        self._on_alert = on_alert
        self._queues = queues
        self._now = now
        self._renewer = Renewer(lambda owner: ledger.renew(self.moment(), owner))

    def moment(self) -> Moment:
        """The current time."""
        now = self._now()
        day, since, until = self._day
        if not since <= now < until:
            day = day_at(now, self._calendar)
            self._day = day, now, day_after(day, now, self._calendar).timestamp()
        return Moment(int(now * 1000), day, self._zone)

    def reserve(
        self,
        cost: int,
        moment: Moment,
        model: str | None,
        backend: str | None,
        *,
        dispatched: bool,
        client: ClientAccount = ANY_CLIENT,
    ) -> Reservation | DayStatus:
        """Reserve an amount; the day's sums when it does not fit. Cost 0 is not written to the ledger."""
        row = ReservationRow(
            os.urandom(16).hex(),
            cost,
            self._renewer.owner,
            _label(model, "model"),
            _label(backend, "backend"),
            dispatched,
            client.name,
        )
        if cost:
            try:
                accepted, day_status = self._ledger.reserve(moment, row, self._limit, client.daily_budget)
            except BaseException as error:
                if not isinstance(error, Exception):  # interrupted, perhaps after the ledger wrote it
                    with contextlib.suppress(Exception):
                        self._ledger.settle(moment, row.id, 0, Use(row.model, row.backend), requests=0)
                raise
            if not accepted:
                return day_status
            try:
                self._renewer.add(row.id)
            except LedgerError:
                self._ledger.settle(moment, row.id, 0, Use(row.model, row.backend), requests=0)
                raise
            self._began[row.id] = time.monotonic()
        return Reservation(row, self)

    def expected_wait(self, client: str = "") -> float:
        """Seconds until a request at the end of the queue, or of a client's, may get its turn, from 1 to 60."""
        rate = max(1, len(self._began)) / self._duration if self._duration else 1.0
        return min(max((len(self._queues.of(client)) + 1) / rate, 1.0), 60.0)

    def _end(self, row: ReservationRow) -> None:
        self._renewer.remove(row.id)
        began = self._began.pop(row.id, None)
        if began is not None:
            lasted = time.monotonic() - began
            self._duration = lasted if not self._duration else 0.9 * self._duration + 0.1 * lasted
        self._queues.wake(row.client)

    def dispatch(self, row: ReservationRow) -> bool:
        """Mark a reservation as dispatched. False when it has expired."""
        return self._ledger.dispatch(self.moment(), row.id)

    def renew(self) -> None:
        """Start the leases of this process again."""
        self._renewer.once()

    def settle(self, row: ReservationRow, cost: int, tokens: tuple[int, int], *, requests: int, unsure: bool) -> None:
        """Charge the cost in nano-dollars; `unsure` when an earlier, interrupted attempt may have charged it."""
        use = Use(row.model, row.backend, *_checked(tokens), row.client)
        day_status: DayStatus | None = None
        if row.amount:
            settled = self._ledger.settle(self.moment(), row.id, cost, use, requests=requests)
            self._end(row)
            day_status = settled.day_status if settled else None
        if day_status is None and cost and not unsure:
            # Reserved at cost 0, or unknown to a ledger that was replaced. The money is spent in any case.
            day_status = self._ledger.record(self.moment(), cost, use)
        if day_status is not None:
            self._warn_if_due(day_status)
        if cost > row.amount:
            message = f"a request cost ${format_usd(cost)}, more than the ${format_usd(row.amount)} reserved for it"
            self.send_alert(Alert("above_reservation", message + _whose(row)))

    def settle_later(self, row: ReservationRow, settle: Callable[[], None]) -> None:
        """Call `settle` until it succeeds, from the thread that renews the leases."""
        self._renewer.settle_later(row.id, settle)
        amount = format_usd(row.amount)
        message = f"the ledger failed while charging a request; ${amount} stay reserved until a retry succeeds"
        self.send_alert(Alert("settled_later", message + _whose(row)))

    def send_alert(self, alert: Alert) -> None:
        """Pass an alert to the receiver, and ignore its errors: they must not undo or repeat a settlement."""
        with contextlib.suppress(Exception):
            self._on_alert(alert)

    def record(self, cost: int, model: str | None, backend: str | None, tokens: tuple[int, int]) -> None:
        """Add a cost without a reservation."""
        use = Use(_label(model, "model"), _label(backend, "backend"), *_checked(tokens))
        self._warn_if_due(self._ledger.record(self.moment(), cost, use))

    def _warn_if_due(self, day_status: DayStatus) -> None:
        if day_status.warned or not 0 < day_status.spent >= self._warn_at:
            return
        try:
            first = self._ledger.warn_once(day_status.day)
        except LedgerError:  # the cost is written; an error would have it charged again. The next request warns
            return
        if first:
            spent, limit = format_usd(day_status.spent), format_usd(self._limit)
            self.send_alert(Alert("budget_warning", f"${spent} of the day's ${limit} is spent ({day_status.day})"))


def _whose(row: ReservationRow) -> str:
    who = ", ".join(filter(None, (row.model, row.backend)))
    return f" ({who})" if who else ""


def log_alert(alert: Alert) -> None:
    """Write an alert to the logger `batuta`."""
    import logging

    logging.getLogger("batuta").warning("%s", alert.message)


@lru_cache(maxsize=1024)
def _label(text: str | None, what: str) -> str:
    if text is None:
        return ""
    unsafe = any(is_control(c) or 0xD800 <= ord(c) <= 0xDFFF for c in text)
    if unsafe or len(text) > _LABEL:
        raise UsageError(f"the {what} must be one line of at most {_LABEL} characters")
    return text


def _checked(tokens: tuple[int, int]) -> tuple[int, int]:
    return _number_of_tokens(tokens[0]), _number_of_tokens(tokens[1])


def _number_of_tokens(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _TOKENS:
        raise UsageError(f"a number of tokens must be a whole number from 0 to {_TOKENS}")
    return count
