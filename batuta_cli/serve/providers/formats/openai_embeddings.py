"""OpenAI's embeddings (https://platform.openai.com/docs/api-reference/embeddings/create), the format of all backends
that have embeddings.
"""

from collections.abc import Iterator
from typing import Any

from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.providers.reported import reported_error
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, EndingReader, Outgoing, Piece
from batuta_cli.serve.usage import plain

OPTIONS = None


def outgoing(call: Call, _: Profile) -> Outgoing:
    """The request; a single input is sent as a list too."""
    return Outgoing("embeddings", {**call.options, "model": call.model, "input": list(call.inputs)})


def reader(call: Call) -> "EmbeddingsReader":
    """The reader of the response."""
    return EmbeddingsReader(len(call.inputs))


class EmbeddingsReader(EndingReader):
    """Reads a list of embeddings, which is never streamed."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self._inputs = inputs

    def event(self, event: Event) -> Iterator[Piece]:
        raise BackendError("the backend streamed embeddings")

    def whole(self, document: Any) -> Iterator[Piece]:
        if not isinstance(document, dict) or document.get("error"):
            raise reported_error(document)
        found = _by_index(document.get("data"))
        if sorted(found) != list(range(self._inputs)):
            raise BackendError(f"the backend answered with {len(found):,} embeddings for {self._inputs:,} inputs")
        usage = document.get("usage")
        counted = plain(usage.get("prompt_tokens"), 0) if isinstance(usage, dict) else None
        self._complete = True
        yield Piece(usage=counted, embeddings=tuple(found[index] for index in range(self._inputs)))


def _by_index(data: object) -> dict[int, list[float] | str]:
    """The embeddings by the index of their input; an entry without an index has that of its position."""
    found = {}
    for place, entry in enumerate(data if isinstance(data, list) else ()):
        embedding = entry.get("embedding") if isinstance(entry, dict) else None
        numbers = not isinstance(embedding, list) or set(map(type, embedding)) <= {int, float}
        if not isinstance(embedding, list | str) or not embedding or not numbers:
            raise BackendError("the backend answered with an entry without an embedding")
        index = entry.get("index")
        found[index if isinstance(index, int) else place] = embedding
    return found
