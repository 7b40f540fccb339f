"""OpenAI's chat completions and completions: parses requests and writes responses. No I/O.

A text chunk, by far the most frequent event, is assembled from bytes prepared once per stream, so only the JSON string
of its text is encoded. The prompt of `/v1/completions` becomes one user message, because the backends run chat models,
which need their template. Errors are `HttpError`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display
from batuta_cli.serve.backends.wire_formats import ClientApi
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
from batuta_cli.serve.gateway.dialects.openai_fields import CHAT_FIELDS, COMPLETION_FIELDS, with_chat_fields
from batuta_cli.serve.gateway.dialects.outside import reach_of
from batuta_cli.serve.gateway.dialects.replies import EventStreamReply, Reply, ReplyChoice, choices_of
from batuta_cli.serve.gateway.dialects.treatment import personal_fields, treat
from batuta_cli.serve.gateway.http_errors import HttpError, error_body, openai_error
from batuta_cli.serve.messages import ChatMessage, Role, parse_messages
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object, mended
from batuta_cli.serve.providers.wire import Piece
from batuta_cli.serve.usage import to_openai

DONE = b"data: [DONE]\n\n"
_NO_USAGE = b',"usage":null}'


_COMPLETION_ROWS = with_chat_fields(COMPLETION_FIELDS)


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    error = staticmethod(openai_error)
    api = ClientApi.OPENAI_CHAT
    headers = frozenset((b"openai-beta",))
    personal = personal_fields(CHAT_FIELDS)

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        model = take_model(document)
        fields = treat(document, CHAT_FIELDS)
        if document.get("messages") is None:
            raise wrong("messages", "is missing", "missing_field")
        messages = checked_messages(lambda: _conversation(document["messages"]))
        limit, old_limit = take_limit(document, "max_completion_tokens"), take_limit(document, "max_tokens")
        if limit is not None and old_limit is not None and limit != old_limit:
            raise wrong("max_tokens", "and max_completion_tokens differ; send one of them", "invalid_value")
        stream, usage = _streaming(document)
        return ParsedRequest(
            model=model,
            messages=messages,
            max_tokens=old_limit if limit is None else limit,
            stream=stream,
            include_usage=usage,
            options=fields.options,
            dropped=fields.dropped,
            native_only=(*fields.native_only, *_other_tools(document)),
            unknown=fields.unknown,
            reach=reach_of(document, "messages"),
        )

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return ChatReply(parsed, f"chatcmpl-{name}", created)


class Completions:
    """`POST /v1/completions`. No backend gets it as it came, because the prompt becomes a message."""

    error = staticmethod(openai_error)
    api = None
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        model = take_model(document)
        fields = treat(document, _COMPLETION_ROWS)
        prompt = document.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if prompt is None:
            raise wrong("prompt", "is missing", "missing_field")
        if not isinstance(prompt, str):
            raise wrong("prompt", "must be one string; send one request for each prompt")
        messages = checked_messages(lambda: [ChatMessage.user(prompt)])
        stream, usage = _streaming(document)
        return ParsedRequest(
            model=model,
            messages=messages,
            max_tokens=take_limit(document, "max_tokens"),
            stream=stream,
            include_usage=usage,
            options=fields.options,
            dropped=fields.dropped,
            native_only=fields.native_only,
            unknown=fields.unknown,
            reach=reach_of(document, "prompt"),
        )

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> Reply:
        return CompletionReply(parsed, f"cmpl-{name}", created)


def _other_tools(document: dict[str, Any]) -> list[str]:
    """The tools, and choices of tools, that only OpenAI's API has: all but functions."""
    choice = document.get("tool_choice")
    kinds = [tool["type"] for tool in document.get("tools") or ()]
    kinds += [choice["type"]] if isinstance(choice, dict) else []
    return list(dict.fromkeys(f"{display(kind[:60])} tools" for kind in kinds if kind != "function"))


def _conversation(document: object) -> list[ChatMessage]:
    messages = parse_messages(document, complete=True)
    for number, message in enumerate(messages, 1):
        if not isinstance(message.role, Role):
            raise InvalidInputError(f"message {number}: the role must be one of {', '.join(Role)}")
    return messages


def _streaming(document: dict[str, Any]) -> tuple[bool, bool]:
    """Whether to stream, and whether the stream ends with the usage."""
    stream = bool(take(document, "stream", BOOLEAN))
    options = take(document, "stream_options", OBJECT) or {}
    usage = options.get("include_usage")
    if usage is not None and not isinstance(usage, bool):
        raise wrong("stream_options.include_usage", "must be true or false")
    if options and not stream:
        raise wrong("stream_options", "is allowed only with stream", "invalid_value")
    return stream, bool(usage)


def _usage(summary: Summary) -> dict[str, Any]:
    return to_openai(summary.tokens)


class _Reply(EventStreamReply, ABC):
    """Shared by both APIs: the frame of a chunk and the end of a stream."""

    object: str
    chunk: str
    before_text: bytes
    after_text: bytes

    def __init__(self, parsed: ParsedRequest, name: str, created: int) -> None:
        self._with_usage = parsed.include_usage
        self._tail = (b'],"usage":null' if parsed.include_usage else b"]") + b"}\n\n"
        self._text_tail = self.after_text + b',"logprobs":null,"finish_reason":null}' + self._tail
        self._frame = {"id": name, "object": self.object, "created": created, "model": parsed.model}
        self._head = self._text_head = b""
        self._set_frame(self._frame)
        self._finished = False

    def _set_frame(self, frame: dict[str, Any]) -> None:
        self._head = b"data: " + orjson.dumps(frame | {"object": self.chunk})[:-1] + b',"choices":['
        self._text_head = self._head + b'{"index":0,' + self.before_text

    def piece(self, piece: Piece) -> bytes:
        if piece.delta is None and piece.finish_reason is None and piece.index == 0 and piece.logprobs is None:
            return self._text_head + orjson.dumps(piece.text) + self._text_tail if piece.text else b""
        self._finished = self._finished or (piece.finish_reason is not None and piece.index == 0)
        return self.other(piece)

    @abstractmethod
    def other(self, piece: Piece) -> bytes:
        """The events of a piece that is not plain text of the first choice."""

    def event(self, choice: dict[str, Any]) -> bytes:
        """A chunk with one choice."""
        return self._head + orjson.dumps(choice) + self._tail

    def end(self, summary: Summary) -> bytes:
        last = b"" if self._finished else self.other(Piece(finish_reason="stop"))
        if self._with_usage:
            last += self._head + b'],"usage":' + orjson.dumps(_usage(summary)) + b"}\n\n"
        return last + DONE

    def broken(self, error: HttpError, request_id: str) -> bytes:
        return b"data: " + error_body(openai_error, error, request_id) + b"\n\n"

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        choices = [
            {"index": index, **self.content(choice), "logprobs": choice.logprobs, "finish_reason": choice.finish_reason}
            for index, choice in choices_of(pieces).items()
        ]
        return orjson.dumps(self._frame | {"choices": choices, "usage": _usage(summary)})

    @abstractmethod
    def content(self, choice: ReplyChoice) -> dict[str, Any]:
        """The fields of a whole choice that hold its text."""


class ChatReply(_Reply):
    """Writes a `chat.completion` or a stream of `chat.completion.chunk`."""

    object = "chat.completion"
    chunk = "chat.completion.chunk"
    before_text = b'"delta":{"content":'
    after_text = b"}"

    def __init__(self, parsed: ParsedRequest, name: str, created: int) -> None:
        super().__init__(parsed, name, created)
        self._begun = {0}
        self._calls: dict[int, int] = {}
        self._relays = False
        """An event of a backend was relayed, so its id is the response's."""
        self._usage_told = False

    def piece(self, piece: Piece) -> bytes:
        return super().piece(piece) if piece.raw is None else self._relayed(piece)

    def _relayed(self, piece: Piece) -> bytes:
        """The backend's own event, without the usage when the client did not ask for it."""
        data = piece.raw.data if isinstance(piece.raw, Event) else b""
        if not self._relays:
            self._relays = True
            data = self._opened(data)
        self._begun.add(piece.index)
        self._finished = self._finished or (piece.finish_reason is not None and piece.index == 0)
        if self._with_usage:
            self._usage_told = self._usage_told or b'"usage":{' in data.replace(b" ", b"")
        elif data.endswith(_NO_USAGE):
            data = data.removesuffix(_NO_USAGE) + b"}"
        elif b'"usage"' in data:
            document = mended(json_object(data))
            if document.pop("usage", None) is not None and not document.get("choices"):
                return b""
            data = encoded(document)
        return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"

    def _opened(self, data: bytes) -> bytes:
        """The first event, with the fields of the frame and the role that it lacks: clients take both from it."""
        first = mended(json_object(data))
        frame = self._frame | {"object": self.chunk}
        lacking = {name: value for name, value in frame.items() if first.get(name) is None}
        self._set_frame(frame | {name: first[name] for name in frame.keys() - lacking.keys()})
        choices = first.get("choices") or [{}]
        delta = choices[0].get("delta")
        without_role = isinstance(delta, dict) and not delta.get("role")
        if without_role:
            delta["role"] = "assistant"
        return encoded(first | lacking) if lacking or without_role else data

    def end(self, summary: Summary) -> bytes:
        self._with_usage = self._with_usage and not self._usage_told
        return super().end(summary)

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        raw = next((piece.raw for piece in pieces if piece.raw is not None), None)
        if raw is None:
            return super().whole(pieces, summary)
        if isinstance(raw, Mapping) and not raw.get("usage"):
            raw = {**raw, "usage": _usage(summary)}
        return encoded(raw)

    def begin(self) -> bytes:
        return self._role(0)

    def _role(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return self.event({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def other(self, piece: Piece) -> bytes:
        delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
        if piece.delta:
            delta |= piece.delta
            if isinstance(delta.get("tool_calls"), list):
                delta["tool_calls"] = [self._numbered(call, piece.index) for call in delta["tool_calls"]]
        event = self.event(
            {"index": piece.index, "delta": delta, "logprobs": piece.logprobs, "finish_reason": piece.finish_reason}
        )
        if piece.index in self._begun:
            return event
        self._begun.add(piece.index)
        return self._role(piece.index) + event

    def _numbered(self, call: Any, choice: int) -> Any:
        # The official client joins the parts of a call by index; a backend that sends whole calls may omit it.
        if isinstance(call, dict) and not isinstance(call.get("index"), int):
            number = self._calls.get(choice, 0)
            self._calls[choice] = number + 1
            return {"index": number, **call}
        return call

    def content(self, choice: ReplyChoice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, **choice.more}
        if choice.calls.calls:
            message["tool_calls"] = choice.calls.calls
        if not choice.text and (choice.calls.calls or choice.more.get("refusal")):
            message["content"] = None
        return {"message": message}


class CompletionReply(_Reply):
    """Writes a `text_completion`, whole or as a stream."""

    object = chunk = "text_completion"
    before_text = b'"text":'
    after_text = b""

    def begin(self) -> bytes:
        return b""

    def other(self, piece: Piece) -> bytes:
        if not piece.text and piece.finish_reason is None:
            return b""
        return self.event(
            {"index": piece.index, "text": piece.text, "logprobs": None, "finish_reason": piece.finish_reason}
        )

    def content(self, choice: ReplyChoice) -> dict[str, Any]:
        return {"text": choice.text}
