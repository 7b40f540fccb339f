"""Whether a conversation fits the context window of a model, and the part of it that does.

    manager = ContextManager.for_model("llama-2-70b")
    if not manager.fits(messages):
        messages = manager.truncate(messages).messages

What is counted is the prompt as the model's template renders it, by the model's own tokenizer; where that is not at
hand the count is an upper estimate and says so. `truncation` has the rules of what is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from batuta_cli.errors import UsageError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.truncation import Truncation, TruncationStrategy, truncate

if TYPE_CHECKING:
    from batuta_cli.config import Model
    from batuta_cli.serve.tokens.interface import TokenCount

Counter = Callable[[Sequence[ChatMessage]], "TokenCount"]
"""Counts the tokens of a conversation as it is sent."""


@dataclass(frozen=True)
class ContextWindow:
    """Tokens that prompt and answer have together, and how many of them are kept for the answer.

    Raises `UsageError` unless 0 ≤ reserve < window.
    """

    window: int
    reserve: int

    def __post_init__(self) -> None:
        for what, value in (("window", self.window), ("reserve", self.reserve)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise UsageError(f"the {what} must be a whole number of tokens")
        if self.window < 1:
            raise UsageError(f"the window must be at least one token, not {self.window:,}")
        if not 0 <= self.reserve < self.window:
            raise UsageError(
                f"the reserve must be from 0 to less than the window of {self.window:,} tokens, not {self.reserve:,}",
                hint="--window TOKENS is the whole of it, --reserve TOKENS the part kept for the answer",
            )

    @property
    def limit(self) -> int:
        """Tokens that the prompt may have."""
        return self.window - self.reserve


@dataclass(frozen=True)
class ContextManager:
    """The window of one model with the way to count what goes into it."""

    size: ContextWindow
    counter: Counter
    source: str = "the caller"
    """Where the window comes from."""
    as_of: str = ""
    """The day on which the source said so, where it is a table of batuta's."""

    @classmethod
    def for_model(
        cls,
        model: str,
        *,
        window: int | None = None,
        reserve: int | None = None,
        tokenizer: str | None = None,
        models: Mapping[str, "Model"] = {},
    ) -> Self:
        """The manager for a model's name or its file.

        `window` and `reserve` override what is known of it, `tokenizer` names the file or model to count with, and
        `models` has the config's `[models]`. A window alone keeps the known reserve where that is smaller.

        Raises `UsageError` for a model whose window is not known when `window` is not given.
        """
        from batuta_cli.serve.models import default_reserve, known_model, require_model

        info = require_model(model, models) if window is None else known_model(model, models)
        chosen = window if window is not None else info.context_window if info else 0
        if reserve is None:
            reserve = default_reserve(max(chosen, 0))
            if info is not None:
                reserve = info.output_reserve if window is None else min(info.output_reserve, reserve)
        size = ContextWindow(chosen, reserve)
        own = models.get(model)
        counter = _counter(model, tokenizer or (own.tokenizer if own else ""), own.template if own else "")
        if window is not None or info is None:
            return cls(size, counter)
        return cls(size, counter, info.source, info.as_of)

    def count(self, messages: Sequence[ChatMessage]) -> "TokenCount":
        """Tokens of the prompt that these messages become. Raises `TemplateError` when they cannot become one."""
        return self.counter(messages)

    def fits(self, messages: Sequence[ChatMessage]) -> bool:
        """Whether the prompt leaves room for the answer."""
        return self.count(messages).tokens <= self.size.limit

    def truncate(
        self, messages: Sequence[ChatMessage], strategy: TruncationStrategy | None = None
    ) -> "Truncation[TokenCount]":
        """The messages that fit; by default the oldest turns are dropped.

        Raises `ContextOverflowError` when what must be kept is too long.
        """
        chosen = TruncationStrategy.SLIDING_WINDOW if strategy is None else TruncationStrategy(strategy)
        return truncate(messages, self.counter, self.size.limit, chosen)


def _counter(model: str, tokenizer: str, template: str) -> Counter:
    from batuta_cli.serve.tokens import count_messages, tokenizer_for

    if not tokenizer and not template:
        return lambda messages: count_messages(model, messages)
    from batuta_cli.serve.templates.engine import ChatTemplateEngine
    from batuta_cli.serve.tokens.interface import TokenCount

    engine, counting = ChatTemplateEngine.from_model(template or model), tokenizer_for(tokenizer or model)

    def count(messages: Sequence[ChatMessage]) -> TokenCount:
        tokens = counting.count(engine.apply(messages), special=True)
        return TokenCount(tokens, counting.exact, f"the rendered prompt, by {counting.name}")

    return count
