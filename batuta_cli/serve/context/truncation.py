"""Drops messages so that a conversation fits. The messages that are kept do not change.

Every strategy keeps system and developer messages, the last user message, and the last message after it. Messages are
dropped in whole turns (a user message and the messages that follow it). So the rest begins with a user message after
the system messages, and tool calls stay with their results. Only when no other turn is left, the steps of the last turn
are dropped, oldest first. A larger window drops fewer messages, and a conversation that fits does not change.

The caller counts the rendered prompt. The time of an exact count grows with the prompt, so the lengths of the texts
give the first guess, and about twenty counts of prompts near the limit follow, also for a long conversation.
This relies on a prompt growing with its messages.

An estimate raises no error. Where the estimate of the messages that must be kept exceeds the limit, these messages are
the result, and its `after` is above the limit.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, Protocol, Self, TypeVar

from batuta_cli.errors import ContextOverflowError, TemplateError
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.names import NameEnum

_PINNED = frozenset((Role.SYSTEM, Role.DEVELOPER))
_OVERHEAD = 16
"""Characters of a message beside its text, roughly. Only the first guess depends on it."""

_REFUSALS = 32
"""Shortened conversations that a template may refuse before its error is raised."""


Steps = list[list[int]]
"""Steps of dropping: each one is the indexes of the messages that are dropped together."""

Order = Callable[[Steps, Steps], Steps]
"""The order in which a strategy drops the turns before the last one, and the steps of the last turn."""


def _oldest_first(turns: Steps, last: Steps) -> Steps:
    return [*turns, *last]


def _first_turn_last(turns: Steps, last: Steps) -> Steps:
    return [*turns[1:], *last, *turns[:1]]


class TruncationStrategy(NameEnum):
    """What to do with a conversation that is too long.

    SLIDING_WINDOW drops the oldest turns. MIDDLE_OUT keeps the first turn and the newest ones, and drops the first turn
    last. ERROR drops nothing.
    """

    SLIDING_WINDOW = "sliding-window", _oldest_first
    MIDDLE_OUT = "middle-out", _first_turn_last
    ERROR = "error", None

    order: Order | None
    """The order in which it drops; None drops nothing."""

    def __new__(cls, name: str, order: Order | None = None) -> Self:
        """A row of the table."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.order = order
        return member


class Counted(Protocol):
    """The part of `serve.tokens.TokenCount` that this module needs."""

    @property
    def tokens(self) -> int:
        """Tokens of the whole prompt."""

    @property
    def exact(self) -> bool:
        """False for an upper estimate."""


C = TypeVar("C", bound=Counted)


@dataclass(frozen=True)
class Truncation(Generic[C]):
    """The conversation that fits."""

    messages: tuple[ChatMessage, ...]
    dropped: tuple[int, ...]
    """The numbers, from 1, of the dropped messages."""
    before: C
    """The count of the whole conversation."""
    after: C
    """The count of the remaining conversation."""


def truncate(
    messages: Sequence[ChatMessage],
    count: Callable[[Sequence[ChatMessage]], C],
    limit: int,
    strategy: TruncationStrategy = TruncationStrategy.SLIDING_WINDOW,
) -> Truncation[C]:
    """The conversation in at most `limit` tokens.

    Raises `ContextOverflowError` with the number of missing tokens when the messages that must be kept are longer by an
    exact count, and the errors of `count` for the whole conversation. A shortened conversation that the template
    refuses is skipped.
    """
    before = count(messages)
    if before.tokens <= limit:
        return Truncation(tuple(messages), (), before, before)
    if strategy.order is None:
        if not before.exact:
            return Truncation(tuple(messages), (), before, before)
        raise overflow(before.tokens, limit)
    return _Search(messages, count, limit, removals(messages, strategy.order), before).run()


def overflow(tokens: int, limit: int, longest: int | None = None) -> ContextOverflowError:
    """The error for a prompt of more tokens than the limit.

    `longest` is the number of the longest message after everything that may be dropped was dropped.
    """
    missing = tokens - limit
    result = {"tokens": tokens, "limit": limit, "missing": missing}
    too_long = f"{tokens:,} tokens, {missing:,} more than the {limit:,} that the window leaves for the prompt"
    if longest is None:
        hint = "drop the oldest turns with --strategy sliding-window, or give a larger --window or a smaller --reserve"
        return ContextOverflowError(f"the prompt has {too_long}", hint=hint, result=result)
    hint = (
        f"the longest is message {longest:,}; system messages, the last user message and the newest reply are always"
        " kept: shorten them, or give a larger --window or a smaller --reserve"
    )
    return ContextOverflowError(f"the messages that must be kept have {too_long}", hint=hint, result=result)


def removals(messages: Sequence[ChatMessage], order: Order) -> Steps:
    """The indexes of the messages in the order in which they are dropped, step by step."""
    turns = list(_turns(messages))
    first_user = next((n for n, turn in enumerate(turns) if messages[turn[0][0]].role is Role.USER), None)
    if first_user is None:
        return [unit for turn in turns for unit in turn][:-1]
    head, (*older, last) = turns[:first_user], turns[first_user:]
    opening = [index for turn in head for unit in turn for index in unit]
    steps = [[index for unit in turn for index in unit] for turn in older]
    ordered = order(steps, last[1:-1])
    return [opening, *ordered] if opening else ordered


def _turns(messages: Sequence[ChatMessage]) -> Iterator[list[list[int]]]:
    """Turns of units of indexes: a turn begins with a user message, a unit is a message with its tool results."""
    turn: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.role in _PINNED:
            continue
        if message.role is Role.TOOL and turn:
            turn[-1].append(index)
            continue
        if message.role is Role.USER and turn:
            yield turn
            turn = []
        turn.append([index])
    if turn:
        yield turn


class _Search(Generic[C]):
    """Finds the fewest steps after which the conversation fits."""

    def __init__(
        self,
        messages: Sequence[ChatMessage],
        count: Callable[[Sequence[ChatMessage]], C],
        limit: int,
        steps: Steps,
        before: C,
    ) -> None:
        self.messages = messages
        self.count = count
        self.limit = limit
        self.before = before
        self.most = len(steps)
        self.goes_at = [self.most + 1] * len(messages)
        for number, step in enumerate(steps, 1):
            for index in step:
                self.goes_at[index] = number
        sizes = [_size(message) for message in messages]
        gone = accumulate((sum(sizes[index] for index in step) for step in steps), initial=0)
        total = sum(sizes)
        self.left = [total - size for size in gone]
        """Characters after each number of steps: descending."""
        self.refusals = 0

    def run(self) -> Truncation[C]:
        high, best = self._shortest()
        if best[1].tokens > self.limit:
            return self._after_steps(*best)
        low, density, slack = 0, self.before.tokens / self.left[0], 1 / 32
        while low + 1 < high:
            if low:
                step = (low + high) // 2
            else:  # aim a little above the limit: a prompt that is just too long is the cheapest lower bound
                step = min(max(self._after(self.limit * (1 + slack) / density), 1), high - 1)
                slack *= 4
            found, counted = self._first_accepted(step, high)
            if counted is None:
                high = step
            elif counted.tokens > self.limit:
                low = found
            else:
                high, best = step, (found, counted)
                density = counted.tokens / self.left[found] or density
        return self._after_steps(*best)

    def _after_steps(self, steps: int, after: C) -> Truncation[C]:
        dropped = tuple(number for number, at in enumerate(self.goes_at, 1) if at <= steps)
        return Truncation(tuple(self._kept(steps)), dropped, self.before, after)

    def _shortest(self) -> tuple[int, tuple[int, C]]:
        """The most steps that the template accepts, with their count. Raises when an exact count does not fit."""
        for steps in range(self.most, 0, -1):
            counted = self._counted(steps)
            if counted is None:
                continue
            if counted.tokens > self.limit and counted.exact:
                raise overflow(counted.tokens, self.limit, self._longest(steps))
            return steps, (steps, counted)
        raise overflow(self.before.tokens, self.limit, self._longest(0))

    def _longest(self, steps: int) -> int:
        """The number of the longest message that remains after `steps` steps."""
        kept = (index for index, at in enumerate(self.goes_at) if at > steps)
        return 1 + max(kept, key=lambda index: _size(self.messages[index]))

    def _first_accepted(self, start: int, stop: int) -> tuple[int, C | None]:
        """The first number of steps from `start` whose conversation the template accepts."""
        for steps in range(start, stop):
            counted = self._counted(steps)
            if counted is not None:
                return steps, counted
        return stop, None

    def _counted(self, steps: int) -> C | None:
        try:
            return self.count(self._kept(steps))
        except TemplateError:
            self.refusals += 1
            if self.refusals > _REFUSALS:
                raise
            return None

    def _kept(self, steps: int) -> list[ChatMessage]:
        return [message for message, at in zip(self.messages, self.goes_at, strict=True) if at > steps]

    def _after(self, size: float) -> int:
        """The fewest steps that leave at most `size` characters."""
        return bisect_left(self.left, -size, key=lambda left: -left)


def _size(message: ChatMessage) -> int:
    calls = sum(len(call.name) + len(call.arguments) + _OVERHEAD for call in message.tool_calls)
    return _OVERHEAD + len(message.content) + calls
