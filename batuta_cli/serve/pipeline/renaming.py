"""The model's name in what is relayed as it came: a client that asked for an alias gets the alias as the name.

The field `model` is part of the document, or of its `message` (Anthropic's `message_start`) or `response` (OpenAI's
responses). Events of other content are not read.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import encoded, json_object, mended
from batuta_cli.serve.providers.wire import Piece

_WITHIN = ("message", "response")


def renamed(piece: Piece, name: str) -> Piece:
    """The piece with the model called `name` in its raw form. Raises `BackendError`."""
    raw = piece.raw
    if isinstance(raw, Event):
        if b'"model"' not in raw.data:
            return piece
        return replace(piece, raw=Event(raw.type, encoded(mended(_renamed(json_object(raw.data), name)))))
    return piece if raw is None else replace(piece, raw=_renamed(raw, name))


def _renamed(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = dict(document)
    if "model" in found:
        found["model"] = name
    for key in _WITHIN:
        inner = found.get(key)
        if isinstance(inner, dict) and "model" in inner:
            found[key] = {**inner, "model": name}
    return found
