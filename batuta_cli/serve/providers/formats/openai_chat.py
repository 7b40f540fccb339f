"""OpenAI's chat completions, the format of most backends.

Streams ask for usage (`stream_options.include_usage`). Some backends send it in a chunk without choices, some in the
last chunk, some not at all.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from batuta_cli.serve.backends.profile import ContinuationMethod, Profile
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
"""Finish reasons of vLLM, SGLang and hosted services for a response that they aborted."""
REASONING = ("reasoning_content", "reasoning")
"""Fields of a message with the model's reasoning: the names of most servers, and of OpenRouter and newer vLLM."""
OPTIONS = None
SERVER_OPTIONS = frozenset((
    "add_generation_prompt", "cache_prompt", "cache_salt", "chat_template", "chat_template_kwargs",
    "continue_final_message", "documents", "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n",
    "dry_sequence_breakers", "dynatemp_exponent", "dynatemp_range", "enable_thinking", "grammar", "grammar_lazy",
    "grammar_triggers", "guided_choice", "guided_decoding_backend", "guided_grammar", "guided_json",
    "guided_regex", "guided_whitespace_pattern", "id_slot", "ignore_eos", "include_reasoning",
    "include_stop_str_in_output", "json_schema", "length_penalty", "lora", "min_keep", "min_tokens", "mirostat",
    "mirostat_eta", "mirostat_tau", "mm_processor_kwargs", "n_indent", "n_keep", "parse_tool_calls", "priority",
    "reasoning", "reasoning_format", "repeat_last_n", "repeat_penalty", "repetition_penalty", "return_progress",
    "return_token_ids", "samplers", "separate_reasoning", "skip_special_tokens",
    "spaces_between_special_tokens", "stop_token_ids", "structured_outputs", "thinking", "thinking_budget_tokens",
    "thinking_forced_open", "timings_per_token", "top_n_sigma", "truncate_prompt_tokens", "typical_p",
    "xtc_probability", "xtc_threshold",
))  # fmt: skip
"""Options of llama.cpp, vLLM, SGLang and hosts of open models."""
_EXTENSIONS = SERVER_OPTIONS | {"top_k", "min_p"}
"""Options that OpenAI's API does not have."""
_NOT_REQUESTED = "the backend answered with choices that were not requested"
EXTRA = ("tool_calls", "reasoning_content", "reasoning", "refusal", "function_call")
"""Fields of a message, beside its text, that become a piece's `delta`."""


def outgoing(call: Call, profile: Profile) -> Outgoing:
    """The request; the profile has the output limit's name and the fields that continue a prefix."""
    messages = [m.to_dict() for m in call.messages]
    options = {name: call.options[name] for name in call.options if name not in left_out(profile)}
    if not profile.extensions:
        messages = [{name: m[name] for name in m if name not in REASONING} for m in messages]
    if call.prefix:
        messages.append({"role": "assistant", "content": call.prefix})
    body = {**options, "model": call.model, "messages": messages, "stream": call.stream}
    if call.max_tokens is not None:
        body[profile.output_limit] = call.max_tokens
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    if call.prefix and profile.continuation.method is ContinuationMethod.FIELDS:
        body |= profile.continuation.body
    return Outgoing("chat/completions", body)


def left_out(profile: Profile) -> frozenset[str]:
    """The options that a backend with this profile does not take."""
    return frozenset() if profile.extensions else _EXTENSIONS


def reader(call: Call) -> "ChatReader":
    """The reader of the response."""
    return ChatReader(call.options.get("n") or 1)


class ChatReader:
    """Reads `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._halves: dict[int, str] = {}
        self._foreign = False
        """There was a choice that was not requested."""
        self._done = False

    @property
    def complete(self) -> bool:
        """After the `finish_reason` of every choice, or `[DONE]`."""
        return len(self._finished) >= self._choices or self._done

    def event(self, event: Event) -> Iterator[Piece]:
        if event.data.strip() == b"[DONE]":
            if self._foreign and not self._seen:
                raise BackendError(_NOT_REQUESTED)
            self._done = True
            return
        yield from self.chunk(parsed(event.data), event.type)

    def chunk(self, document: dict[str, Any], kind: str) -> Iterator[Piece]:
        """The pieces in the JSON object of one event of the type `kind`. Raises `BackendError`."""
        if kind == "error" or "error" in document:
            raise reported(document)
        choices = requested_choices(document.get("choices"), self._choices)
        self._foreign |= bool(document.get("choices")) and not choices
        yield from self._pieces(document, choices, "delta")

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or "error" in document:
            raise reported(document)
        if not isinstance(document.get("choices"), list) or not document["choices"]:
            raise BackendError("the backend answered without choices")
        whole: dict[int, dict[str, Any]] = {}
        for index, choice in requested_choices(document["choices"], self._choices):
            whole.setdefault(index, choice)  # a second one with the same index is ignored
        if not whole:
            raise BackendError(_NOT_REQUESTED)
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
        extra = {name: content[name] for name in EXTRA if content.get(name)}
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
        stop = choice.get("stop_reason")  # vLLM's name of the stop sequence, or the number of a token
        return Piece(
            text, finish, None, extra or None, index, logprobs, stop=stop if finish and isinstance(stop, str) else None
        )

    def _joined(self, index: int, text: str, *, ended: bool) -> str:
        """The text so far; a high surrogate at its end is held back until the low one arrives."""
        text = self._halves.pop(index, "") + text
        if text.isascii():
            return text
        if not ended and "\ud800" <= text[-1] <= "\udbff":
            text, self._halves[index] = text[:-1], text[-1]
        whole: str = mended(text)
        return whole


def requested_choices(choices: object, most: int) -> list[tuple[int, dict[str, Any]]]:
    """The choices of a document that were requested, each with its index, which is below `most`.

    A choice without an index has that of its position. A choice with any other index is left out: the client did not
    ask for it, and the memory for it would be unbounded.
    """
    found = []
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            index = place if choice.get("index") is None else choice["index"]
            if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < most:
                found.append((index, choice))
    return found


def read_finish(reason: object) -> FinishReason | None:
    """The normalised finish reason; LocalAI sends an empty one before the end.

    Raises `BackendError` when the backend aborted the response.
    """
    if not reason:
        return None
    if not isinstance(reason, str):
        return "stop"
    if reason in _GIVEN_UP:
        raise BackendError("the backend aborted its response")
    return _FINISH.get(reason, "stop")


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of an event. Raises `BackendError`."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = _with_halves(data)
    if not isinstance(document, dict):
        raise BackendError("the backend sent an event that is not a JSON object")
    return document


def _with_halves(data: bytes) -> object:
    """JSON with lone surrogates, as servers with UTF-16 strings send it; None when it is not JSON."""
    try:
        return json.loads(data) if b"\\u" in data else None
    except (ValueError, RecursionError):
        return None


def mended(value: Any) -> Any:
    """JSON with surrogate pairs joined; a lone surrogate becomes a replacement character."""
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
"""Error codes and types that mean an invalid request (OpenAI, Anthropic, llama.cpp, vLLM)."""


def reported(document: object) -> BackendError:
    """The error that a backend reports, without its text, which may quote the messages."""
    error = document.get("error") if isinstance(document, dict) else None
    code, kind = (error.get("code"), error.get("type")) if isinstance(error, dict) else (None, None)
    code = code or kind
    is_word = isinstance(code, str | int) and re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", str(code))
    shown = f" ({code})" if is_word else ""
    request_fault = str(code) in _REQUEST_FAULTS
    status = 400 if request_fault else None
    return BackendError(f"the backend reports an error{shown}", status=status, retryable=not request_fault)
