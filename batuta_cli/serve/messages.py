"""The messages of a conversation, in the shape of OpenAI's chat completions.

`read_messages` validates the input once, so that later steps need no checks. Errors name the message by its number,
from 1, and never quote it.

By default content parts of type `text` are joined, other parts and unknown roles are refused, and unknown fields are
ignored. `read_input` keeps all of them for a chat template, with tools, documents and template variables. The top-level
`system` of Anthropic's API becomes the first message. NUL and lone surrogates are refused: backends written in C cut a
text at NUL, and a lone surrogate has no UTF-8 encoding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
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


EmbeddingText = str | tuple[int, ...]
"""A text to embed, or its token ids in the model's own vocabulary."""

_ROLES = {role.value: role for role in Role}
_READ_FIELDS = frozenset(("role", "content", "name", "tool_calls", "tool_call_id"))
_VARIABLES = ("reasoning_effort", "functions")  # fields of OpenAI's request that are variables of templates
_MAX_ROLE = 100  # characters
_MAX_DEPTH = 100  # levels of nested lists and objects in a JSON value


@dataclass(frozen=True)
class ToolCall:
    """A function call requested by the assistant; `arguments` is the JSON text that the model wrote."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True)
class ChatMessage:
    """One message. Raises `InvalidInputError` for text that cannot be sent to a backend."""

    role: Role | str
    """A `Role`, or another name that the model's own template knows."""
    content: str
    """The text; of content parts the texts, joined."""
    _: KW_ONLY
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """Only with the role assistant; the content may then be empty."""
    tool_call_id: str | None = None
    """Only with the role tool: the id of the call that this message answers."""
    parts: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """The content parts, if the content was given as a list."""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields for the template, such as `reasoning_content`: JSON values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "role", _role(self.role, known=False))
        object.__setattr__(self, "tool_calls", tuple(self.tool_calls))
        object.__setattr__(self, "parts", tuple(self.parts))
        for name, value in (*self.fields.items(), *(("content", part) for part in self.parts)):
            check_json(value, name)
        if not isinstance(self.content, str):
            raise InvalidInputError("content must be text")
        if self.name is not None and not isinstance(self.name, str):
            raise InvalidInputError("name must be text")
        texts = [self.content, self.name or "", self.tool_call_id or ""]
        for call in self.tool_calls:
            texts += [call.id, call.name, call.arguments]
        for text in texts:
            _check_text(text)
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
        return cls(Role.USER, content, name=name)

    @classmethod
    def assistant(cls, content: str, tool_calls: Sequence[ToolCall] = ()) -> Self:
        """A message of the model."""
        return cls(Role.ASSISTANT, content, tool_calls=tuple(tool_calls))

    @classmethod
    def tool(cls, content: str, tool_call_id: str, name: str | None = None) -> Self:
        """The result of a tool call."""
        return cls(Role.TOOL, content, name=name, tool_call_id=tool_call_id)

    def to_dict(self) -> dict[str, Any]:
        """Return the message in the form of OpenAI's API."""
        content = list(map(dict, self.parts)) if self.parts else self.content
        message: dict[str, Any] = {"role": str(self.role), "content": content}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["content"] = content or None
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.tool_calls
            ]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return {**self.fields, **message}


@dataclass(frozen=True)
class ChatInput:
    """The whole input of a chat template."""

    messages: list[ChatMessage]
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Template variables: `chat_template_kwargs` of vLLM and llama.cpp, OpenAI's `reasoning_effort` and `functions`."""

    def arguments(self) -> dict[str, Any]:
        """Return all but the messages, as keyword arguments of `ChatTemplateEngine.apply`."""
        lists = {"tools": self.tools, "documents": self.documents}
        return {**self.variables, **{name: value for name, value in lists.items() if value is not None}}


def read_messages(data: bytes | str) -> list[ChatMessage]:
    """Parse a JSON document: a list of messages, or an object with `messages`.

    Raises `InvalidInputError`.
    """
    return read_request(data)[0]


def read_request(data: bytes | str, *, complete: bool = False) -> tuple[list[ChatMessage], dict[str, Any]]:
    """Parse a JSON document as `read_messages`; return the other fields of the object too, such as `tools`.

    With `complete`, keep unknown roles and fields and all content parts. Raises `InvalidInputError`.
    """
    document = _document(data)
    fields = {name: value for name, value in document.items() if name not in ("messages", "system")}
    return parse_messages(_with_system(document), complete=complete), fields


def read_input(data: bytes | str) -> ChatInput:
    """Parse a JSON document as `read_messages` does, and keep all that a chat template may read.

    Raises `InvalidInputError`.
    """
    messages, fields = read_request(data, complete=True)
    return replace(template_input_of(fields), messages=messages)


def template_input_of(request: Mapping[str, Any]) -> ChatInput:
    """Return what a chat template may read of a request beside its messages. Raises `InvalidInputError`."""
    variables = request.get("chat_template_kwargs") or {}
    if not isinstance(variables, dict):
        raise InvalidInputError(f"chat_template_kwargs must be an object, not {_json_type(variables)}")
    variables = {name: request[name] for name in _VARIABLES if request.get(name) is not None} | variables
    for name, value in variables.items():
        check_json(value, name)
    return ChatInput([], _json_list(request, "tools"), _json_list(request, "documents"), variables)


def check_json(value: object, name: str, depth: int = 0) -> None:
    """Raise `InvalidInputError` unless `value` is a JSON value of Unicode text, at most 100 levels deep."""
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"{name} nests deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, f"{name} ")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInputError(f"{name} must be a JSON value: its keys must be text")
            _check_text(key, f"{name} ")
            check_json(item, name, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_json(item, name, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float):
        raise InvalidInputError(f"{name} must be a JSON value, not {type(value).__name__}")


def _check_text(text: str, where: str = "") -> None:
    if "\0" in text:
        raise InvalidInputError(f"{where}contains NUL, at which backends may cut the text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{where}contains a lone surrogate, which is not Unicode text") from None


def _json_list(document: Mapping[str, Any], name: str) -> list[Any] | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidInputError(f"{name} must be a list, not {_json_type(value)}")
    check_json(value, name)
    return value


def _document(data: bytes | str) -> dict[str, Any]:
    """The JSON document as an object with `messages`."""
    try:
        document = json.loads(data)
    except UnicodeDecodeError:
        raise InvalidInputError("the messages are not UTF-8", hint=_HINT) from None
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInputError(f"the messages are not JSON{where}", hint=_HINT) from None
    if not isinstance(document, dict):
        return {"messages": document}
    if "messages" not in document:
        raise InvalidInputError('the JSON object has no "messages"', hint=_HINT)
    return document


def _with_system(document: Mapping[str, Any]) -> object:
    """The messages, after the text of Anthropic's `system` (https://docs.anthropic.com/en/api/messages)."""
    messages, system = document.get("messages"), document.get("system")
    if not system or not isinstance(messages, list):
        return messages
    texts = system if isinstance(system, list) else [{"type": "text", "text": system}]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in texts):
        raise InvalidInputError("system must be text or a list of text parts", hint=_HINT)
    return [{"role": "system", "content": "".join(part["text"] for part in texts)}, *messages]


def parse_messages(document: object, *, complete: bool = False) -> list[ChatMessage]:
    """Validate parsed JSON. With `complete`, keep unknown roles and fields and all content parts.

    Raises `InvalidInputError`.
    """
    if not isinstance(document, list):
        raise InvalidInputError(f"the messages must be a list, not {_json_type(document)}", hint=_HINT)
    if not document:
        raise InvalidInputError("there are no messages", hint=_HINT)
    messages = []
    for number, item in enumerate(document, 1):
        try:
            messages.append(_message(item, complete))
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


def _message(item: object, complete: bool) -> ChatMessage:
    if not isinstance(item, dict):
        raise InvalidInputError(f"must be an object with role and content, not {_json_type(item)}")
    if "role" not in item:
        raise InvalidInputError("has no role")
    role = _role(item["role"], known=not complete)
    calls = _tool_calls(item.get("tool_calls"))
    call_id = item.get("tool_call_id")
    if role is Role.TOOL and not isinstance(call_id, str):
        raise InvalidInputError("a tool result needs the tool_call_id of its call")
    if call_id is not None and not isinstance(call_id, str):
        raise InvalidInputError("tool_call_id must be text")
    name = item.get("name")
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(f"name must be text, not {_json_type(name)}")
    fields = {key: value for key, value in item.items() if key not in _READ_FIELDS} if complete else {}
    optional = bool(calls) or any(value is not None for value in fields.values())
    content = item.get("content")
    parts = tuple(content) if complete and isinstance(content, list) else ()
    return ChatMessage(
        role,
        _content(item, optional, complete),
        name=name,
        tool_calls=calls,
        tool_call_id=call_id,
        parts=parts,
        fields=fields,
    )


def _role(value: object, *, known: bool) -> Role | str:
    if isinstance(value, Role):
        return value
    if not isinstance(value, str):
        raise InvalidInputError(f"role must be text, not {_json_type(value)}")
    if role := _ROLES.get(value):
        return role
    if not known and 0 < len(value) <= _MAX_ROLE:
        _check_text(value, "role ")
        return value
    error = unknown_name("role", value, list(Role))
    raise InvalidInputError(error.message, hint=error.hint)


def _content(item: dict[str, Any], optional: bool, complete: bool) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if optional:
            return ""
        raise InvalidInputError("content is null" if "content" in item else "has no content")
    if not isinstance(content, list):
        raise InvalidInputError(f"content must be text, not {_json_type(content)}")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" and complete and isinstance(kind, str):
            continue
        if kind != "text":
            shown = f"of type {kind[:40]!r}" if isinstance(kind, str) else "without a type"
            raise InvalidInputError(f"has a content part {shown}; batuta supports only text parts")
        if not isinstance(part.get("text"), str):
            raise InvalidInputError("has a content part whose text is missing")
        texts.append(part["text"])
    return "".join(texts)


def _called(call: dict[str, Any]) -> object:
    """The function of a call; a custom tool's free text becomes the one argument `input`."""
    custom = call.get("custom")
    if "function" in call or not isinstance(custom, dict) or not isinstance(custom.get("input"), str):
        return call.get("function")
    return {"name": custom.get("name"), "arguments": json.dumps({"input": custom["input"]}, ensure_ascii=False)}


def _tool_calls(value: object) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidInputError(f"tool_calls must be a list, not {_json_type(value)}")
    calls = []
    for call in value:
        function = _called(call) if isinstance(call, dict) else None
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
