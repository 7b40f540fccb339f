"""Replicate's predictions (https://replicate.com/docs/reference/http, /docs/topics/predictions/streaming).

A stream takes two requests: one creates the prediction, and its response has the URL of the events. The key is sent to
that URL only when its host is Replicate's. Replicate's language models take one prompt: a conversation of several turns
is rendered as lines that begin with the role.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.providers.reported import read_error_body, reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import mended
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, Outgoing, Piece
from batuta_cli.serve.usage import plain

_SAME = ("temperature", "top_p", "seed")
OPTIONS = frozenset(_SAME)


def outgoing(call: Call, _profile: Profile) -> Outgoing:
    """The request that creates a prediction. Raises `BackendError` for a model that is not `owner/name`."""
    owner, _, name = call.model.partition("/")
    if not owner or not name or not set(call.model.removeprefix(owner + "/")).isdisjoint("/?#%"):
        raise BackendError("the model's name must be owner/name at Replicate", retryable=True, sent=False)
    system = "\n\n".join(m.content for m in call.messages if m.role in (Role.SYSTEM, Role.DEVELOPER))
    sampling = {name: call.options[name] for name in _SAME if call.options.get(name) is not None}
    inputs = {"prompt": _prompt(call.messages), "max_tokens": call.max_tokens, **sampling}
    if system:
        inputs["system_prompt"] = system
    body = {"input": inputs, "stream": call.stream}
    path = f"models/{call.model}/predictions"
    if call.stream:
        return Outgoing(path, body, headers={"Prefer": "respond-async"}, events_url=stream_url)
    return Outgoing(path, body, headers={"Prefer": "wait"})


def reader(_: Call) -> "PredictionReader":
    """The reader of the response."""
    return PredictionReader()


def _prompt(messages: tuple[ChatMessage, ...]) -> str:
    turns = [m for m in messages if m.role not in (Role.SYSTEM, Role.DEVELOPER)]
    if len(turns) == 1:
        return turns[0].content
    return "\n".join(f"{m.role.capitalize()}: {m.content}" for m in turns) + "\nAssistant:"


def stream_url(document: Any) -> str:
    """The URL of a prediction's events. Raises `BackendError` when its host is not Replicate's."""
    urls = document.get("urls") if isinstance(document, dict) else None
    url = urls.get("stream") if isinstance(urls, dict) else None
    if not isinstance(url, str):
        raise reported_error(document)
    parts = urlsplit(url)
    if parts.scheme != "https" or not (parts.hostname or "").endswith(".replicate.com"):
        raise BackendError("the backend names a stream URL on a host that is not Replicate's")
    return url


class PredictionReader(EndingReader):
    """Reads a prediction, or the events of its stream. The end is `done`, or a prediction that succeeded."""

    def event(self, event: Event) -> Iterator[Piece]:
        if self._ended:
            return
        if event.type == "output":
            yield Piece(event.data.decode(errors="replace"))
        elif event.type == "error":
            raise BackendError("the backend reports an error", reported=read_error_body(event.data))
        elif event.type == "done":
            if b'"reason"' in event.data:  # canceled, or error
                raise BackendError("the backend aborted its response")
            self._complete = self._ended = True
            yield Piece(finish_reason="stop")

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("status") != "succeeded":
            raise reported_error(document)
        metrics = document.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        usage = plain(metrics.get("input_token_count"), metrics.get("output_token_count"))
        text = _output(document.get("output"))
        self._complete = True
        yield Piece(text, finish_reason="stop", usage=usage)


def _output(output: object) -> str:
    """The text of a prediction. Raises `BackendError` for an output of another kind, such as a file."""
    text = ""
    for part in output if isinstance(output, list) else [output]:
        if part is not None and not isinstance(part, str):
            raise BackendError("the backend answered with an output that is not text")
        text += part or ""
    return str(mended(text))
