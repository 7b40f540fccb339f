"""Check that a format can express a conversation, and convert the conversation into the variables of a template.

A message keeps its number in the caller's list, from 1, also after other messages were merged or dropped. Errors name
this number and never quote the message.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from batuta_cli.errors import TemplateError
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
    def role(self) -> Role:
        """The role of the message."""
        return self.message.role

    def with_content(self, content: str) -> "Numbered":
        """Return the message with another text."""
        return Numbered(self.number, dataclasses.replace(self.message, content=content))


Conversation = tuple[Numbered, ...]


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


def as_context(conversation: Conversation, *, developer: bool = False, text: bool = False) -> list[dict[str, Any]]:
    """New dicts for a template, in the shape of transformers.

    Args:
        developer: keep the role `developer`, which most templates do not know, instead of calling it `system`.
        text: give the arguments of tool calls as the model wrote them; else as objects, where they are such.
    """
    return [_as_dict(turn.message, developer, text) for turn in conversation]


def as_own_context(conversation: Conversation) -> list[dict[str, Any]]:
    """As `as_context`, with what templates of ours read beside it.

    These are the `text` of a call's arguments, and the `json` of a tool's result: its value if it is JSON, otherwise
    its text as a JSON string.
    """
    made = as_context(conversation)
    for turn, shaped in zip(conversation, made, strict=True):
        if turn.message.role is Role.TOOL:
            shaped["json"] = json.dumps(_parsed(turn.message.content or "{}"), ensure_ascii=False)
        elif turn.message.tool_calls:
            for call, given in zip(turn.message.tool_calls, shaped["tool_calls"], strict=True):
                given["text"] = call.arguments
    return made


def size_of(conversation: Conversation) -> tuple[int, int]:
    """Bytes of text in a conversation, and the number of its messages and tool calls."""
    texts = [turn.message.content for turn in conversation]
    calls = [call.arguments for turn in conversation if turn.message.tool_calls for call in turn.message.tool_calls]
    size = sum(len(text) if text.isascii() else len(text.encode()) for text in texts + calls)
    return size, len(texts) + len(calls)


def _as_dict(message: ChatMessage, developer: bool, text: bool) -> dict[str, Any]:
    role = message.role if developer or message.role is not Role.DEVELOPER else Role.SYSTEM
    made: dict[str, Any] = {"role": role.value, "content": message.content}
    if message.name is not None:
        made["name"] = message.name
    if message.tool_calls:
        made["tool_calls"] = [_call(call, text) for call in message.tool_calls]
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
