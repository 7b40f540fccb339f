"""The events of a streamed response, in their order."""

from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.responses import Responses
from batuta_cli.serve.gateway.dialects.responses_input import encoded_reasoning
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.wire import BackendError, Piece
from tests.serve.gateway.support import RESPONSES, Response, ask

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "apply_patch"}


def streamed(tmp_path: Path, model: str, **more: Any) -> Response:
    return ask(tmp_path, RESPONSES, {"model": model, "input": "one two three", "stream": True} | more)


def brief(events: list[Any]) -> list[str]:
    """Each event by its type without the first word, its output index, and its delta."""
    lines = []
    for event in events:
        words = [event["type"].removeprefix("response."), str(event.get("output_index", "")), event.get("delta", "")]
        lines.append(" ".join(word for word in words if word))
    return lines


def test_a_text_is_announced_told_and_completed(tmp_path: Path) -> None:
    done = streamed(tmp_path, "echo")
    assert brief(done.events) == [
        "created",
        "in_progress",
        "output_item.added 0",
        "content_part.added 0",
        "output_text.delta 0 one ",
        "output_text.delta 0 two ",
        "output_text.delta 0 three",
        "output_text.done 0",
        "content_part.done 0",
        "output_item.done 0",
        "completed",
    ]
    assert done.events[7]["text"] == "one two three"
    assert done.complete


@pytest.mark.parametrize("model", ["echo", "tools", "thinking", "more", "custom", "refuses"])
def test_events_are_numbered_and_named(tmp_path: Path, model: str) -> None:
    done = streamed(tmp_path, model, tools=[PATCH])
    assert [event["sequence_number"] for event in done.events] == list(range(len(done.events)))
    names = [line.removeprefix("event: ") for line in done.body.decode().split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in done.events]
    assert len({event["response"]["id"] for event in done.events if "response" in event}) == 1
    ids = {event["output_index"]: event["item"]["id"] for event in done.events if event["type"].endswith("item.added")}
    assert all(event["item_id"] == ids[event["output_index"]] for event in done.events if "item_id" in event)
    assert len(set(ids.values())) == len(ids)


def test_reasoning_text_and_parallel_calls_are_items_of_their_own(tmp_path: Path) -> None:
    events = streamed(tmp_path, "thinking", tools=[WEATHER]).events
    assert brief(events)[2:] == [
        "output_item.added 0",
        "content_part.added 0",
        "reasoning_text.delta 0 I need ",
        "reasoning_text.delta 0 the weather.",
        "reasoning_text.done 0",
        "content_part.done 0",
        "output_item.done 0",
        "output_item.added 1",
        "content_part.added 1",
        "output_text.delta 1 Let me look.",
        "output_text.done 1",
        "content_part.done 1",
        "output_item.done 1",
        "output_item.added 2",
        'function_call_arguments.delta 2 {"city":',
        "output_item.added 3",
        'function_call_arguments.delta 2 "Łódź"}',
        "function_call_arguments.done 2",
        "output_item.done 2",
        "function_call_arguments.delta 3 {}",
        "function_call_arguments.done 3",
        "output_item.done 3",
        "completed",
    ]
    reasoning, message, first, second = events[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "I need the weather."}]
    assert "encrypted_content" not in reasoning
    assert message["content"][0]["text"] == "Let me look."
    assert (first["name"], first["call_id"], first["arguments"]) == ("weather", "call_1", '{"city":"Łódź"}')
    assert (second["name"], second["arguments"], second["status"]) == ("time", "{}", "completed")
    assert second["call_id"].startswith("call_")


def test_reasoning_is_a_summary_when_one_was_asked_for(tmp_path: Path) -> None:
    events = streamed(
        tmp_path, "thinking", reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"]
    ).events
    assert brief(events)[2:9] == [
        "output_item.added 0",
        "reasoning_summary_part.added 0",
        "reasoning_summary_text.delta 0 I need ",
        "reasoning_summary_text.delta 0 the weather.",
        "reasoning_summary_text.done 0",
        "reasoning_summary_part.done 0",
        "output_item.done 0",
    ]
    item = events[8]["item"]
    assert item["summary"] == [{"type": "summary_text", "text": "I need the weather."}]
    assert item["encrypted_content"] == encoded_reasoning("I need the weather.")


def test_a_custom_call_streams_its_text(tmp_path: Path) -> None:
    events = streamed(tmp_path, "custom", tools=[PATCH]).events
    assert brief(events)[2:] == [
        "output_item.added 0",
        "custom_tool_call_input.delta 0 *** Begin Patch\n+Ł",
        "custom_tool_call_input.delta 0 ód",
        'custom_tool_call_input.delta 0 ź "q"\n*** End Patch',
        "custom_tool_call_input.done 0",
        "output_item.done 0",
        "completed",
    ]
    (item,) = events[-1]["response"]["output"]
    assert {name: item[name] for name in ("type", "status", "call_id", "name", "input")} == {
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "apply_patch",
        "input": '*** Begin Patch\n+Łódź "q"\n*** End Patch',
    }


def test_a_call_of_a_namespaces_function_names_both(tmp_path: Path) -> None:
    space = {"type": "namespace", "name": "a", "description": "", "tools": [WEATHER]}
    reply = _reply(tools=[space])
    call = {"index": 0, "id": "c", "function": {"name": "a__weather", "arguments": "{}"}}
    events = reply.piece(Piece(delta={"tool_calls": [call]}))
    assert b'"name":"weather","namespace":"a"' in events


def test_a_search_for_tools_has_its_arguments_as_an_object() -> None:
    reply = _reply(tools=[{"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}])
    call = {"index": 0, "id": "c", "function": {"name": "tool_search", "arguments": '{"query":"git"}'}}
    pieces = [Piece(delta={"tool_calls": [call]}), Piece(finish_reason="tool_calls")]
    body = reply.whole(pieces, _summary())
    assert b'"type":"tool_search_call","status":"completed","call_id":"c","execution":"client"' in body
    assert b'"arguments":{"query":"git"}' in body


def test_a_refusal_is_a_part_of_its_own(tmp_path: Path) -> None:
    events = streamed(tmp_path, "refuses").events
    assert brief(events)[3:8] == [
        "content_part.added 0",
        "refusal.delta 0 I can",
        "refusal.delta 0 not.",
        "refusal.done 0",
        "content_part.done 0",
    ]
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot."}]


def test_log_probabilities_are_in_the_events_and_in_the_text(tmp_path: Path) -> None:
    events = streamed(tmp_path, "more", top_logprobs=1).events
    expected = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [expected, []]
    assert events[-1]["response"]["output"][1]["content"][0]["logprobs"] == expected


@pytest.mark.parametrize(
    "logprobs", [7, {"content": "x"}, {"content": [None, 1]}, {"content": [{"token": "a", "top_logprobs": 1.5}]}]
)
def test_malformed_log_probabilities_do_not_stop_the_text(logprobs: Any) -> None:
    assert b'"delta":"a"' in _reply().piece(Piece("a", logprobs=logprobs))


def test_a_response_that_breaks_fails_visibly_and_completes_nothing(tmp_path: Path) -> None:
    done = streamed(tmp_path, "break")
    last = done.events[-1]
    assert last["type"] == "response.failed"
    assert last["sequence_number"] == len(done.events) - 1
    assert (last["response"]["status"], last["response"]["error"]["code"]) == ("failed", "server_error")
    assert "the backend's stream ended" in last["response"]["error"]["message"]
    assert not [event for event in done.events if event["type"].endswith(".done")]
    assert not done.complete


def test_half_a_call_is_never_completed(tmp_path: Path) -> None:
    done = streamed(tmp_path, "cut-call", tools=[PATCH])
    assert [event["type"] for event in done.events][-2:] == [
        "response.custom_tool_call_input.delta",
        "response.failed",
    ]
    assert done.events[-1]["response"]["output"] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HttpError(429, "backend_busy", "busy"), "rate_limit_exceeded"),
        (HttpError(400, "context_length_exceeded", "too long"), "context_length_exceeded"),
        (HttpError(400, "refused_by_backend", "no"), "invalid_prompt"),
        (HttpError(502, "backend_error", "broken"), "server_error"),
    ],
)
def test_a_failed_response_has_a_code_that_clients_know(error: HttpError, code: str) -> None:
    assert f'"code":"{code}"'.encode() in _reply().broken(error, "an-id")


def test_a_call_without_a_name_is_an_error_of_the_backend() -> None:
    call = {"index": 0, "id": "c", "function": {"arguments": "{}"}}
    with pytest.raises(BackendError, match="without its name"):
        _reply().piece(Piece(delta={"tool_calls": [call]}))


def _reply(**fields: Any) -> Any:
    dialect = Responses()
    return dialect.reply(dialect.read({"model": "m", "input": "x", **fields}), "NAME", 0)


def _summary() -> Summary:
    return Summary(backend="b", input_tokens=1, output_tokens=1, exact=True, cost=0, budget_left=None, attempts=())
