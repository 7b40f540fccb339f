"""The messages of a conversation, in the shape of OpenAI's chat completions.

`read_messages` validates the input once, so that later steps need no checks. Errors name the message by its number,
from 1, and never quote it.

Text only: content parts of type `text` are joined, images and audio are refused. NUL and lone surrogates are refused:
backends written in C cut a text at NUL, and a lone surrogate has no UTF-8 encoding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.names import NameEnum, unknown_name

_HINT = '--messages takes a JSON list such as [{"role": "user", "content": "Hello"}], or an object with "messages"'


class Role(NameEnum):
    """The author of a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


_ROLES = {role.value: role for role in Role}


@dataclass(frozen=True)
class ToolCall:
    """A function call requested by the assistant; `arguments` is the JSON text that the model wrote."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class ChatMessage:
    """One message. Raises `InvalidInputError` for text that cannot be sent to a backend."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """Only with the role assistant; the content may then be empty."""
    tool_call_id: str | None = None
    """Only with the role tool: the id of the call that this message answers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "role", _role(self.role))
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))
        if not isinstance(self.content, str):
            raise InvalidInputError("content must be text")
        if self.name is not None and not isinstance(self.name, str):
            raise InvalidInputError("name must be text")
        texts = [self.content, self.name or "", self.tool_call_id or ""]
        for call in self.tool_calls:
            texts += [call.id, call.name, call.arguments]
        for text in texts:
            if "\0" in text:
                raise InvalidInputError("contains NUL, at which backends may cut the text")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidInputError("contains a lone surrogate, which is not Unicode text") from None
        if self.tool_calls and self.role is not Role.ASSISTANT:
            raise InvalidInputError(f"only an assistant has tool_calls, not {self.role}")
        if self.tool_call_id is not None and self.role is not Role.TOOL:
            raise InvalidInputError(f"only a tool has tool_call_id, not {self.role}")

    @classmethod
    def system(cls, content: str) -> Self:
        """Instructions for the whole conversation."""
        return cls(Role.SYSTEM, content)

    @classmethod
    def user(cls, content: str, name: str | None = None) -> Self:
        """A message of the user."""
        return cls(Role.USER, content, name)

    @classmethod
    def assistant(cls, content: str, tool_calls: Sequence[ToolCall] = ()) -> Self:
        """A message of the model."""
        return cls(Role.ASSISTANT, content, tool_calls=tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, tool_call_id: str, name: str | None = None) -> Self:
        """The result of a tool call."""
        return cls(Role.TOOL, content, name, tool_call_id=tool_call_id)

    def to_dict(self) -> dict[str, Any]:
        """Return the message in the form of OpenAI's API."""
        message: dict[str, Any] = {"role": str(self.role), "content": self.content}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["content"] = self.content or None
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.tool_calls
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def read_messages(data: bytes | str) -> list[ChatMessage]:
    """Parse a JSON document: a list of messages, or an object with `messages`.

    Raises `InvalidInputError`.
    """
    return read_request(data)[0]


def read_request(data: bytes | str) -> tuple[list[ChatMessage], dict[str, Any]]:
    """The messages of a JSON document as `read_messages`, and the other fields of an object, such as `tools`.

    Raises `InvalidInputError`.
    """
    fields: dict[str, Any] = {}
    try:
        document = json.loads(data)
    except UnicodeDecodeError:
        raise InvalidInputError("the messages are not UTF-8", hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInputError(f"the messages are not JSON{where}", hint=_HINT) from None
    if isinstance(document, dict):
        if "messages" not in document:
            raise InvalidInputError('the JSON object has no "messages"', hint=_HINT)
        fields = {name: value for name, value in document.items() if name != "messages"}
        document = document["messages"]
    return parse_messages(document), fields


def parse_messages(document: object) -> list[ChatMessage]:
    """Validate parsed JSON. Raises `InvalidInputError`."""
    if not isinstance(document, list):
        raise InvalidInputError(f"the messages must be a list, not {_json_type(document)}", hint=_HINT)
    if not document:
        raise InvalidInputError("there are no messages", hint=_HINT)
    messages = []
    for number, item in enumerate(document, 1):
        try:
            messages.append(_message(item))
        except InvalidInputError as error:
            raise InvalidInputError(f"message {number}: {error.message}", hint=error.hint) from None
    check_tool_results(messages)
    return messages


def check_tool_results(messages: Sequence[ChatMessage]) -> None:
    """Raise `InvalidInputError` if a tool result answers no call of the preceding assistant message."""
    open_calls: set[str] = set()
    for number, message in enumerate(messages, 1):
        if message.role is Role.ASSISTANT:
            open_calls = {call.id for call in message.tool_calls}
        elif message.role is Role.TOOL:
            if message.tool_call_id not in open_calls:
                raise InvalidInputError(
                    f"message {number}: a tool result without its call",
                    hint="put the assistant's message whose tool_calls contains this tool_call_id before it",
                )
            open_calls.discard(message.tool_call_id)
        else:
            open_calls = set()


def _message(item: object) -> ChatMessage:
    if not isinstance(item, dict):
        raise InvalidInputError(f"must be an object with role and content, not {_json_type(item)}")
    if "role" not in item:
        raise InvalidInputError("has no role")
    role = _role(item["role"])
    calls = _tool_calls(item.get("tool_calls"))
    call_id = item.get("tool_call_id")
    if role is Role.TOOL and not isinstance(call_id, str):
        raise InvalidInputError("a tool result needs the tool_call_id of its call")
    if call_id is not None and not isinstance(call_id, str):
        raise InvalidInputError("tool_call_id must be text")
    name = item.get("name")
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(f"name must be text, not {_json_type(name)}")
    return ChatMessage(role, _content(item, bool(calls)), name, calls, call_id)


def _role(value: object) -> Role:
    if isinstance(value, Role):
        return value
    if not isinstance(value, str):
        raise InvalidInputError(f"role must be text, not {_json_type(value)}")
    if known := _ROLES.get(value):
        return known
    error = unknown_name("role", value, list(Role))
    raise InvalidInputError(error.message, hint=error.hint)


def _content(item: dict[str, Any], has_calls: bool) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if has_calls:
            return ""
        raise InvalidInputError("content is null" if "content" in item else "has no content")
    if not isinstance(content, list):
        raise InvalidInputError(f"content must be text, not {_json_type(content)}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            shown = f"of type {kind[:40]!r}" if isinstance(kind, str) else "without a type"
            raise InvalidInputError(f"has a content part {shown}; batuta supports only text parts")
        if not isinstance(part.get("text"), str):
            raise InvalidInputError("has a content part whose text is missing")
        texts.append(part["text"])
    return "".join(texts)


def _tool_calls(value: object) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidInputError(f"tool_calls must be a list, not {_json_type(value)}")
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise InvalidInputError("a tool call needs an id and a function")
        name, arguments = function.get("name"), function.get("arguments", "{}")
        if isinstance(arguments, dict):
            try:
                arguments = json.dumps(arguments, ensure_ascii=False)
            except RecursionError:
                raise InvalidInputError("the arguments of a tool call nest too deeply") from None
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise InvalidInputError("the function of a tool call needs a name, and arguments as JSON text")
        calls.append(ToolCall(call["id"], name, arguments))
    return tuple(calls)


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
