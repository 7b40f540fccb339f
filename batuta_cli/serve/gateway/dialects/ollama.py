"""Ollama's `/api/chat` and `/api/generate`: parses requests. `ollama_replies.py` writes the responses. No I/O.

A request is mapped to OpenAI's fields, which the pipeline uses. Ollama's clients give tool calls no id, so they get one
here, and a tool result belongs to the oldest open call of its `tool_name`. A request without messages, or without a
prompt, asks Ollama to load or to unload the model; it is answered without a backend.

Errors are `HttpError`.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.gateway.dialects.fields import (
    BOOLEAN,
    MOST_TOKENS,
    OBJECT,
    ParsedRequest,
    checked_messages,
    take,
    take_model,
    wrong,
)
from batuta_cli.serve.gateway.dialects.ollama_fields import CHAT_FIELDS, GENERATE_FIELDS, OPTIONS
from batuta_cli.serve.gateway.dialects.ollama_replies import OllamaChatReply, OllamaGenerateReply, OllamaReply
from batuta_cli.serve.gateway.dialects.openai_fields import with_chat_fields
from batuta_cli.serve.gateway.dialects.replies import Reply
from batuta_cli.serve.gateway.dialects.treatment import TreatedFields, treat
from batuta_cli.serve.gateway.http_errors import ollama_error
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, check_tool_results

_CHAT_ROWS, _GENERATE_ROWS = with_chat_fields(CHAT_FIELDS), with_chat_fields(GENERATE_FIELDS)
_OPTION_ROWS = with_chat_fields(OPTIONS)
_ROLES = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.TOOL}
_IMAGE_TYPES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)
"""The first bytes of images, and their media types: Ollama's clients send images without one."""


class OllamaChat:
    """`POST /api/chat`."""

    error = staticmethod(ollama_error)
    api = ClientApi.OLLAMA_CHAT
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        fields = treat(document, _CHAT_ROWS)
        messages = checked_messages(lambda: _conversation(document.get("messages") or []))
        return _parsed(document, fields, messages, OllamaChatReply)

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return OllamaChatReply(parsed)


class OllamaGenerate:
    """`POST /api/generate`."""

    error = staticmethod(ollama_error)
    api = ClientApi.OLLAMA_GENERATE
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        fields = treat(document, _GENERATE_ROWS)
        return _parsed(document, fields, checked_messages(lambda: _prompt(document)), OllamaGenerateReply)

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return OllamaGenerateReply(parsed)


def _parsed(
    document: Mapping[str, Any],
    fields: TreatedFields,
    messages: tuple[ChatMessage, ...],
    kind: type[OllamaReply],
) -> ParsedRequest:
    given = treat(take(document, "options", OBJECT) or {}, _OPTION_ROWS)
    limit = _whole(document, "num_predict")
    if limit is not None and limit > MOST_TOKENS:
        raise wrong("num_predict", f"must be at most {MOST_TOKENS}", "invalid_value")
    stream = take(document, "stream", BOOLEAN)
    if not messages:
        model, unload = take_model(document), document.get("keep_alive") in (0, "0")
        return ParsedRequest(model=model, messages=(), ready=kind.ready(model, "unload" if unload else "load"))
    options = {**given.options, **fields.options, **_format(document), **_think(document), **_tools(document)}
    for name in ("top_k", "seed"):
        if (value := _whole(document, name)) is not None:
            options[name] = value
    return ParsedRequest(
        model=take_model(document),
        messages=messages,
        max_tokens=limit if limit is not None and limit > 0 else None,
        stream=stream is not False,
        options=options,
        dropped=(*fields.dropped, *(f"options.{name}" for name in given.dropped)),
        native_only=fields.native_only,
        unknown=(*fields.unknown, *given.unknown),
    )


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    value = (document.get("options") or {}).get(name)
    return None if value is None else int(value)


def _format(document: Mapping[str, Any]) -> dict[str, Any]:
    wanted = document.get("format")
    if not wanted:
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "format", "schema": wanted, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _think(document: Mapping[str, Any]) -> dict[str, Any]:
    think = document.get("think")
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think}}
    return {"reasoning_effort": think} if think else {}


def _tools(document: Mapping[str, Any]) -> dict[str, Any]:
    tools = document.get("tools")
    if not tools:
        return {}
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise wrong("tools", "must be a list of functions, each with a name")
    return {"tools": [{**tool, "type": "function"} for tool in tools]}


def _is_tool(tool: Any) -> bool:
    function = tool.get("function") if OBJECT.holds(tool) else None
    return (
        isinstance(function, dict)
        and tool.get("type") in (None, "", "function")
        and isinstance(function.get("name"), str)
        and isinstance(function.get("parameters") or {}, dict)
        and isinstance(function.get("description") or "", str)
    )


def _prompt(document: Mapping[str, Any]) -> list[ChatMessage]:
    prompt, images = document.get("prompt") or "", document.get("images") or []
    if not prompt and not images:
        return []
    system = [ChatMessage.system(document["system"])] if document.get("system") else []
    return [*system, ChatMessage(Role.USER, prompt, parts=_parts(prompt, images))]


def _conversation(turns: list[dict[str, Any]]) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    calls = _OpenCalls()
    for number, turn in enumerate(turns, 1):
        try:
            messages.append(_message(turn, calls))
        except InvalidInputError as error:
            raise InvalidInputError(f"message {number}: {error.message}") from None
    check_tool_results(messages)
    return messages


def _message(turn: Mapping[str, Any], calls: "_OpenCalls") -> ChatMessage:
    role = _ROLES.get(str(turn.get("role")))
    if role is None:
        raise InvalidInputError(f"role must be one of {', '.join(_ROLES)}")
    content = turn.get("content")
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise InvalidInputError("content must be text")
    images = turn.get("images") or []
    if not isinstance(images, list):
        raise InvalidInputError("images must be a list of base64 strings")
    parts = _parts(content, images)
    if role is Role.TOOL:
        return ChatMessage(role, content, tool_call_id=calls.answered(turn), parts=parts)
    thinking = turn.get("thinking")
    fields = {"reasoning_content": thinking} if thinking and role is Role.ASSISTANT else {}
    made = calls.made(turn.get("tool_calls") or []) if role is Role.ASSISTANT else []
    return ChatMessage(role, content, tool_calls=tuple(made), parts=parts, fields=fields)


class _OpenCalls:
    """The tool calls that have no result yet, in their order."""

    def __init__(self) -> None:
        self._number = 0
        self._open: list[ToolCall] = []

    def made(self, calls: Any) -> list[ToolCall]:
        """The calls of an assistant's message, each with an id."""
        if not isinstance(calls, list):
            raise InvalidInputError("tool_calls must be a list")
        self._open = [self._call(call) for call in calls]
        return list(self._open)

    def _call(self, call: Any) -> ToolCall:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidInputError("a tool call needs a function with a name")
        arguments = function.get("arguments") or {}
        if not OBJECT.holds(arguments):
            raise InvalidInputError("the arguments of a tool call must be an object")
        self._number += 1
        given = call.get("id")
        identity = given if isinstance(given, str) and given else f"call_{self._number}"
        return ToolCall(identity, function["name"], orjson.dumps(arguments).decode())

    def answered(self, turn: Mapping[str, Any]) -> str:
        """The id of the call that a tool's message answers."""
        identity, name = turn.get("tool_call_id"), turn.get("tool_name") or turn.get("name")
        ways = (
            [call for call in self._open if call.id == identity],
            [call for call in self._open if not identity and call.name == name],
            [call for call in self._open if not identity and not name],
        )
        call = next((found[0] for found in ways if found), None)
        if call is None:
            raise InvalidInputError("a tool result without its call; the assistant's message before it has the calls")
        self._open.remove(call)
        return call.id


def _parts(text: str, images: list[Any]) -> tuple[Mapping[str, Any], ...]:
    """The content parts of a message with images; none for text alone."""
    if not images:
        return ()
    texts = [{"type": "text", "text": text}] if text else []
    return (*texts, *({"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images))


def _data_url(image: Any) -> str:
    if not isinstance(image, str):
        raise InvalidInputError("an image must be a base64 string")
    try:
        head = base64.b64decode(image[:16], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError("an image is not base64") from None
    kind = next((kind for first, kind in _IMAGE_TYPES if head.startswith(first)), None)
    if kind is None:
        raise InvalidInputError("an image is not PNG, JPEG, GIF, WebP or BMP")
    return f"data:{kind};base64,{image}"
