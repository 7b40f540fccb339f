"""Waiting for money that running requests have reserved.

A request that would fit the day's unspent money, were it not reserved, waits until a reservation ends. The requests of
this process wait in their order of arrival, so that small requests do not overtake a large one for ever. After
`patience` seconds a request is refused with `BudgetReservedError`.

Money of a client key that its own running requests have reserved is waited for in a queue of the key, so that its
requests do not hold up others.

A reservation of this process that ends wakes the first request of the queue. To notice reservations of other processes,
the first request also tries again every `_POLL` seconds.

    place = breaker.queues.of("").place()
    try:
        while True:
            try:
                place.check_turn()
                return breaker.reserve("0.42")
            except BudgetReservedError:
                if not await place.wait():
                    raise
    finally:
        place.leave()
"""

import threading
from typing import TYPE_CHECKING

from batuta_cli.errors import BudgetReservedError

if TYPE_CHECKING:
    import asyncio

_POLL = 0.1


class ReservationQueue:
    """The requests that wait, in order."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._places: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def place(self) -> "Place":
        """A place in the queue for one request; it is taken by the first `wait`."""
        return Place(self)

    def wake(self) -> None:
        """Let the first request try again. Called when a reservation has ended."""
        if self._places and (first := self.first()):
            first.wake()

    def first(self) -> "Place | None":
        """The place of the request that may try next."""
        with self._lock:
            return next(iter(self._places), None)

    def add(self, place: "Place") -> bool:
        """Put a place at the end. False when it is in the queue already."""
        with self._lock:
            if place in self._places:
                return False
            self._places[place] = None
            return True

    def remove(self, place: "Place") -> None:
        """Remove a place, and let the next request try."""
        with self._lock:
            if place not in self._places:
                return
            del self._places[place]
        self.wake()


class ReservationQueues:
    """The queue of the day's budget, and one for each client key that has a budget."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._queues = {"": ReservationQueue(patience)}

    def of(self, client: str) -> ReservationQueue:
        """The queue of a client; of the day's budget for an empty name."""
        queue = self._queues.get(client)
        return queue if queue is not None else self._queues.setdefault(client, ReservationQueue(self._patience))

    def wake(self, client: str) -> None:
        """Let the first requests try again. Called when a reservation of a client has ended."""
        self._queues[""].wake()
        if client and client in self._queues:
            self._queues[client].wake()


class Place:
    """The place of one request; used in one event loop."""

    def __init__(self, queue: ReservationQueue) -> None:
        self._queue = queue
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._end = 0.0
        self._late = False

    def check_turn(self) -> None:
        """Raise `BudgetReservedError` when other requests wait before this one."""
        first = self._queue.first()
        if not (first is None or first is self or self._late):
            raise BudgetReservedError("other requests wait for money that running requests have reserved")

    async def wait(self) -> bool:
        """Wait until this request may try again. False when it has tried again after the patience."""
        import asyncio

        if self._late:
            return False
        if self._loop is None or self._woken is None:
            self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        if self._queue.add(self):
            self._end = self._loop.time() + self._queue.patience
        while True:
            try:
                async with asyncio.timeout(min(_POLL, self._end - self._loop.time())):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            self._late = self._loop.time() >= self._end
            if self._late or self._queue.first() is self:
                return True

    def wake(self) -> None:
        """Wake the request, from any thread."""
        if self._loop is not None and self._woken is not None:
            try:
                self._loop.call_soon_threadsafe(self._woken.set)
            except RuntimeError:  # the event loop is closed, and the request with it
                return

    def leave(self) -> None:
        """Leave the queue: the request has its reservation, or has ended."""
        self._late = False
        self._queue.remove(self)
