"""The items of a response's output: their events are numbered, and the item that is told is the item that is kept."""

import json
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.responses_output import (
    CALL_ITEMS,
    COMPLETED,
    INCOMPLETE,
    EventNumbers,
    MessageItem,
    OutputItem,
    ReasoningItem,
    RelayedItem,
)
from batuta_cli.serve.gateway.dialects.responses_tools import DeclaredTool, ToolKind


def told(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: ")]


def types(data: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in told(data)]


def call_item(kind: ToolKind, namespace: str | None = None) -> Any:
    return CALL_ITEMS[kind](EventNumbers(), 0, "id_1", "call_1", DeclaredTool(kind, "lookup", namespace))


def test_events_are_numbered_from_zero_and_go_on_after_those_of_a_backend() -> None:
    numbers = EventNumbers()
    assert [event["sequence_number"] for event in told(numbers.event("a") + numbers.event("b"))] == [0, 1]
    numbers.pass_by(41)
    for no_number in (None, "7", True):
        numbers.pass_by(no_number)
    assert told(numbers.event("c"))[0]["sequence_number"] == 42


def test_a_message_tells_its_text_once_and_keeps_it() -> None:
    item = MessageItem(EventNumbers(), 3, "msg_1")
    data = item.begin() + item.add_text("Hel") + item.add_text('l"o') + item.end(COMPLETED)
    assert types(data) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    events = told(data)
    assert [event["sequence_number"] for event in events] == list(range(7))
    assert {event["output_index"] for event in events} == {3}
    assert "".join(event["delta"] for event in events if "delta" in event) == 'Hell"o'
    assert (events[0]["item"]["status"], events[0]["item"]["content"]) == ("in_progress", [])
    assert events[-1]["item"] == item.document()
    assert item.document()["content"] == [
        {"type": "output_text", "annotations": [], "logprobs": [], "text": 'Hell"o'},
    ]


def test_a_refusal_after_a_text_is_a_part_of_its_own() -> None:
    item = MessageItem(EventNumbers(), 0, "msg_1")
    data = item.begin() + item.add_text("Well,") + item.add_refusal("no") + item.end(INCOMPLETE)
    assert [event["content_index"] for event in told(data) if event["type"].endswith(".delta")] == [0, 1]
    assert item.document()["status"] == "incomplete"
    assert [part["type"] for part in item.document()["content"]] == ["output_text", "refusal"]
    assert item.document()["content"][1]["refusal"] == "no"


def test_log_probabilities_are_told_with_their_text_and_kept_with_the_part() -> None:
    item, found = MessageItem(EventNumbers(), 0, "msg_1"), [{"token": "Hi", "logprob": -0.5}]
    data = item.begin() + item.add_logprobs("Hi", found) + item.end(COMPLETED)
    assert [event["logprobs"] for event in told(data) if event["type"].endswith("text.delta")] == [found]
    assert item.document()["content"][0]["logprobs"] == found


@pytest.mark.parametrize(("summary", "place"), [(False, "content"), (True, "summary")])
def test_reasoning_is_where_the_client_asked_for_it(summary: bool, place: str) -> None:
    item = ReasoningItem(EventNumbers(), 0, "rs_1", summary=summary, encoded=True)
    data = item.begin() + item.add("Hm") + item.add("!") + item.end(COMPLETED)
    document = item.document()
    assert [part["text"] for part in document[place]] == ["Hm!"]
    assert "Hm!" not in document["encrypted_content"]
    assert told(data)[-1]["item"] == document
    assert "encrypted_content" not in ReasoningItem(EventNumbers(), 0, "r", summary=summary, encoded=False).document()


def test_the_arguments_of_a_function_are_told_and_kept() -> None:
    item = call_item(ToolKind.FUNCTION, "crm")
    data = item.begin() + item.add('{"a":') + item.add("1}") + item.end(COMPLETED)
    assert types(data)[1:-1] == ["function_call_arguments.delta"] * 2 + ["function_call_arguments.done"]
    assert item.document() == {
        "id": "id_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "lookup",
        "namespace": "crm",
        "arguments": '{"a":1}',
    }


def test_a_call_without_arguments_has_an_empty_object() -> None:
    item = call_item(ToolKind.FUNCTION)
    item.end(COMPLETED)
    assert item.document()["arguments"] == "{}"


def test_a_custom_call_has_its_text_and_a_search_its_object() -> None:
    custom = call_item(ToolKind.CUSTOM)
    data = custom.begin() + custom.add('{"input": "a\\n') + custom.add('b"}') + custom.end(COMPLETED)
    assert "".join(event["delta"] for event in told(data) if "delta" in event) == "a\nb"
    assert (custom.document()["type"], custom.document()["input"]) == ("custom_tool_call", "a\nb")
    for arguments, kept in (('{"goal": "x"}', {"goal": "x"}), ("", {}), ("not json", {"query": "not json"})):
        search = call_item(ToolKind.SEARCH)
        assert search.add(arguments) == b""
        search.end(COMPLETED)
        assert (search.document()["type"], search.document()["arguments"]) == ("tool_search_call", kept)
        assert "name" not in search.document()


def test_an_item_of_a_backend_is_kept_as_it_came() -> None:
    document = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
    item: OutputItem = RelayedItem(EventNumbers(), 0, document)
    assert item.close() == b""
    assert item.document() is document
