"""A part of the budget that is held for one request, and the thread that keeps it held while the process lives.

A reservation ends once: settled at what the request cost, or released because it cost nothing. As a context manager
one that was left open is released, or charged in full when its request had been dispatched, since its cost is unknown.
That is also what the ledger does with the reservations of a process that died. When the ledger fails at the end of the
context, the thread that renews the leases tries again until it succeeds.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import Protocol, Self

from batuta_cli.errors import BatutaError, LedgerError, UsageError
from batuta_cli.serve.budget.ledger.base import LEASE, ReservationRow
from batuta_cli.serve.money import Usd, to_nano, to_usd


class Keeper(Protocol):
    """What a reservation asks of the breaker that made it."""

    def dispatch(self, hold: ReservationRow) -> bool:
        """Note that the request is about to be sent; false when the reservation has expired."""

    def renew(self) -> None:
        """Begin the leases of this process anew."""

    def settle(self, hold: ReservationRow, cost: int, tokens: tuple[int, int], *, requests: int, unsure: bool) -> None:
        """Charge the cost in nano-dollars; `unsure` when an attempt before may have succeeded."""

    def settle_later(self, hold: ReservationRow, settle: Callable[[], None]) -> None:
        """Call `settle` until it succeeds, from the thread that renews the leases."""


class Reservation:
    """An amount held for one request; made by `CostCircuitBreaker.reserve`."""

    def __init__(self, hold: ReservationRow, keeper: Keeper) -> None:
        self._hold = hold
        self._keeper = keeper
        self._dispatched = False
        self._open = True
        self._unsure = False

    @property
    def id(self) -> str:
        """A name for it in logs."""
        return self._hold.id

    @property
    def amount_usd(self) -> Decimal:
        """Dollars that are held; 0 for what costs nothing, of which the ledger knows nothing."""
        return to_usd(self._hold.amount)

    def dispatched(self) -> None:
        """Say that the request is about to be sent: from here on it counts in full if it is never settled.

        Raises `LedgerError` when the reservation has expired, or cannot be marked, and `UsageError` when it was settled
        or released: then do not send the request.
        """
        if not self._open:
            raise UsageError("this reservation is settled or released")
        if self._hold.amount and not self._keeper.dispatch(self._hold):
            raise LedgerError(
                "the reservation has expired before its request was sent", hint="reserve again; was the clock set?"
            )
        self._dispatched = True

    def renew(self) -> None:
        """Begin the lease anew. A thread does so for as long as the process runs. Raises `LedgerError`."""
        if self._hold.amount and self._open:
            self._keeper.renew()

    def settle(self, actual: Usd, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Charge what the request cost, in full even when that is more than was held.

        Raises `UsageError` when it was settled or released before, and `LedgerError`: then it is still to be settled.
        """
        if not self._open:
            raise UsageError("this reservation is settled or released")
        self._close(to_nano(actual), (input_tokens, output_tokens), requests=1)

    def release(self) -> None:
        """Give the amount back: the request cost nothing. Does nothing when it was settled or released before.

        Raises `LedgerError`.
        """
        if self._open:
            self._close(0, (0, 0), requests=0)

    def settle_surely(self, actual: Usd, *, input_tokens: int = 0, output_tokens: int = 0) -> bool:
        """As `settle`, also when the ledger fails: then the thread that renews the lease settles it later.

        Until then the amount stays reserved. If the process ends before, the reservation expires, and the ledger
        charges it in full, because its request was dispatched. Returns whether it is settled now.
        """
        return self._close_surely(to_nano(actual), (input_tokens, output_tokens), requests=1)

    def release_surely(self) -> bool:
        """As `release`, also when the ledger fails; see `settle_surely`."""
        return self._close_surely(0, (0, 0), requests=0)

    def _close_surely(self, cost: int, tokens: tuple[int, int], *, requests: int) -> bool:
        if not self._open:
            return True
        try:
            self._close(cost, tokens, requests=requests)
        except BaseException as error:
            self._open = False  # from here on it is the renewer's
            self._keeper.settle_later(self._hold, lambda: self._close(cost, tokens, requests=requests))
            if not isinstance(error, Exception):  # an interrupt
                raise
            return False
        return True

    def _close(self, cost: int, tokens: tuple[int, int], *, requests: int) -> None:
        try:
            self._keeper.settle(self._hold, cost, tokens, requests=requests, unsure=self._unsure)
        except BatutaError:
            raise
        except BaseException:  # interrupted: perhaps before the ledger wrote it, perhaps after
            self._unsure = True
            raise
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._dispatched:
            self._close_surely(self._hold.amount, (0, 0), requests=1)
        else:
            self.release_surely()


class Renewer:
    """Renews the leases of this process while it has reservations, from a daemon thread.

    A renewal that fails is tried again; a reservation that expires all the same is corrected when it is settled.
    Settlements that failed are tried again with each renewal.
    After a fork the child begins with none: those of the parent are the parent's.
    """

    def __init__(self, renew: Callable[[str], None], *, interval: float = LEASE / 1000 / 3) -> None:
        self._renew = renew
        self._interval = interval
        self._begin()
        renewers.add(self)

    def _begin(self) -> None:
        self.owner = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._held: set[str] = set()
        self._owed: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._running = False

    def hold(self, id: str) -> None:
        """Renew the reservation from now on. Raises `LedgerError` when the thread for it cannot be started."""
        with self._changed:
            self._held.add(id)
            try:
                self._start()
            except RuntimeError:
                self._held.discard(id)
                raise LedgerError(
                    "cannot start the thread that renews the budget's reservations", hint="raise the limit of threads"
                ) from None

    def owe(self, id: str, settle: Callable[[], None]) -> None:
        """Keep a reservation whose settlement failed, and call `settle` with each renewal until it succeeds."""
        with self._changed:
            self._held.add(id)
            self._owed[id] = settle
            with contextlib.suppress(RuntimeError):  # without the thread it expires, and is charged in full
                self._start()

    def drop(self, id: str) -> None:
        """It is over."""
        with self._changed:
            self._held.discard(id)
            self._owed.pop(id, None)

    def once(self) -> None:
        """Try the settlements that failed again, and renew the leases. Raises what the renewal raises."""
        with self._changed:
            owed = list(self._owed.items())
        for id, settle in owed:
            with contextlib.suppress(Exception):  # as what it failed with before; it is tried again
                settle()
                self.drop(id)
        self._renew(self.owner)

    def _start(self) -> None:
        if not self._running:
            threading.Thread(target=self._run, name="batuta-budget-renewal", daemon=True).start()
            self._running = True

    def _run(self) -> None:
        while True:
            with self._changed:
                # Nobody notifies: a wait is a whole interval, so that a burst of short requests starts one thread.
                self._changed.wait(self._interval)
                if not self._held:
                    self._running = False
                    return
            with contextlib.suppress(Exception):  # a thread that ends here would let all leases expire
                self.once()


renewers: "weakref.WeakSet[Renewer]" = weakref.WeakSet()


def _after_fork() -> None:
    for renewer in list(renewers):
        renewer._begin()


os.register_at_fork(after_in_child=_after_fork)
