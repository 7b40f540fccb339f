"""OpenAI's chat completions, the format of most backends.

Streams ask for usage (`stream_options.include_usage`). Some backends send it in a chunk without choices, some in the
last chunk, some not at all. Responses whose meaning is plain despite a fault are mended: `tool_calls.py` and
`content_parts.py` list the faults, and a missing `finish_reason` is added at `[DONE]`, or to a whole response.
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import ContinuationMethod, Profile
from batuta_cli.serve.providers.content_parts import REASONING_NAMES, read_content
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import TextJoiner, json_object, mended
from batuta_cli.serve.providers.tool_calls import ToolCallReader
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, FinishReason, Outgoing, Piece
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
_NO_CHOICES = "the backend answered without choices"
_PARTS = {"delta": "message", "message": "delta"}
"""Where a choice holds its content, and where some servers put it instead."""


def outgoing(call: Call, profile: Profile) -> Outgoing:
    """The request; the profile has the output limit's name and the fields that continue a prefix."""
    messages = [m.to_dict() for m in call.messages]
    options = {name: call.options[name] for name in call.options if name not in left_out(profile)}
    if not profile.extensions:
        messages = [{name: m[name] for name in m if name not in REASONING_NAMES} for m in messages]
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


class ChatReader(EndingReader):
    """Reads `chat.completion` and `chat.completion.chunk`.

    Complete after the `finish_reason` of every choice, or `[DONE]`.
    """

    def __init__(self, choices: int = 1) -> None:
        super().__init__()
        self._most = choices
        self._choices: dict[int, _ChoiceReader] = {}
        self._foreign = False
        """There was a choice that was not requested."""

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended:
            return
        if event.data[:1] != b"{":
            if is_empty(event):
                return
            if is_done(event):
                if not self._choices:
                    raise BackendError(_NOT_REQUESTED if self._foreign else _NO_CHOICES)
                yield from self._finish()
                self._complete = self._ended = True
                return
        yield from self.chunk(json_object(event.data), event.type)

    def chunk(self, document: dict[str, Any], kind: str) -> Iterator[Piece]:
        """The pieces in the JSON object of one event of the type `kind`. Raises `BackendError`."""
        if kind == "error" or document.get("error"):
            raise reported_error(document)
        choices = requested_choices(document.get("choices"), self._most)
        if not choices:
            self._foreign |= bool(document.get("choices"))
        else:
            yield from self._pieces(choices, "delta")
        if usage := from_openai(document.get("usage")):
            yield Piece(usage=usage)

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("error"):
            raise reported_error(document)
        if not isinstance(document.get("choices"), list) or not document["choices"]:
            raise missing(document, _NO_CHOICES)
        whole: dict[int, dict[str, Any]] = {}
        for index, choice in requested_choices(document["choices"], self._most):
            whole.setdefault(index, choice)  # a second one with the same index is ignored
        if not whole:
            raise BackendError(_NOT_REQUESTED)
        yield from self._pieces(list(whole.items()), "message")
        yield from self._finish()
        if usage := from_openai(document.get("usage")):
            yield Piece(usage=usage)

    def note_text(self) -> bool:
        """Note a text of the first choice that is relayed as it came; False while half a character is held back."""
        reader = self._choices.get(0)
        if reader is None:
            reader = self._choices[0] = _ChoiceReader(0)
        reader.begun = True
        return reader.is_even

    def _pieces(self, choices: list[tuple[int, dict[str, Any]]], part: str) -> Iterator[Piece]:
        for index, choice in choices:
            reader = self._choices.get(index)
            if reader is None:
                reader = self._choices[index] = _ChoiceReader(index)
            if piece := reader.piece(choice, part):
                yield piece
            self._complete = self._complete or (
                reader.finished and sum(each.finished for each in self._choices.values()) >= self._most
            )

    def _finish(self) -> Iterator[Piece]:
        """The ends of the choices that have none."""
        for reader in self._choices.values():
            if not reader.finished:
                yield reader.end()
        self._complete = self._complete or len(self._choices) >= self._most


class _ChoiceReader:
    """Reads one choice."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._text = TextJoiner()
        self._reasoning = TextJoiner()
        self._calls = ToolCallReader()
        self.begun = False
        self.finished = False

    @property
    def is_even(self) -> bool:
        """Whether no half of a character of the text is held back."""
        return self._text.is_empty

    def piece(self, choice: dict[str, Any], part: str) -> Piece | None:
        """The piece in one document; None when it has nothing. Raises `BackendError`."""
        content = choice.get(part)
        if content is None and not self.begun:
            content = choice.get(_PARTS[part])
        finish = read_finish(choice.get("finish_reason"))
        logprobs = read_logprobs(choice.get("logprobs"))
        if isinstance(content, dict):
            text = content.get("content")
            plain = len(content) == 1 and finish is None and logprobs is None
            if plain and isinstance(text, str):  # by far the most frequent
                self.begun = True
                text = self._text.add(text)
                return Piece(text, index=self._index) if text else None
        elif content is not None:
            raise BackendError("the backend answered with a message that is not an object")
        stop = choice.get("stop_reason")  # vLLM's name of the stop sequence, or the number of a token
        return self._other(content or {}, finish, logprobs, stop if finish and isinstance(stop, str) else None)

    def end(self) -> Piece:
        """The end that the server left out."""
        piece = self._other({}, "stop", None, None)
        assert piece is not None  # noqa: S101 - it has a finish reason
        return piece

    def _other(
        self, content: dict[str, Any], finish: FinishReason | None, logprobs: Any, stop: str | None
    ) -> Piece | None:
        texts = read_content(content)
        calls = self._calls.parts(_calls_of(content))
        ended = finish is not None
        text = self._text.add(texts.text, ended=ended)
        delta: dict[str, Any] = {}
        if reasoning := self._reasoning.add(texts.reasoning, ended=ended):
            delta["reasoning_content"] = reasoning
        if texts.refusal:
            delta["refusal"] = mended(texts.refusal)
        if ended:
            calls += self._calls.end()
        if calls:
            delta["tool_calls"] = calls
        self.begun = self.begun or bool(text or delta)
        self.finished = self.finished or ended
        if finish == "stop" and self._calls.any:
            finish = "tool_calls"
        if not (text or delta or finish or logprobs):
            return None
        return Piece(
            text, finish_reason=finish, usage=None, delta=delta or None, index=self._index, logprobs=logprobs, stop=stop
        )


def _calls_of(content: dict[str, Any]) -> object:
    """The tool calls of a message; an old server's `function_call` is the only one."""
    if calls := content.get("tool_calls"):
        return calls
    function = content.get("function_call")
    return [{"index": 0, "function": function}] if isinstance(function, dict) and function else []


def is_done(event: Event) -> bool:
    """Whether an event marks the end of a stream in OpenAI's format."""
    return event.data.strip() == b"[DONE]"


def is_empty(event: Event) -> bool:
    """Whether an event has nothing: a ping, as some proxies send it, or no data."""
    return event.type == "ping" or event.data.strip() in (b"", b"null")


def missing(document: dict[str, Any], message: str) -> BackendError:
    """The error for a document without the expected part: the one that it reports, else `message`."""
    error = reported_error(document)
    return error if error.reported and error.reported.message else BackendError(message)


def read_logprobs(value: object) -> dict[str, Any] | None:
    """The log probabilities, which dialects join by their lists; other values than lists are dropped."""
    if not isinstance(value, dict):
        return None
    lists = {name: mended(each) for name, each in value.items() if isinstance(each, list)}
    return lists or None


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
