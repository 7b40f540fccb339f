"""Ollama's responses to `/api/chat` and `/api/generate`: one JSON object, or a stream of JSON lines.

Times are measured here: `total_duration` from the request to its end, `prompt_eval_duration` until the first token of a
stream, `eval_duration` from then on. `load_duration` is not known, and neither are the two others of a response that is
not streamed, so they are left out, as the official client's types allow. Tool calls are sent whole, before the end, as
Ollama sends them. The last object of a stream has the cost under `batuta`, which clients ignore.
"""

import datetime as dt
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.replies import Calls, choices_of, receipt_facts
from batuta_cli.serve.gateway.http_errors import HttpError, error_body, ollama_error
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object
from batuta_cli.serve.providers.wire import BackendError, Piece

_DONE_REASONS = {"tool_calls": "stop"}
"""Ollama's word for a finish reason, where it has another one."""

_THINKING = ("reasoning_content", "reasoning")
"""Two names of the same text; servers that send both send it twice."""


def timestamp() -> str:
    """The present time, as Ollama writes it (RFC 3339, UTC)."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class OllamaReply(ABC):
    """Shared by both routes: the frame of an object, and its end."""

    stream_type = b"application/x-ndjson"
    before_text: bytes
    after_text: bytes

    def __init__(self, parsed: ParsedRequest) -> None:
        self._model = parsed.model
        self._began = time.perf_counter_ns()
        self._first: int | None = None
        self._calls = Calls()
        self._reason = "stop"
        self._relayed_end: dict[str, Any] | None = None
        """The last object of a backend that is relayed."""
        self._head = b'{"model":' + orjson.dumps(parsed.model) + b',"created_at":"'
        self._text_head = b'",' + self.before_text

    @staticmethod
    @abstractmethod
    def content(text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields of an object that hold the response."""

    @classmethod
    def ready(cls, model: str, reason: str) -> dict[str, Any]:
        """The response to a request to load or to unload a model."""
        return _object(model, {**cls.content("", "", []), "done": True, "done_reason": reason})

    def waiting(self) -> bytes:
        """An object without text."""
        return self._line({**self.content("", "", []), "done": False})

    def begin(self) -> bytes:
        return b""

    def piece(self, piece: Piece) -> bytes:
        if self._first is None:
            self._first = time.perf_counter_ns()
        if isinstance(piece.raw, Event):
            return self._relayed(piece.raw, ends=piece.finish_reason is not None)
        if piece.finish_reason:
            self._reason = piece.finish_reason
        if piece.delta is None and piece.logprobs is None:
            if not piece.text:
                return b""
            return self._head + timestamp().encode() + self._text_head + orjson.dumps(piece.text) + self.after_text
        delta = piece.delta or {}
        self._calls.add(delta.get("tool_calls"))
        thinking, logprobs = _thinking(delta), _logprobs(piece.logprobs)
        if not (piece.text or thinking or logprobs):
            return b""
        return self._line({**self.content(piece.text, thinking, []), "done": False, **logprobs})

    def _relayed(self, line: Event, *, ends: bool) -> bytes:
        """The backend's own object; the last one is kept, because the cost is added to it."""
        if not ends:
            return line.data + b"\n"
        self._relayed_end = json_object(line.data)
        return b""

    def end(self, summary: Summary) -> bytes:
        if self._relayed_end is not None:
            return encoded(self._relayed_end | {"batuta": receipt_facts(summary)}) + b"\n"
        calls = _called(self._calls.calls)
        lines = self._line({**self.content("", "", calls), "done": False}) if calls else b""
        last = self.content("", "", []) | self._last(self._reason, summary) | {"batuta": receipt_facts(summary)}
        return lines + self._line(last)

    def receipt(self, summary: Summary) -> bytes:
        """The last object has it."""
        return b""

    def broken(self, error: HttpError, request_id: str) -> bytes:
        return error_body(ollama_error, error, request_id) + b"\n"

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        raw = next((piece.raw for piece in pieces if piece.raw is not None), None)
        if raw is not None:
            return encoded(raw)
        choice = choices_of(pieces)[0]
        content = self.content(choice.text, _thinking(choice.more), _called(choice.calls.calls))
        last = self._last(choice.finish_reason, summary)
        return orjson.dumps(_object(self._model, {**content, **_logprobs(choice.logprobs), **last}))

    def _last(self, reason: str, summary: Summary) -> dict[str, Any]:
        now, tokens = time.perf_counter_ns(), summary.tokens
        durations = {"total_duration": now - self._began}
        if self._first is not None:
            durations |= {"prompt_eval_duration": self._first - self._began, "eval_duration": now - self._first}
        counts = {"prompt_eval_count": tokens.input_tokens, "eval_count": tokens.output_tokens}
        return {"done": True, "done_reason": _DONE_REASONS.get(reason, reason), **durations, **counts}

    def _line(self, fields: Mapping[str, Any]) -> bytes:
        return orjson.dumps(_object(self._model, fields)) + b"\n"


class OllamaChatReply(OllamaReply):
    """Writes the objects of `/api/chat`."""

    before_text = b'"message":{"role":"assistant","content":'
    after_text = b'},"done":false}\n'

    @staticmethod
    def content(text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


class OllamaGenerateReply(OllamaReply):
    """Writes the objects of `/api/generate`."""

    before_text = b'"response":'
    after_text = b',"done":false}\n'

    @staticmethod
    def content(text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        return {"response": text} | ({"thinking": thinking} if thinking else {})


def _object(model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "created_at": timestamp(), **fields}


def _thinking(fields: Mapping[str, Any]) -> str:
    return next((value for name in _THINKING if isinstance(value := fields.get(name), str) and value), "")


def _logprobs(logprobs: Any) -> dict[str, Any]:
    found = logprobs.get("content") if isinstance(logprobs, dict) else None
    return {"logprobs": found} if found else {}


def _called(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tool calls in Ollama's form, whose arguments are an object."""
    return [
        {
            "id": call["id"],
            "function": {
                "index": index,
                "name": call["function"]["name"],
                "arguments": _arguments(call["function"]["arguments"]),
            },
        }
        for index, call in enumerate(calls)
    ]


def _arguments(text: str) -> dict[str, Any]:
    """The arguments as an object. Invalid arguments must not become a call without arguments."""
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise BackendError("the model's arguments for a tool are not a JSON object")
    return value
