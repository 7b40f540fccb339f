"""OpenAI's `/completions` with a prompt that batuta renders: how some local backends continue a text exactly
(https://platform.openai.com/docs/api-reference/completions).
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.providers.formats.openai_chat import (
    is_done,
    is_empty,
    missing,
    read_finish,
    read_logprobs,
    requested_choices,
)
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import TextJoiner, json_object
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, Outgoing, Piece
from batuta_cli.serve.usage import from_openai

_NO_CHOICES = "the backend answered without choices"
_SAMPLING = ("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty")
OPTIONS = frozenset(_SAMPLING)


def outgoing(call: Call, _: Profile) -> Outgoing:
    """The request."""
    body = sampling(call) | {
        "model": call.model,
        "prompt": call.prompt + call.prefix,
        "max_tokens": call.max_tokens,
        "stream": call.stream,
    }
    if call.stream:
        body["stream_options"] = {"include_usage": True}
    return Outgoing("completions", body)


def reader(_: Call) -> "CompletionReader":
    """The reader of the response."""
    return CompletionReader()


def sampling(call: Call) -> dict[str, Any]:
    """The options of a call that raw completion has, too."""
    return {name: call.options[name] for name in _SAMPLING if call.options.get(name) is not None}


class CompletionReader(EndingReader):
    """Reads `text_completion` objects. The end is a `finish_reason`, or `[DONE]`."""

    def __init__(self) -> None:
        super().__init__()
        self._text = TextJoiner()
        self._begun = False

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended or is_empty(event):
            return
        if is_done(event):
            if not self._begun:
                raise BackendError(_NO_CHOICES)
            if not self._complete:
                yield Piece(self._text.add("", ended=True), finish_reason="stop")
            self._complete = self._ended = True
            return
        document = json_object(event.data)
        if event.type == "error" or document.get("error"):
            raise reported_error(document)
        yield from self._pieces(document)

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("error"):
            raise reported_error(document)
        yield from self._pieces(document)
        if not self._begun:
            raise missing(document, _NO_CHOICES)
        if not self._complete:
            yield Piece(self._text.add("", ended=True), finish_reason="stop")
            self._complete = True

    def _pieces(self, document: dict[str, Any]) -> Iterator[Piece]:
        usage = from_openai(document.get("usage"))
        requested = requested_choices(document.get("choices"), 1)
        if not requested:
            if usage:
                yield Piece(usage=usage)
            return
        self._begun = True
        choice = requested[0][1]
        finish, text = read_finish(choice.get("finish_reason")), choice.get("text")
        if text is not None and not isinstance(text, str):
            raise BackendError("the backend answered with a text that is not text")
        self._complete = self._complete or finish is not None
        text = self._text.add(text or "", ended=finish is not None)
        yield Piece(text, finish_reason=finish, usage=usage, logprobs=read_logprobs(choice.get("logprobs")))
