"""One attempt at one backend: reserve, send, relay, settle.

An attempt is charged once. The charge is the usage that the backend reports at its end, within the bounds of
`settlement.py`; without a report, the relayed text, counted here. A lost response that was not streamed is charged in
full; a request that was not sent costs nothing. When the charge cannot be computed, because a tokenizer fails or no
thread can be started, the whole reservation is charged. When the ledger fails, the reservation stays and the thread
that renews it settles it later. The ledger and the tokenizers may block, so they run in threads.
"""

import asyncio
import concurrent.futures
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from http import HTTPStatus
from typing import TypeVar

from batuta_cli.errors import OperationError
from batuta_cli.serve.budget.breaker import CostCircuitBreaker, Reservation
from batuta_cli.serve.budget.operations import Alert
from batuta_cli.serve.budget.waiting import Place
from batuta_cli.serve.client_account import ClientAccount
from batuta_cli.serve.money import format_usd, to_usd
from batuta_cli.serve.pipeline.planner import Target
from batuta_cli.serve.pipeline.request import AttemptReport
from batuta_cli.serve.pipeline.settlement import Bill, Terms, Transcript, complete_bill, estimated_bill, full_bill
from batuta_cli.serve.providers.client import Timeouts, send_call
from batuta_cli.serve.providers.connector import Delivery
from batuta_cli.serve.providers.wire import BackendError, Call, Piece
from batuta_cli.serve.routing.health import AttemptOutcome, Ticket
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import Usage

T = TypeVar("T")


class Attempt:
    """One attempt at one backend. `pieces` may be iterated once."""

    def __init__(
        self,
        target: Target,
        call: Call,
        request_id: str,
        *,
        monitor: BackendMonitor,
        breaker: CostCircuitBreaker,
        timeouts: Timeouts,
        count: Callable[[str], TokenCount],
        place: Place,
        client: ClientAccount,
    ) -> None:
        """`count`: the tokens of a text, an upper estimate where the tokenizer is not known. `place`: the request's in
        the queue for reserved money."""
        self.target = target
        self.cost = 0
        """Nano-dollars charged, once it has ended."""
        self.usage: Usage | None = None
        """The usage that the backend reports; once it is charged, within the accepted bounds."""
        self.accepted = True
        """Whether the usage is what the backend reported."""
        self._monitor = monitor
        self._breaker = breaker
        self._timeouts = timeouts
        self._place = place
        self._client = client
        self._count = cache(count)  # each text is counted once
        self._call = call
        self._request_id = request_id
        self._transcript = Transcript()
        self._counted: int | None = None
        self._terms = Terms(
            pricing=target.pricing,
            writes=target.writes,
            call_cost=target.call_cost,
            input_most=target.input_tokens,
            input_least=target.least_input_tokens,
            output_most=(call.max_tokens or 0) * (call.options.get("n") or 1),
        )

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """The backend's pieces; each list has the pieces of one read.

        Raises `BackendError`, `CostError` when the budget refuses, `PrivacyError`, `AuditError`, `LedgerError`.
        """
        health = self._monitor.health
        bound = self._terms.bound
        if bound:
            self._place.check_turn()
        # Before the first await: until then the plan's cooldowns hold, so that one of many requests is the trial.
        ticket = health.start(self.target.backend.name, time.monotonic(), self._call.model)
        outcome, retry_after, refused, delivery = AttemptOutcome.UNKNOWN, 0.0, False, Delivery()
        reservation: Reservation | None = None
        responding = False
        try:
            reservation = await self._reserve(bound) if bound else None
            self._place.leave()
            response = send_call(
                self._monitor.session(self.target.connection_tier),
                self.target.backend,
                self.target.base_url,
                self._call,
                request_id=self._request_id,
                timeouts=self._timeouts,
                paid=reservation is not None,
                delivery=delivery,
            )
            async with aclosing(response):
                async for pieces in response:
                    if not responding:
                        health.respond(ticket)
                        responding = True
                    for piece in pieces:
                        self.usage = piece.usage or self.usage
                        self._transcript.add(piece)
                    yield pieces
            outcome = AttemptOutcome.WORKED
        except BackendError as error:
            lacks_route = self._call.lacks_route(error, self.target.backend.profile)
            outcome = AttemptOutcome.REQUEST_REFUSED if lacks_route else _outcome(error)
            retry_after, refused = error.retry_after or 0.0, not error.sent
            raise
        finally:
            self._finish(ticket, outcome, retry_after)
            if reservation is not None:
                complete = outcome is AttemptOutcome.WORKED
                await self._settle(reservation, sent=delivery.begun and not refused, complete=complete)
            elif not self.usage and self._transcript.pieces:
                await self._measure()

    async def _reserve(self, bound: int) -> Reservation:
        breaker, name = self._breaker, self.target.backend.name

        def reserve() -> Reservation:
            return breaker.reserve(
                to_usd(bound), model=self._call.model, backend=name, dispatched=True, client=self._client
            )

        work = _thread(reserve)
        try:
            return await _to_its_end(work)
        except asyncio.CancelledError:
            if work.exception() is None:  # the client has disconnected meanwhile
                await _surely(work.result().release_surely)
            raise

    def _finish(self, ticket: Ticket, outcome: AttemptOutcome, retry_after: float) -> None:
        jitter = random.random()  # noqa: S311 - spreads retries, decides nothing else
        self._monitor.health.finish(ticket, outcome, time.monotonic(), jitter=jitter, retry_after=retry_after)

    async def _settle(self, reservation: Reservation, *, sent: bool, complete: bool) -> None:
        """Charge the attempt; `sent`: the backend may have processed the request."""
        if not sent:
            await _surely(reservation.release_surely)
            return

        def settle() -> None:
            try:
                bill = self._bill(complete=complete)
            except BaseException as error:  # native code raises a BaseException when it panics
                self._pay_in_full(reservation, type(error).__name__)
            else:
                self._pay(reservation, bill)

        await _surely(settle, otherwise=lambda: self._pay_in_full(reservation, "no thread could be started"))

    def _bill(self, *, complete: bool) -> Bill:
        """The charge. Raises what a tokenizer raises."""
        if not complete and not self._call.stream:  # the lost response may have any length up to the limit
            return full_bill(self._terms)
        count, reported = self._count, self.usage
        least = self._transcript.least(count, prefix=self._call.prefix)
        if complete and reported:
            bill = complete_bill(reported, self._terms, least)
            self.usage, self.accepted = bill.usage, bill.usage == reported
            return bill
        self._counted = self._count_output()
        if reported:  # of a stream that broke off; some backends report usage in every event
            self.usage = replace(reported, output_tokens=min(reported.output_tokens, self._terms.output_most))
        return estimated_bill(reported, self._terms, least, self._transcript.most(count))

    def _pay_in_full(self, reservation: Reservation, reason: str) -> None:
        """Charge the whole reservation and send an alert."""
        self._pay(reservation, full_bill(self._terms))
        message = (
            f"the tokens of a response could not be counted ({reason}), so the whole reservation of"
            f" ${format_usd(self.cost)} is charged ({self._call.model}, {self.target.backend.name})"
        )
        self._breaker.alert(Alert("charged_in_full", message))

    def _pay(self, reservation: Reservation, bill: Bill) -> None:
        self.cost = bill.cost
        counts = bill.usage.input_tokens, bill.usage.output_tokens
        reservation.settle_surely(to_usd(bill.cost), input_tokens=counts[0], output_tokens=counts[1])

    async def _measure(self) -> None:
        """Count the tokens of a free response; when that fails, its pieces count."""

        def measure() -> None:
            with contextlib.suppress(BaseException):  # native code raises one when it panics
                self._counted = self._count_output()

        await _surely(measure, otherwise=lambda: None)

    def _count_output(self) -> int:
        counted = self._count(self._transcript.text)
        return counted.tokens if counted.exact else self._transcript.pieces

    @property
    def output_tokens(self) -> int:
        """The best known number of output tokens; local backends send one token a piece."""
        if self._counted is None and self.usage is None:
            return self._transcript.pieces
        return max(self._counted or 0, self.usage.output_tokens if self.usage else 0)

    def report(self, failed: str | None = None) -> AttemptReport:
        """The attempt in the summary; `failed`: the kind of the error."""
        return AttemptReport(self.target.backend.name, self.cost, failed)


def _outcome(error: BackendError) -> AttemptOutcome:
    """What an error shows about the backend, its model and the request."""
    if not error.reached:
        return AttemptOutcome.FAILED
    if not error.retryable or error.status == HTTPStatus.NOT_IMPLEMENTED:
        return AttemptOutcome.REQUEST_REFUSED
    return AttemptOutcome.BROKEN if error.status is None else AttemptOutcome.MODEL_FAILED


async def _surely(work: Callable[[], T], *, otherwise: Callable[[], T] | None = None) -> None:
    """Do work that settles money in a thread; without one, do `otherwise`, or the work, in the event loop."""
    try:
        future = _thread(work)
    except OperationError:
        (otherwise or work)()
    else:
        await _to_its_end(future)


def _thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Start work in a thread. Raises `OperationError` when none can be started; then the work does not start later."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

    try:
        asyncio.get_running_loop().run_in_executor(None, run)
    except RuntimeError:  # the work is queued all the same, and another thread may have started it
        if done.cancel():
            raise OperationError("cannot start a thread", hint="raise the limit of threads of this process") from None
    return asyncio.wrap_future(done)


async def _to_its_end(work: "asyncio.Future[T]") -> T:
    """Wait for work in a thread. A cancellation of this task takes effect when the work is done."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # else asyncio logs that it was never retrieved
        raise cancelled
    return work.result()
