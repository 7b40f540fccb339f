"""OpenAI's chat completions, which most backends speak.

Usage is always asked for (`stream_options.include_usage`); some send it in a chunk of its own with no choices, some
with the last chunk, some not at all.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, FinishReason, Outgoing, Piece
from batuta_cli.serve.usage import from_openai

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_GIVEN_UP = frozenset(("abort", "error", "cancelled", "canceled", "insufficient_system_resource"))
"""How vLLM, SGLang and services say that they did not finish the answer."""
_NOT_ASKED = "the backend answered with choices that were not asked for"
_EXTRA = ("tool_calls", "reasoning_content", "reasoning", "refusal", "function_call")


def outgoing(call: Call, continuation: dict[str, Any] | None = None, *, limit: str = "max_tokens") -> Outgoing:
    """The request; with a prefix, `continuation` has the fields by which the backend goes on with it.

    `limit` names the field for the most tokens of the answer. It is always sent: what a request can cost hangs on it.
    """
    messages = [m.to_dict() for m in call.messages]
    if call.prefix:
        messages.append({"role": "assistant", "content": call.prefix})
    body = {**call.options, "model": call.model, "messages": messages, "stream": call.stream}
    body[limit] = call.max_tokens
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    if call.prefix:
        body |= continuation or {}
    return Outgoing("chat/completions", body)


class ChatReader:
    """Reads `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._halves: dict[int, str] = {}
        self._foreign = False
        """There was a choice that was not asked for."""
        self._done = False

    @property
    def complete(self) -> bool:
        """After the `finish_reason` of every choice, or `[DONE]`."""
        return len(self._finished) >= self._choices or self._done

    def event(self, event: Event) -> Iterator[Piece]:
        if event.data.strip() == b"[DONE]":
            if self._foreign and not self._seen:
                raise BackendError(_NOT_ASKED)
            self._done = True
            return
        document = parsed(event.data)
        if event.type == "error" or "error" in document:
            raise reported(document)
        choices = asked_choices(document.get("choices"), self._choices)
        self._foreign |= bool(document.get("choices")) and not choices
        yield from self._pieces(document, choices, "delta")

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or "error" in document:
            raise reported(document)
        if not isinstance(document.get("choices"), list) or not document["choices"]:
            raise BackendError("the backend answered without choices")
        whole: dict[int, dict[str, Any]] = {}
        for index, choice in asked_choices(document["choices"], self._choices):
            whole.setdefault(index, choice)  # a second one with the same index is another answer, not its continuation
        if not whole:
            raise BackendError(_NOT_ASKED)
        yield from self._pieces(document, whole.items(), "message")

    def _pieces(
        self, document: dict[str, Any], choices: Iterable[tuple[int, dict[str, Any]]], part: str
    ) -> Iterator[Piece]:
        for index, choice in choices:
            self._seen.add(index)
            if piece := self._choice(index, choice, part):
                yield piece
        if usage := from_openai(document.get("usage")):
            yield Piece(usage=usage)

    def _choice(self, index: int, choice: dict[str, Any], part: str) -> Piece | None:
        content = choice.get(part)
        content = content if isinstance(content, dict) else {}
        text = content.get("content")
        extra = {name: content[name] for name in _EXTRA if content.get(name)}
        finish = read_finish(choice.get("finish_reason"))
        if finish:
            self._finished.add(index)
        text = self._joined(index, text if isinstance(text, str) else "", ended=bool(finish))
        logprobs = choice.get("logprobs")
        if not (text or extra or finish or logprobs):
            return None
        try:
            extra = mended(extra)
        except RecursionError:
            raise BackendError("the backend answered with JSON that is nested too deeply") from None
        return Piece(text, finish, None, extra or None, index, logprobs)

    def _joined(self, index: int, text: str, *, ended: bool) -> str:
        """The text, half a character at its end kept back for the other half."""
        text = self._halves.pop(index, "") + text
        if text.isascii():
            return text
        if not ended and "\ud800" <= text[-1] <= "\udbff":
            text, self._halves[index] = text[:-1], text[-1]
        whole: str = mended(text)
        return whole


def asked_choices(choices: object, most: int) -> list[tuple[int, dict[str, Any]]]:
    """Those of a document's choices that were asked for, each with its index, which is below `most`.

    A choice without an index has that of its place. One with any other index is left out: a client would take it for
    a further answer, and what is kept for each index would grow without end.
    """
    found = []
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            index = place if choice.get("index") is None else choice["index"]
            if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < most:
                found.append((index, choice))
    return found


def read_finish(reason: object) -> FinishReason | None:
    """Why an answer has ended; LocalAI has an empty reason while it has not.

    Raises `BackendError` when its backend gave it up.
    """
    if not reason:
        return None
    if not isinstance(reason, str):
        return "stop"
    if reason in _GIVEN_UP:
        raise BackendError("the backend gave up on its answer")
    return _FINISH.get(reason, "stop")


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of an event. Raises `BackendError`."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = _with_halves(data)
    if not isinstance(document, dict):
        raise BackendError("the backend sent an event that is no JSON object")
    return document


def _with_halves(data: bytes) -> object:
    """JSON that may have halves of characters, as servers cut them whose strings are UTF-16; None when it is none."""
    try:
        return json.loads(data) if b"\\u" in data else None
    except (ValueError, RecursionError):
        return None


def mended(value: Any) -> Any:
    """JSON without halves of characters: two of them are one, one alone is a replacement character."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [mended(each) for each in value]
    return {mended(name): mended(each) for name, each in value.items()} if isinstance(value, dict) else value


_REQUEST_FAULTS = frozenset(
    (
        "400",  # llama.cpp and vLLM write the status into `code`
        "413",
        "422",
        "BadRequestError",
        "context_length_exceeded",
        "exceed_context_size_error",
        "invalid_request_error",
        "request_too_large",
    )
)
"""Codes and types of an error in a response that say that the request is wrong (OpenAI, Anthropic, llama.cpp, vLLM)."""


def reported(document: object) -> BackendError:
    """The error that a backend reports; its text is not quoted, because it may quote the messages."""
    error = document.get("error") if isinstance(document, dict) else None
    code, kind = (error.get("code"), error.get("type")) if isinstance(error, dict) else (None, None)
    code = code or kind
    is_word = isinstance(code, str | int) and re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", str(code))
    shown = f" ({code})" if is_word else ""
    request_fault = str(code) in _REQUEST_FAULTS
    status = 400 if request_fault else None
    return BackendError(f"the backend reports an error{shown}", status=status, retryable=not request_fault)
