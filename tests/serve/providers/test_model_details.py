"""What an Ollama server tells of its models."""

from typing import Any

import pytest

from batuta_cli.serve.providers.model_details import model_details


def test_the_known_fields_are_kept_and_no_others() -> None:
    entry = {
        "name": "m",
        "size": 5,
        "digest": "ab",
        "details": {"format": "gguf", "families": ["a", "b"], "parent": None},
    }
    assert model_details([entry | {"remote_host": "x", "url": "http://10.0.0.1/"}]) == {
        "m": {name: entry[name] for name in ("size", "digest", "details")}
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1},
        {"size": True},
        {"size": "5"},
        {"digest": 7},
        {"digest": "a" * 201},
        {"details": []},
        {"details": {"a": {"b": 1}}},
        {"details": {"a": [["b"]]}},
        {"details": {"a": ["b"] * 201}},
        {"details": {str(n): "x" for n in range(201)}},
        {"modified_at": None},
    ],
)
def test_a_field_of_another_type_or_size_is_left_out(entry: dict[str, Any]) -> None:
    assert model_details([{"name": "m", **entry}]) == {"m": {}}


def test_an_entry_without_a_name_is_left_out() -> None:
    assert model_details([{}, {"name": 7}, {"name": "a" * 201}]) == {}
