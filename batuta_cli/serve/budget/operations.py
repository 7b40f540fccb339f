"""One budget in one ledger: what happens to it happens now, and its owner hears of what is alarming.

The clock, the renewal of leases and the alerts are here; what may be spent is decided in `budget.py` and `ledger/`.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from batuta_cli.errors import LedgerError, UsageError
from batuta_cli.files import is_control
from batuta_cli.serve.budget.budget_day import day_at, time_zone
from batuta_cli.serve.budget.ledger.base import DayStatus, Ledger, Moment, ReservationRow, Use
from batuta_cli.serve.budget.reservation import Renewer, Reservation
from batuta_cli.serve.money import format_usd

_LABEL = 200  # characters of a model's or backend's name, as in the configuration
_TOKENS = 10**12


@dataclass(frozen=True)
class Alert:
    """Something the owner of the budget should know, said once."""

    kind: Literal["budget_warning", "above_reservation", "charged_in_full", "settled_later"]
    message: str


class BudgetOperations:
    """A ledger with a clock, with the thread that renews its reservations, and with somebody who hears of alerts.

    Methods raise `LedgerError`, and `UsageError` for a name or a number of tokens that is none.
    """

    def __init__(
        self,
        ledger: Ledger,
        zone: str,
        limits: tuple[int, int],
        on_alert: Callable[[Alert], None],
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._zone = zone
        self._calendar = time_zone(zone)
        self._limit, self._warn_at = limits
        self._on_alert = on_alert
        self._now = now
        self._renewer = Renewer(lambda owner: ledger.renew(self.moment(), owner))

    def moment(self) -> Moment:
        """Now."""
        now = self._now()
        return Moment(int(now * 1000), day_at(now, self._calendar), self._zone)

    def reserve(self, cost: int, moment: Moment, model: str | None, backend: str | None) -> Reservation | DayStatus:
        """Hold an amount; when it does not fit, how the day stands. What costs nothing is not noted anywhere."""
        hold = ReservationRow(
            os.urandom(16).hex(), cost, self._renewer.owner, _label(model, "model"), _label(backend, "backend")
        )
        if cost:
            accepted, day_status = self._ledger.reserve(moment, hold, self._limit)
            if not accepted:
                return day_status
            try:
                self._renewer.hold(hold.id)
            except LedgerError:
                self._ledger.settle(moment, hold.id, 0, Use(hold.model, hold.backend), requests=0)
                raise
        return Reservation(hold, self)

    def dispatch(self, hold: ReservationRow) -> bool:
        """See `reservation.Keeper`."""
        return self._ledger.dispatch(self.moment(), hold.id)

    def renew(self) -> None:
        """See `reservation.Keeper`."""
        self._renewer.once()

    def settle(self, hold: ReservationRow, cost: int, tokens: tuple[int, int], *, requests: int, unsure: bool) -> None:
        """See `reservation.Keeper`."""
        use = Use(hold.model, hold.backend, *map(_number_of_tokens, tokens))
        day_status: DayStatus | None = None
        if hold.amount:
            settled = self._ledger.settle(self.moment(), hold.id, cost, use, requests=requests)
            self._renewer.drop(hold.id)
            day_status = settled.day_status if settled else None
        if day_status is None and cost and not unsure:
            # It was held for free, or the ledger has been exchanged under our hands: the money is gone in any case.
            day_status = self._ledger.record(self.moment(), cost, use)
        if day_status is not None:
            self._warn_if_due(day_status)
        if cost > hold.amount:
            message = f"a request cost ${format_usd(cost)}, and ${format_usd(hold.amount)} had been reserved for it"
            self.tell(Alert("above_reservation", message + _whose(hold)))

    def settle_later(self, hold: ReservationRow, settle: Callable[[], None]) -> None:
        """See `reservation.Keeper`."""
        self._renewer.owe(hold.id, settle)
        message = (
            f"the ledger failed when a request was to be charged; ${format_usd(hold.amount)} stay reserved until it can"
        )
        self.tell(Alert("settled_later", message + _whose(hold)))

    def tell(self, alert: Alert) -> None:
        """Hand an alert on. A failure of the receiver must not undo, or repeat, what the alert is about."""
        with contextlib.suppress(Exception):
            self._on_alert(alert)

    def record(self, cost: int, model: str | None, backend: str | None, tokens: tuple[int, int]) -> None:
        """Note what was spent without a reservation."""
        use = Use(_label(model, "model"), _label(backend, "backend"), *map(_number_of_tokens, tokens))
        self._warn_if_due(self._ledger.record(self.moment(), cost, use))

    def _warn_if_due(self, day_status: DayStatus) -> None:
        if day_status.warned or not 0 < day_status.spent >= self._warn_at:
            return
        try:
            first = self._ledger.warn_once(day_status.day)
        except LedgerError:  # what was spent is written; to fail now would have it charged again. The next one warns
            return
        if first:
            spent, limit = format_usd(day_status.spent), format_usd(self._limit)
            self.tell(Alert("budget_warning", f"${spent} of the day's ${limit} is spent ({day_status.day})"))


def _whose(hold: ReservationRow) -> str:
    who = ", ".join(filter(None, (hold.model, hold.backend)))
    return f" ({who})" if who else ""


def log_alert(alert: Alert) -> None:
    """Hand an alert to the logger `batuta`."""
    import logging

    logging.getLogger("batuta").warning("%s", alert.message)


def _label(text: str | None, what: str) -> str:
    if text is None:
        return ""
    unsafe = any(is_control(c) or 0xD800 <= ord(c) <= 0xDFFF for c in text)
    if unsafe or len(text) > _LABEL:
        raise UsageError(f"the {what} must be one line of at most {_LABEL} characters")
    return text


def _number_of_tokens(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _TOKENS:
        raise UsageError(f"a number of tokens must be a whole number from 0 to {_TOKENS}")
    return count
