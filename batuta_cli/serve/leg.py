"""One backend's part of an answer: reserve, send, relay, settle.

A leg is charged once, whatever becomes of it: at the usage that the backend reports at its end, else at what was seen,
counted here; in full when an answer in one piece never came, because nobody knows how far it got; at nothing when
nothing was sent. The ledger and the tokenizers may block, so they run in threads of their own,
and only where money is at stake.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from batuta_cli.errors import BatutaError
from batuta_cli.serve import chat
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.budget import CostCircuitBreaker, Reservation
from batuta_cli.serve.load import Loads, Outcome, Ticket
from batuta_cli.serve.money import to_usd
from batuta_cli.serve.pricing import TokenPricing
from batuta_cli.serve.providers.connect import Delivery, GatedSession
from batuta_cli.serve.providers.exchange import Timeouts, exchange
from batuta_cli.serve.providers.wire import BackendError, Call, Piece, Usage
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.interface import TokenCount

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """A backend with all that is needed to send it a request."""

    backend: Backend
    base_url: str
    pricing: TokenPricing
    input_tokens: int
    """An upper bound."""
    tier: PrivacyTier
    """Of the connection: the request's, or a stricter one."""


@dataclass(frozen=True)
class Means:
    """What legs work with; one set a process."""

    session: Callable[[PrivacyTier], GatedSession]
    breaker: CostCircuitBreaker
    loads: Loads
    timeouts: Timeouts
    count: Callable[[str], TokenCount]
    """Tokens of a text, an upper estimate where nothing better is known."""


class Leg:
    """One attempt at one backend. `pieces` may be iterated once."""

    def __init__(self, means: Means, offer: Offer, call: Call, request_id: str) -> None:
        self.offer = offer
        self.cost = 0
        """Nano-dollars charged, once it has ended."""
        self.usage: Usage | None = None
        """As the backend reports it."""
        self._means = means
        self._call = call
        self._request_id = request_id
        self._text: list[str] = []
        self._beside: list[str] = []
        """Reasoning, calls of tools: said as well, and to be paid for."""

    async def pieces(self) -> AsyncGenerator[list[Piece], None]:
        """What the backend says; pieces that came together are in one list.

        Raises `BackendError`, `CostError` when the budget refuses, `PrivacyError`, `AuditError`, `LedgerError`.
        """
        choices = self._call.options.get("n") or 1
        bound = self.offer.pricing.cost(self.offer.input_tokens, self._call.max_tokens * choices)
        # Before anything is waited for: until then the plan's cooldowns hold, and of many requests one is the trial.
        ticket = self._means.loads.start(self.offer.backend.name, time.monotonic(), self._call.model)
        outcome, retry_after, refused, delivery = Outcome.UNKNOWN, 0.0, False, Delivery()
        reservation: Reservation | None = None
        answering = False
        try:
            reservation = await self._reserve(bound) if bound else None
            answer = exchange(
                self._means.session(self.offer.tier),
                self.offer.backend,
                self.offer.base_url,
                self._call,
                request_id=self._request_id,
                timeouts=self._means.timeouts,
                paid=reservation is not None,
                delivery=delivery,
            )
            async with aclosing(answer):
                async for pieces in answer:
                    if not answering:
                        self._means.loads.respond(ticket)
                        answering = True
                    for piece in pieces:
                        self.usage = piece.usage or self.usage
                        self._text.append(piece.text)
                        if piece.delta:
                            self._beside += _texts(piece.delta)
                    yield pieces
            outcome = Outcome.WORKED
        except BackendError as error:
            outcome = _outcome(error)
            retry_after, refused = error.retry_after or 0.0, not error.sent
            raise
        finally:
            self._finish(ticket, outcome, retry_after)
            if reservation is not None:
                await self._settle(reservation, sent=delivery.begun and not refused, whole=outcome is Outcome.WORKED)

    async def _reserve(self, bound: int) -> Reservation:
        breaker, name = self._means.breaker, self.offer.backend.name

        def reserve() -> Reservation:
            reservation = breaker.reserve(to_usd(bound), model=self._call.model, backend=name)
            try:
                reservation.dispatched()
            except BatutaError:
                reservation.release()
                raise
            return reservation

        work = asyncio.get_running_loop().run_in_executor(None, reserve)
        try:
            return await _to_its_end(work)
        except asyncio.CancelledError:
            if work.exception() is None:  # the client has left meanwhile
                await _apart(work.result().release)
            raise

    def _finish(self, ticket: Ticket, outcome: Outcome, retry_after: float) -> None:
        jitter = random.random()  # noqa: S311 - spreads retries, decides nothing else
        self._means.loads.finish(ticket, outcome, time.monotonic(), jitter=jitter, retry_after=retry_after)

    async def _settle(self, reservation: Reservation, *, sent: bool, whole: bool) -> None:
        """Charge it; `sent` is false when the backend had nothing to work on, or said by its status that it did not."""
        if not sent:
            await _apart(reservation.release)
            return

        def settle() -> None:
            usage = self._used(whole)
            self.cost = self.offer.pricing.cost(usage.input_tokens, usage.output_tokens)
            reservation.settle(to_usd(self.cost), input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)

        await _apart(settle)

    def _used(self, whole: bool) -> Usage:
        """What there is to pay for, the most that it can be where the backend has not said so at the end."""
        if whole and self.usage:
            return self.usage
        if not whole and not self._call.stream:  # it may have said anything, up to its limit
            return Usage(self.offer.input_tokens, self._call.max_tokens * (self._call.options.get("n") or 1))
        seen = self._means.count(self.seen + "".join(self._beside)).tokens
        if self.usage:  # of a stream that was cut off; some backends count as they go
            return Usage(self.usage.input_tokens, max(self.usage.output_tokens, seen))
        return Usage(self.offer.input_tokens, seen)

    @property
    def seen(self) -> str:
        """The text that came."""
        return "".join(self._text)

    @property
    def said(self) -> int:
        """Tokens that came, by the best guess there is; local backends send each token by itself."""
        if self.usage:
            return self.usage.output_tokens
        counted = self._means.count(self.seen)
        return counted.tokens if counted.exact else sum(1 for text in self._text if text)

    def report(self, failed: str | None = None) -> chat.Leg:
        """What is told of it afterwards."""
        return chat.Leg(self.offer.backend.name, self.cost, failed)


def _outcome(error: BackendError) -> Outcome:
    """What failed by an error: the backend, its model, or the request."""
    if not error.reached:
        return Outcome.FAILED
    if not error.retryable:
        return Outcome.REQUEST_REFUSED
    return Outcome.BROKEN if error.status is None else Outcome.MODEL_FAILED


def _texts(value: object) -> list[str]:
    """All texts in a part of JSON."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for part in inner for text in _texts(part)]


async def _apart(work: Callable[[], T]) -> T:
    """Do blocking work in a thread. It is never abandoned half-way: money may hang on it."""
    return await _to_its_end(asyncio.get_running_loop().run_in_executor(None, work))


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
