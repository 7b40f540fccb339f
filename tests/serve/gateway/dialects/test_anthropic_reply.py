"""Anthropic's responses: a message, or the events of its stream."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.gateway.dialects.anthropic_reply import MessageReply
from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.formats.anthropic_messages import MessagesReader
from batuta_cli.serve.providers.sse import EventScanner
from batuta_cli.serve.providers.wire import BackendError, Piece
from tests.serve.gateway.support import MESSAGES, ask, message

PIECES = st.lists(
    st.builds(Piece, st.text())
    | st.integers(0, 2).map(
        lambda i: Piece(delta={"tool_calls": [{"index": i, "id": f"c{i}", "function": {"name": f"f{i}"}}]})
    ),
    max_size=8,
)


def finished() -> Summary:
    return Summary(backend="b", input_tokens=5, output_tokens=6, exact=True, cost=0, budget_left=None, attempts=())


def test_an_answer_has_what_the_reference_lists(tmp_path: Path) -> None:
    body = ask(tmp_path, MESSAGES, message(text="Hello there")).json
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "echo",
        "content": [{"type": "text", "text": "Hello there"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 2, "output_tokens": 2},
    }


@pytest.mark.parametrize(
    ("model", "reason"), [("echo", "end_turn"), ("more", "max_tokens"), ("tools", "tool_use"), ("filtered", "refusal")]
)
def test_the_reason_of_an_end_is_named_in_anthropics_words(tmp_path: Path, model: str, reason: str) -> None:
    assert ask(tmp_path, MESSAGES, message(model)).json["stop_reason"] == reason
    events = ask(tmp_path, MESSAGES, message(model, stream=True)).events
    assert [e["delta"]["stop_reason"] for e in events if e["type"] == "message_delta"] == [reason]


def test_a_stream_has_the_events_in_their_order(tmp_path: Path) -> None:
    done = ask(tmp_path, MESSAGES, message("tools", stream=True))
    events = done.events
    assert [f"{e['type']} {e.get('index', '')}".strip() for e in events] == [
        "message_start",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_delta 1",
        "content_block_stop 1",
        "content_block_start 2",
        "content_block_delta 2",
        "content_block_stop 2",
        "message_delta",
        "message_stop",
    ]
    names = [line.removeprefix("event: ") for line in done.body.decode().split("\n") if line.startswith("event: ")]
    assert names == [e["type"] for e in events]
    assert events[4]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
    parts = [e["delta"]["partial_json"] for e in events if e.get("index") == 1 and "delta" in e]
    assert json.loads("".join(parts)) == {"city": "Łódź"}
    assert events[-2]["usage"] == {"input_tokens": 3, "output_tokens": 1}
    assert done.complete


def test_tool_calls_of_a_whole_answer_have_their_input_as_an_object(tmp_path: Path) -> None:
    content = ask(tmp_path, MESSAGES, message("tools")).json["content"]
    assert content == [
        {"type": "text", "text": "Let me look. "},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Łódź"}},
        {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
    ]


def test_arguments_that_are_no_json_are_an_error_not_a_call_without_any(tmp_path: Path) -> None:
    done = ask(tmp_path, MESSAGES, message("bad-tools"))
    assert (done.status, done.error["type"]) == (502, "api_error")


def test_a_stream_that_breaks_ends_in_anthropics_error_event(tmp_path: Path) -> None:
    done = ask(tmp_path, MESSAGES, message("break", stream=True), headers={"x-request-id": "of-the-client"})
    assert done.events[-1]["type"] == "error"
    assert done.events[-1]["error"]["type"] == "api_error"
    assert done.events[-1]["request_id"] == "of-the-client"
    assert "message_stop" not in done.body.decode()
    assert "message_delta" not in done.body.decode()
    assert not done.complete


@given(PIECES)
def test_what_is_written_is_what_our_own_reader_of_anthropics_streams_reads(pieces: list[Piece]) -> None:
    calls = [p.delta["tool_calls"][0]["index"] for p in pieces if p.delta]
    ordered = sorted(set(calls))
    pieces.sort(key=lambda p: p.delta["tool_calls"][0]["index"] if p.delta else -1)
    reply = MessageReply(ParsedRequest(model="m", messages=(), max_tokens=1), "msg_x")
    summary = Summary(
        backend="b",
        input_tokens=5,
        output_tokens=6,
        exact=True,
        cost=0,
        budget_left=None,
        attempts=(),
    )
    data = reply.begin() + b"".join(map(reply.piece, pieces)) + reply.end(summary)
    reader, scanner = MessagesReader(), EventScanner()
    read = [piece for event in scanner.feed(data) for piece in reader.event(event)]
    assert reader.complete
    assert "".join(p.text for p in read) == "".join(p.text for p in pieces)
    names = [c["function"]["name"] for p in read if p.delta for c in p.delta["tool_calls"] if "name" in c["function"]]
    assert names == [f"f{i}" for i in ordered]
    assert [(p.usage.input_tokens, p.usage.output_tokens) for p in read if p.usage] == [(5, 6)]


def test_a_call_that_goes_on_after_it_had_ended_breaks_the_stream() -> None:
    reply = MessageReply(ParsedRequest(model="m", messages=(), max_tokens=1), "msg_x")
    for index in (0, 1):
        reply.piece(Piece(delta={"tool_calls": [{"index": index, "id": "c", "function": {"name": "f"}}]}))
    with pytest.raises(BackendError):
        reply.piece(Piece(delta={"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}))


def test_reasoning_becomes_a_thinking_block_before_the_text() -> None:
    pieces = [
        Piece(delta={"reasoning_content": "h", "reasoning": "h"}),
        Piece(delta={"reasoning": "m"}),
        Piece("Hi"),
        Piece(finish_reason="stop"),
    ]
    reply = MessageReply(ParsedRequest(model="m", messages=(), max_tokens=1), "msg_x")
    stream = reply.begin() + b"".join(map(reply.piece, pieces)) + reply.end(finished())
    events = [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: ")]
    assert [(e["type"], e.get("index")) for e in events[1:-2]] == [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
    ]
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert [e["delta"]["thinking"] for e in events[2:4]] == ["h", "m"]
    whole = json.loads(
        MessageReply(ParsedRequest(model="m", messages=(), max_tokens=1), "msg_x").whole(pieces[1:], finished())
    )
    assert whole["content"] == [
        {"type": "thinking", "thinking": "m", "signature": ""},
        {"type": "text", "text": "Hi"},
    ]


@pytest.mark.parametrize(
    ("stop", "named"), [("END", ("stop_sequence", "END")), ("eos", ("end_turn", None)), (None, ("end_turn", None))]
)
def test_a_stop_sequence_of_the_request_is_named(stop: str | None, named: tuple[str, str | None]) -> None:
    parsed = ParsedRequest(model="m", messages=(), max_tokens=1, options={"stop": ["END", "FIN"]})
    pieces = [Piece("Hi"), Piece(finish_reason="stop", stop=stop)]
    whole = json.loads(MessageReply(parsed, "msg_x").whole(pieces, finished()))
    assert (whole["stop_reason"], whole["stop_sequence"]) == named
    reply = MessageReply(parsed, "msg_x")
    stream = b"".join(map(reply.piece, pieces)) + reply.end(finished())
    (delta,) = [json.loads(line[6:])["delta"] for line in stream.decode().split("\n") if '"message_delta"' in line]
    assert (delta["stop_reason"], delta["stop_sequence"]) == named
