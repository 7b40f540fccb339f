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
from batuta_cli.serve.providers.formats.anthropic_messages import MessagesReader
from batuta_cli.serve.providers.formats.openai_chat import EXTRA, ChatReader, parsed
from batuta_cli.serve.providers.ollama_reader import NativeOllamaReader
from batuta_cli.serve.providers.responses_reader import KNOWN_EVENTS, ResponsesReader, is_known_item
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import Call, Outgoing, Piece, Reader

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


_MESSAGE_FIELDS = frozenset(("role", "content", *EXTRA))


class NativeChatReader(ChatReader):
    """Reads OpenAI's chat completions and keeps their events."""

    def event(self, event: Event) -> Iterator[Piece]:
        if event.data.strip() == b"[DONE]":
            yield from super().event(event)
            return
        document = parsed(event.data)
        if text := self._plain_text(document, event.type):
            yield Piece(text, raw=event)
            return
        pieces = list(self.chunk(document, event.type))
        choices = document.get("choices") or ()
        if len(choices) > 1 or not _faithful(choices, pieces, "delta"):
            yield from pieces
            return
        piece = replace(pieces[0], usage=pieces[-1].usage) if pieces else Piece()
        yield replace(piece, raw=event, opaque=_is_opaque(choices, "delta"))

    def _plain_text(self, document: dict[str, Any], kind: str) -> str:
        """The text of an event that has nothing else, by far the most frequent one; else empty."""
        choices = document.get("choices")
        if self._halves or kind or document.get("usage") or "error" in document or type(choices) is not list:
            return ""
        choice = choices[0] if len(choices) == 1 else None
        delta = choice.get("delta") if type(choice) is dict else None
        if type(delta) is not dict or len(delta) != 1 or choice is None or choice.get("index") != 0:
            return ""
        text = delta.get("content")
        if choice.get("finish_reason") or choice.get("logprobs") or type(text) is not str or not _is_whole(text):
            return ""
        self._seen.add(0)
        return text

    def whole(self, document: Any) -> Iterator[Piece]:
        pieces = list(super().whole(document))
        choices = document["choices"]
        if _is_complete(document) and _faithful(choices, pieces, "message"):
            first = pieces[0] if pieces else Piece()
            pieces[:1] = [replace(first, raw=document, opaque=_is_opaque(choices, "message"))]
        yield from pieces


_REQUIRED = {"id": str, "object": str, "created": int, "model": str}
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def _is_complete(document: Mapping[str, Any]) -> bool:
    """Whether a response has the fields that OpenAI's API requires; some clients refuse a response without them."""
    usage = document.get("usage")
    counted = usage is None or (isinstance(usage, dict) and all(type(usage.get(name)) is int for name in _COUNTS))
    return counted and all(type(document.get(name)) is kind for name, kind in _REQUIRED.items())


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
        content = choice.get(part) or {}
        if not isinstance(content, dict):
            return False
        extra = {name: content[name] for name in EXTRA if content.get(name)}
        said = Piece(
            content.get("content") or "",
            choice.get("finish_reason") or None,
            None,
            extra or None,
            choice.get("index", place),
            choice.get("logprobs") or None,
        )
        if not (said.has_content or said.finish_reason):
            continue
        if not left or replace(left.pop(0), usage=None, stop=None) != said or not _are_regular(extra.get("tool_calls")):
            return False
    return not left


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
        document = parsed(event.data)
        delta = document.get("delta")
        if type(delta) is dict and delta.get("type") == "text_delta" and type(text := delta.get("text")) is str:
            yield Piece(text, raw=event)  # by far the most frequent event
            return
        piece = next(self.read(document), Piece())
        yield replace(piece, raw=event, opaque=not piece.has_content and not _is_known(document))

    def whole(self, document: Any) -> Iterator[Piece]:
        first, *rest = super().whole(document)
        opaque = not all(_is_known_block(block) for block in document["content"])
        yield replace(first, raw=document, opaque=opaque)
        yield from rest


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
        return isinstance(delta, dict) and delta.get("type") in _KNOWN_DELTAS
    return kind in _KNOWN_EVENTS


def _is_known_block(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") in _KNOWN_BLOCKS


class NativeResponsesReader(ResponsesReader):
    """Reads OpenAI's responses and keeps their events."""

    def event(self, event: Event) -> Iterator[Piece]:
        document = parsed(event.data)
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
