"""Reading a request's JSON: every field that is used has its type checked here, and what is wrong is a `HttpError`.

What a client sends is never quoted in an error, only the name of the field. `CHAT_OPTIONS` lists the fields that are
passed on to a backend; a field that is in no table is ignored, as the services themselves ignore what they do not
know. Not passed on on purpose: `store` and `metadata` (they would keep a conversation elsewhere) and `service_tier`
(it changes the price).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from batuta_cli.errors import BatutaError
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.messages import ChatMessage

MOST_TOKENS = 10_000_000
"""More than any model's window; a larger `max_tokens` is a mistake."""
MOST_CHOICES = 16
_DEEPEST = 64  # levels of a tool's schema, far from what makes an encoder fail
_LONGEST_MODEL = 200
_MOST_STOPS = 16


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What a client asks for, whatever shape it asked in."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = True
    """Whether a stream ends with the usage."""
    options: Mapping[str, Any] | None = None


class FieldType(NamedTuple):
    """What a field may be."""

    words: str
    holds: Callable[[Any], bool]


def wrong(param: str, message: str, code: str = "invalid_type") -> HttpError:
    """The refusal of a field."""
    return HttpError(400, code, f"{param} {message}", param)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises `HttpError`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:  # its text may quote the body
        raise HttpError(400, "invalid_json", "the body is not valid JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise HttpError(400, "invalid_json", "the body must be a JSON object")
    return document


def take(document: Mapping[str, Any], name: str, kind: FieldType) -> Any:
    """A field, None when it is missing or null. Raises `HttpError`."""
    value = document.get(name)
    if value is not None and not kind.holds(value):
        raise wrong(name, f"must be {kind.words}")
    return value


def take_model(document: Mapping[str, Any]) -> str:
    """The model asked for."""
    model = take(document, "model", TEXT)
    if not model:
        raise wrong("model", "is missing", "missing_field")
    if len(model) > _LONGEST_MODEL or not model.isprintable():
        raise wrong("model", "is not the name of a model", "invalid_value")
    return str(model)


def take_limit(document: Mapping[str, Any], name: str) -> int | None:
    """A number of tokens."""
    value = take(document, name, INTEGER)
    if value is not None and not 1 <= value <= MOST_TOKENS:
        raise wrong(name, f"must be from 1 to {MOST_TOKENS}", "invalid_value")
    return None if value is None else int(value)


def take_options(document: Mapping[str, Any], table: Mapping[str, FieldType]) -> dict[str, Any]:
    """The fields of a table that are there."""
    return {
        name: take(document, name, table[name])
        for name, value in document.items()
        if value is not None and name in table
    }


def refuse_fields(document: Mapping[str, Any], table: Mapping[str, str]) -> None:
    """Raise `HttpError` when a field is used that would change the answer and cannot be had."""
    for name, reason in table.items():
        if document.get(name):
            raise wrong(name, reason, "unsupported_field")


def checked_messages(read: Callable[[], Any]) -> tuple[ChatMessage, ...]:
    """The messages; what is wrong in them is told by number, not quoted."""
    try:
        return tuple(read())
    except BatutaError as error:
        raise HttpError(400, "invalid_messages", error.message, "messages") from None


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


def _tool(value: Any) -> bool:
    return (
        _named(value)
        and isinstance(value["function"].get("parameters") or {}, dict)
        and isinstance(value["function"].get("description") or "", str)
    )


TEXT = FieldType("text", lambda v: isinstance(v, str))
BOOLEAN = FieldType("true or false", lambda v: isinstance(v, bool))
INTEGER = FieldType("a whole number", _integer)
NUMBER = FieldType("a number", lambda v: _integer(v) or isinstance(v, float))
OBJECT = FieldType(f"an object of at most {_DEEPEST} levels", _object)
STOP = FieldType(
    f"text, or a list of at most {_MOST_STOPS} texts",
    lambda v: isinstance(v, str) or (_texts(v) and len(v) <= _MOST_STOPS),
)

CHAT_OPTIONS: dict[str, FieldType] = {
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": INTEGER,
    "min_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "logit_bias": OBJECT,
    "logprobs": BOOLEAN,
    "top_logprobs": INTEGER,
    "n": FieldType(f"a whole number from 1 to {MOST_CHOICES}", lambda v: _integer(v) and 1 <= v <= MOST_CHOICES),
    "seed": INTEGER,
    "stop": STOP,
    "user": TEXT,
    "response_format": FieldType("an object with a type", lambda v: _object(v) and isinstance(v.get("type"), str)),
    "reasoning_effort": TEXT,
    "verbosity": TEXT,
    "tools": FieldType(
        "a list of functions, each with a name", lambda v: isinstance(v, list) and len(v) > 0 and all(map(_tool, v))
    ),
    "tool_choice": FieldType(
        "none, auto, required or a function", lambda v: _named(v) or v in ("none", "auto", "required")
    ),
    "parallel_tool_calls": BOOLEAN,
}
"""Fields of a chat completion that are passed on (https://platform.openai.com/docs/api-reference/chat/create);
`top_k` and `min_p` are what local servers add to them."""

COMPLETION_OPTIONS = {
    name: CHAT_OPTIONS[name]
    for name in (
        "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "n", "seed",
        "stop", "user",
    )
}  # fmt: skip
"""Those of a completion."""

CHAT_REFUSED = {
    "functions": "has been replaced by tools",
    "function_call": "has been replaced by tool_choice",
    "audio": "is not supported; batuta handles text alone",
    "web_search_options": "is not supported",
}
"""Fields that a client must not believe to have had an effect, and why they have none."""

COMPLETION_REFUSED = {
    "suffix": "is not supported",
    "echo": "is not supported",
    "logprobs": "is not supported; chat completions have it",
}
