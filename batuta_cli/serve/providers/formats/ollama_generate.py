"""Ollama's `/api/generate` with a prompt that batuta renders, which streams JSON lines
(https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-completion).
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.providers.formats import completions
from batuta_cli.serve.providers.formats.completions import sampling
from batuta_cli.serve.providers.formats.openai_chat import parsed, reported
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import Call, EndingReader, Outgoing, Piece
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

    def event(self, event: Event) -> Iterator[Piece]:
        yield from self.whole(parsed(event.data))

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or "error" in document:
            raise reported(document)
        text = document.get("response")
        text = text if isinstance(text, str) else ""
        if not document.get("done"):
            yield Piece(text)
            return
        self._complete = True
        usage = plain(document.get("prompt_eval_count"), document.get("eval_count"))
        yield Piece(text, "length" if document.get("done_reason") == "length" else "stop", usage)
