"""A client's own request, sent as it came to a backend that speaks its API, and the response, relayed as it comes.

The body changes only in these fields: the model, the output limit where one is needed or the backend has another name
for it, the request for usage in a stream, and the fields that name a user, which only the API's provider gets.

A reader reads a response for its text, usage and end, as the reader of the same wire format does, and keeps each event
in `Piece.raw`. An event that it does not understand is kept too. An event that had to be mended has no `raw`: then the
mended pieces are written.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.providers.content_parts import REASONING_NAMES, read_content
from batuta_cli.serve.providers.formats.anthropic_messages import MessagesReader, read_stop_reason
from batuta_cli.serve.providers.formats.openai_chat import ChatReader
from batuta_cli.serve.providers.ollama_reader import NativeOllamaReader
from batuta_cli.serve.providers.responses_reader import KNOWN_EVENTS, ResponsesReader, is_known_item
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import json_object
from batuta_cli.serve.providers.wire import BackendError, Call, Outgoing, Piece, Reader

OPTIONS = None


def outgoing(call: Call, profile: Profile) -> Outgoing:
    """The request, with the client's body and headers."""
    native = _native(call)
    rules, withheld = _APIS[native.api], native.withheld(profile)
    body = {name: value for name, value in native.document.items() if name not in withheld}
    body["model"] = call.model
    if call.max_tokens is not None:
        if rules.limits_within:
            inner = body.get(rules.limits_within) or {}
            body[rules.limits_within] = _limited(inner, rules.limits, rules.limits[0], call.max_tokens)
        else:
            limit = profile.output_limit if profile.output_limit in rules.limits else rules.limits[0]
            body = _limited(body, rules.limits, limit, call.max_tokens)
    if call.stream and rules.asks_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return Outgoing(native.api.path, body, native.headers)


def _limited(body: dict[str, Any], names: tuple[str, ...], name: str, tokens: int) -> dict[str, Any]:
    """The fields with the output limit under one of its names, and unchanged where it is there already."""
    if [(each, body[each]) for each in names if body.get(each) is not None] == [(name, tokens)]:
        return body
    return {**{key: value for key, value in body.items() if key not in names}, name: tokens}


def reader(call: Call) -> Reader:
    """The reader of the response."""
    return _APIS[_native(call).api].reader(call)


def _native(call: Call) -> Any:
    if call.native is None:
        raise RuntimeError("a call without a native request")
    return call.native


_MESSAGE_FIELDS = frozenset(("role", "content", "tool_calls", "refusal", "function_call", *REASONING_NAMES))


class NativeChatReader(ChatReader):
    """Reads OpenAI's chat completions and keeps their events."""

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended or event.data[:1] != b"{":
            yield from super().event(event)
            return
        document = json_object(event.data)
        if text := self._plain_text(document, event.type):
            yield Piece(text, raw=event)
            return
        pieces = list(self.chunk(document, event.type))
        choices = document.get("choices") or ()
        if (
            not isinstance(choices, list | tuple)
            or len(choices) > 1
            or not _faithful(choices, pieces, "delta")
            or not _is_usage(document.get("usage"))
        ):
            yield from pieces
            return
        piece = replace(pieces[0], usage=pieces[-1].usage) if pieces else Piece()
        yield replace(piece, raw=event, opaque=_is_opaque(choices, "delta"))

    def _plain_text(self, document: dict[str, Any], kind: str) -> str:
        """The text of an event that has nothing else, by far the most frequent one; else empty."""
        choices = document.get("choices")
        if kind or document.get("usage") or document.get("error") or type(choices) is not list:
            return ""
        choice = choices[0] if len(choices) == 1 else None
        delta = choice.get("delta") if type(choice) is dict else None
        if type(delta) is not dict or len(delta) != 1 or choice is None or choice.get("index") != 0:
            return ""
        text = delta.get("content")
        if choice.get("finish_reason") or choice.get("logprobs") or type(text) is not str or not _is_whole(text):
            return ""
        return text if self.note_text() else ""

    def whole(self, document: Any) -> Iterator[Piece]:
        pieces = list(super().whole(document))
        choices = document["choices"]
        if _is_complete(document) and _faithful(choices, pieces, "message"):
            first = pieces[0] if pieces else Piece()
            pieces[:1] = [replace(first, raw=document, opaque=_is_opaque(choices, "message"))]
        yield from pieces


def _is_whole(text: str) -> bool:
    """Whether a text has no halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _faithful(choices: Any, pieces: list[Piece], part: str) -> bool:
    """Whether the pieces say what the choices say, so that nothing was mended."""
    if not isinstance(choices, list | tuple):
        return False
    left = [piece for piece in pieces if piece.has_content or piece.finish_reason]
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            return False
        content = choice.get(part)
        if not isinstance(content, dict):
            return False
        if content.get("function_call") or not isinstance(content.get("content"), str | None):
            return False
        texts = read_content(content)
        extra = {"reasoning_content": texts.reasoning, "refusal": texts.refusal}
        said = Piece(
            texts.text,
            finish_reason=choice.get("finish_reason") or None,
            usage=None,
            delta={name: value for name, value in extra.items() if value} or None,
            index=choice.get("index", place),
            logprobs=choice.get("logprobs") or None,
        )
        calls = content.get("tool_calls") or []
        if not (said.has_content or said.finish_reason or calls):
            continue
        piece = left.pop(0) if left else Piece()
        delta = dict(piece.delta or {})
        if _bare(delta.pop("tool_calls", [])) != _bare(calls) or not _are_regular(calls):
            return False
        if replace(piece, usage=None, stop=None, delta=delta or None) != said:
            return False
    return not left


_REQUIRED = {"id": str, "object": str, "created": int, "model": str}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def _is_complete(document: Mapping[str, Any]) -> bool:
    """Whether a response has the fields that OpenAI's API requires; some clients refuse a response without them."""
    usage = document.get("usage")
    counted = usage is None or (isinstance(usage, dict) and all(type(usage.get(name)) is int for name in _COUNTS))
    return counted and all(type(document.get(name)) is kind for name, kind in _REQUIRED.items())


def _is_usage(usage: object) -> bool:
    """Whether the usage of an event, if it has one, has numbers, as clients expect them."""
    return usage is None or (isinstance(usage, dict) and all(type(usage.get(name)) is int for name in _COUNTS[:2]))


def _bare(calls: Any) -> Any:
    """Tool calls without what servers leave out or write as null: the type, and fields that a part lacks."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return None
    return [{name: value for name, value in call.items() if value is not None and name != "type"} for call in calls]


def _are_regular(calls: Any) -> bool:
    """Whether every part of a tool call has an index, by which the official client joins them."""
    return calls is None or all(isinstance(call, dict) and type(call.get("index", 0)) is int for call in calls)


def _is_opaque(choices: Any, part: str) -> bool:
    """Whether a message has content that no piece has."""
    messages = [choice.get(part) or {} for choice in choices]
    return any(value and name not in _MESSAGE_FIELDS for message in messages for name, value in message.items())


class NativeMessagesReader(MessagesReader):
    """Reads Anthropic's messages and keeps their events."""

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended or event.data[:1] != b"{":
            yield from super().event(event)
            return
        document = json_object(event.data)
        delta = document.get("delta")
        text = delta.get("text") if type(delta) is dict and delta.get("type") == "text_delta" else None
        if type(text) is str and self._text.is_empty and _is_whole(text):
            self._begun = True
            yield Piece(text, raw=event)  # by far the most frequent event
            return
        _check_parts(document)
        pieces = list(self.read({"type": event.type} | document))
        if _is_mended(document, pieces):
            yield from pieces
            return
        piece = pieces[0] if pieces else Piece()
        yield replace(piece, raw=event, opaque=not piece.has_content and not _is_known(document))

    def whole(self, document: Any) -> Iterator[Piece]:
        pieces = list(super().whole(document))
        if _is_message(document) and not _is_mended(document, pieces):
            opaque = not all(_is_known_block(block) for block in document["content"])
            pieces[0] = replace(pieces[0], raw=document, opaque=opaque)
        yield from pieces


_PARTS = {
    "message_start": "message",
    "content_block_start": "content_block",
    "content_block_delta": "delta",
    "message_delta": "delta",
}
"""Events that a client joins to a message, and the object that each has."""


def _check_parts(document: Mapping[str, Any]) -> None:
    """Raise `BackendError` for an event that no client can join to a message."""
    kind = document.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        return
    numbered = not kind.startswith("content_block") or type(document.get("index")) is int
    if not isinstance(document.get(_PARTS[kind]), dict) or not numbered:
        raise BackendError(f"the backend sent a malformed event of the type {kind}")


def _is_message(document: Mapping[str, Any]) -> bool:
    """Whether a response has what Anthropic's client needs: blocks, each with a type, and counts of tokens."""
    blocks, usage = document.get("content"), document.get("usage")
    typed = isinstance(blocks, list) and all(isinstance(b, dict) and isinstance(b.get("type"), str) for b in blocks)
    counted = isinstance(usage, dict) and all(type(usage.get(n)) is int for n in ("input_tokens", "output_tokens"))
    return typed and counted and document.get("type") == "message"


def _is_mended(document: Mapping[str, Any], pieces: list[Piece]) -> bool:
    """Whether the pieces say something else than the document: another end, other ids, other names of calls."""
    if "type" not in document:
        return bool(pieces)
    delta = document.get("delta")
    ended = delta if document["type"] == "message_delta" and isinstance(delta, dict) else document
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason]
    if reasons and reasons != [read_stop_reason(ended.get("stop_reason"))]:
        return True
    block, blocks = document.get("content_block"), document.get("content")
    given = [block] if isinstance(block, dict) else blocks if isinstance(blocks, list) else []
    uses = [each for each in given if isinstance(each, dict) and each.get("type") == "tool_use"]
    calls = [call for piece in pieces for call in (piece.delta or {}).get("tool_calls", ()) if "id" in call]
    return [(use.get("id"), use.get("name")) for use in uses] != [(c["id"], c["function"]["name"]) for c in calls]


_KNOWN_EVENTS = frozenset(("message_start", "content_block_stop", "message_delta", "message_stop", "ping"))
_KNOWN_BLOCKS = frozenset(("text", "thinking", "tool_use"))
_KNOWN_DELTAS = frozenset(("text_delta", "input_json_delta", "thinking_delta", "signature_delta"))


def _is_known(document: Mapping[str, Any]) -> bool:
    """Whether an event without a piece has no content that another backend would need to continue the response."""
    kind = document.get("type")
    if kind == "content_block_start":
        return _is_known_block(document.get("content_block"))
    if kind == "content_block_delta":
        delta = document.get("delta")
        return isinstance(delta, dict) and isinstance(known := delta.get("type"), str) and known in _KNOWN_DELTAS
    return isinstance(kind, str) and kind in _KNOWN_EVENTS


def _is_known_block(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(kind := block.get("type"), str) and kind in _KNOWN_BLOCKS


class NativeResponsesReader(ResponsesReader):
    """Reads OpenAI's responses and keeps their events."""

    def event(self, event: Event) -> Iterator[Piece]:
        if event.data[:1] != b"{":
            yield from super().event(event)
            return
        document = json_object(event.data)
        piece = next(self.read(document), Piece())
        yield replace(piece, raw=event, opaque=not piece.has_content and not _is_known_response_event(document))

    def whole(self, document: Any) -> Iterator[Piece]:
        first, *rest = super().whole(document)
        opaque = not all(map(is_known_item, document["output"]))
        yield replace(first, raw=document, opaque=opaque)
        yield from rest


def _is_known_response_event(document: Mapping[str, Any]) -> bool:
    if document.get("type") == "response.output_item.added":
        return is_known_item(document.get("item"))
    return str(document.get("type")) in KNOWN_EVENTS


@dataclass(frozen=True)
class _NativeApi:
    """What is changed in the requests of an API, and how its responses are read."""

    limits: tuple[str, ...]
    """Names of the output limit; the first one is used where the backend's profile names none of them."""
    reader: Callable[[Call], Reader]
    limits_within: str = ""
    """The field whose object has the output limit; empty: the body itself."""
    asks_usage: bool = False
    """Whether a stream has its usage only when `stream_options` asks for it."""


_APIS: dict[ClientApi, _NativeApi] = {
    ClientApi.OPENAI_CHAT: _NativeApi(
        ("max_tokens", "max_completion_tokens"),
        lambda call: NativeChatReader(call.options.get("n") or 1),
        asks_usage=True,
    ),
    ClientApi.OPENAI_RESPONSES: _NativeApi(("max_output_tokens",), lambda _: NativeResponsesReader()),
    ClientApi.ANTHROPIC_MESSAGES: _NativeApi(("max_tokens",), lambda _: NativeMessagesReader()),
    ClientApi.OLLAMA_CHAT: _NativeApi(
        ("num_predict",), lambda _: NativeOllamaReader("message"), limits_within="options"
    ),
    ClientApi.OLLAMA_GENERATE: _NativeApi(("num_predict",), lambda _: NativeOllamaReader(), limits_within="options"),
}
