"""Render conversations with an untrusted template, and refuse to lose a message.

Such a template can refuse a role, or omit a message without an error. Each conversation of a new shape is therefore
rendered first with marks in place of its texts. A mark that is missing in the prompt is an error that names the
message. Text beside tool calls is an exception: templates that omit it treat it as the model's thoughts.

After an error a few more renderings find the message that caused it.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from batuta_cli.errors import TemplateError
from batuta_cli.files import display
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall
from batuta_cli.serve.templates.isolation import Allowance, Isolated
from batuta_cli.serve.templates.render import RenderError
from batuta_cli.serve.templates.template_input import (
    SYSTEM,
    Conversation,
    Numbered,
    SystemFallback,
    as_context,
    inexpressible,
    no_system,
    size_of,
    without_system,
)

TEMPLATE_LIMIT = 1024 * 1024
"""Maximum characters of a template; the longest published templates have about 30,000."""

_MARKS = re.compile(r"Qz(\d+)z(\d+)zQ")
_REMEMBERED = 64  # shapes of conversations that rendered without loss
_SHORT = 256  # messages of a remembered shape, to bound the memory


class ForeignTemplate:
    """An untrusted template. Raises `TemplateError` if the text is too long or is not Unicode text."""

    def __init__(self, text: str, bos_token: str, eos_token: str) -> None:
        if len(text) > TEMPLATE_LIMIT:
            raise TemplateError(f"the template is longer than {TEMPLATE_LIMIT:,} characters, which no chat template is")
        try:
            f"{text}{bos_token}{eos_token}".encode()
        except UnicodeEncodeError:
            raise TemplateError("the template contains a lone surrogate, which is not Unicode text") from None
        self._isolated = Isolated(text)
        # transformers passes None for absent tools and documents; templates distinguish that from "undefined".
        absent = {"tools": None, "documents": None}
        self._variables: dict[str, Any] = {"bos_token": bos_token, "eos_token": eos_token, **absent}
        self._developer = "developer" in text
        self._good: dict[object, None] = {}

    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str:
        """The prompt. Raises `TemplateError`."""
        size, count = size_of(conversation)
        allowance = Allowance.of(3 * size, 3 * count)  # rendered twice, and once more after an error

        def run(turns: Conversation, **changed: Any) -> str:
            return self._run(turns, now, {**options, **changed}, allowance)

        conversation = self._expressed(conversation, fallback, run)
        try:
            return run(conversation)
        except RenderError as error:
            raise _failed(error) from None

    def close(self) -> None:
        """End the worker process, which would otherwise end with this object."""
        self._isolated.close()

    def _run(
        self, conversation: Conversation, now: dt.datetime, options: Mapping[str, Any], allowance: Allowance
    ) -> str:
        def attempt(text: bool) -> str:
            messages = as_context(conversation, developer=self._developer, text=text)
            context = {"messages": messages, **self._variables, **options}
            return self._isolated.render(context, now=now, allowance=allowance)

        try:
            return attempt(text=False)
        except RenderError:
            if not any(turn.message.tool_calls for turn in conversation):
                raise
        return attempt(text=True)  # a template that concatenates arguments with text fails for objects

    def _expressed(self, conversation: Conversation, fallback: SystemFallback, run: Callable[..., str]) -> Conversation:
        problem = self._problem(conversation, run)
        if problem is None:
            return conversation
        system = next((turn for turn in conversation if turn.role in SYSTEM), None)
        if system is not None and fallback is not SystemFallback.ERROR:
            conversation = without_system(conversation, fallback)
            problem = self._problem(conversation, run)
            if problem is None:
                return conversation
        elif system is not None and self._problem(without_system(conversation, SystemFallback.DROP), run) is None:
            culprit = problem[0] if problem[0].role in SYSTEM else system
            raise no_system(culprit, "the template does not support this system message")
        raise inexpressible(*problem)

    def _problem(self, conversation: Conversation, run: Callable[..., str]) -> tuple[Numbered, str] | None:
        """Return the first message that the template cannot express, and why."""
        shape = tuple(_shape(turn) for turn in conversation)
        if shape in self._good:
            return None
        probe = tuple(Numbered(turn.number, _marked(index, turn.message)) for index, turn in enumerate(conversation))
        try:
            prompt = run(probe)
        except RenderError as error:
            if not error.refused:
                raise _failed(error) from None
            if _renders(conversation, run):  # it requires texts that a mark does not satisfy
                return None
            return _refused(probe, error, run)
        found = {(int(mark[1]), int(mark[2])) for mark in _MARKS.finditer(prompt)}
        for index, turn in enumerate(conversation):
            calls = [(index, number) in found for number in range(1, len(turn.message.tool_calls) + 1)]
            if not all(calls):
                return turn, "the template leaves out one of its tool calls"
            if turn.message.content and not calls and (index, 0) not in found:
                return turn, f"the template leaves this message out (role {turn.role})"
        if len(shape) <= _SHORT:
            if len(self._good) >= _REMEMBERED:
                del self._good[next(iter(self._good))]
            self._good[shape] = None
        return None


def _shape(turn: Numbered) -> tuple[Role, bool, int, bool]:
    message = turn.message
    return message.role, bool(message.content), len(message.tool_calls), message.name is not None


def _marked(index: int, message: ChatMessage) -> ChatMessage:
    calls = tuple(
        ToolCall(call.id, f"Qz{index}z{number}zQ", call.arguments) for number, call in enumerate(message.tool_calls, 1)
    )
    return replace(message, content=f"Qz{index}z0zQ" if message.content else "", tool_calls=calls)


def _renders(conversation: Conversation, run: Callable[..., str]) -> bool:
    try:
        run(conversation)
    except RenderError:
        return False
    return True


def _refused(probe: Conversation, error: RenderError, run: Callable[..., str]) -> tuple[Numbered, str]:
    """Find the first message that causes the refusal, by bisection."""
    good, bad = 0, len(probe)  # lengths of prefixes of the conversation
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            run(probe[:middle], add_generation_prompt=False)
            good = middle
        except RenderError as found:
            error, bad = found, middle
    return probe[bad - 1], f"the template refuses this message{': ' * bool(error.reason)}{display(error.reason)}"


def _failed(error: RenderError) -> TemplateError:
    if error.refused:
        return TemplateError(f"the template refuses the messages{': ' * bool(error.reason)}{display(error.reason)}")
    return TemplateError(f"the template cannot be rendered: {display(error.reason)}")
