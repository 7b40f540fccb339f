"""JSON of backends, read with tolerance: what can be sent on is accepted, also where the standard forbids it.

Servers with UTF-16 strings send lone surrogates, servers that stream bytes cut characters, and `logprobs` may have
`-Infinity` (RFC 8259 allows none of them). orjson reads valid JSON; for the rest the `json` module is used. Every
string that leaves this module can be encoded as UTF-8, after `mended` or through a `TextJoiner`.
"""

import json
from typing import Any

import orjson

from batuta_cli.serve.providers.wire import BackendError

DEEPEST = 32
"""Levels of nesting that are relayed; orjson encodes 254 (https://github.com/ijl/orjson)."""

DEEPEST_DOCUMENT = 250
"""Levels of nesting of a whole document that is relayed."""

_MOST_DIGITS = 18  # of a whole number that certainly fits 64 bits, the most that orjson encodes


def json_value(data: bytes) -> Any:
    """A JSON value, mended. Raises `BackendError`."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return mended(_tolerated(data), DEEPEST_DOCUMENT)


def _tolerated(data: bytes) -> Any:
    """JSON that the standard forbids; it may have lone surrogates. Raises `BackendError`."""
    try:
        return json.loads(_text(data), parse_int=_whole_number)
    except (ValueError, RecursionError):
        raise BackendError("the backend's response is not JSON") from None


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object of an event, in which a text may end with half a character. Raises `BackendError`."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            document = _tolerated(data)
        except BackendError:
            document = None
    if not isinstance(document, dict):
        raise BackendError("the backend sent an event that is not a JSON object")
    return document


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "replace")


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def mended(value: Any, levels: int = DEEPEST) -> Any:
    """JSON with surrogate pairs joined; a lone surrogate becomes a replacement character.

    Raises `BackendError` for more than `levels` of nesting.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list | dict) and not levels:
        raise BackendError("the backend answered with JSON that is nested too deeply")
    if isinstance(value, list):
        return [mended(each, levels - 1) for each in value]
    if isinstance(value, dict):
        return {mended(name): mended(each, levels - 1) for name, each in value.items()}
    return value


def encoded(document: Any) -> bytes:
    """A backend's document as JSON. Raises `BackendError` when it is nested too deeply."""
    try:
        return orjson.dumps(document)
    except TypeError:
        raise BackendError("the backend answered with JSON that is nested too deeply") from None


class TextJoiner:
    """Joins the parts of one text whose characters may be split: "\\ud83d" in one event and "\\ude00" in the next."""

    def __init__(self) -> None:
        self._half = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held back."""
        return not self._half

    def add(self, text: str, *, ended: bool = False) -> str:
        """The text that can be sent on; a high surrogate at its end is held back unless `ended`."""
        if self._half:
            text, self._half = self._half + text, ""
        if text.isascii():
            return text
        if not ended and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        whole: str = mended(text)
        return whole
