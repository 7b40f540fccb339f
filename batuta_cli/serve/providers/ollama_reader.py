"""Reads the responses of Ollama's `/api/chat` and `/api/generate`, and keeps each object as it is in `Piece.raw`
(https://github.com/ollama/ollama/blob/main/docs/api.md).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from batuta_cli.serve.providers.formats.openai_chat import is_empty, read_logprobs
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object, mended
from batuta_cli.serve.providers.wire import BackendError, EndingReader, FinishReason, Piece
from batuta_cli.serve.usage import plain

_OLLAMA_MESSAGE = frozenset(("role", "content", "thinking", "tool_calls"))


class NativeOllamaReader(EndingReader):
    """Reads the objects of both routes. The end is `done`."""

    def __init__(self, inside: str = "") -> None:
        """`inside`: the field whose object has the response; empty: the object itself."""
        super().__init__()
        self._inside = inside
        self._calls = 0

    def event(self, event: Event) -> Iterator[Piece]:
        if not is_empty(event):
            yield replace(self._piece(json_object(event.data)), raw=event)

    def whole(self, document: Any) -> Iterator[Piece]:
        piece = self._piece(document)
        if not self._complete:
            raise BackendError("the backend's response has no end")
        yield replace(piece, raw=document)

    def _piece(self, document: Any) -> Piece:
        if not isinstance(document, dict) or document.get("error"):
            raise reported_error(document)
        content = document.get(self._inside) if self._inside else document
        content = content if isinstance(content, dict) else {}
        text = content.get("content" if self._inside else "response")
        delta = {"reasoning_content": mended(content["thinking"])} if isinstance(content.get("thinking"), str) else {}
        delta = {name: value for name, value in delta.items() if value}
        if isinstance(calls := content.get("tool_calls"), list) and calls:
            delta["tool_calls"] = list(map(self._call, calls))
        logprobs = read_logprobs({"content": document.get("logprobs")})
        finish: FinishReason | None = None
        if document.get("done"):
            self._complete = self._ended = True
            finish = "tool_calls" if self._calls else "length" if document.get("done_reason") == "length" else "stop"
        return Piece(
            mended(text) if isinstance(text, str) else "",
            finish_reason=finish,
            usage=plain(document.get("prompt_eval_count"), document.get("eval_count")),
            delta=delta or None,
            logprobs=logprobs,
            opaque=bool(self._inside) and any(content[name] for name in content.keys() - _OLLAMA_MESSAGE),
        )

    def _call(self, call: Any) -> dict[str, Any]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BackendError("the backend answered with a tool call without a function")
        index, self._calls = self._calls, self._calls + 1
        arguments = encoded(mended(function.get("arguments") or {})).decode()
        return {"index": index, "function": {"name": function.get("name"), "arguments": arguments}}
