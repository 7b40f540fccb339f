"""Anthropic's Messages API: parses requests and writes responses. No I/O.

A request is mapped to OpenAI's fields, which the pipeline uses. Fields without a counterpart that do not change the
text of the response (`thinking`, `metadata`, `cache_control`) are dropped, and so are thinking blocks of earlier turns.
The input tokens are known only at the end of a response: they are in `message_delta`, where the official client reads
them, and 0 in `message_start`. Errors are `HttpError`; malformed tool calls of a backend are `BackendError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.gateway.dialects.anthropic_fields import MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.fields import (
    BOOLEAN,
    OBJECT,
    ParsedRequest,
    checked_messages,
    take,
    take_limit,
    take_model,
    wrong,
)
from batuta_cli.serve.gateway.dialects.replies import Reply, choices_of
from batuta_cli.serve.gateway.dialects.treatment import personal_fields, treat
from batuta_cli.serve.gateway.http_errors import HttpError, anthropic_error, error_body
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, check_tool_results
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.formats.openai_chat import parsed as parsed_event
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Piece
from batuta_cli.serve.usage import to_anthropic

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_NOT_OURS = -1
"""In the place of a tool call's index: the open block is a backend's own, and no text."""
_DROPPED_BLOCKS = frozenset(("thinking", "redacted_thinking"))


class Messages:
    """`POST /v1/messages`."""

    error = staticmethod(anthropic_error)
    api = ClientApi.ANTHROPIC_MESSAGES
    headers = frozenset((b"anthropic-beta", b"anthropic-version"))
    personal = personal_fields(MESSAGE_FIELDS)

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        model = take_model(document)
        fields = treat(document, MESSAGE_FIELDS)
        limit = take_limit(document, "max_tokens")
        if limit is None:
            raise wrong("max_tokens", "is missing", "missing_field")
        messages = checked_messages(lambda: _conversation(document))
        return ParsedRequest(
            model,
            messages,
            limit,
            bool(take(document, "stream", BOOLEAN)),
            True,
            fields.options | _tools(document),
            fields.dropped,
            fields.native_only,
            fields.unknown,
        )

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return MessageReply(parsed, f"msg_{name}")


def _conversation(document: Mapping[str, Any]) -> list[ChatMessage]:
    turns = document.get("messages")
    if not isinstance(turns, list) or not turns:
        raise InvalidInputError("messages must be a list with at least one message")
    messages = []
    if document.get("system"):
        messages.append(ChatMessage.system(_text(document["system"], "system")))
    for number, turn in enumerate(turns, 1):
        try:
            messages += _turn(turn)
        except InvalidInputError as error:
            raise InvalidInputError(f"message {number}: {error.message}") from None
    check_tool_results(messages)
    return messages


def _text(content: object, what: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInputError(f"{what} must be text or a list of blocks")
    return "".join(_block_text(_block(block), what) for block in content)


def _block(block: object) -> dict[str, Any]:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise InvalidInputError("has a block without a type")
    return block


def _block_text(block: dict[str, Any], what: str) -> str:
    if block["type"] != "text":
        raise InvalidInputError(f"{what} has a block of another type than text; batuta handles text only")
    if not isinstance(block.get("text"), str):
        raise InvalidInputError(f"{what} has a block whose text is missing")
    return str(block["text"])


def _turn(turn: object) -> list[ChatMessage]:
    """A turn as OpenAI's messages. Tool results become separate messages, before the user's text."""
    if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
        raise InvalidInputError("must be an object with the role user or assistant")
    role, content = Role(turn["role"]), turn.get("content")
    if isinstance(content, str):
        return [ChatMessage(role, content)]
    if not isinstance(content, list) or not content:
        raise InvalidInputError("content must be text or a list of blocks")
    texts, calls, results = [], [], []
    for block in map(_block, content):
        kind = block["type"]
        if kind in _DROPPED_BLOCKS:
            continue
        if kind == "tool_use" and role is Role.ASSISTANT:
            calls.append(_call(block))
        elif kind == "tool_result" and role is Role.USER:
            results.append(_result(block))
        else:
            texts.append(_block_text(block, "content"))
    if role is Role.ASSISTANT:
        return [ChatMessage.assistant("".join(texts), calls)]
    return [*results, *([ChatMessage.user("".join(texts))] if texts or not results else [])]


def _call(block: dict[str, Any]) -> ToolCall:
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        raise InvalidInputError("a tool_use block needs an id and a name")
    if not isinstance(block.get("input"), dict) or not OBJECT.holds(block["input"]):
        raise InvalidInputError("the input of a tool_use block must be an object")
    return ToolCall(block["id"], block["name"], orjson.dumps(block["input"]).decode())


def _result(block: dict[str, Any]) -> ChatMessage:
    if not isinstance(block.get("tool_use_id"), str):
        raise InvalidInputError("a tool_result block needs a tool_use_id")
    return ChatMessage.tool(_text(block.get("content") or "", "a tool_result"), block["tool_use_id"])


def _tools(document: Mapping[str, Any]) -> dict[str, Any]:
    tools = document.get("tools")
    if not tools:
        return {}
    if not isinstance(tools, list) or not all(OBJECT.holds(tool) for tool in tools):
        raise wrong("tools", "must be a list of tools")
    options: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    choice = take(document, "tool_choice", OBJECT)
    if choice:
        options |= _choice(choice)
    return options


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        raise wrong(
            "tools", "has a tool that only Anthropic's service can run; use tools of type custom", "unsupported_field"
        )
    schema = tool.get("input_schema")
    if not isinstance(tool.get("name"), str) or not isinstance(schema, dict):
        raise wrong("tools", "has a tool without a name or an input_schema")
    function = {"name": tool["name"], "parameters": schema}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    kind = choice.get("type")
    if kind == "tool" and isinstance(choice.get("name"), str):
        options["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif isinstance(kind, str) and kind in _CHOICES:
        options["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice", "must be auto, any, none, or a tool with its name", "invalid_value")
    if choice.get("disable_parallel_tool_use") is True:
        options["parallel_tool_calls"] = False
    return options


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


class MessageReply:
    """Writes a `message` or the events of its stream."""

    def __init__(self, parsed: ParsedRequest, name: str) -> None:
        self._message: dict[str, Any] = {
            "id": name,
            "type": "message",
            "role": "assistant",
            "model": parsed.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self._block = -1
        self._call: int | None = None
        """Index of the tool call of the open block; None for a text block."""
        self._open = False
        self._calls = 0
        self._stop_reason = "end_turn"
        self._text_head = b""
        self._ended = False
        """A backend's own `message_stop` was relayed."""

    def begin(self) -> bytes:
        return _event("message_start", message=self._message)

    def piece(self, piece: Piece) -> bytes:
        if piece.raw is not None:
            return self._relayed(piece)
        events = b""
        if piece.text:
            if not self._open or self._call is not None:
                events = self._start(None, {"type": "text", "text": ""})
            events += self._text_head + orjson.dumps(piece.text) + b"}}\n\n"
        if piece.delta and isinstance(piece.delta.get("tool_calls"), list):
            for part in piece.delta["tool_calls"]:
                events += self._tool_part(part)
        if piece.finish_reason:
            self._stop_reason = _STOP_REASONS[piece.finish_reason]
        return events

    def _relayed(self, piece: Piece) -> bytes:
        """The backend's own event."""
        event = piece.raw if isinstance(piece.raw, Event) else Event("", b"")
        if event.type != "content_block_delta":
            document = parsed_event(event.data)
            event = Event(str(document.get("type", "")), event.data)
            if event.type == "content_block_start" and isinstance(document.get("index"), int):
                is_text = (document.get("content_block") or {}).get("type") == "text"
                self._begin_block(document["index"], None if is_text else _NOT_OURS)
            elif event.type == "content_block_stop":
                self._open = False
            self._ended = self._ended or event.type == "message_stop"
        return b"event: %s\ndata: %s\n\n" % (event.type.encode(), event.data.replace(b"\n", b"\ndata: "))

    def _begin_block(self, index: int, call: int | None) -> None:
        self._block, self._open, self._call = index, True, call
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,' % index
        self._text_head = head + b'"delta":{"type":"text_delta","text":'

    def _start(self, call: int | None, block: dict[str, Any]) -> bytes:
        events = self._stop()
        self._begin_block(self._block + 1, call)
        return events + _event("content_block_start", index=self._block, content_block=block)

    def _stop(self) -> bytes:
        was, self._open = self._open, False
        return _event("content_block_stop", index=self._block) if was else b""

    def _tool_part(self, part: dict[str, Any]) -> bytes:
        index, events = part.get("index", self._calls), b""
        function = part.get("function") or {}
        if not self._open or self._call != index:
            if index < self._calls:
                raise BackendError("the backend continued a tool call after it had begun the next one")
            self._calls = index + 1
            known = {"id": part.get("id") or "", "name": function.get("name") or ""}
            events = self._start(index, {"type": "tool_use", **known, "input": {}})
        if function.get("arguments"):
            delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
            events += _event("content_block_delta", index=self._block, delta=delta)
        return events

    def end(self, summary: Summary) -> bytes:
        if self._ended:
            return b""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        last = _event("message_delta", delta=delta, usage=_usage(summary))
        return self._stop() + last + _event("message_stop")

    def broken(self, error: HttpError) -> bytes:
        return b"event: error\ndata: " + error_body(anthropic_error, error, "") + b"\n\n"

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        raw = next((piece.raw for piece in pieces if piece.raw is not None), None)
        if raw is not None:
            return orjson.dumps(raw)
        choice = choices_of(pieces)[0]
        content: list[dict[str, Any]] = [{"type": "text", "text": choice.text}] if choice.text else []
        for call in choice.calls.calls:
            function = call["function"]
            content.append(
                {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}
            )
        message = self._message | {
            "content": content,
            "stop_reason": _STOP_REASONS[choice.finish_reason],
            "usage": _usage(summary),
        }
        return orjson.dumps(message)


def _usage(summary: Summary) -> dict[str, Any]:
    return to_anthropic(summary.tokens)


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as an object. Invalid arguments must not become a call without arguments."""
    try:
        value = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BackendError("the model's arguments for a tool are not a JSON object")
    return value
