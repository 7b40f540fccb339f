"""A response: the attempts at one request, joined into one stream.

The client receives one text, one end and one usage, also when several backends sent them. When an attempt fails, the
next backend of the plan takes over: it continues the text exactly, or starts over when nothing has reached the client,
or (only with `FailoverConfig.prompted`) receives an instruction to continue. When none may, the first error is raised
and the stream has no end, so that a truncated response never looks complete.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from batuta_cli.errors import BatutaError, BudgetReservedError, CostError, LedgerError, PrivacyError
from batuta_cli.serve.backends.profile import ContinuationMethod
from batuta_cli.serve.backends.wire_formats import WireFormat
from batuta_cli.serve.budget.breaker import CostCircuitBreaker
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.attempt import Attempt
from batuta_cli.serve.pipeline.failover import FailoverState, Obstacle, Takeover, continuation
from batuta_cli.serve.pipeline.planner import Planner, Target
from batuta_cli.serve.pipeline.relay import Relay
from batuta_cli.serve.pipeline.renaming import renamed
from batuta_cli.serve.pipeline.request import AttemptReport, ChatRequest, Summary
from batuta_cli.serve.pipeline.splice import Echo, Splice, SpliceError, remaining_tokens
from batuta_cli.serve.providers.client import Timeouts
from batuta_cli.serve.providers.content_parts import REASONING_NAMES
from batuta_cli.serve.providers.formats import format_module
from batuta_cli.serve.providers.formats.openai_chat import left_out
from batuta_cli.serve.providers.wire import BackendError, Call, FinishReason, Piece
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.routing.planning import Plan
from batuta_cli.serve.usage import Usage

_GRAMMARS = (
    "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "json_schema", "structured_outputs",
)  # fmt: skip
"""Options of local servers that constrain the whole text, so a part of it cannot be continued under them."""

_CONTINUE = (
    "Go on exactly where your last message stops. Begin with the very next word, repeat nothing, explain nothing."
)


@dataclass(frozen=True)
class _Step:
    """The next attempt: where to send which call, and how to join its text."""

    target: Target
    call: Call
    splice: Splice | None = None


class Response:
    """A response in flight, made by `Pipeline.start`: `async for piece in response`, or `await response.text()`.

    `more` gives the pieces of one read together.
    """

    def __init__(
        self,
        request: ChatRequest,
        planner: Planner,
        monitor: BackendMonitor,
        breaker: CostCircuitBreaker,
        failover: FailoverConfig,
        timeouts: Timeouts,
    ) -> None:
        self.request = request
        self.plan: Plan | None = None
        self.backend = ""
        """The backend of the current attempt."""
        self.tier = request.privacy
        self.summary: Summary | None = None
        """Set at the end."""
        self.finish_reason: FinishReason | None = None
        """Why the text of the first choice ended, once it has; `length` when an output limit cut it."""
        self.dropped: tuple[str, ...] = ()
        """Fields of the request that the current backend did not get."""
        self.max_tokens: int | None = None
        """The output limit sent to the backend; None: no limit was sent."""
        self.alias = ""
        """The name that the client asked for, when it is an alias: what is relayed carries it."""
        self.fallback = ""
        """The model that answers in the place of the one that the client named; empty: no other one."""
        self._planner = planner
        self._monitor = monitor
        self._breaker = breaker
        self._timeouts = timeouts
        self._count = planner.counter(request.model)
        self._failover = FailoverState(
            request.request_id, "", failover, tier=request.privacy, obstacles=_request_obstacles(request)
        )
        self.replaced: tuple[AttemptReport, ...] = ()
        """The attempts at the models in whose place this one answers."""
        self._attempts: list[Attempt] = []
        self._failures: list[str | None] = []
        self._prompted = False
        self._translated: set[str] = set()
        """Backends whose server does not have the route of the client's API after all."""
        self._place = breaker.queues.of("").place()
        self._waits_for_client = False
        self._pieces = self._stream()
        self._first: list[Piece] = []

    async def open(self) -> None:
        """Wait for the first piece; an error raised here can still become an HTTP status."""
        self._first = await anext(self._pieces, [])

    async def more(self) -> list[Piece]:
        """The pieces of the next read; empty when the response is complete."""
        pieces, self._first = self._first, []
        pieces = pieces or await anext(self._pieces, [])
        return [renamed(piece, self.alias) for piece in pieces] if self.alias else pieces

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while pieces := await self.more():
            for piece in pieces:
                yield piece

    async def text(self) -> str:
        """The rest of the response's text, of the first choice; waits for its end. Raises when it is not complete."""
        return "".join([piece.text async for piece in self if piece.index == 0])

    async def aclose(self) -> None:
        """Stop: the connection to the backend is closed, and the relayed part is charged."""
        self._place.leave()
        await self._pieces.aclose()

    async def _stream(self) -> AsyncGenerator[list[Piece], None]:
        request = self.request
        tried: set[str] = set()
        reserved: set[str] = set()
        first_error: BatutaError | None = None
        while True:
            self.plan, targets = await self._planner.targets(request, frozenset(tried))
            step = await self._next_step(targets, begun=bool(tried))
            if step is None:
                if reserved and await self._place.wait():
                    tried -= reserved
                    reserved.clear()
                    first_error = None if isinstance(first_error, BudgetReservedError) else first_error
                    continue
                if first_error is not None:
                    raise self._final_error(first_error, {*tried, *self.plan.suitable})
                raise self._planner.error(request, self.plan)
            tried.add(step.target.backend.name)
            if step.call.max_tokens is not None and step.call.max_tokens <= 0:  # only the end is missing
                self.finish_reason = "length"
                yield [Piece(finish_reason="length")]
                break
            attempt = self._attempt(step)
            self._attempts.append(attempt)
            self._failures.append(None)
            self.backend = step.target.backend.name
            self.max_tokens = step.target.max_tokens
            self.dropped = _dropped(request, step)
            relay = Relay(self._failover, step.splice)
            try:
                async with aclosing(attempt.pieces()) as batches:
                    async for pieces in batches:
                        splice_error: SpliceError | None = None
                        new: list[Piece] = []
                        try:
                            relay.feed(pieces, new)
                        except SpliceError as error:
                            splice_error = error
                        if new:  # also the pieces before the failed splice, which count as sent
                            yield new
                        if splice_error:
                            raise splice_error
                if last := relay.finish():
                    self.finish_reason = relay.ends.get(0)
                    yield last
                break
            except BudgetReservedError as error:  # another backend is tried, then this one again after a wait
                self._forget_attempt()
                reserved.add(self.backend)
                first_error = first_error or error
                if error.of_client and not self._waits_for_client:  # once: so that the waits are bounded
                    self._waits_for_client = True
                    self._place.leave()
                    self._place = self._breaker.queues.of(request.client.name).place()
            except (BackendError, SpliceError, CostError, PrivacyError) as error:
                if isinstance(error, BackendError) and step.call.lacks_route(error, step.target.backend.profile):
                    self._forget_attempt()
                    self._translated.add(self.backend)
                    tried.discard(self.backend)
                    first_error = first_error or (error if request.native_only else None)
                    continue
                self._failures[-1] = error.kind
                first_error = first_error or error
                if not self._may_fail_over(error):
                    raise self._final_error(first_error, {*tried, *self.plan.suitable}) from None
        yield [Piece(usage=await self._sum_up())]

    @property
    def attempts(self) -> tuple[AttemptReport, ...]:
        """All attempts so far, with what each one cost; also of a response that failed or was closed before its end."""
        own = zip(self._attempts, self._failures, strict=True)
        return (*self.replaced, *(attempt.report(failed) for attempt, failed in own))

    def _forget_attempt(self) -> None:
        """Nothing was sent, or the server does not have the route: it does not count as an attempt."""
        self._attempts.pop()
        self._failures.pop()

    def _attempt(self, step: _Step) -> Attempt:
        return Attempt(
            step.target,
            step.call,
            self.request.request_id,
            monitor=self._monitor,
            breaker=self._breaker,
            timeouts=self._timeouts,
            count=self._count,
            place=self._place,
            client=self.request.client,
        )

    def _may_fail_over(self, error: BatutaError) -> bool:
        """Whether another backend is tried; a refusal before anything was sent does not use up an attempt."""
        if isinstance(error, CostError | PrivacyError):
            return True
        if isinstance(error, BackendError) and not error.retryable:
            return False
        if not self._failover.has_attempts:
            return False
        self._failover.prepare()
        return True

    def _final_error(self, error: BatutaError, suitable: Collection[str]) -> BatutaError:
        """The error for the client, with the wait until the first suitable backend can be tried."""
        if isinstance(error, BackendError) and error.retryable:
            error.retry_after = self._planner.retry_after(self.request, suitable)
        return error

    async def _next_step(self, targets: Sequence[Target], *, begun: bool) -> _Step | None:
        """The first target that may take the request (over), and the call for it; None without one."""
        request = self.request
        for target in targets:
            call = Call(
                model=request.model,
                messages=request.messages,
                max_tokens=target.max_tokens,
                stream=request.stream,
                options=request.options,
                inputs=request.inputs,
            )
            speaks = request.native is not None and target.backend.profile.takes(request.native.api)
            if target.backend.name in self._translated:
                if request.native_only:
                    continue
                speaks = False
            context = self._failover.context()
            if not begun or not (context.generated or context.reached_client):
                return _Step(target, replace(call, native=request.native) if speaks else call)
            profile = target.backend.profile.continuation
            prompted = self._failover.config.prompted
            takeover = continuation(profile, context, model=request.model, tier=target.address_tier, prompted=prompted)
            if takeover is Takeover.RESTART:
                self._failover.restart()
                return _Step(target, replace(call, native=request.native) if speaks else call)
            if takeover is Takeover.ERROR:
                continue
            text = context.generated
            sent = sum(attempt.output_tokens for attempt in self._attempts)
            call = replace(call, max_tokens=remaining_tokens(target.max_tokens, sent))
            longer = replace(target, input_tokens=target.input_tokens + await self._most_tokens(text))
            if takeover is Takeover.PROMPTED:
                self._prompted = True
                messages = (*request.messages, ChatMessage.assistant(text), ChatMessage.user(_CONTINUE))
                return _Step(longer, replace(call, messages=messages), Splice(text))
            call = replace(call, prefix=text)
            if profile.method is ContinuationMethod.COMPLETION:
                try:
                    prompt = await self._planner.render(request)
                except BatutaError:
                    continue
                limit = remaining_tokens(target.usual_max_tokens, sent)
                needs_limit = call.max_tokens is None and profile.format.needs_limit
                call = replace(call, prompt=prompt, max_tokens=limit if needs_limit else call.max_tokens)
            echo = Echo.UNKNOWN if profile.echoes else Echo.NEVER
            return _Step(longer, call, Splice(text, echo=echo, trims=profile.trims_space))
        return None

    async def _most_tokens(self, text: str) -> int:
        """An upper bound of a text's tokens, counted in a thread; one token a byte when counting fails."""

        def count() -> int:
            try:
                return self._count(text).tokens
            except BaseException:  # native code raises a BaseException when it panics
                return len(text.encode(errors="surrogatepass"))

        try:
            return await asyncio.get_running_loop().run_in_executor(None, count)
        except RuntimeError:  # no thread can be started
            return len(text.encode(errors="surrogatepass"))

    def _usage(self) -> Usage:
        """The usage of the whole response: the prompt once, and all output."""
        first, last = self._attempts[0], self._attempts[-1]
        output = sum(attempt.output_tokens for attempt in self._attempts)
        if first.usage:
            reasoning = [
                usage.reasoning_tokens
                for attempt in self._attempts
                if (usage := attempt.usage) and usage.reasoning_tokens is not None
            ]
            return replace(
                first.usage, output_tokens=output, reasoning_tokens=min(sum(reasoning), output) if reasoning else None
            )
        # The prompt of a later attempt includes the text so far.
        known = last.usage.input_tokens - (output - last.output_tokens) if last.usage else first.target.input_tokens
        return Usage(max(known, 0), output)

    async def _budget_left(self) -> int | None:
        try:
            return (await self._planner.budget(self.request.client)).remaining_for_client
        except (LedgerError, RuntimeError):  # the response is complete and charged; no thread can be started
            return None

    async def _sum_up(self) -> Usage:
        """Set the summary; returns the usage."""
        usage = self._usage()
        attempts = self.attempts
        cost = sum(attempt.cost for attempt in attempts)
        self.summary = Summary(
            backend=self.backend,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            exact=all(attempt.usage is not None and attempt.accepted for attempt in self._attempts),
            cost=cost,
            budget_left=await self._budget_left() if cost else None,
            attempts=attempts,
            prompted=self._prompted,
            fallback=self.fallback,
            usage=usage,
        )
        return usage


def _dropped(request: ChatRequest, step: _Step) -> tuple[str, ...]:
    """The fields of the request that a call leaves out, sorted."""
    profile = step.target.backend.profile
    if (native := step.call.native) is not None:
        return tuple(sorted({*native.withheld(profile), *native.left_out}))
    wire = profile.continuation.format if step.call.prompt else profile.wire
    options = format_module(wire).OPTIONS
    dropped = {*request.dropped, *(() if options is None else request.options.keys() - options)}
    if wire is WireFormat.OPENAI:
        dropped |= request.options.keys() & left_out(profile)
    if wire is not WireFormat.OPENAI or not profile.extensions:
        dropped |= {name for message in request.messages for name in message.fields if name in REASONING_NAMES}
    return tuple(sorted(dropped))


def _request_obstacles(request: ChatRequest) -> list[Obstacle]:
    """The obstacles that the request itself brings."""
    obstacles = []
    kind: Any = request.options.get("response_format")
    is_json = isinstance(kind, dict) and kind.get("type") not in (None, "text")
    if is_json or any(request.options.get(name) for name in _GRAMMARS):
        obstacles.append(Obstacle.JSON)
    if (request.options.get("n") or 1) != 1:
        obstacles.append(Obstacle.CHOICES)
    if request.native_only:
        obstacles.append(Obstacle.UNKNOWN)
    return obstacles
