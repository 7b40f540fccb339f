"""Embeddings in OpenAI's API and in Ollama's: parses requests and writes responses. No I/O.

Inputs are texts, or lists of token ids in the model's own vocabulary, which are sent unchanged. `encoding_format` is
sent on; where a backend answers in the other encoding, the response is converted, so that the client gets what it asked
for. Ollama's routes always return numbers. Errors are `HttpError`.
"""

import base64
import binascii
import sys
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest, take_model, wrong
from batuta_cli.serve.gateway.dialects.ollama_fields import EMBED_FIELDS, EMBEDDINGS_FIELDS
from batuta_cli.serve.gateway.dialects.openai_fields import EMBEDDING_FIELDS
from batuta_cli.serve.gateway.dialects.replies import WholeReply
from batuta_cli.serve.gateway.dialects.treatment import TreatedFields, treat
from batuta_cli.serve.gateway.http_errors import ollama_error, openai_error
from batuta_cli.serve.messages import EmbeddingText
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.wire import BackendError, Piece

MOST_INPUTS = 2048
"""Texts of one request, as OpenAI limits them (https://platform.openai.com/docs/api-reference/embeddings/create)."""

_LARGEST_ID = 2**31 - 1


class Embeddings:
    """`POST /v1/embeddings`."""

    error = staticmethod(openai_error)
    api = None
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        return _parsed(document, treat(document, EMBEDDING_FIELDS), _inputs(document.get("input"), "input"))

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> WholeReply:
        return EmbeddingsReply(parsed)


class OllamaEmbed:
    """`POST /api/embed`."""

    error = staticmethod(ollama_error)
    api = None
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        fields = treat(document, EMBED_FIELDS)
        options: dict[str, Any] = {"encoding_format": "float"}
        if document.get("dimensions"):
            options |= {"dimensions": int(document["dimensions"])}
        return _parsed(document, fields, _inputs(document.get("input"), "input"), options)

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> WholeReply:
        return OllamaEmbedReply(parsed)


class OllamaEmbeddings:
    """`POST /api/embeddings`, the older form for one text."""

    error = staticmethod(ollama_error)
    api = None
    headers = frozenset[bytes]()
    personal = frozenset[str]()

    def read(self, document: dict[str, Any]) -> ParsedRequest:
        fields = treat(document, EMBEDDINGS_FIELDS)
        return _parsed(document, fields, _inputs(document.get("prompt"), "prompt"), {"encoding_format": "float"})

    def reply(self, parsed: ParsedRequest, name: str, created: int) -> WholeReply:
        return OllamaEmbeddingReply()


def _parsed(
    document: Mapping[str, Any],
    fields: TreatedFields,
    inputs: tuple[EmbeddingText, ...],
    options: Mapping[str, Any] | None = None,
) -> ParsedRequest:
    return ParsedRequest(
        model=take_model(document),
        messages=(),
        options={**fields.options, **(options or {})},
        inputs=inputs,
        dropped=fields.dropped,
        native_only=fields.native_only,
        unknown=fields.unknown,
    )


def _inputs(value: Any, name: str) -> tuple[EmbeddingText, ...]:
    if value is None:
        raise wrong(name, "is missing", "missing_field")
    several = isinstance(value, list) and not (value and all(map(_is_id, value)))
    inputs = value if several else [value]
    if not inputs:
        raise wrong(name, "has no text", "invalid_value")
    if len(inputs) > MOST_INPUTS:
        raise wrong(name, f"has more than {MOST_INPUTS:,} texts", "invalid_value")
    return tuple(_input(each, name) for each in inputs)


def _input(value: Any, name: str) -> EmbeddingText:
    if isinstance(value, str):
        if not value:
            raise wrong(name, "has an empty text", "invalid_value")
        if "\0" in value:
            raise wrong(name, "contains NUL, at which backends may cut the text", "invalid_value")
        return value
    if isinstance(value, list) and value and all(map(_is_id, value)):
        return tuple(value)
    raise wrong(name, "must be a string, a list of strings, or a list of token ids or of such lists")


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_ID


class EmbeddingsReply:
    """Writes OpenAI's list of embeddings."""

    def __init__(self, parsed: ParsedRequest) -> None:
        self._model = parsed.model
        self._write = _text if (parsed.options or {}).get("encoding_format") == "base64" else _numbers

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        data = [
            {"object": "embedding", "index": index, "embedding": self._write(embedding)}
            for index, embedding in enumerate(_embeddings(pieces))
        ]
        tokens = summary.tokens.input_tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return orjson.dumps({"object": "list", "data": data, "model": self._model, "usage": usage})


class OllamaEmbedReply:
    """Writes the response of `/api/embed`."""

    def __init__(self, parsed: ParsedRequest) -> None:
        self._model = parsed.model
        self._began = time.perf_counter_ns()

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        document = {
            "model": self._model,
            "embeddings": [_numbers(embedding) for embedding in _embeddings(pieces)],
            "total_duration": time.perf_counter_ns() - self._began,
            "prompt_eval_count": summary.tokens.input_tokens,
        }
        return orjson.dumps(document)


class OllamaEmbeddingReply:
    """Writes the response of `/api/embeddings`."""

    def whole(self, pieces: Sequence[Piece], summary: Summary) -> bytes:
        return orjson.dumps({"embedding": next(map(_numbers, _embeddings(pieces)))})


def _embeddings(pieces: Iterable[Piece]) -> list[list[float] | str]:
    return [embedding for piece in pieces for embedding in piece.embeddings]


def _numbers(embedding: list[float] | str) -> list[float]:
    """An embedding as numbers. Raises `BackendError` for base64 that has none."""
    if isinstance(embedding, list):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
        numbers = array("f", data)
    except (binascii.Error, ValueError):
        raise BackendError("the backend answered with an embedding that is not base64 of numbers") from None
    return _little_endian(numbers).tolist()


def _text(embedding: list[float] | str) -> str:
    """An embedding as base64 of little-endian numbers of four bytes. Raises `BackendError` for what are no numbers."""
    if isinstance(embedding, str):
        return embedding
    try:
        numbers = array("f", embedding)
    except (TypeError, OverflowError):
        raise BackendError("the backend answered with an embedding that is not a list of numbers") from None
    return base64.b64encode(_little_endian(numbers).tobytes()).decode()


def _little_endian(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
