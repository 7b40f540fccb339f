"""OpenAI's `/completions` with a prompt that batuta renders: how some local backends continue a text exactly
(https://platform.openai.com/docs/api-reference/completions).
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.providers.formats.openai_chat import parsed, read_finish, reported, requested_choices
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, Outgoing, Piece
from batuta_cli.serve.usage import from_openai

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

    def event(self, event: Event) -> Iterator[Piece]:
        if event.data.strip() == b"[DONE]":
            self._complete = True
            return
        yield from self.whole(parsed(event.data))

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or "error" in document:
            raise reported(document)
        choices, usage = document.get("choices"), from_openai(document.get("usage"))
        requested = requested_choices(choices, 1)
        if not requested:
            if usage is None:
                raise BackendError("the backend answered without choices")
            yield Piece(usage=usage)
            return
        choice = requested[0][1]
        finish, text = read_finish(choice.get("finish_reason")), choice.get("text")
        self._complete = self._complete or finish is not None
        yield Piece(text if isinstance(text, str) else "", finish, usage)
