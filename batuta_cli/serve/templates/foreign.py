"""Render conversations with an untrusted template, and refuse to lose a message.

Such a template can refuse a role, or omit a message without an error. Each conversation of a new shape is therefore
rendered first with marks in place of its texts. A mark that is missing in the prompt is an error that names the
message. Text beside tool calls is an exception: templates that omit it treat it as the model's thoughts.

A template can require content as text or as a list of parts, and arguments as text or as objects. The first form in
which nothing is lost is used, and remembered for conversations of the same shape.

After an error a few more renderings find the message that caused it.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from batuta_cli.errors import TemplateError
from batuta_cli.files import display
from batuta_cli.serve.messages import ChatMessage, ToolCall
from batuta_cli.serve.templates.isolation import Allowance, Isolated
from batuta_cli.serve.templates.render import RenderError
from batuta_cli.serve.templates.template_input import (
    SYSTEM,
    Content,
    Conversation,
    Form,
    Numbered,
    SystemFallback,
    as_context,
    forms_of,
    inexpressible,
    media_of,
    no_system,
    size_of,
    without_system,
)

TEMPLATE_LIMIT = 1024 * 1024
"""Maximum characters of a template; the longest published templates have about 30,000."""

_MARKS = re.compile(r"Qz\d+[cp]\d+zQ")
_REMEMBERED = 64  # shapes of conversations that rendered without loss
_SHORT = 256  # messages of a remembered shape, to bound the memory


class _Problem(NamedTuple):
    """Why a template cannot express a conversation; `turn` is the message, None if the template fails."""

    turn: Numbered | None
    reason: str


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
        self._forms: dict[object, Form] = {}
        self._names: frozenset[str] = frozenset()

    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str:
        """Return the prompt. Raises `TemplateError`."""
        size, count = size_of(conversation)
        allowance = Allowance.of(3 * size, 3 * count)  # rendered twice, and once more after an error

        def run(turns: Conversation, form: Form, **changed: Any) -> str:
            return self.render_as_given(turns, form, now, {**options, **changed}, allowance)

        conversation, form = self._expressed(conversation, fallback, run, _key(options))
        try:
            return run(conversation, form)
        except RenderError as error:
            raise TemplateError(_failed(error)) from None

    def render_as_given(
        self,
        conversation: Conversation,
        form: Form,
        now: dt.datetime,
        options: Mapping[str, Any],
        allowance: Allowance | None = None,
    ) -> str:
        """Return the prompt in this form; a message that the template leaves out is left out. Raises `RenderError`."""
        messages = as_context(conversation, developer=self._developer, form=form)
        context = {**self._variables, **options, "messages": messages}
        return self._isolated.render(context, now=now, allowance=allowance or Allowance.of(*size_of(conversation)))

    def names(self) -> frozenset[str]:
        """Return the names of variables, attributes and keys that the template reads."""
        if not self._names:  # not known yet
            self._names = self._isolated.names(Allowance.of(0, 0))
        return self._names

    def close(self) -> None:
        """End the worker process, which would otherwise end with this object."""
        self._isolated.close()

    def _expressed(
        self, conversation: Conversation, fallback: SystemFallback, run: Callable[..., str], key: object
    ) -> tuple[Conversation, Form]:
        """Return the conversation, after the system fallback, and the form in which nothing of it is lost."""
        form = self._form(conversation, run, key)
        if isinstance(form, Form):
            return conversation, form
        problem = form
        system = next((turn for turn in conversation if turn.role in SYSTEM), None)
        if system is not None and problem.turn is not None:
            if fallback is not SystemFallback.ERROR:
                conversation = without_system(conversation, fallback)
                form = self._form(conversation, run, key)
                if isinstance(form, Form):
                    return conversation, form
                problem = form
            elif isinstance(self._form(without_system(conversation, SystemFallback.DROP), run, key), Form):
                turn = problem.turn
                culprit = turn if turn is not None and turn.role in SYSTEM else system
                raise no_system(culprit, "the template does not support this system message")
        if problem.turn is None:
            raise TemplateError(problem.reason)
        raise inexpressible(problem.turn, problem.reason)

    def _form(self, conversation: Conversation, run: Callable[..., str], key: object) -> Form | _Problem:
        """Return the form for a conversation, or what is lost in the most common form."""
        shape = (key, tuple(_shape(turn) for turn in conversation))
        if known := self._forms.get(shape):
            return known
        problem: _Problem | None = None
        for form in forms_of(conversation):
            found = _problem(conversation, form, run)
            if found is None:
                self._remember(shape, form)
                return form
            if problem is None or problem.turn is None:  # a problem with one message says more
                problem = found
        return problem or _Problem(None, "the template cannot be rendered")

    def _remember(self, shape: tuple[object, tuple[object, ...]], form: Form) -> None:
        if len(shape[1]) <= _SHORT:
            if len(self._forms) >= _REMEMBERED:
                del self._forms[next(iter(self._forms))]
            self._forms[shape] = form


def _problem(conversation: Conversation, form: Form, run: Callable[..., str]) -> _Problem | None:
    """Return the first message that the template cannot express in this form, and why."""
    probe = tuple(Numbered(turn.number, _marked(index, turn.message)) for index, turn in enumerate(conversation))
    try:
        prompt = run(probe, form)
    except RenderError as error:
        if not error.refused:
            return _Problem(None, _failed(error))
        if _renders(conversation, form, run):  # it requires texts that a mark does not satisfy
            return None
        return _refused(probe, error, form, run)
    if form.content is not Content.TEXT and "'text': 'Qz" in prompt:
        return _Problem(None, "the template writes content parts as Python lists")
    found = set(_MARKS.findall(prompt))
    for index, turn in enumerate(probe):
        message = turn.message
        if not all(call.name in found for call in message.tool_calls):
            return _Problem(turn, "the template leaves out one of its tool calls")
        if not message.tool_calls and not found.issuperset(_MARKS.findall(message.content)):
            return _Problem(turn, f"the template leaves this message out (role {conversation[index].role})")
    return _lost_media(probe, prompt, form, run)


def _lost_media(probe: Conversation, prompt: str, form: Form, run: Callable[..., str]) -> _Problem | None:
    for index, turn in enumerate(probe):
        if media := media_of(turn.message):
            texts = tuple(part for part in turn.message.parts if part.get("type") == "text")
            without = Numbered(turn.number, replace(turn.message, parts=texts or ({"type": "text", "text": ""},)))
            try:
                same = run((*probe[:index], without, *probe[index + 1 :]), form) == prompt
            except RenderError:
                same = False
            if same:
                return _Problem(turn, f"the template leaves out its part of type {display(media[0][:40])}")
    return None


def _shape(turn: Numbered) -> tuple[object, ...]:
    message = turn.message
    if not message.parts and not message.fields:
        return message.role, bool(message.content), len(message.tool_calls), message.name is not None
    parts = tuple((str(part.get("type")), bool(part.get("text"))) for part in message.parts)
    fields = tuple(sorted(name for name, value in message.fields.items() if value))
    return message.role, bool(message.content), len(message.tool_calls), message.name is not None, parts, fields


def _key(options: Mapping[str, Any]) -> str:
    """Return a key for the options that can change what a template omits."""
    given = {name: bool(value) for name, value in options.items() if name in ("tools", "documents", "date_string")}
    return repr(sorted({**options, **given}.items()))


def _marked(index: int, message: ChatMessage) -> ChatMessage:
    calls = tuple(
        ToolCall(call.id, f"Qz{index}c{number}zQ", call.arguments) for number, call in enumerate(message.tool_calls, 1)
    )
    if not message.parts:
        return replace(message, content=f"Qz{index}p0zQ" if message.content else "", tool_calls=calls)
    parts = [
        {**part, "text": f"Qz{index}p{number}zQ"} if part.get("type") == "text" and part["text"] else part
        for number, part in enumerate(message.parts)
    ]
    content = "".join(part["text"] for part in parts if part.get("type") == "text")
    return replace(message, content=content, tool_calls=calls, parts=tuple(parts))


def _renders(conversation: Conversation, form: Form, run: Callable[..., str]) -> bool:
    try:
        run(conversation, form)
    except RenderError:
        return False
    return True


def _refused(probe: Conversation, error: RenderError, form: Form, run: Callable[..., str]) -> _Problem:
    """Find the first message that causes the refusal, by bisection."""
    good, bad = 0, len(probe)  # lengths of prefixes of the conversation
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            run(probe[:middle], form, add_generation_prompt=False)
            good = middle
        except RenderError as later:
            error, bad = later, middle
    reason = f"the template refuses this message{': ' * bool(error.reason)}{display(error.reason)}"
    return _Problem(probe[bad - 1], reason)


def _failed(error: RenderError) -> str:
    if error.refused:
        return f"the template refuses the messages{': ' * bool(error.reason)}{display(error.reason)}"
    return f"the template cannot be rendered: {display(error.reason)}"
