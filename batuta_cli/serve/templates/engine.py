"""Render the prompt of a conversation in a named format or with a model's own template.

A message that the format or template cannot express is an error that names it: an unknown role, turns out of order,
text that the template omits. No message is dropped or moved unless the caller requests it (`system_fallback`). The
prompt contains its special tokens: tokenize it without adding them again.

A model's own template is untrusted code and is rendered in a worker process (`isolation`).
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from batuta_cli.errors import UsageError
from batuta_cli.files import display
from batuta_cli.serve.messages import ChatMessage, Role, check_json
from batuta_cli.serve.templates.formats import TemplateFormat, named_format
from batuta_cli.serve.templates.prefill import cut, marked
from batuta_cli.serve.templates.template_input import Conversation, SystemFallback, numbered

if TYPE_CHECKING:
    from batuta_cli.serve.templates.detection import Detection

# Tokens written literally in templates; tokens that a template concatenates are not found.
_TOKENS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?[A-Z][A-Z_]{2,30}\]|</?s>|<</?SYS>>|<(?:start|end)_of_\w{1,20}>"
)

_SHORTEST = 3  # characters, as <s>; a shorter "token" would be found in every text


_RESERVED = frozenset(("messages", "add_generation_prompt", "bos_token", "eos_token"))
_NAMED_BY_CALL = frozenset((Role.TOOL,))  # the name of a tool's result repeats the name in its call


class _Template(Protocol):
    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str: ...

    def names(self) -> frozenset[str]: ...

    def close(self) -> None: ...


class ChatTemplateEngine:
    """Renders conversations in one format.

    Args:
        format: a family (`TemplateFormat.MISTRAL`), or a name (`"mistral-v3"`).

    Raises `UsageError` for an unknown name, and suggests the nearest.
    """

    format: TemplateFormat | None
    """The family; None for a template of no known family."""
    name: str
    """The named format; empty for a model's or caller's template."""
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...]
    """Tokens that text of users and tools must not contain; see `control`."""
    _template: _Template

    def __init__(self, format: TemplateFormat | str) -> None:
        from batuta_cli.serve.templates.own import OwnTemplate

        named = named_format(format)
        self.format = named.family
        self.name = named.name
        self.bos_token = named.bos_token
        self.eos_token = named.eos_token
        self.control_tokens = named.control_tokens + named.marks
        self._template = OwnTemplate(named)

    @classmethod
    def from_model(cls, model: str) -> Self:
        """Make the engine for a model, given its name, its GGUF file or its folder.

        A template in the model's files is used if there is one. Raises `UsageError` for an unknown model.
        """
        from batuta_cli.serve.templates.detection import detect_format

        return cls.from_detection(detect_format(model))

    @classmethod
    def from_detection(cls, detection: "Detection") -> Self:
        """Make the engine for a detected format."""
        if detection.template is None:
            return cls(detection.name)
        engine = cls.from_template(detection.template, detection.bos_token, detection.eos_token)
        engine.format = detection.format
        return engine

    @classmethod
    def from_template(cls, text: str, bos_token: str = "", eos_token: str = "") -> Self:
        """Make the engine for a model's Jinja template. Raises `TemplateError` if it is too long."""
        from batuta_cli.serve.templates.foreign import ForeignTemplate

        engine = cls.__new__(cls)
        engine.format = None
        engine.name = ""
        engine.bos_token = bos_token
        engine.eos_token = eos_token
        tokens = [bos_token, eos_token, *_TOKENS.findall(text)]
        engine.control_tokens = tuple(dict.fromkeys(token for token in tokens if len(token) >= _SHORTEST))
        engine._template = ForeignTemplate(text, bos_token, eos_token)
        return engine

    def apply(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        system_fallback: SystemFallback | str = SystemFallback.ERROR,
        date: dt.date | None = None,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        **variables: Any,
    ) -> str:
        """Return the prompt.

        Args:
            messages: the conversation.
            add_generation_prompt: append the assistant header, if the format has one.
            continue_final_message: end inside the last message, the assistant's, so that the model continues it. No
                assistant header is appended then.
            system_fallback: the treatment of a system message that the format does not support: `error`, `merge` (it
                is put before the first user message, on separate lines) or `drop`.
            date: the current date for templates; by default the local date.
            tools: tool definitions, as in OpenAI's API. `unread` reports what the template does not use.
            documents: documents for templates that read them.
            variables: further variables of the template (`enable_thinking=False`): JSON values.

        Raises `UsageError` for a variable that is reserved, `InvalidInputError` for one that is not a JSON value,
        `TemplateError` for a conversation that the format cannot express and for a broken template.
        """
        conversation = numbered(messages)
        if not isinstance(system_fallback, SystemFallback):
            system_fallback = SystemFallback.parse(system_fallback)
        options = template_options(tools, documents, variables)
        options["add_generation_prompt"] = add_generation_prompt and not continue_final_message
        now = dt.datetime.now()  # local time, as in transformers
        if date is not None:
            now = dt.datetime(date.year, date.month, date.day)
            options["date_string"] = f"{date:%d %b %Y}"
        if not continue_final_message:
            return self._template.render(conversation, system_fallback, now, options)
        conversation, mark = marked(conversation)
        return cut(self._template.render(conversation, system_fallback, now, options), mark, messages[-1].content)

    def unread(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        prompt: str | None = None,
        **variables: Any,
    ) -> list[str]:
        """Describe the parts of an input that the template does not read; one sentence each.

        With `prompt`, a tool whose name is not in the prompt is reported too.
        """
        fields: dict[str, int] = {}
        for number, message in enumerate(messages, 1):
            named = {"name": message.name} if message.name is not None and message.role not in _NAMED_BY_CALL else {}
            for name, value in (*message.fields.items(), *named.items()):
                if value is not None:
                    fields.setdefault(name, number)
        given = {"tools": tools, "documents": documents, **variables}
        given = {name: value for name, value in given.items() if value is not None}
        if not fields and not given:
            return []
        names = self._template.names()
        lines = [f"the template does not read {display(name)}" for name in given if name not in names]
        lines += [
            f"the template does not read {display(name)} (first in message {number})"
            for name, number in fields.items()
            if name not in names
        ]
        if tools and prompt is not None and "tools" in names:
            missing = [name for name in map(_tool_name, tools) if name and name not in prompt]
            lines += [f"the prompt does not contain the tool {display(name)}" for name in missing]
        return lines

    def close(self) -> None:
        """End the worker process of an untrusted template; it also ends with this object."""
        self._template.close()


def template_options(
    tools: Sequence[Any] | None, documents: Sequence[Any] | None, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the variables for a template. Raises `UsageError` and `InvalidInputError`."""
    if reserved := _RESERVED & variables.keys():
        raise UsageError(f"the template variable {min(reserved)} is set by batuta and cannot be given")
    options: dict[str, Any] = dict(variables)
    for name, value in (("tools", tools), ("documents", documents)):
        if value is not None:
            options[name] = list(value)
    for name, value in options.items():
        check_json(value, name)
    return options


def _tool_name(tool: object) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""
