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

from batuta_cli.serve.messages import ChatMessage
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


class _Template(Protocol):
    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str: ...

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

        Raises `TemplateError` for a conversation that the format cannot express, and for a broken template.
        """
        conversation = numbered(messages)
        if not isinstance(system_fallback, SystemFallback):
            system_fallback = SystemFallback.parse(system_fallback)
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt and not continue_final_message}
        now = dt.datetime.now()  # local time, as in transformers
        if date is not None:
            now = dt.datetime(date.year, date.month, date.day)
            options["date_string"] = f"{date:%d %b %Y}"
        if not continue_final_message:
            return self._template.render(conversation, system_fallback, now, options)
        conversation, mark = marked(conversation)
        return cut(self._template.render(conversation, system_fallback, now, options), mark, messages[-1].content)

    def close(self) -> None:
        """End the worker process of an untrusted template; it also ends with this object."""
        self._template.close()
