"""What an Ollama server reports about its models in `/api/tags`: sizes, digests, dates and details.

Clients of Ollama's API get them unchanged. A field of another type is left out
(https://github.com/ollama/ollama/blob/main/docs/api.md#list-local-models).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Details = Mapping[str, Any]
"""The known fields of one model."""

_LONGEST = 200  # characters of a text


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _are_details(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > _LONGEST:
        return False
    lists = [each for each in value.values() if isinstance(each, list)]
    texts = [
        *value,
        *(each for each in value.values() if not isinstance(each, list)),
        *(t for each in lists for t in each),
    ]
    return len(texts) <= _LONGEST and all(text is None or _is_text(text) for text in texts)


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "size": lambda value: type(value) is int and value >= 0,
    "digest": _is_text,
    "modified_at": _is_text,
    "details": _are_details,
}


def model_details(entries: Sequence[Mapping[str, Any]]) -> dict[str, Details]:
    """The details of each listed model, by its name."""
    return {
        entry["name"]: {name: entry[name] for name, holds in _FIELDS.items() if name in entry and holds(entry[name])}
        for entry in entries
        if _is_text(entry.get("name"))
    }
