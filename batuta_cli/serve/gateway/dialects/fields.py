"""Type checks for the fields of a request's JSON. A wrong field raises `HttpError` 400.

An error names the field and never quotes its value. The tables of fields are in `openai_fields.py` and
`anthropic_fields.py`; `treatment.py` applies them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from batuta_cli.errors import BatutaError
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.messages import ChatMessage, EmbeddingText
from batuta_cli.serve.providers.wire import NativeRequest
from batuta_cli.serve.routing.demands import NO_REACH, Reach

MOST_TOKENS = 10_000_000
"""Largest `max_tokens`; no model has a larger window."""
MOST_CHOICES = 16
_DEEPEST = 64  # levels of nesting in a tool's schema; encoders take more
_LONGEST_MODEL = 200
_MOST_STOPS = 16


@dataclass(kw_only=True, frozen=True, slots=True)
class ParsedRequest:
    """A client's request, independent of its dialect."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = True
    """Whether a stream ends with the usage."""
    options: Mapping[str, Any] | None = None
    dropped: tuple[str, ...] = ()
    """Fields that a translated request leaves out."""
    native_only: tuple[str, ...] = ()
    """Fields that only a backend with the client's own API has."""
    unknown: tuple[str, ...] = ()
    """Fields of `options` that no table knows."""
    reach: Reach = NO_REACH
    """What it makes a backend do beyond the generation of text."""
    document: Mapping[str, Any] | None = None
    """The body for backends that speak the dialect, where it differs from the client's."""
    left_out: tuple[str, ...] = ()
    """What the client sent and `document` does not have."""
    native: NativeRequest | None = None
    """The request as it came, for backends that speak its dialect."""
    inputs: tuple[EmbeddingText, ...] = ()
    """The texts of a request for embeddings, which has no messages."""
    ready: Mapping[str, Any] | None = None
    """The response to a request that needs no backend."""
    without_optional: "ParsedRequest | None" = None
    """The same request without what it can do without, for the case that no backend may take it as it is."""


class FieldType(NamedTuple):
    """A type of field: its description for errors, and its check."""

    description: str
    holds: Callable[[Any], bool]


def wrong(param: str, message: str, code: str = "invalid_type") -> HttpError:
    """The error for a wrong field."""
    return HttpError(400, code, f"{param} {message}", param=param)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises `HttpError`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:  # the text of the original error may quote the body
        raise HttpError(400, "invalid_json", "the body is not valid JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise HttpError(400, "invalid_json", "the body must be a JSON object")
    return document


def take(document: Mapping[str, Any], name: str, kind: FieldType) -> Any:
    """A field, None when it is missing or null. Raises `HttpError`."""
    value = document.get(name)
    if value is not None and not kind.holds(value):
        raise wrong(name, f"must be {kind.description}")
    return value


def take_model(document: Mapping[str, Any]) -> str:
    """The field `model`. Raises `HttpError`."""
    model = take(document, "model", TEXT)
    if not model:
        raise wrong("model", "is missing", "missing_field")
    if len(model) > _LONGEST_MODEL or not model.isprintable():
        raise wrong("model", "is not a valid model name", "invalid_value")
    return str(model)


def take_limit(document: Mapping[str, Any], name: str) -> int | None:
    """A field with a number of tokens. Raises `HttpError`."""
    value = take(document, name, LIMIT)
    if value is not None and not 1 <= value <= MOST_TOKENS:
        raise wrong(name, f"must be {LIMIT.description}", "invalid_value")
    return None if value is None else int(value)


def checked_messages(read: Callable[[], Any]) -> tuple[ChatMessage, ...]:
    """The messages. An error gives the number of the message and does not quote it."""
    try:
        return tuple(read())
    except BatutaError as error:
        raise HttpError(400, "invalid_messages", error.message, param="messages") from None


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _shallow(value: Any, levels: int = _DEEPEST) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, list) or (levels > 0 and all(_shallow(v, levels - 1) for v in value))


def _object(value: Any) -> bool:
    return isinstance(value, dict) and _shallow(value)


def _named(value: Any) -> bool:
    return (
        _object(value)
        and value.get("type") == "function"
        and isinstance(value.get("function"), dict)
        and isinstance(value["function"].get("name"), str)
    )


def _typed(value: Any) -> bool:
    return _object(value) and isinstance(value.get("type"), str)


def _tool(value: Any) -> bool:
    if _typed(value) and value["type"] != "function":  # a custom tool, or one that the service runs
        custom = value.get("custom")
        return value["type"] != "custom" or (isinstance(custom, dict) and isinstance(custom.get("name"), str))
    return (
        _named(value)
        and isinstance(value["function"].get("parameters") or {}, dict)
        and isinstance(value["function"].get("description") or "", str)
    )


TEXT = FieldType("a string", lambda v: isinstance(v, str))
BOOLEAN = FieldType("true or false", lambda v: isinstance(v, bool))
INTEGER = FieldType("a whole number", _integer)
LIMIT = FieldType(f"a whole number from 1 to {MOST_TOKENS:,}", _integer)
NUMBER = FieldType("a number", lambda v: _integer(v) or isinstance(v, float))
OBJECT = FieldType(f"an object of at most {_DEEPEST} levels", _object)
STOP = FieldType(
    f"a string, or a list of at most {_MOST_STOPS} strings",
    lambda v: isinstance(v, str) or (_texts(v) and len(v) <= _MOST_STOPS),
)
CHOICES = FieldType(f"a whole number from 1 to {MOST_CHOICES}", lambda v: _integer(v) and 1 <= v <= MOST_CHOICES)
ENCODING = FieldType("float or base64", lambda v: v in ("float", "base64"))
RESPONSE_FORMAT = FieldType("an object with a type", _typed)
TOOLS = FieldType(
    "a list of functions, each with a name, or of tools with another type",
    lambda v: isinstance(v, list) and len(v) > 0 and all(map(_tool, v)),
)
TOOL_CHOICE = FieldType(
    "none, auto, required, a function, or an object with another type",
    lambda v: v in ("none", "auto", "required") or (_typed(v) and (v["type"] != "function" or _named(v))),
)
OBJECTS = FieldType("a list of objects", lambda v: isinstance(v, list) and all(map(_object, v)))
