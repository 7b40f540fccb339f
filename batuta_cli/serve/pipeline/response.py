"""One answer: the legs of one request, joined into one stream.

The client sees one text, one end and one usage, whichever backends it took. A leg that fails is followed by the next
backend of the plan that may take over: exactly, or from the start when nothing has reached the client, or (only where
the owner opted in) by asking in words. When none may, the first error is raised, and the stream has no end: a
truncated answer never looks complete.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from batuta_cli.errors import BatutaError, CostError, LedgerError, PrivacyError
from batuta_cli.serve.backends.profile import ContinuationMethod
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.attempt import Attempt, AttemptDependencies, Target
from batuta_cli.serve.pipeline.failover import FailoverManager, Obstacle, Takeover, continuation
from batuta_cli.serve.pipeline.request import ChatRequest, Summary
from batuta_cli.serve.pipeline.splice import Echo, Splice, SpliceError, remaining_tokens
from batuta_cli.serve.providers.wire import BackendError, Call, FinishReason, Piece
from batuta_cli.serve.routing.planning import Plan
from batuta_cli.serve.usage import Usage

_CONTINUE = (
    "Go on exactly where your last message stops. Begin with the very next word, repeat nothing, explain nothing."
)

_OBSTACLES = {
    "tool_calls": Obstacle.TOOL_CALLS,
    "function_call": Obstacle.TOOL_CALLS,
    "reasoning_content": Obstacle.REASONING,
    "reasoning": Obstacle.REASONING,
    "refusal": Obstacle.REFUSAL,
}


class ResponseSource(Protocol):
    """What an answer asks of the pipeline."""

    manager: FailoverManager

    def dependencies(self, request: ChatRequest) -> AttemptDependencies:
        """What the legs of a request work with."""

    async def targets(self, request: ChatRequest, without: frozenset[str]) -> tuple[Plan, Sequence[Target]]:
        """The plan as things stand now, and its backends in order; those that failed already are left out."""

    async def render(self, request: ChatRequest) -> str:
        """The prompt for raw completion. Raises `UsageError` for a model whose format is not known."""

    async def budget_left(self) -> int | None:
        """Nano-dollars."""

    def retry_after(self, request: ChatRequest, backends: Collection[str]) -> int | None:
        """Whole seconds until one of these backends can be tried with the request; None when there are none."""

    def refusal(self, request: ChatRequest, plan: Plan) -> BatutaError:
        """Why nothing in this plan may take the request."""


class Response:
    """An answer in flight: `async for piece in answer`. Made by `Pipeline.start`, which has the first piece already.

    For whoever can use several at once there is `more`.
    """

    def __init__(self, source: ResponseSource, request: ChatRequest) -> None:
        self.request = request
        self.plan: Plan | None = None
        self.backend = ""
        """The one that speaks now."""
        self.tier = request.privacy
        self.summary: Summary | None = None
        """Once it has ended."""
        self._source = source
        self._dependencies = source.dependencies(request)
        self._legs: list[Attempt] = []
        self._failures: list[str | None] = []
        self._prompted = False
        self._pieces = self._all()
        self._first: list[Piece] = []

    async def open(self) -> None:
        """Wait for the first piece; what is raised here can still be told by a status."""
        self._first = await anext(self._pieces, [])

    async def more(self) -> list[Piece]:
        """The next pieces, as many as there are by now; none when the answer is complete."""
        if self._first:
            first, self._first = self._first, []
            return first
        return await anext(self._pieces, [])

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while pieces := await self.more():
            for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Nobody listens any more: the backend is cut off, and charged for what was seen."""
        await self._pieces.aclose()

    async def _all(self) -> AsyncGenerator[list[Piece], None]:
        request, manager = self.request, self._source.manager
        manager.start_tracking(request.request_id, "", tier=request.privacy, obstacles=_own_obstacles(request))
        tried: set[str] = set()
        first_error: BatutaError | None = None
        try:
            while True:
                self.plan, targets = await self._source.targets(request, frozenset(tried))
                step = await self._step(targets, begun=bool(tried))
                if step is None:
                    if first_error is not None:
                        raise self._final(first_error, {*tried, *self.plan.suitable})
                    raise self._source.refusal(request, self.plan)
                target, call, echo = step
                tried.add(target.backend.name)
                if call.max_tokens <= 0:  # the text is as long as it may be, only its end is missing
                    yield [Piece(finish_reason="length")]
                    break
                attempt = Attempt(self._dependencies, target, call, request.request_id)
                self.backend = target.backend.name
                # Usage is kept back, it is told once at the end; so are the ends, until it is sure that nothing comes
                # after.
                ends: dict[int, FinishReason] = {}
                try:
                    async with aclosing(attempt.pieces()) as said:
                        async for pieces in said:
                            broken: SpliceError | None = None
                            new: list[Piece] = []
                            try:
                                for piece in pieces:
                                    self._take(piece, echo, ends, new)
                            except SpliceError as error:
                                broken = error
                            if new:  # also what came before the seam, for it counts as sent
                                yield new
                            if broken:
                                raise broken
                    if last := self._last(echo, ends):
                        yield last
                    self._legs.append(attempt)
                    self._failures.append(None)
                    break
                except (BackendError, SpliceError, CostError, PrivacyError) as error:
                    self._legs.append(attempt)
                    self._failures.append(error.kind)
                    first_error = first_error or error
                    if not self._may_go_on(error):
                        raise self._final(first_error, {*tried, *self.plan.suitable}) from None
        finally:
            manager.complete(request.request_id)
        await self._sum_up()
        yield [Piece(usage=self._usage())]

    def _may_go_on(self, error: BatutaError) -> bool:
        """Whether another backend is tried; a refusal before anything was sent takes no attempt."""
        if isinstance(error, CostError | PrivacyError):
            return True
        if isinstance(error, BackendError) and not error.retryable:
            return False
        manager, request_id = self._source.manager, self.request.request_id
        if not manager.should_failover(request_id):
            return False
        manager.prepare_failover(request_id)
        return True

    def _final(self, error: BatutaError, suitable: Collection[str]) -> BatutaError:
        """The error that the client gets; the time to wait is that of the backend that can be tried first."""
        if isinstance(error, BackendError) and error.retryable:
            error.retry_after = self._source.retry_after(self.request, suitable)
        return error

    async def _step(self, targets: Sequence[Target], *, begun: bool) -> tuple[Target, Call, Splice | None] | None:
        """The next backend and what to ask of it; None when there is none that may be asked."""
        request, manager = self.request, self._source.manager
        for target in targets:
            call = Call(request.model, request.messages, target.max_tokens, request.stream, request.options)
            context = manager.context(request.request_id)
            if not begun or not (context.generated or context.reached_client):
                return target, call, None
            profile = target.backend.profile.continuation
            takeover = continuation(
                profile, context, model=request.model, tier=target.address_tier, prompted=manager.config.prompted
            )
            if takeover is Takeover.RESTART:
                manager.restart(request.request_id)
                return target, call, None
            if takeover is Takeover.ERROR:
                continue
            text = context.generated
            said = sum(attempt.said for attempt in self._legs)
            known = await self._most_tokens(text)
            left = remaining_tokens(target.max_tokens, said) or 0
            longer = replace(target, input_tokens=target.input_tokens + known)
            if takeover is Takeover.PROMPTED:
                self._prompted = True
                messages = (*request.messages, ChatMessage.assistant(text), ChatMessage.user(_CONTINUE))
                return longer, replace(call, messages=messages, max_tokens=left), Splice(text)
            call = replace(call, prefix=text, max_tokens=left)
            if profile.method is ContinuationMethod.COMPLETION:
                try:
                    call = replace(call, prompt=await self._source.render(request))
                except BatutaError:
                    continue
            expected = Echo.UNKNOWN if profile.echoes else Echo.NEVER
            return longer, call, Splice(text, echo=expected, trims=profile.trims_space)
        return None

    async def _most_tokens(self, text: str) -> int:
        """An upper bound of a text's tokens, counted in a thread; where that fails, the bound of one token a byte."""

        def count() -> int:
            try:
                return self._dependencies.count(text).tokens
            except BaseException:  # native code raises a BaseException when it panics
                return len(text.encode(errors="surrogatepass"))

        try:
            return await asyncio.get_running_loop().run_in_executor(None, count)
        except RuntimeError:  # no thread can be started
            return len(text.encode(errors="surrogatepass"))

    def _take(self, piece: Piece, echo: Splice | None, ends: dict[int, FinishReason], new: list[Piece]) -> None:
        """Put what a piece has of an end to `ends`, and what it has for the client to `new`."""
        request_id, manager = self.request.request_id, self._source.manager
        text = echo.feed(piece.text) if echo else piece.text
        if piece.finish_reason:
            ends[piece.index] = piece.finish_reason
        for name in piece.delta or ():
            if name in _OBSTACLES:
                manager.obstruct(request_id, _OBSTACLES[name])
        if not (text or piece.delta or piece.logprobs):
            return
        manager.append_tokens(request_id, text)
        if not text:
            manager.mark_sent(request_id)
        new.append(Piece(text, None, None, piece.delta, piece.index, piece.logprobs))

    def _last(self, echo: Splice | None, ends: dict[int, FinishReason]) -> list[Piece]:
        """What was held back of a leg that is complete. Raises `SpliceError`."""
        last = [Piece(finish_reason=reason, index=index) for index, reason in ends.items()]
        if echo and (text := echo.finish()):
            self._source.manager.append_tokens(self.request.request_id, text)
            last.insert(0, Piece(text))
        return last

    def _usage(self) -> Usage:
        """Of the whole answer: the prompt once, and all that was said."""
        first, last = self._legs[0], self._legs[-1]
        said = sum(attempt.said for attempt in self._legs)
        if first.usage:
            reasoning = [
                u.reasoning_tokens for attempt in self._legs if (u := attempt.usage) and u.reasoning_tokens is not None
            ]
            return replace(
                first.usage, output_tokens=said, reasoning_tokens=min(sum(reasoning), said) if reasoning else None
            )
        # What a later leg was asked had the text so far in it.
        known = last.usage.input_tokens - (said - last.said) if last.usage else first.target.input_tokens
        return Usage(max(known, 0), said)

    async def _budget_left(self) -> int | None:
        try:
            return await self._source.budget_left()
        except (LedgerError, RuntimeError):  # the answer is complete, and paid for; no thread can be started
            return None

    async def _sum_up(self) -> None:
        usage = self._usage()
        cost = sum(attempt.cost for attempt in self._legs)
        self.summary = Summary(
            backend=self.backend,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            exact=all(attempt.usage is not None and attempt.believed for attempt in self._legs),
            cost=cost,
            budget_left=await self._budget_left() if cost else None,
            attempts=tuple(attempt.report(failed) for attempt, failed in zip(self._legs, self._failures, strict=True)),
            prompted=self._prompted,
            usage=usage,
        )


def _own_obstacles(request: ChatRequest) -> list[Obstacle]:
    """What the request itself has that cannot be continued."""
    found = []
    kind: Any = request.options.get("response_format")
    if isinstance(kind, dict) and kind.get("type") not in (None, "text"):
        found.append(Obstacle.JSON)
    if (request.options.get("n") or 1) != 1:
        found.append(Obstacle.CHOICES)
    return found
