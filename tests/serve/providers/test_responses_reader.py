"""Responses of OpenAI's Responses API become pieces; malformed ones are errors of the backend."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.serve.providers.responses_reader import ResponsesReader
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Piece
from batuta_cli.serve.usage import Usage

USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 39,
}
COUNTED = Usage(30, 9, cached_tokens=20, cache_write_tokens=4, reasoning_tokens=5)
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"a": 1}'}
WHOLE: dict[str, Any] = {
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Sum."}], "content": None},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Hi."}, {"type": "refusal", "refusal": "No."}],
        },
        CALL,
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "***"},
        {"type": "web_search_call", "id": "ws_1"},
    ],
    "usage": USAGE,
}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_1"}},
    {"type": "response.output_text.delta", "delta": "Hi."},
    {"type": "response.reasoning_text.delta", "delta": "Hmm."},
    {"type": "response.reasoning_summary_text.delta", "delta": "Sum."},
    {"type": "response.refusal.delta", "delta": "No."},
    {"type": "response.output_item.added", "output_index": 2, "item": CALL | {"arguments": ""}},
    {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
    {"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "***"},
    {"type": "response.of_next_year", "thing": 1},
    {"type": "response.completed", "response": {"status": "completed", "usage": USAGE}},
]


def call(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})]}


def read(*documents: Any) -> list[Piece]:
    reader = ResponsesReader()
    return [piece for each in documents for piece in reader.event(Event("", json.dumps(each).encode()))]


def test_events_become_text_deltas_and_an_end() -> None:
    assert read(*EVENTS) == [
        Piece("Hi."),
        Piece(delta={"reasoning_content": "Hmm."}),
        Piece(delta={"reasoning_content": "Sum."}),
        Piece(delta={"refusal": "No."}),
        Piece(delta=call(2, "", "c1", "weather")),
        Piece(delta=call(2, '{"a"')),
        Piece(delta=call(3, "***")),
        Piece(finish_reason="stop", usage=COUNTED),
    ]


def test_a_whole_response_has_the_same_pieces() -> None:
    reader = ResponsesReader()
    assert list(reader.whole(WHOLE)) == [
        Piece(delta={"reasoning_content": "Sum."}),
        Piece("Hi."),
        Piece(delta={"refusal": "No."}),
        Piece(delta=call(2, '{"a": 1}', "c1", "weather")),
        Piece(delta=call(3, "***", "c2", "apply_patch")),
        Piece(finish_reason="stop", usage=COUNTED),
    ]
    assert reader.complete


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("new", "length")]
)
def test_an_incomplete_response_was_cut(reason: str, finish: str) -> None:
    response = {"status": "incomplete", "incomplete_details": {"reason": reason}, "usage": None}
    assert read({"type": "response.incomplete", "response": response}) == [Piece(finish_reason=finish)]  # type: ignore[arg-type]


def test_a_stream_without_its_end_is_incomplete() -> None:
    reader = ResponsesReader()
    list(reader.event(Event("", json.dumps(EVENTS[2]).encode())))
    assert not reader.complete


@pytest.mark.parametrize(
    "document",
    [
        {"type": "error", "code": "server_error", "message": "secret"},
        {"type": "error", "error": {"code": "server_error", "message": "secret"}},
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "secret"}}},
    ],
)
def test_a_failure_is_an_error_with_its_code_and_without_its_text(document: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="server_error") as raised:
        read(document)
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    "document", [None, [], {}, {"output": "x"}, WHOLE | {"error": {"code": "x"}}, WHOLE | {"status": "failed"}]
)
def test_a_whole_response_that_is_none_is_an_error(document: Any) -> None:
    with pytest.raises(BackendError):
        list(ResponsesReader().whole(document))


JUNK = [None, True, 0, 1.5, "", "x", [], {}, [None], {"type": "x"}, {"a": 1}]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@settings(max_examples=300)
@given(
    st.sampled_from([WHOLE, EVENTS]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, len(JUNK) - 1)), min_size=1, max_size=3),
)
def test_a_response_with_anything_wrong_anywhere_is_read_or_an_error_of_the_backend(
    original: Any, changes: list[tuple[int, int]]
) -> None:
    document = json.loads(json.dumps(original))
    for number, junk in changes:
        if found := places(document):
            container, key = found[number % len(found)]
            container[key] = json.loads(json.dumps(JUNK[junk]))
    with contextlib.suppress(BackendError):
        list(ResponsesReader().whole(document)) if original is WHOLE else read(*document)
