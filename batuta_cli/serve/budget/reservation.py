"""A reservation: an amount of the budget for one request, and the thread that renews it while the process runs.

A reservation ends once: settled at the request's cost, or released at cost 0. At the end of a `with` block an open
reservation is released; if its request was dispatched, its cost is unknown and it is charged in full. The ledger does
the same with the reservations of a dead process. When the ledger fails at the end of the block, the thread that renews
the leases tries again until it succeeds.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batuta_cli.errors import BatutaError, LedgerError, UsageError
from batuta_cli.serve.budget.ledger.base import LEASE, ReservationRow
from batuta_cli.serve.money import Usd, to_nano, to_usd

if TYPE_CHECKING:
    from batuta_cli.serve.budget.operations import BudgetOperations


class Reservation:
    """An amount reserved for one request; returned by `CostCircuitBreaker.reserve`."""

    def __init__(self, row: ReservationRow, operations: "BudgetOperations") -> None:
        self._row = row
        self._operations = operations
        self._dispatched = row.dispatched
        self._open = True
        self._unsure = False

    @property
    def id(self) -> str:
        """Its name in logs."""
        return self._row.id

    @property
    def amount_usd(self) -> Decimal:
        """Reserved dollars. A reservation of 0 is not in the ledger."""
        return to_usd(self._row.amount)

    def dispatched(self) -> None:
        """Mark the reservation before its request is sent: from here on it is charged in full if it is never settled.

        Raises `LedgerError` when the reservation has expired or cannot be marked, and `UsageError` when it is settled
        or released. Then do not send the request.
        """
        if not self._open:
            raise UsageError("this reservation is settled or released")
        if self._row.amount and not self._dispatched and not self._operations.dispatch(self._row):
            raise LedgerError(
                "the reservation expired before its request was sent", hint="reserve again; check the clock"
            )
        self._dispatched = True

    def renew(self) -> None:
        """Start the lease again. A thread does so while the process runs. Raises `LedgerError`."""
        if self._row.amount and self._open:
            self._operations.renew()

    def settle(self, actual: Usd, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Charge the cost of the request, in full also when it exceeds the reservation.

        Raises `UsageError` when it is already settled or released, and `LedgerError`: then settle it again.
        """
        if not self._open:
            raise UsageError("this reservation is settled or released")
        self._close(to_nano(actual), (input_tokens, output_tokens), requests=1)

    def release(self) -> None:
        """Free the amount: the request cost nothing. Does nothing when it is already settled or released.

        Raises `LedgerError`.
        """
        if self._open:
            self._close(0, (0, 0), requests=0)

    def settle_surely(self, actual: Usd, *, input_tokens: int = 0, output_tokens: int = 0) -> bool:
        """As `settle`; when the ledger fails, the thread that renews the leases tries again until it succeeds.

        Until then the amount stays reserved. If the process ends first, the reservation expires and is charged in full,
        because its request was dispatched. Returns whether it is settled now.
        """
        return self._close_surely(to_nano(actual), (input_tokens, output_tokens), requests=1)

    def release_surely(self) -> bool:
        """As `release`; when the ledger fails, see `settle_surely`."""
        return self._close_surely(0, (0, 0), requests=0)

    def _close_surely(self, cost: int, tokens: tuple[int, int], *, requests: int) -> bool:
        if not self._open:
            return True
        try:
            self._close(cost, tokens, requests=requests)
        except BaseException as error:
            self._open = False  # from here on the renewer settles it
            self._operations.settle_later(self._row, lambda: self._close(cost, tokens, requests=requests))
            if not isinstance(error, Exception):  # an interrupt
                raise
            return False
        return True

    def _close(self, cost: int, tokens: tuple[int, int], *, requests: int) -> None:
        try:
            self._operations.settle(self._row, cost, tokens, requests=requests, unsure=self._unsure)
        except BatutaError:
            raise
        except BaseException:  # interrupted before or after the ledger wrote it
            self._unsure = True
            raise
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._dispatched:
            self._close_surely(self._row.amount, (0, 0), requests=1)
        else:
            self.release_surely()


class Renewer:
    """A daemon thread that renews the leases of this process while it has reservations.

    A failed renewal is tried again; a reservation that expires nevertheless is corrected when it is settled. Failed
    settlements are tried again with each renewal. A forked child begins without reservations.
    """

    def __init__(self, renew: Callable[[str], None], *, interval: float = LEASE / 1000 / 3) -> None:
        self._renew = renew
        self._interval = interval
        self._begin()
        _renewers.add(self)

    def _begin(self) -> None:
        self.owner = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._ids: set[str] = set()
        self._unsettled: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._running = False

    def add(self, id: str) -> None:
        """Renew a reservation from now on. Raises `LedgerError` when the thread cannot be started."""
        with self._changed:
            self._ids.add(id)
            try:
                self._start()
            except RuntimeError:
                self._ids.discard(id)
                raise LedgerError(
                    "cannot start the thread that renews the budget's reservations", hint="raise the limit of threads"
                ) from None

    def settle_later(self, id: str, settle: Callable[[], None]) -> None:
        """Keep renewing a reservation whose settlement failed, and call `settle` until it succeeds."""
        with self._changed:
            self._ids.add(id)
            self._unsettled[id] = settle
            with contextlib.suppress(RuntimeError):  # without the thread it expires and is charged in full
                self._start()

    def remove(self, id: str) -> None:
        """Stop renewing a reservation."""
        with self._changed:
            self._ids.discard(id)
            self._unsettled.pop(id, None)

    def once(self) -> None:
        """Try failed settlements again, then renew the leases. Raises what the renewal raises."""
        with self._changed:
            unsettled = list(self._unsettled.items())
        for id, settle in unsettled:
            with contextlib.suppress(Exception):  # it is tried again
                settle()
                self.remove(id)
        self._renew(self.owner)

    def _start(self) -> None:
        if not self._running:
            threading.Thread(target=self._run, name="batuta-budget-renewal", daemon=True).start()
            self._running = True

    def _run(self) -> None:
        while True:
            with self._changed:
                # Waits a whole interval even when the reservations end, so that a burst of requests starts one thread.
                self._changed.wait(self._interval)
                if not self._ids:
                    self._running = False
                    return
            with contextlib.suppress(Exception):  # without this thread all leases would expire
                self.once()


_renewers: "weakref.WeakSet[Renewer]" = weakref.WeakSet()


def _after_fork() -> None:
    for renewer in list(_renewers):
        renewer._begin()


os.register_at_fork(after_in_child=_after_fork)
