"""Whether a conversation fits the context window of a model, and the part of it that does.

    manager = ContextManager.for_model("llama-2-70b")
    if not manager.fits(messages):
        messages = manager.truncate(messages).messages

What is counted is the prompt as the model's template renders it, by the model's own tokenizer; where that is not at
hand the count is an upper estimate and says so. `truncation` has the rules of what is kept.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from batuta_cli.errors import UsageError
from batuta_cli.serve.context.truncation import Truncation, TruncationStrategy, truncate
from batuta_cli.serve.messages import ChatMessage

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection
    from batuta_cli.serve.templates.engine import ChatTemplateEngine
    from batuta_cli.serve.tokens import TokenCount

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
        system_fallback: str = "error",
        models: Mapping[str, "ModelSection"] = {},
    ) -> Self:
        """The manager for a model's name or its file.

        `window` and `reserve` override what is known of it; a window alone keeps the known reserve where that is
        smaller. `tokenizer` is the file or folder to count with, `system_fallback` is for templates without a system
        role (see `ChatTemplateEngine.apply`), and `models` has the config's `[models]`.

        Raises `UsageError` for a model whose window is not known when `window` is not given.
        """
        from batuta_cli.serve.models.windows import default_reserve, known_model, require_model

        info = require_model(model, models) if window is None else known_model(model, models)
        chosen = window if window is not None else info.context_window if info else 0
        if reserve is None:
            reserve = default_reserve(max(chosen, 0))
            if info is not None:
                reserve = info.output_reserve if window is None else min(info.output_reserve, reserve)
        size = ContextWindow(chosen, reserve)
        own = models.get(model)
        files = tokenizer or (own.tokenizer if own else ""), own.template if own else ""
        counter = _counter(model, *files, system_fallback)
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


def _counter(model: str, tokenizer: str, template: str, system_fallback: str) -> Counter:
    from batuta_cli.serve.tokens import count_messages
    from batuta_cli.serve.tokens.openai_models import openai_model

    render = None
    if template or not openai_model(model):
        engine = _engine(model, tokenizer, template)
        if engine is not None:
            render = partial(engine.apply, system_fallback=system_fallback)
    return lambda messages: count_messages(model, messages, tokenizer_path=tokenizer or None, render=render)


def _engine(model: str, tokenizer: str, template: str) -> "ChatTemplateEngine | None":
    """The template of a model, or None for a hosted one whose template nobody knows: Claude's, for instance.

    A GGUF file or a folder that was named for its tokenizer has a template as well, which says more than a name.
    """
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

    if template:
        return ChatTemplateEngine(template)
    for place in filter(None, (tokenizer, model)):
        try:
            return ChatTemplateEngine.from_model(place)
        except UsageError:
            if place == model and os.path.exists(model):
                raise
    return None
