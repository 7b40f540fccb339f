"""Checks whether a conversation fits a model's context window, and shortens it until it fits.

    manager = ContextManager.for_model("llama-2-70b")
    if not manager.fits(messages):
        messages = manager.truncate(messages).messages

The rendered prompt is counted with the model's own tokenizer. Where template or tokenizer is not known, the count is an
upper estimate and marked as such. `truncation` has the rules for what is kept.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.context.truncation import Truncation, TruncationStrategy, truncate
from batuta_cli.serve.messages import ChatMessage, template_input_of

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection
    from batuta_cli.serve.templates.engine import ChatTemplateEngine
    from batuta_cli.serve.tokens import TokenCount

Counter = Callable[[Sequence[ChatMessage], Mapping[str, Any]], "TokenCount"]
"""Counts the tokens of the prompt for a conversation and for further fields of OpenAI's request, such as `tools`."""


@dataclass(frozen=True)
class Server:
    """A running server that counts prompts itself."""

    name: str
    counter: Counter
    window: int | None = None
    """Its context window in tokens, where it reports one."""


NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class ContextWindow:
    """The tokens of prompt and output together, and the part reserved for the output.

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
                f"the reserve must be from 0 to {self.window - 1:,}, less than the window, not {self.reserve:,}",
                hint="--window TOKENS is for prompt and output together, --reserve TOKENS the part for the output",
            )

    @property
    def limit(self) -> int:
        """The most tokens of a prompt."""
        return self.window - self.reserve


@dataclass(frozen=True)
class ContextManager:
    """The window of a model, and the counter of its prompts."""

    size: ContextWindow
    counter: Counter
    source: str = "the caller"
    """The source of the window."""
    as_of: str = ""
    """The date of the source, where it is a table in batuta."""

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
        server: Server | None = None,
    ) -> Self:
        """The manager for a model's name or its file.

        `window` and `reserve` override the known values. With `window` alone the reserve is the smaller of the known
        and the default one. `tokenizer` is the file or folder to count with, `system_fallback` is for templates without
        a system role (see `ChatTemplateEngine.apply`), and `models` has the config's `[models]`. A running `server`
        counts instead of the tokenizer. Its window is used where it is smaller, or where the model's own is not known.

        Raises `UsageError` for a model whose window is not known when `window` is not given.
        """
        if server is not None:
            return cls._served(model, server, window, reserve, models)
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
        counter = prompt_counter(model, *files, system_fallback)
        if window is not None or info is None:
            return cls(size, counter)
        return cls(size, counter, info.source, info.as_of)

    @classmethod
    def _served(
        cls,
        model: str,
        server: "Server",
        window: int | None,
        reserve: int | None,
        models: Mapping[str, "ModelSection"],
    ) -> Self:
        from batuta_cli.serve.models.windows import default_reserve, known_model, require_model

        info = require_model(model, models) if window is None and server.window is None else known_model(model, models)
        size, source, as_of = window or 0, "the caller", ""
        if window is None and info is not None:
            size, source, as_of = info.context_window, info.source, info.as_of
        if window is None and server.window is not None and (info is None or server.window < size):
            size, source, as_of = server.window, server.name, ""
        if reserve is None:
            reserve = min(info.output_reserve if info else size, default_reserve(max(size, 0)))
        return cls(ContextWindow(size, reserve), server.counter, source, as_of)

    def count(self, messages: Sequence[ChatMessage], options: Mapping[str, Any] = NO_OPTIONS) -> "TokenCount":
        """The tokens of the prompt for these messages. `options` has further fields of the request, such as `tools`.

        Raises `TemplateError` when the template cannot render the messages, and `InvalidInputError` for a content part
        that is not text: only a running server knows its tokens.
        """
        if isinstance(self.counter, PromptCounter):
            _check_parts(messages)
        return self.counter(messages, options)

    def fits(self, messages: Sequence[ChatMessage], options: Mapping[str, Any] = NO_OPTIONS) -> bool:
        """Whether the prompt leaves the reserve for the output. Where the count is an estimate, False may be wrong."""
        return self.count(messages, options).tokens <= self.size.limit

    def unread(self, messages: Sequence[ChatMessage], options: Mapping[str, Any] = NO_OPTIONS) -> list[str]:
        """Describe the parts of the input that the model's template does not read; one sentence each.

        A running server reads them or not; nothing is known of it here. Raises `TemplateError` as `count`.
        """
        return self.counter.unread(messages, options) if isinstance(self.counter, PromptCounter) else []

    def truncate(
        self,
        messages: Sequence[ChatMessage],
        strategy: TruncationStrategy | None = None,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> "Truncation[TokenCount]":
        """The messages that fit. By default the oldest turns are dropped.

        Raises `ContextOverflowError` when the messages that must be kept are too long by an exact count.
        """
        chosen = TruncationStrategy.SLIDING_WINDOW if strategy is None else TruncationStrategy(strategy)
        return truncate(messages, lambda kept: self.count(kept, options), self.size.limit, chosen)


def _check_parts(messages: Sequence[ChatMessage]) -> None:
    for number, message in enumerate(messages, 1):
        for part in message.parts:
            if part.get("type") != "text":
                kind = display(str(part.get("type"))[:40])
                raise InvalidInputError(
                    f"message {number}: has a content part of type {kind}, whose tokens only the server can count",
                    hint="--backend NAME lets a running llama.cpp or vLLM count",
                )


@dataclass(frozen=True)
class PromptCounter:
    """Counts the prompts of one model: a `Counter`."""

    model: str
    engine: "ChatTemplateEngine | None"
    """None where the template is not known."""
    tokenizer: str = ""
    """The file to count with; empty: the model's own tokenizer."""
    system_fallback: str = "error"

    def __call__(self, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> "TokenCount":
        """Count a prompt; `options` has further fields of the request, such as `tools`."""
        from batuta_cli.serve.tokens import count_messages

        render = None if self.engine is None else self._render
        return count_messages(
            self.model, messages, tokenizer_path=self.tokenizer or None, render=render, options=options
        )

    def unread(self, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> list[str]:
        """Describe the parts of the input that the template does not read. Raises `TemplateError`."""
        given = template_input_of(options)
        if self.engine is not None:
            arguments = given.arguments()
            prompt = self._render(messages, **arguments) if given.tools else None
            return self.engine.unread(messages, prompt=prompt, **arguments)
        unknown = f"the template of {display(self.model)} is not known"
        return [f"{unknown}; {display(name)} is not counted" for name in options.get("chat_template_kwargs") or ()]

    def _render(self, messages: Sequence[ChatMessage], /, **template_input: Any) -> str:
        assert self.engine is not None  # noqa: S101 - the callers have checked it
        return self.engine.apply(messages, system_fallback=self.system_fallback, **template_input)


def prompt_counter(
    model: str, tokenizer: str = "", template: str = "", system_fallback: str = "error"
) -> PromptCounter:
    """The counter of a model's name or file. `tokenizer` and `template` are files that override those of the model.

    Raises the errors of `ChatTemplateEngine` for files that it cannot read.
    """
    from batuta_cli.serve.tokens.openai_models import openai_model

    hosted = openai_model(model)
    rendered = template or hosted is None or hosted.rendered
    return PromptCounter(model, _engine(model, tokenizer, template) if rendered else None, tokenizer, system_fallback)


def _engine(model: str, tokenizer: str, template: str) -> "ChatTemplateEngine | None":
    """The template of a model, or None for one whose template is not known, such as Claude's.

    A GGUF file or folder given as the tokenizer also has a template. It comes before one that is chosen by name.
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
