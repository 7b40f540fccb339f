"""Check that a format can express a conversation, and convert the conversation into the variables of a template.

A message keeps its number in the caller's list, from 1, also after other messages were merged or dropped. Errors name
this number and never quote the message.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any, NamedTuple

from batuta_cli.config.kinds import did_you_mean
from batuta_cli.errors import TemplateError
from batuta_cli.files import display
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.templates.formats import NamedFormat, SystemPlace

SYSTEM = frozenset((Role.SYSTEM, Role.DEVELOPER))


class SystemFallback(NameEnum):
    """The treatment of a system message that a format cannot express."""

    ERROR = "error"
    MERGE = "merge"
    DROP = "drop"


class Numbered(NamedTuple):
    """A message with its number."""

    number: int
    message: ChatMessage

    @property
    def role(self) -> Role | str:
        """The role of the message."""
        return self.message.role

    def with_content(self, content: str) -> "Numbered":
        """Return the message with another text; it replaces the text parts, if there are any."""
        others = [part for part in self.message.parts if part.get("type") != "text"]
        parts = ({"type": "text", "text": content}, *others) if self.message.parts else ()
        return Numbered(self.number, dataclasses.replace(self.message, content=content, parts=parts))


Conversation = tuple[Numbered, ...]


class Content(Enum):
    """The form in which a template receives the content of messages."""

    GIVEN = "given"
    """Text or a list of parts, as in the input."""
    TEXT = "text"
    """Always text."""
    TYPED = "typed"
    """Always a list of parts, which some templates require."""


class Form(NamedTuple):
    """The form of a conversation for a template."""

    content: Content = Content.GIVEN
    text_arguments: bool = False
    """Arguments of tool calls as JSON text, not as objects."""


COMMON_FORM = Form()


def forms_of(conversation: Conversation) -> list[Form]:
    """Return the forms to try for a conversation, the most common first."""
    messages = [turn.message for turn in conversation]
    contents = [Content.GIVEN]
    if any(message.parts for message in messages) and not any(map(media_of, messages)):
        contents.append(Content.TEXT)
    if any(message.content and not message.parts for message in messages):
        contents.append(Content.TYPED)
    arguments = (False, True) if any(message.tool_calls for message in messages) else (False,)
    return [Form(content, text) for content in contents for text in arguments]


def media_of(message: ChatMessage) -> list[str]:
    """Return the types of the content parts that are not text."""
    return [str(part.get("type")) for part in message.parts if part.get("type") != "text"]


def numbered(messages: Sequence[ChatMessage]) -> Conversation:
    """Number the messages. Raises `TemplateError` if there is no message, or only system messages."""
    if not messages:
        raise TemplateError("there are no messages")
    if all(message.role in SYSTEM for message in messages):
        raise TemplateError("there are only system messages", hint="add a user message")
    return tuple(Numbered(number, message) for number, message in enumerate(messages, 1))


def inexpressible(turn: Numbered, what: str, *, hint: str | None = None) -> TemplateError:
    """Make the error for a message that a format or a template cannot express."""
    return TemplateError(f"message {turn.number}: {what}", hint=hint)


def no_system(turn: Numbered, what: str) -> TemplateError:
    """Make the error for a system message at a position that the format does not support."""
    return inexpressible(
        turn,
        what,
        hint="use --system-fallback merge to put it into the first user message, or --system-fallback drop to omit it",
    )


def expressed(conversation: Conversation, format: NamedFormat, fallback: SystemFallback) -> Conversation:
    """Return the conversation in the form that `format` supports. Raises `TemplateError` that names the message."""
    misplaced = _misplaced(conversation, format)
    if misplaced is not None:
        if fallback is SystemFallback.ERROR:
            has = (
                "a system message only before all others"
                if format.system is SystemPlace.FIRST
                else "no system messages"
            )
            raise no_system(misplaced, f"the format {format.name} has {has}")
        conversation = without_system(conversation, fallback)
    for turn in conversation:
        message = turn.message
        if not isinstance(message.role, Role):
            near = did_you_mean(message.role, [role.value for role in Role])
            raise inexpressible(turn, f"the format {format.name} has no role {display(message.role)}{near}")
        if media := media_of(message):
            raise inexpressible(turn, f"the format {format.name} has no content parts of type {display(media[0][:40])}")
        if message.role is Role.TOOL and not format.tool_calls:
            raise inexpressible(turn, f"the format {format.name} has no tool results")
        if message.tool_calls and len(message.tool_calls) > format.tool_calls:
            most = "one tool call in a message" if format.tool_calls else "no tool calls"
            raise inexpressible(turn, f"the format {format.name} has {most}")
    if format.joins is not None:
        conversation = _joined(conversation, format.joins)
    _check_turns(conversation, format)
    return conversation


def without_system(conversation: Conversation, fallback: SystemFallback) -> Conversation:
    """Merge the system messages into the first user message, one line each, or drop them."""
    systems = [turn for turn in conversation if turn.role in SYSTEM]
    rest = [turn for turn in conversation if turn.role not in SYSTEM]
    if fallback is SystemFallback.MERGE:
        user = next((i for i, turn in enumerate(rest) if turn.role is Role.USER), None)
        if user is None:
            raise inexpressible(systems[0], "there is no user message to merge the system message into")
        texts = [turn.message.content for turn in (*systems, rest[user])]
        rest[user] = rest[user].with_content("\n".join(texts))
    return tuple(rest)


def as_context(
    conversation: Conversation, *, developer: bool = False, form: Form = COMMON_FORM
) -> list[dict[str, Any]]:
    """Return the messages as dicts in the shape of transformers.

    Args:
        developer: keep the role `developer`, which most templates do not know, instead of renaming it to `system`.
        form: the form of contents and arguments. Arguments that are not a JSON object remain text.
    """
    return [_as_dict(turn.message, developer, form) for turn in conversation]


def as_own_context(conversation: Conversation) -> list[dict[str, Any]]:
    """Return `as_context` with text contents, and with further keys that the templates of this package read.

    These are the `text` of a call's arguments; the `results` of a message with calls; and of a tool's result `called`,
    the name of its function, and `json`, its value if it is JSON, otherwise its text as a JSON string.
    """
    made = as_context(conversation, form=Form(Content.TEXT))
    results: list[dict[str, Any]] = []  # of the last message with tool calls
    names: dict[str, str] = {}
    for turn, shaped in zip(conversation, made, strict=True):
        if turn.message.role is Role.TOOL:
            shaped["json"] = json.dumps(_parsed(turn.message.content or "{}"), ensure_ascii=False)
            shaped["called"] = names.get(turn.message.tool_call_id or "", "")
            results.append(shaped)
        elif turn.message.tool_calls:
            results, names = [], {call.id: call.name for call in turn.message.tool_calls}
            shaped["results"] = results
            for call, given in zip(turn.message.tool_calls, shaped["tool_calls"], strict=True):
                given["text"] = call.arguments
    return made


def size_of(conversation: Conversation) -> tuple[int, int]:
    """Bytes of text in a conversation, and the number of its messages and tool calls."""
    texts = [turn.message.content for turn in conversation]
    calls = [call.arguments for turn in conversation if turn.message.tool_calls for call in turn.message.tool_calls]
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts + calls)
    for turn in conversation:
        if turn.message.fields or turn.message.parts:
            size += len(json.dumps([*turn.message.fields.values(), *turn.message.parts]))
    return size, len(texts) + len(calls)


def _as_dict(message: ChatMessage, developer: bool, form: Form) -> dict[str, Any]:
    role = message.role if developer or message.role is not Role.DEVELOPER else Role.SYSTEM
    content: Any = message.content
    if message.parts and form.content is not Content.TEXT:
        content = [dict(part) for part in message.parts]
    elif form.content is Content.TYPED:
        content = [{"type": "text", "text": message.content}]
    made: dict[str, Any] = {"role": str(role), "content": content}
    if message.fields:
        made = {**message.fields, **made}
    if message.name is not None:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [_call(call, form.text_arguments) for call in message.tool_calls]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def _call(call: ToolCall, text: bool) -> dict[str, Any]:
    arguments = call.arguments if text else _parsed(call.arguments)
    given = arguments if isinstance(arguments, dict) else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": given}}


def _parsed(text: str) -> Any:
    return json.loads(text) if _is_json(text) else text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _misplaced(conversation: Conversation, format: NamedFormat) -> Numbered | None:
    """The first system message where the format has no place for one."""
    if format.system is SystemPlace.ANY:
        return None
    places = {1} if format.system is SystemPlace.FIRST else set()
    return next((turn for turn in conversation if turn.role in SYSTEM and turn.number not in places), None)


def _joined(conversation: Iterable[Numbered], between: str) -> Conversation:
    made: list[Numbered] = []
    parts: list[str] = []  # of the last one made
    for turn in conversation:
        if made and turn.role is made[-1].role and turn.role in (Role.USER, Role.ASSISTANT):
            calls = made[-1].message.tool_calls + turn.message.tool_calls
            parts.append(turn.message.content)
            made[-1] = Numbered(made[-1].number, dataclasses.replace(made[-1].message, tool_calls=calls))
            continue
        _close(made, parts, between)
        made.append(turn)
        parts = [turn.message.content]
    _close(made, parts, between)
    return tuple(made)


def _close(made: list[Numbered], parts: Sequence[str], between: str) -> None:
    if len(parts) > 1:
        made[-1] = made[-1].with_content(between.join(part for part in parts if part))


def _check_turns(conversation: Conversation, format: NamedFormat) -> None:
    if not format.alternates and format.joins is None:
        return
    turns = [turn for turn in conversation if turn.role not in SYSTEM]
    if turns and turns[0].role is not Role.USER:
        raise inexpressible(turns[0], f"the format {format.name} begins with a user message")
    if format.alternates:
        for before, turn in pairwise(turns):
            if before.role is turn.role:
                both = f"user and assistant must alternate, and both messages are {turn.role}"
                raise inexpressible(turn, f"in the format {format.name} {both}")
