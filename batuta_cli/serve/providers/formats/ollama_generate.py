"""Ollama's `/api/generate` with a prompt that batuta renders, which streams JSON lines
(https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-completion).
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.providers.formats import completions
from batuta_cli.serve.providers.formats.completions import sampling
from batuta_cli.serve.providers.formats.openai_chat import missing
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import TextJoiner, json_object
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, Outgoing, Piece
from batuta_cli.serve.usage import plain

OPTIONS = completions.OPTIONS


def outgoing(call: Call, profile: Profile) -> Outgoing:
    """The request; with `raw` in the profile's fields Ollama applies no template to the prompt."""
    limit = {} if call.max_tokens is None else {"num_predict": call.max_tokens}
    options = {**sampling(call), **limit}
    body = {"model": call.model, "prompt": call.prompt + call.prefix, "stream": call.stream, "options": options}
    return Outgoing("/api/generate", body | profile.continuation.body)


def reader(_: Call) -> "OllamaReader":
    """The reader of the response."""
    return OllamaReader()


class OllamaReader(EndingReader):
    """Reads the objects of `/api/generate`. The end is `done`."""

    def __init__(self) -> None:
        super().__init__()
        self._text = TextJoiner()

    def event(self, event: Event) -> Iterator[Piece]:
        if not self._ended:
            yield from self._pieces(json_object(event.data))

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict):
            raise reported_error(document)
        if not document.get("error") and not isinstance(document.get("response"), str):
            raise missing(document, "the backend answered without a response")
        yield from self._pieces({"done": True} | document)
        if not self._complete:
            raise BackendError("the backend's response is not complete")

    def _pieces(self, document: dict[str, Any]) -> Iterator[Piece]:
        if document.get("error"):
            raise reported_error(document)
        text, done = document.get("response"), bool(document.get("done"))
        if text is not None and not isinstance(text, str):
            raise BackendError("the backend answered with a text that is not text")
        text = self._text.add(text or "", ended=done)
        if not done:
            yield Piece(text)
            return
        self._complete = self._ended = True
        usage = plain(document.get("prompt_eval_count"), document.get("eval_count"))
        yield Piece(text, finish_reason="length" if document.get("done_reason") == "length" else "stop", usage=usage)
