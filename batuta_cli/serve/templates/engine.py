"""The prompt for a conversation, by a format that has a name here or by a model's own template.

What the format or the template cannot express is an error that names the message: a role it does not know, turns out
of order, text it would silently leave out. Nothing is lost or moved unless the caller asks for it (`system_fallback`).
The prompt has its special tokens: it is tokenised without adding them again.

A model's own template is code of strangers and is rendered in a process of its own (`isolation`).
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

# Tokens as they stand in templates; what a template puts together from parts is not found here.
_TOKENS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?[A-Z][A-Z_]{2,30}\]|</?s>|<</?SYS>>|<(?:start|end)_of_\w{1,20}>"
)

_SHORTEST = 3  # <s>; a letter or a space that a file calls its token would be found everywhere


class _Template(Protocol):
    def render(
        self, conversation: Conversation, fallback: SystemFallback, now: dt.datetime, options: Mapping[str, Any]
    ) -> str: ...

    def close(self) -> None: ...


class ChatTemplateEngine:
    """Renders conversations by one format.

    Args:
        format: a family (`TemplateFormat.MISTRAL`), or a name (`"mistral-v3"`).

    Raises `UsageError` for a name that is none; it suggests the nearest.
    """

    format: TemplateFormat | None
    """The family; None for a template that is of no known one."""
    name: str
    """The named format, or empty for a template of the model's or the caller's own."""
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...]
    """What must not come from a user or a tool; see `control`."""
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
        """The engine for a model by its name, or by the path of a GGUF file or a model's folder.

        The model's own template is used where it has one. Raises `UsageError` for a model that is not known.
        """
        from batuta_cli.serve.templates.detection import detect_format

        return cls.from_detection(detect_format(model))

    @classmethod
    def from_detection(cls, found: "Detection") -> Self:
        """The engine for what was found out of a model."""
        if found.template is None:
            return cls(found.name)
        engine = cls.from_template(found.template, found.bos_token, found.eos_token)
        engine.format = found.format
        return engine

    @classmethod
    def from_template(cls, text: str, bos_token: str = "", eos_token: str = "") -> Self:
        """The engine for a Jinja template, as models carry it. Raises `TemplateError` when it is too long."""
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
        """The prompt.

        Args:
            messages: the conversation.
            add_generation_prompt: end with what makes the assistant speak. Some formats have no such thing.
            continue_final_message: end within the last message, the assistant's, so that the model goes on with it;
                nothing is added for the assistant to speak, whatever `add_generation_prompt` says.
            system_fallback: what becomes of a system message that the format has no place for: `error`, `merge` (it
                stands before the first user message, on lines of its own) or `drop`.
            date: what templates take for today; by default it is today, here.

        Raises `TemplateError` for a conversation that the format cannot express, and for a broken template.
        """
        conversation = numbered(messages)
        if not isinstance(system_fallback, SystemFallback):
            system_fallback = SystemFallback.parse(system_fallback)
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt and not continue_final_message}
        now = dt.datetime.now()  # of the user's own clock, as transformers has it
        if date is not None:
            now = dt.datetime(date.year, date.month, date.day)
            options["date_string"] = f"{date:%d %b %Y}"
        if not continue_final_message:
            return self._template.render(conversation, system_fallback, now, options)
        conversation, mark = marked(conversation)
        return cut(self._template.render(conversation, system_fallback, now, options), mark, messages[-1].content)

    def close(self) -> None:
        """End the process that renders a template which is not ours; it would end with this object."""
        self._template.close()
