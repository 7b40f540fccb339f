"""Writes responses in Anthropic's Messages API, whole or as events. No I/O.

A backend's own events and messages are relayed as they are. The input tokens of a translated response are known only at
its end: they are in `message_delta`, where the official client reads them, and 0 in `message_start`. Malformed tool
calls of a backend are `BackendError`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.replies import EventStreamReply, choices_of
from batuta_cli.serve.gateway.http_errors import HttpError, anthropic_error, error_body
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object
from batuta_cli.serve.providers.wire import BackendError, FinishReason, Piece
from batuta_cli.serve.usage import to_anthropic

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_THINKING = -1
_NOT_OURS = -2
"""In the place of a tool call's index: the open block is one of thinking, or a backend's own and no text."""
_REASONING = ("reasoning_content", "reasoning")
"""Two field names of the same text; some servers send both."""


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


class MessageReply(EventStreamReply):
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
        self._stop_sequence: str | None = None
        stop = (parsed.options or {}).get("stop") or ()
        self._stops = (stop,) if isinstance(stop, str) else tuple(stop)
        self._text_head = b""
        self._ended = False
        """A backend's own `message_stop` was relayed."""

    def begin(self) -> bytes:
        return _event("message_start", message=self._message)

    def piece(self, piece: Piece) -> bytes:
        if piece.raw is not None:
            return self._relayed(piece)
        events = b""
        if thought := _thought(piece.delta):
            if not self._open or self._call != _THINKING:
                events = self._start(_THINKING, {"type": "thinking", "thinking": "", "signature": ""})
            delta = {"type": "thinking_delta", "thinking": thought}
            events += _event("content_block_delta", index=self._block, delta=delta)
        if piece.text:
            if not self._open or self._call is not None:
                events += self._start(None, {"type": "text", "text": ""})
            events += self._text_head + orjson.dumps(piece.text) + b"}}\n\n"
        if piece.delta and isinstance(piece.delta.get("tool_calls"), list):
            for part in piece.delta["tool_calls"]:
                events += self._tool_part(part)
        if piece.finish_reason:
            self._stop_reason, self._stop_sequence = self._stopped(piece.finish_reason, piece.stop)
        return events

    def _stopped(self, finish_reason: FinishReason, stop: str | None) -> tuple[str, str | None]:
        """The stop reason, and the stop sequence of the request that ended the text, if the backend names it."""
        if finish_reason == "stop" and stop in self._stops:
            return "stop_sequence", stop
        return _STOP_REASONS[finish_reason], None

    def _relayed(self, piece: Piece) -> bytes:
        """The backend's own event."""
        event = piece.raw if isinstance(piece.raw, Event) else Event("", b"")
        name = event.type
        if name != "content_block_delta":
            document = json_object(event.data)
            kind = document.get("type")
            if not name and isinstance(kind, str) and kind.isidentifier():
                name = kind
            if kind == "content_block_start" and isinstance(document.get("index"), int):
                is_text = (document.get("content_block") or {}).get("type") == "text"
                self._begin_block(document["index"], None if is_text else _NOT_OURS)
            elif kind == "content_block_stop":
                self._open = False
            self._ended = self._ended or kind == "message_stop"
        return b"event: %s\ndata: %s\n\n" % (name.encode(), event.data.replace(b"\n", b"\ndata: "))

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
            events += self._start(index, {"type": "tool_use", **known, "input": {}})
        if function.get("arguments"):
            delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
            events += _event("content_block_delta", index=self._block, delta=delta)
        return events

    def end(self, summary: Summary) -> bytes:
        if self._ended:
            return b""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        last = _event("message_delta", delta=delta, usage=_usage(summary))
        return self._stop() + last + _event("message_stop")

    def broken(self, error: HttpError, request_id: str) -> bytes:
        return b"event: error\ndata: " + error_body(anthropic_error, error, request_id) + b"\n\n"

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        raw = next((piece.raw for piece in pieces if piece.raw is not None), None)
        if raw is not None:
            return encoded(raw)
        choice = choices_of(pieces)[0]
        content: list[dict[str, Any]] = []
        if thought := next((choice.more[name] for name in _REASONING if choice.more.get(name)), ""):
            content.append({"type": "thinking", "thinking": thought, "signature": ""})
        if choice.text:
            content.append({"type": "text", "text": choice.text})
        for call in choice.calls.calls:
            function = call["function"]
            content.append(
                {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}
            )
        stop = next((piece.stop for piece in pieces if piece.stop), None)
        reason, sequence = self._stopped(choice.finish_reason, stop)
        message = self._message | {
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": _usage(summary),
        }
        return orjson.dumps(message)


def _thought(delta: Mapping[str, Any] | None) -> str:
    """The reasoning in a piece."""
    for name in _REASONING if delta else ():
        if isinstance(thought := (delta or {}).get(name), str) and thought:
            return thought
    return ""


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
