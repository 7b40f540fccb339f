"""One backend's part of an answer: reserve, send, relay, settle.

A leg is charged once, whatever becomes of it: at the usage that the backend reports at its end, within the bounds of
`settlement.py`; without a report at the text that was relayed, counted here; in full when a response that was not
streamed is lost; at nothing when nothing was sent. When the charge cannot be computed, because a tokenizer fails or no
thread can be started, the whole reservation is charged. When the ledger fails, the reservation stays, and the thread
that renews it settles it later. The ledger and the tokenizers may block, so they run in threads.
"""

import asyncio
import concurrent.futures
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from batuta_cli.errors import OperationError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget.breaker import CostCircuitBreaker, Reservation
from batuta_cli.serve.budget.operations import Alert
from batuta_cli.serve.models.pricing import TokenPricing
from batuta_cli.serve.money import format_usd, to_usd
from batuta_cli.serve.pipeline import request
from batuta_cli.serve.pipeline.settlement import Bill, Terms, Transcript, complete_bill, estimated_bill, full_bill
from batuta_cli.serve.providers.client import Timeouts, send_call
from batuta_cli.serve.providers.connect import Delivery, GatedSession
from batuta_cli.serve.providers.wire import BackendError, Call, Piece
from batuta_cli.serve.routing.health import AttemptOutcome, BackendHealth, Ticket
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount
from batuta_cli.serve.usage import Usage, cache_writes

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A backend that may take a request, with all that is needed to send the request to it."""

    backend: Backend
    base_url: str
    pricing: TokenPricing
    input_tokens: int
    """An upper bound of the prompt's tokens."""
    least_input_tokens: int = 0
    """A lower bound of the prompt's tokens; the count itself where it is exact."""
    max_tokens: int
    """The output limit that is written into the upstream request."""
    address_tier: PrivacyTier
    """The strictest tier that the backend's address may be used under."""
    connection_tier: PrivacyTier
    """The tier of the connection: the request's, or a stricter one."""


@dataclass(frozen=True)
class AttemptDependencies:
    """What legs work with; one set a process."""

    session: Callable[[PrivacyTier], GatedSession]
    breaker: CostCircuitBreaker
    health: BackendHealth
    timeouts: Timeouts
    count: Callable[[str], TokenCount]
    """Tokens of a text, an upper estimate where nothing better is known."""


class Attempt:
    """One attempt at one backend. `pieces` may be iterated once."""

    def __init__(self, dependencies: AttemptDependencies, target: Target, call: Call, request_id: str) -> None:
        self.target = target
        self.cost = 0
        """Nano-dollars charged, once it has ended."""
        self.usage: Usage | None = None
        """As the backend reports it; once it is paid for, within the bounds of what is believed."""
        self.believed = True
        """Whether the usage is what the backend reported."""
        self._dependencies = dependencies
        self._call = call
        self._request_id = request_id
        self._transcript = Transcript()
        self._counted: int | None = None
        self._terms = Terms(
            pricing=target.pricing,
            writes=cache_writes(call.options),
            input_most=target.input_tokens,
            input_least=target.least_input_tokens,
            output_most=call.max_tokens * (call.options.get("n") or 1),
        )

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """What the backend says; pieces that came together are in one list.

        Raises `BackendError`, `CostError` when the budget refuses, `PrivacyError`, `AuditError`, `LedgerError`.
        """
        session = self._dependencies.session(self.target.connection_tier)
        bound = self._terms.bound
        # Before anything is waited for: until then the plan's cooldowns hold, and of many requests one is the trial.
        ticket = self._dependencies.health.start(self.target.backend.name, time.monotonic(), self._call.model)
        outcome, retry_after, refused, delivery = AttemptOutcome.UNKNOWN, 0.0, False, Delivery()
        reservation: Reservation | None = None
        answering = False
        try:
            reservation = await self._reserve(bound) if bound else None
            response = send_call(
                session,
                self.target.backend,
                self.target.base_url,
                self._call,
                request_id=self._request_id,
                timeouts=self._dependencies.timeouts,
                paid=reservation is not None,
                delivery=delivery,
            )
            async with aclosing(response):
                async for pieces in response:
                    if not answering:
                        self._dependencies.health.respond(ticket)
                        answering = True
                    for piece in pieces:
                        self.usage = piece.usage or self.usage
                        self._transcript.add(piece)
                    yield pieces
            outcome = AttemptOutcome.WORKED
        except BackendError as error:
            outcome = _outcome(error)
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
        breaker, name = self._dependencies.breaker, self.target.backend.name

        def reserve() -> Reservation:
            reservation = breaker.reserve(to_usd(bound), model=self._call.model, backend=name)
            try:
                reservation.dispatched()
            except BaseException:
                reservation.release_surely()
                raise
            return reservation

        work = _thread(reserve)
        try:
            return await _to_its_end(work)
        except asyncio.CancelledError:
            if work.exception() is None:  # the client has left meanwhile
                await _surely(work.result().release_surely)
            raise

    def _finish(self, ticket: Ticket, outcome: AttemptOutcome, retry_after: float) -> None:
        jitter = random.random()  # noqa: S311 - spreads retries, decides nothing else
        self._dependencies.health.finish(ticket, outcome, time.monotonic(), jitter=jitter, retry_after=retry_after)

    async def _settle(self, reservation: Reservation, *, sent: bool, complete: bool) -> None:
        """Charge it; `sent` is false when the backend had nothing to work on, or said by its status that it did not."""
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
        """What there is to pay for. Raises what a tokenizer raises."""
        if not complete and not self._call.stream:  # it may have said anything, up to its limit
            return full_bill(self._terms)
        count, reported = self._dependencies.count, self.usage
        least = self._transcript.least(count, prefix=self._call.prefix)
        if complete and reported:
            bill = complete_bill(reported, self._terms, least)
            self.usage, self.believed = bill.usage, bill.usage == reported
            return bill
        self._counted = self._guess()
        if reported:  # of a stream that was cut off; some backends count as they go
            self.usage = replace(reported, output_tokens=min(reported.output_tokens, self._terms.output_most))
        return estimated_bill(reported, self._terms, least, self._transcript.most(count))

    def _pay_in_full(self, reservation: Reservation, reason: str) -> None:
        """Charge the whole reservation, and tell the owner of the budget."""
        self._pay(reservation, full_bill(self._terms))
        message = (
            f"the tokens of an answer could not be counted ({reason}), so the whole reservation of"
            f" ${format_usd(self.cost)} is charged ({self._call.model}, {self.target.backend.name})"
        )
        self._dependencies.breaker.alert(Alert("charged_in_full", message))

    def _pay(self, reservation: Reservation, bill: Bill) -> None:
        self.cost = bill.cost
        counts = bill.usage.input_tokens, bill.usage.output_tokens
        reservation.settle_surely(to_usd(bill.cost), input_tokens=counts[0], output_tokens=counts[1])

    async def _measure(self) -> None:
        """Count the tokens of an answer that costs nothing; without a count its pieces are told."""

        def measure() -> None:
            with contextlib.suppress(BaseException):  # native code raises one when it panics
                self._counted = self._guess()

        await _surely(measure, otherwise=lambda: None)

    def _guess(self) -> int:
        counted = self._dependencies.count(self._transcript.text)
        return counted.tokens if counted.exact else self._transcript.pieces

    @property
    def said(self) -> int:
        """Tokens that came, by the best guess there is; local backends send each token by itself."""
        if self._counted is None and self.usage is None:
            return self._transcript.pieces
        return max(self._counted or 0, self.usage.output_tokens if self.usage else 0)

    def report(self, failed: str | None = None) -> request.AttemptReport:
        """What is told of it afterwards."""
        return request.AttemptReport(self.target.backend.name, self.cost, failed)


def _outcome(error: BackendError) -> AttemptOutcome:
    """What failed by an error: the backend, its model, or the request."""
    if not error.reached:
        return AttemptOutcome.FAILED
    if not error.retryable:
        return AttemptOutcome.REQUEST_REFUSED
    return AttemptOutcome.BROKEN if error.status is None else AttemptOutcome.MODEL_FAILED


async def _surely(work: Callable[[], T], *, otherwise: Callable[[], T] | None = None) -> None:
    """Do work that settles money in a thread; when no thread can be started, do it, or `otherwise`, here and now."""
    try:
        future = _thread(work)
    except OperationError:
        (otherwise or work)()
    else:
        await _to_its_end(future)


def _thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Begin work in a thread. Raises `OperationError` when none can be started; the work is never begun then."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        if done.set_running_or_notify_cancel():
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

    try:
        asyncio.get_running_loop().run_in_executor(None, run)
    except RuntimeError:  # it has been queued all the same, and another thread may have begun it
        if done.cancel():
            raise OperationError("cannot start a thread", hint="raise the limit of threads of this process") from None
    return asyncio.wrap_future(done)


async def _to_its_end(work: "asyncio.Future[T]") -> T:
    """Wait for work in a thread, also when this is cancelled; it is cancelled then as soon as the work is done."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # else asyncio complains that nobody looked at it
        raise cancelled
    return work.result()
