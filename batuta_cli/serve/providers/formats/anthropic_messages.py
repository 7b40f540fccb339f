"""Anthropic's Messages API (https://docs.anthropic.com/en/api/messages, /en/api/messages-streaming)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.providers.formats.openai_chat import is_done, is_empty, missing
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import TextJoiner, json_object
from batuta_cli.serve.providers.tool_calls import ToolCallReader
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, FinishReason, Outgoing, Piece
from batuta_cli.serve.usage import AnthropicUsage

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "length": "length",  # OpenAI's names, as some servers of this API send them
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
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


class MessagesReader(EndingReader):
    """Reads a message, or the events of its stream. Complete after `message_stop`."""

    def __init__(self) -> None:
        super().__init__()
        self._usage = AnthropicUsage()
        self._calls = ToolCallReader()
        self._inputs: dict[int, object] = {}
        """Inputs of tools that a server sent whole at the start of their blocks, by the index of the block."""
        self._block_index = 0
        self._text, self._thinking = TextJoiner(), TextJoiner()
        self._begun = self._finished = False

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended or is_empty(event):
            return
        if is_done(event):  # a proxy that writes the end of OpenAI's format
            yield from self._stop()
            return
        document = json_object(event.data)
        yield from self.read({"type": event.type} | document)

    def read(self, document: dict[str, Any]) -> Iterator[Piece]:
        """The pieces in the JSON object of one event. Raises `BackendError`."""
        kind = document.get("type")
        if kind == "error":
            raise reported_error(document)
        if kind == "message_start":
            self._begun = True
            self._usage.add(_table(document, "message").get("usage"))
        elif kind == "content_block_start":
            self._block_index = _index(document, self._block_index + 1)
            yield from self._block(_table(document, "content_block"), self._block_index, whole=False)
        elif kind == "content_block_delta":
            yield from self._delta(_table(document, "delta"), _index(document, self._block_index))
        elif kind == "message_delta":
            self._usage.add(document.get("usage"))
            delta = _table(document, "delta")
            if reason := delta.get("stop_reason"):
                yield self._end(reason, delta.get("stop_sequence"))
            else:
                yield Piece(usage=self._usage.usage())
        elif kind == "message_stop":
            yield from self._stop()

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("type") == "error" or document.get("error"):
            raise reported_error(document)
        content = document.get("content")
        if not isinstance(content, list | str):
            raise missing(document, "the backend answered without content")
        for index, block in enumerate([{"type": "text", "text": content}] if isinstance(content, str) else content):
            if isinstance(block, dict):
                yield from self._block(block, index, whole=True)
        self._begun = True
        self._usage.add(document.get("usage"))
        yield self._end(document.get("stop_reason"), document.get("stop_sequence"))
        self._complete = True

    def _stop(self) -> Iterator[Piece]:
        if not self._begun:
            raise BackendError("the backend answered without a message")
        if not self._finished:
            yield self._end(None, None)
        self._complete = self._ended = True

    def _end(self, reason: object, stop: object) -> Piece:
        """The finish reason and the usage, after the rest of the tool calls."""
        rest = [part for index, value in self._inputs.items() for part in self._input(index, value)]
        self._inputs.clear()
        calls = rest + self._calls.end()
        finish = read_stop_reason(reason) or "stop"
        if finish == "stop" and self._calls.any:
            finish = "tool_calls"
        text, thinking = self._text.add("", ended=True), self._thinking.add("", ended=True)
        delta: dict[str, Any] = {"reasoning_content": thinking} if thinking else {}
        if calls:
            delta["tool_calls"] = calls
        self._finished = True
        return Piece(text, finish_reason=finish, usage=self._usage.usage(), delta=delta or None, stop=_string(stop))

    def _block(self, block: dict[str, Any], index: int, *, whole: bool) -> Iterator[Piece]:
        self._begun = True
        kind = block.get("type")
        if kind == "text":
            yield from self._texts(block.get("text"))
        elif kind == "thinking":
            yield from self._thoughts(block.get("thinking"))
        elif kind == "tool_use":
            given = block.get("input")
            if given and not whole:
                self._inputs[index], given = given, None
            function = {"name": block.get("name"), "arguments": given or ("{}" if whole else None)}
            yield from self._called(self._calls.parts({"index": index, "id": block.get("id"), "function": function}))

    def _delta(self, delta: dict[str, Any], index: int) -> Iterator[Piece]:
        self._begun = True
        kind = delta.get("type")
        if kind == "text_delta":
            yield from self._texts(delta.get("text"))
        elif kind == "input_json_delta":
            arguments = delta.get("partial_json")
            if arguments:  # Anthropic's first one is empty
                self._inputs.pop(index, None)
            yield from self._called(self._calls.parts({"index": index, "function": {"arguments": arguments}}))
        elif kind == "thinking_delta":
            yield from self._thoughts(delta.get("thinking"))

    def _texts(self, value: object) -> Iterator[Piece]:
        if text := self._text.add(_checked_text(value)):
            yield Piece(text)

    def _thoughts(self, value: object) -> Iterator[Piece]:
        if text := self._thinking.add(_checked_text(value)):
            yield Piece(delta={"reasoning_content": text})

    def _called(self, parts: list[dict[str, Any]]) -> Iterator[Piece]:
        if parts:
            yield Piece(delta={"tool_calls": parts})

    def _input(self, index: int, value: object) -> list[dict[str, Any]]:
        return self._calls.parts({"index": index, "function": {"arguments": value}})


def read_stop_reason(reason: object) -> FinishReason | None:
    """The finish reason of a `stop_reason`; None without one."""
    return _FINISH.get(reason, "stop") if isinstance(reason, str) and reason else None


def _checked_text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise BackendError("the backend answered with a text that is not text")


def _index(document: dict[str, Any], otherwise: int) -> int:
    index = document.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else otherwise


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
