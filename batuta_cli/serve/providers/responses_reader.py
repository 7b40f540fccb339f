"""Reads the responses of OpenAI's Responses API. Only backends that get a client's request as it came send them.

`formats/native.py` sends these requests and keeps the events. Text, refusals, reasoning and calls become the fields
of a chat completion, which decide what another backend may continue.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from batuta_cli.serve.providers.formats.openai_chat import is_done, is_empty
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import json_object, mended
from batuta_cli.serve.providers.wire import BackendError, EndingReader, FinishReason, Piece
from batuta_cli.serve.usage import from_responses

_INCOMPLETE: Mapping[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_ENDS = frozenset(("response.completed", "response.incomplete"))
_FAILED = frozenset(("failed", "cancelled"))


class ResponsesReader(EndingReader):
    """Reads a `response`, whole or as events."""

    def event(self, event: Event) -> Iterator[Piece]:
        if not (is_empty(event) or is_done(event)):
            yield from self.read(json_object(event.data))

    def read(self, document: dict[str, Any]) -> Iterator[Piece]:
        """The pieces in the JSON object of one event. Raises `BackendError`."""
        kind = str(document.get("type"))
        if kind == "error":
            raise reported_error({"error": document.get("error") or document})
        if kind == "response.failed":
            raise reported_error(document.get("response"))
        if kind in _ENDS:
            yield self._end(document.get("response"))
        elif (read := _EVENTS.get(kind)) and (piece := read(document)):
            yield piece

    def whole(self, document: Any) -> Iterator[Piece]:
        """The pieces of a response that was not streamed: its text, what else it has, and its end."""
        if not isinstance(document, dict) or document.get("error") or str(document.get("status")) in _FAILED:
            raise reported_error(document)
        output = document.get("output")
        if not isinstance(output, list):
            raise BackendError("the backend answered without an output")
        for index, item in enumerate(output):
            if isinstance(item, dict):
                yield from _item_pieces(index, item)
        yield self._end(document)

    def _end(self, response: object) -> Piece:
        response = response if isinstance(response, dict) else {}
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        self._complete = self._ended = True
        finish = _INCOMPLETE.get(str(reason), "length") if response.get("status") == "incomplete" else "stop"
        return Piece(finish_reason=finish, usage=from_responses(response.get("usage")))


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return str(mended(value)) if isinstance(value, str) else ""


def _delta(field: str) -> Callable[[Mapping[str, Any]], Piece | None]:
    """A reader of an event whose text becomes this field of a chat completion's delta."""

    def read(document: Mapping[str, Any]) -> Piece | None:
        text = _text(document, "delta")
        return Piece(delta={field: text}) if text else None

    return read


def _text_delta(document: Mapping[str, Any]) -> Piece | None:
    text = _text(document, "delta")
    return Piece(text) if text else None


def _added(document: Mapping[str, Any]) -> Piece | None:
    """A call, when one begins."""
    item = document.get("item")
    if not isinstance(item, dict) or str(item.get("type")) not in _CALLS:
        return None
    return _call(document.get("output_index"), item.get("call_id"), item.get("name"), "")


def _arguments(document: Mapping[str, Any]) -> Piece | None:
    text = _text(document, "delta")
    return _call(document.get("output_index"), None, None, text) if text else None


def _call(index: object, id: object, name: object, arguments: str) -> Piece:
    function = {"arguments": arguments} | ({"name": name} if isinstance(name, str) else {})
    call = {"index": index, "function": function} | ({"id": id, "type": "function"} if isinstance(id, str) else {})
    return Piece(delta={"tool_calls": [call]})


_CALLS: Mapping[str, str] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that are calls, and the field of their arguments."""

_KNOWN_ITEMS = frozenset((*_CALLS, "message", "reasoning"))

_EVENTS: Mapping[str, Callable[[Mapping[str, Any]], Piece | None]] = {
    "response.output_text.delta": _text_delta,
    "response.refusal.delta": _delta("refusal"),
    "response.reasoning_text.delta": _delta("reasoning_content"),
    "response.reasoning_summary_text.delta": _delta("reasoning_content"),
    "response.output_item.added": _added,
    "response.function_call_arguments.delta": _arguments,
    "response.custom_tool_call_input.delta": _arguments,
}
"""Events with content."""


def _item_pieces(index: int, item: Mapping[str, Any]) -> Iterator[Piece]:
    """The pieces of one item of a whole response."""
    kind = str(item.get("type"))
    if kind in _CALLS:
        yield _call(index, item.get("call_id"), item.get("name"), _text(item, _CALLS[kind]))
        return
    lists = (item.get("content"), item.get("summary"))
    for part in (part for parts in lists if isinstance(parts, list) for part in parts):
        if not isinstance(part, dict):
            continue
        text = _text(part, "refusal") or _text(part, "text")
        field = _PART_FIELDS.get(str(part.get("type")))
        if text:
            yield Piece(delta={field: text}) if field else Piece(text)


_PART_FIELDS: Mapping[str, str] = {
    "refusal": "refusal",
    "reasoning_text": "reasoning_content",
    "summary_text": "reasoning_content",
}
"""Parts whose text is not the text of the response."""


KNOWN_EVENTS = frozenset(
    (
        "response.created",
        "response.in_progress",
        "response.queued",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.done",
        "response.output_item.done",
        "response.refusal.done",
        "response.reasoning_text.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.done",
        "keepalive",
        *_ENDS,
    )
)
"""Events without content that another backend would need to continue the response."""


def is_known_item(item: object) -> bool:
    """Whether the pieces of an item have its content."""
    return isinstance(item, dict) and str(item.get("type")) in _KNOWN_ITEMS
