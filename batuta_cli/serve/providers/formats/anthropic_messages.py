"""Anthropic's Messages API (https://docs.anthropic.com/en/api/messages, /en/api/messages-streaming)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.providers.formats.openai_chat import parsed, reported
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, FinishReason, Outgoing, Piece
from batuta_cli.serve.usage import AnthropicUsage

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_SAME = ("temperature", "top_p", "top_k")
OPTIONS = frozenset((*_SAME, "stop", "tools", "tool_choice", "parallel_tool_calls"))


def outgoing(call: Call, _: Profile) -> Outgoing:
    """The request. System and developer messages become the `system` text, in their order."""
    system = [m.content for m in call.messages if m.role in (Role.SYSTEM, Role.DEVELOPER)]
    messages: list[dict[str, Any]] = []
    for message in call.messages:
        if message.role not in (Role.SYSTEM, Role.DEVELOPER):
            _append(messages, message)
    if call.prefix:
        messages.append({"role": "assistant", "content": call.prefix})
    body: dict[str, Any] = {
        "model": call.model,
        "messages": messages,
        "max_tokens": call.max_tokens,
        "stream": call.stream,
        **{name: call.options[name] for name in _SAME if call.options.get(name) is not None},
    }
    if system:
        body["system"] = "\n\n".join(system)
    stop = call.options.get("stop")
    if stop:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if tools := call.options.get("tools"):
        body["tools"] = [_tool(tool["function"]) for tool in tools]
        body |= _tool_choice(call.options)
    return Outgoing("messages", body)


def reader(_: Call) -> "MessagesReader":
    """The reader of the response."""
    return MessagesReader()


def _append(messages: list[dict[str, Any]], message: ChatMessage) -> None:
    """Append one message; the results of consecutive tool calls go into one user message."""
    if message.role is Role.TOOL:
        block = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}
        if messages and messages[-1]["role"] == "user" and isinstance(messages[-1]["content"], list):
            messages[-1]["content"].append(block)
        else:
            messages.append({"role": "user", "content": [block]})
    elif message.tool_calls:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
        for call in message.tool_calls:
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)})
        messages.append({"role": "assistant", "content": blocks})
    else:
        content = [_part(part) for part in message.parts] if message.parts else message.content
        messages.append({"role": str(message.role), "content": content})


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A content part as a block. Raises `BackendError` for one that Anthropic does not have."""
    kind, inner = part.get("type"), part.get(str(part.get("type")))
    if kind == "text":
        return {"type": "text", "text": inner}
    fields = inner if isinstance(inner, dict) else {"url": inner}
    url = fields.get("url" if kind == "image_url" else "file_data")
    if kind == "image_url" and isinstance(url, str):
        return {"type": "image", "source": _inline(url) or {"type": "url", "url": url}}
    if kind == "file" and isinstance(url, str) and (source := _inline(url)):
        title = {"title": fields["filename"]} if fields.get("filename") else {}
        return {"type": "document", "source": source, **title}
    message = "the content has a part that Anthropic's API does not have"
    raise BackendError(message, status=400, retryable=False, sent=False)


def _inline(url: str) -> dict[str, str] | None:
    """A `data:` URL as a source (RFC 2397); None for another URL."""
    head, comma, data = url.partition(",")
    if not comma or not head.lower().startswith("data:") or not head.endswith(";base64"):
        return None
    return {"type": "base64", "media_type": head[5:].split(";")[0], "data": data}


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    tool = {"name": function["name"], "input_schema": function.get("parameters") or {"type": "object"}}
    return tool | ({"description": function["description"]} if function.get("description") else {})


_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def _tool_choice(options: Mapping[str, Any]) -> dict[str, Any]:
    choice, parallel = options.get("tool_choice"), options.get("parallel_tool_calls")
    if isinstance(choice, dict):
        chosen = {"type": "tool", "name": choice["function"]["name"]}
    elif isinstance(choice, str) and choice in _CHOICES:
        chosen = {"type": _CHOICES[choice]}
    elif parallel is False:
        chosen = {"type": "auto"}
    else:
        return {}
    if parallel is False and chosen["type"] != "none":
        return {"tool_choice": {**chosen, "disable_parallel_tool_use": True}}
    return {"tool_choice": chosen}


class MessagesReader:
    """Reads a message, or the events of its stream."""

    def __init__(self) -> None:
        self._complete = False
        self._usage = AnthropicUsage()
        self._tools = -1

    @property
    def complete(self) -> bool:
        """After `message_stop`."""
        return self._complete

    def event(self, event: Event) -> Iterator[Piece]:
        yield from self.read(parsed(event.data))

    def read(self, document: dict[str, Any]) -> Iterator[Piece]:
        """The pieces in the JSON object of one event. Raises `BackendError`."""
        kind = document.get("type")
        if kind == "error":
            raise reported(document)
        if kind == "message_start":
            self._usage.add(_table(document, "message").get("usage"))
        elif kind == "content_block_start":
            yield from self._block(_table(document, "content_block"), whole=False)
        elif kind == "content_block_delta":
            yield from self._delta(_table(document, "delta"))
        elif kind == "message_delta":
            reason = _table(document, "delta").get("stop_reason")
            self._usage.add(document.get("usage"))
            stop = _table(document, "delta").get("stop_sequence")
            yield Piece(finish_reason=_finish(reason), usage=self._usage.usage(), stop=_string(stop))
        elif kind == "message_stop":
            self._complete = True

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("type") == "error":
            raise reported(document)
        if not isinstance(document.get("content"), list):
            raise BackendError("the backend answered without content")
        for block in document["content"]:
            if isinstance(block, dict):
                yield from self._block(block, whole=True)
        self._complete = True
        self._usage.add(document.get("usage"))
        reason, stop = _finish(document.get("stop_reason")), _string(document.get("stop_sequence"))
        yield Piece(finish_reason=reason, usage=self._usage.usage(), stop=stop)

    def _block(self, block: dict[str, Any], *, whole: bool) -> Iterator[Piece]:
        if block.get("type") == "text" and block.get("text"):
            yield Piece(str(block["text"]))
        elif block.get("type") == "thinking" and block.get("thinking"):
            yield Piece(delta={"reasoning_content": str(block["thinking"])})
        elif block.get("type") == "tool_use":
            self._tools += 1
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False) if whole else ""
            function = {"name": block.get("name"), "arguments": arguments}
            yield self._call({"id": block.get("id"), "type": "function", "function": function})

    def _delta(self, delta: dict[str, Any]) -> Iterator[Piece]:
        if delta.get("type") == "text_delta":
            yield Piece(str(delta.get("text", "")))
        elif delta.get("type") == "input_json_delta":
            yield self._call({"function": {"arguments": delta.get("partial_json", "")}})
        elif delta.get("type") == "thinking_delta":
            yield Piece(delta={"reasoning_content": delta.get("thinking", "")})

    def _call(self, call: dict[str, Any]) -> Piece:
        return Piece(delta={"tool_calls": [{"index": self._tools, **call}]})


def _finish(reason: object) -> FinishReason | None:
    return _FINISH.get(reason, "stop") if isinstance(reason, str) else None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
