"""Writes a response of OpenAI's Responses API, whole or as a stream of events. No I/O.

The items of the output follow the order in which the backend's pieces arrive: reasoning, text, calls. Calls stay open
to the end, because a backend may send parts of parallel calls in turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from batuta_cli.serve.gateway.dialects.replies import EventStreamReply
from batuta_cli.serve.gateway.dialects.responses_output import (
    CALL_ITEMS,
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    CallItem,
    EventNumbers,
    MessageItem,
    OutputItem,
    ReasoningItem,
    RelayedItem,
)
from batuta_cli.serve.gateway.dialects.responses_tools import ResponseTools
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object
from batuta_cli.serve.providers.wire import BackendError, FinishReason, Piece
from batuta_cli.serve.usage import to_responses

_INCOMPLETE_REASONS: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""Codes of a failed response by status; otherwise `server_error`
(https://platform.openai.com/docs/api-reference/responses/object)."""

_OVERFLOW = "context_length_exceeded"
"""A code that clients such as Codex act on, and which OpenAI sends too."""


@dataclass(frozen=True, slots=True)
class ResponseEcho:
    """What the response repeats of the request, and what its writer needs of it."""

    fields: Mapping[str, Any]
    """Fields of the response object, as JSON."""
    tools: ResponseTools
    summary: bool
    """Whether reasoning is returned as a summary."""
    encoded: bool
    """Whether reasoning has `encrypted_content`."""


class ResponseReply(EventStreamReply):
    """Writes a `response`."""

    def __init__(self, model: str, echo: ResponseEcho, name: str, created: int) -> None:
        self._frame: dict[str, Any] = {
            "id": f"resp_{name}",
            "object": "response",
            "created_at": created,
            "model": model,
        }
        self._echo = echo
        self._name = name
        self._numbers = EventNumbers()
        self._items: list[OutputItem] = []
        self._open: MessageItem | ReasoningItem | None = None
        """The item of text that is not complete."""
        self._calls: dict[int, CallItem] = {}
        """By the index of the backend."""
        self._finish: FinishReason | None = None
        self._ended = False
        """A backend's own end was relayed."""
        self._final: dict[str, Any] = {}
        """The response object, after `end`."""

    def begin(self) -> bytes:
        response = self._response(IN_PROGRESS)
        event = self._numbers.event
        return event("response.created", response=response) + event("response.in_progress", response=response)

    def piece(self, piece: Piece) -> bytes:
        if isinstance(piece.raw, Event):
            return self._relayed(piece, piece.raw)
        if piece.index:  # another choice, which was not asked for
            return b""
        delta, events = piece.delta or {}, b""
        if reasoning := _text(delta, "reasoning_content") or _text(delta, "reasoning"):
            events += self._reasoning(reasoning)
        if piece.text or piece.logprobs:
            events += self._text(piece)
        if refusal := _text(delta, "refusal"):
            begun, item = self._message()
            events += begun + item.add_refusal(refusal)
        calls = delta.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            events += self._call_part(part if isinstance(part, dict) else {})
        self._finish = piece.finish_reason or self._finish
        return events

    def _relayed(self, piece: Piece, event: Event) -> bytes:
        """A backend's own event, noted so that another backend can continue the text."""
        if piece.text and isinstance(self._open, MessageItem):
            self._open.note(piece.text)
            self._numbers.take()
        else:
            document = json_object(event.data)
            if note := _RELAYED.get(str(document.get("type"))):
                note(self, document)
            self._numbers.pass_by(document.get("sequence_number"))
        name = b"event: %s\n" % event.type.encode() if event.type else b""
        return name + b"data: %s\n\n" % event.data.replace(b"\n", b"\ndata: ")

    def _note_response(self, document: dict[str, Any]) -> None:
        response = document.get("response")
        if isinstance(response, dict):
            self._frame |= {name: response[name] for name in self._frame if name in response}

    def _note_item(self, document: dict[str, Any]) -> None:
        item, index = document.get("item"), len(self._items)
        item = item if isinstance(item, dict) else {}
        self._open = MessageItem(self._numbers, index, str(item.get("id"))) if item.get("type") == "message" else None
        self._items.append(self._open or RelayedItem(self._numbers, index, item))

    def _note_part(self, document: dict[str, Any]) -> None:
        part = document.get("part")
        if isinstance(self._open, MessageItem) and isinstance(part, dict) and part.get("type") == "output_text":
            self._open.note("")

    def _note_done(self, document: dict[str, Any]) -> None:
        item, index = document.get("item"), document.get("output_index")
        if isinstance(item, dict) and type(index) is int and 0 <= index < len(self._items):
            self._open = None if self._open is self._items[index] else self._open
            self._items[index] = done = RelayedItem(self._numbers, index, item)
            done.status = COMPLETED

    def _note_end(self, _: dict[str, Any]) -> None:
        self._ended = True

    def end(self, summary: Summary) -> bytes:
        if self._ended:
            return b""
        reason = _INCOMPLETE_REASONS.get(self._finish) if self._finish else None
        status = INCOMPLETE if reason else COMPLETED
        events = b"".join(item.end(status) for item in self._items if item.status == IN_PROGRESS)
        self._open = None
        self._final = self._response(status, reason=reason, usage=to_responses(summary.tokens))
        return events + self._numbers.event(f"response.{status}", response=self._final)

    def broken(self, error: HttpError, request_id: str) -> bytes:
        """The failure. Items that are not complete get no end, so that no client runs half a call."""
        code = _OVERFLOW if error.code == _OVERFLOW else _ERROR_CODES.get(error.status, "server_error")
        response = self._response("failed", error={"code": code, "message": error.message})
        return self._numbers.event("response.failed", response=response)

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        raw = next((piece.raw for piece in pieces if piece.raw is not None), None)
        if raw is not None:
            return encoded(raw)
        for piece in pieces:
            self.piece(piece)
        self.end(summary)
        return orjson.dumps(self._final)

    def _response(
        self,
        status: str,
        *,
        reason: str | None = None,
        error: dict[str, str] | None = None,
        usage: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {
            **self._frame,
            "status": status,
            "error": error,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": [item.document() for item in self._items if item.status != IN_PROGRESS],
            "usage": usage,
            **self._echo.fields,
        }

    def _text(self, piece: Piece) -> bytes:
        begun, item = self._message()
        if piece.logprobs:
            return begun + item.add_logprobs(piece.text, _logprobs(piece.logprobs))
        return begun + item.add_text(piece.text)

    def _message(self) -> tuple[bytes, MessageItem]:
        """The open message, and the events that begin it."""
        if isinstance(self._open, MessageItem):
            return b"", self._open
        ended = self._end_text()
        self._open = item = MessageItem(self._numbers, *self._place("msg"))
        return ended + self._begun(item), item

    def _reasoning(self, text: str) -> bytes:
        begun = b""
        if not isinstance(self._open, ReasoningItem):
            ended, echo = self._end_text(), self._echo
            self._open = ReasoningItem(self._numbers, *self._place("rs"), summary=echo.summary, encoded=echo.encoded)
            begun = ended + self._begun(self._open)
        return begun + self._open.add(text)

    def _call_part(self, part: dict[str, Any]) -> bytes:
        function = part.get("function")
        function = function if isinstance(function, dict) else {}
        index = part.get("index")
        if not isinstance(index, int):
            index = len(self._calls)
        item, begun = self._calls.get(index), b""
        if item is None:
            begun, item = self._call(_text(function, "name"), _text(part, "id"))
            self._calls[index] = item
        arguments = _text(function, "arguments")
        return begun + item.add(arguments) if arguments else begun

    def _call(self, name: str, call_id: str) -> tuple[bytes, CallItem]:
        """A new call, and the events that begin it. Raises `BackendError`."""
        if not name:
            raise BackendError("the backend sent a call of a tool without its name")
        ended, tool = self._end_text(), self._echo.tools.origin(name)
        kind = CALL_ITEMS[tool.kind]
        call_id = call_id or f"call_{self._name}_{len(self._items)}"
        item = kind(self._numbers, *self._place(kind.id_prefix), call_id, tool)
        return ended + self._begun(item), item

    def _place(self, prefix: str) -> tuple[int, str]:
        """The index and the id of the next item."""
        index = len(self._items)
        return index, f"{prefix}_{self._name}_{index}"

    def _begun(self, item: OutputItem) -> bytes:
        self._items.append(item)
        return item.begin()

    def _end_text(self) -> bytes:
        item, self._open = self._open, None
        return item.end(COMPLETED) if item else b""


_RELAYED: Mapping[str, Callable[[ResponseReply, dict[str, Any]], None]] = {
    "response.created": ResponseReply._note_response,
    "response.output_item.added": ResponseReply._note_item,
    "response.content_part.added": ResponseReply._note_part,
    "response.output_item.done": ResponseReply._note_done,
    "response.completed": ResponseReply._note_end,
    "response.incomplete": ResponseReply._note_end,
}
"""What is noted of a backend's own events."""


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _logprobs(logprobs: Any) -> list[dict[str, Any]]:
    """The log probabilities of a chat completion, which a response has with `bytes` in every place."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [
        {**_token(token), "top_logprobs": [_token(top) for top in _objects(token.get("top_logprobs"))]}
        for token in _objects(tokens)
    ]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token"), "logprob": token.get("logprob"), "bytes": token.get("bytes") or []}


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
