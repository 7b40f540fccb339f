"""The parts of tool calls get one index and one id a call, whatever their server wrote.

`tests/serve/gateway/test_imperfect_servers.py` has the faults of known servers, through the gateway.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.providers.tool_calls import MOST_CALLS, ToolCallReader
from batuta_cli.serve.providers.wire import BackendError


def joined(parts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found: dict[int, list[str]] = {}
    for part in parts:
        call = found.setdefault(part["index"], ["", ""])
        call[0] += part["function"].get("name", "")
        call[1] += part["function"]["arguments"]
    assert sorted(found) == list(range(len(found)))
    return [(name, arguments) for name, arguments in found.values()]


CALLS = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)),
    min_size=1,
    max_size=4,
)


@given(CALLS, st.booleans(), st.booleans(), st.integers(1, 9))
def test_calls_are_told_apart_by_index_or_by_id(calls: Any, with_index: bool, with_id: bool, size: int) -> None:
    reader, parts = ToolCallReader(), []
    for number, (name, arguments) in enumerate(calls):
        text = json.dumps(arguments)
        for at in range(0, len(text), size):
            part: dict[str, Any] = {"function": {"arguments": text[at : at + size]}}
            part |= {"index": number} if with_index else {"index": 0}
            if at == 0:
                part["function"]["name"] = name
                part |= {"id": f"id{number}"} if with_id else {}
            parts += reader.parts([part])
    parts += reader.end()
    assert joined(parts) == [(name, json.dumps(arguments)) for name, arguments in calls]
    ids = [part["id"] for part in parts if "id" in part]
    assert len(set(ids)) == len(calls)
    assert not with_id or ids == [f"id{number}" for number in range(len(calls))]


def test_a_call_whose_name_follows_its_id_is_held_back_until_then() -> None:
    reader = ToolCallReader()
    assert reader.parts([{"index": 0, "id": "a"}]) == []
    assert reader.parts([{"index": 0, "function": {"name": "f", "arguments": "{}"}}]) == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert reader.end() == []


@pytest.mark.parametrize(
    "value",
    [["x"], 5, [{"function": {"name": 5}}], [{"function": {"arguments": "{}"}}], [{"name": "f", "arguments": [1]}]],
)
def test_a_part_that_belongs_to_no_call_is_the_backends_error(value: Any) -> None:
    with pytest.raises(BackendError):
        ToolCallReader().parts(value)


def test_a_call_without_a_name_at_the_end_is_the_backends_error() -> None:
    reader = ToolCallReader()
    reader.parts([{"index": 0, "id": "a"}])
    with pytest.raises(BackendError, match="without a name"):
        reader.end()


def test_the_number_of_calls_is_bounded() -> None:
    reader = ToolCallReader()
    with pytest.raises(BackendError, match="more than 1,024 tool calls"):
        reader.parts([{"index": n, "function": {"name": "f", "arguments": "{}"}} for n in range(MOST_CALLS + 1)])
