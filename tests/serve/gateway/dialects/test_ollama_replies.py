"""Ollama's responses: one object, or a stream of JSON lines."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.ollama_replies import OllamaChatReply
from batuta_cli.serve.pipeline.request import AttemptReport, Summary
from batuta_cli.serve.providers.wire import BackendError, Piece
from tests.serve.gateway.support import OLLAMA_CHAT, OLLAMA_GENERATE, ask, chat


def ended() -> Summary:
    attempts = (AttemptReport("first", 0),)
    return Summary(
        backend="first", input_tokens=1, output_tokens=1, exact=True, cost=0, budget_left=None, attempts=attempts
    )


def asked(tmp_path: Path, model: str = "echo", text: str = "one two three", **more: Any) -> Any:
    return ask(tmp_path, OLLAMA_CHAT, chat(model, text, **more))


def test_a_whole_response_has_what_the_reference_lists_and_nothing_invented(tmp_path: Path) -> None:
    answer = asked(tmp_path, stream=False)
    body = answer.json
    assert dt.datetime.fromisoformat(body.pop("created_at").replace("Z", "+00:00")).tzinfo is not None
    assert body.pop("total_duration") > 0
    assert body == {
        "model": "echo",
        "message": {"role": "assistant", "content": "one two three"},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "eval_count": 3,
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-batuta-cost"] == "0.001234"


def test_a_stream_has_one_object_a_line_and_ends_with_counts_durations_and_cost(tmp_path: Path) -> None:
    answer = asked(tmp_path)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.complete
    *parts, last = answer.lines
    assert [part["message"]["content"] for part in parts] == ["one ", "two ", "three"]
    assert {part["done"] for part in parts} == {False}
    assert (last["message"], last["done"], last["done_reason"]) == (
        {"role": "assistant", "content": ""},
        True,
        "stop",
    )
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 3)
    assert last["total_duration"] >= last["prompt_eval_duration"] + last["eval_duration"] > 0
    assert "load_duration" not in last
    assert last["batuta"] == {"backend": "scripted", "cost_usd": "0.001234", "attempts": 2}


def test_generate_writes_the_text_into_response(tmp_path: Path) -> None:
    body = {"model": "echo", "prompt": "one two"}
    assert ask(tmp_path, OLLAMA_GENERATE, body | {"stream": False}).json["response"] == "one two"
    lines = ask(tmp_path, OLLAMA_GENERATE, body).lines
    assert [line["response"] for line in lines] == ["one ", "two", ""]
    assert lines[-1]["done"]
    thought = ask(tmp_path, OLLAMA_GENERATE, {"model": "more", "prompt": "Hi", "stream": False}).json
    assert (thought["thinking"], thought["response"]) == ("hmm yes", "ab")


CALLS = [
    {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Łódź"}}},
    {"id": "call_2", "function": {"index": 1, "name": "time", "arguments": {}}},
]


def test_tool_calls_are_whole_and_their_arguments_objects(tmp_path: Path) -> None:
    message = asked(tmp_path, "tools", stream=False).json["message"]
    assert message == {"role": "assistant", "content": "Let me look. ", "tool_calls": CALLS}
    lines = asked(tmp_path, "tools").lines
    assert [line["message"].get("tool_calls") for line in lines] == [None, CALLS, None]
    assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "stop")


def test_arguments_that_are_no_object_never_become_a_call(tmp_path: Path) -> None:
    whole = asked(tmp_path, "bad-tools", stream=False)
    assert (whole.status, whole.json) == (502, {"error": "the model's arguments for a tool are not a JSON object"})
    streamed = asked(tmp_path, "bad-tools")
    assert streamed.lines == [{"error": "the model's arguments for a tool are not a JSON object"}]
    assert not streamed.complete


def test_thinking_logprobs_and_a_cut_are_told(tmp_path: Path) -> None:
    logprobs = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    whole = asked(tmp_path, "more", stream=False).json
    assert whole["message"] == {"role": "assistant", "content": "ab", "thinking": "hmm yes"}
    assert (whole["done_reason"], whole["logprobs"]) == ("length", logprobs)
    *parts, last = asked(tmp_path, "more").lines
    assert [part["message"].get("thinking") for part in parts] == ["hmm ", "yes", None, None]
    assert [part.get("logprobs") for part in parts] == [None, None, logprobs, None]
    assert last["done_reason"] == "length"


def test_thinking_that_a_server_sends_under_two_names_is_written_once() -> None:
    reply = OllamaChatReply(ParsedRequest(model="m", messages=()))
    delta = {"reasoning_content": "hm", "reasoning": "hm"}
    assert reply.piece(Piece(delta=delta)).count(b"hm") == 1
    assert reply.whole([Piece(delta=delta)], ended()).count(b"hm") == 1


def test_a_stream_that_breaks_ends_with_an_error_line(tmp_path: Path) -> None:
    answer = asked(tmp_path, "break")
    assert answer.lines[-1] == {"error": "the backend's stream ended"}
    assert [line["message"]["content"] for line in answer.lines[:-1]] == ["half of "]
    assert not answer.complete


@pytest.mark.parametrize(
    ("model", "status"), [("over-budget", 402), ("private", 403), ("queue-full", 429), ("backend-500", 502)]
)
def test_a_refusal_has_its_status_and_an_error_in_words(tmp_path: Path, model: str, status: int) -> None:
    answer = asked(tmp_path, model)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)


def test_a_waiting_client_gets_an_object_without_text() -> None:
    reply = OllamaChatReply(ParsedRequest(model="m", messages=()))
    line = reply.waiting()
    assert line.endswith(b"\n")
    assert b'"content":""' in line
    assert b'"done":false' in line


def test_no_call_is_made_of_broken_arguments_at_the_end() -> None:
    reply = OllamaChatReply(ParsedRequest(model="m", messages=()))
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "[1]"}}
    assert reply.piece(Piece(delta={"tool_calls": [call]})) == b""
    with pytest.raises(BackendError):
        reply.end(ended())
