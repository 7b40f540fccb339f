"""OpenAI's shapes: what a client reads back, streamed or whole."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.gateway.dialects.fields import ParsedRequest
from batuta_cli.serve.gateway.dialects.openai import ChatReply, CompletionReply
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.formats.openai_chat import ChatReader
from batuta_cli.serve.providers.sse import EventScanner
from batuta_cli.serve.providers.wire import Piece
from tests.serve.gateway.support import CHAT, COMPLETIONS, ask, chat, text_of

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def test_an_answer_has_what_the_reference_lists(tmp_path: Path) -> None:
    done = ask(tmp_path, CHAT, chat(text="Hello there"))
    assert (done.status, done.headers["content-type"], done.complete) == (200, "application/json", True)
    body = done.json
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    }


def test_a_stream_has_one_identity_the_role_first_and_done_last(tmp_path: Path) -> None:
    done = ask(tmp_path, CHAT, chat(text="Zażółć gęślą \U0001f9f5 jaźń", stream=True))
    assert done.headers["content-type"].startswith("text/event-stream")
    *chunks, last = done.events
    assert (last, done.complete) == ("[DONE]", True)
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(chunks) == "Zażółć gęślą \U0001f9f5 jaźń"
    assert [c["choices"][0]["finish_reason"] for c in chunks][-2:] == [None, "stop"]
    assert all("usage" not in c for c in chunks)


def test_usage_comes_in_a_chunk_of_its_own_when_it_is_asked_for(tmp_path: Path) -> None:
    *chunks, usage, done = ask(tmp_path, CHAT, chat(**STREAM)).events
    assert done == "[DONE]"
    assert all(c["usage"] is None and c["choices"] for c in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert usage["id"] == chunks[0]["id"]


def test_the_cost_follows_the_last_event_in_a_comment(tmp_path: Path) -> None:
    body = ask(tmp_path, CHAT, chat(stream=True)).body.decode()
    events, _, after = body.partition("data: [DONE]\n\n")
    assert ": batuta" not in events
    assert after.startswith(": batuta {")
    assert after.endswith("}\n\n")
    assert after.count("\n") == 2
    assert json.loads(after.removeprefix(": batuta "))["cost_usd"] == "0.001234"


def test_tool_calls_are_relayed_part_by_part_and_put_together_in_a_whole_answer(tmp_path: Path) -> None:
    wanted = [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Łódź"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    whole = ask(tmp_path, CHAT, chat("tools")).json["choices"][0]
    assert whole["message"]["tool_calls"] == wanted
    assert whole["message"]["content"] == "Let me look. "
    assert whole["finish_reason"] == "tool_calls"
    parts: dict[int, str] = {}
    for event in ask(tmp_path, CHAT, chat("tools", stream=True)).events[:-1]:
        for call in event["choices"][0]["delta"].get("tool_calls", []):
            parts[call["index"]] = parts.get(call["index"], "") + call["function"]["arguments"]
    assert parts == {0: '{"city": "Łódź"}', 1: "{}"}


def test_a_tool_call_that_came_whole_has_an_index_in_a_stream_and_no_content_in_an_answer(tmp_path: Path) -> None:
    events = ask(tmp_path, CHAT, chat("whole-tools", stream=True)).events
    assert [c["index"] for e in events[:-1] for c in e["choices"][0]["delta"].get("tool_calls", [])] == [0]
    message = ask(tmp_path, CHAT, chat("whole-tools")).json["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "weather"


def test_several_choices_stay_apart(tmp_path: Path) -> None:
    whole = ask(tmp_path, CHAT, chat("choices", n=3)).json["choices"]
    assert [(c["index"], c["message"]["content"]) for c in whole] == [(i, f"choice {i}") for i in range(3)]
    seen: dict[int, list[Any]] = {}
    for event in ask(tmp_path, CHAT, chat("choices", n=3, stream=True)).events[:-1]:
        choice = event["choices"][0]
        seen.setdefault(choice["index"], []).append(choice["delta"].get("role") or choice["delta"].get("content"))
    assert seen == {i: ["assistant", f"choice {i}", None] for i in range(3)}


def test_reasoning_and_logprobs_are_relayed(tmp_path: Path) -> None:
    choice = ask(tmp_path, CHAT, chat("more", logprobs=True)).json["choices"][0]
    assert choice["message"]["reasoning_content"] == "hmm yes"
    assert choice["message"]["content"] == "ab"
    assert choice["finish_reason"] == "length"
    assert [t["logprob"] for t in choice["logprobs"]["content"]] == [-0.5]


def test_an_answer_whose_backend_names_no_reason_ends_with_stop(tmp_path: Path) -> None:
    events = ask(tmp_path, CHAT, chat("unfinished", stream=True)).events
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]] == [None, None, "stop"]


@pytest.mark.parametrize("model", ["break", "bug"])
def test_a_stream_that_breaks_ends_in_an_error_event_and_is_cut_off(tmp_path: Path, model: str) -> None:
    done = ask(tmp_path, CHAT, chat(model, stream=True, stream_options={"include_usage": True}))
    *chunks, last = done.events
    assert text_of(chunks) == "half of "
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks)
    assert last["error"]["type"] == "api_error"
    assert "[DONE]" not in done.body.decode()
    assert not done.complete
    whole = ask(tmp_path, CHAT, chat(model))
    assert whole.status in (500, 502)
    assert "half" not in whole.body.decode()


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ({}, "missing_field", "prompt is missing"),
        ({"prompt": ["a", "b"]}, "invalid_type", "prompt must be one string; send one request for each prompt"),
        ({"prompt": [1, 2]}, "invalid_type", "prompt must be one string; send one request for each prompt"),
    ],
)
def test_a_prompt_that_is_not_one_text_is_refused(tmp_path: Path, prompt: Any, code: str, message: str) -> None:
    done = ask(tmp_path, COMPLETIONS, {"model": "echo", **prompt})
    assert (done.status, done.error["code"], done.error["message"]) == (400, code, message)


@pytest.mark.parametrize("limit", [0, -1, 10_000_001, 10**30, "5", 1.5, True])
def test_an_output_limit_that_is_refused_is_told_the_range(tmp_path: Path, limit: Any) -> None:
    body = json.dumps(chat(max_tokens=limit)).encode()
    assert ask(tmp_path, CHAT, body).error["message"] == "max_tokens must be a whole number from 1 to 10,000,000"


def test_completions_take_a_prompt_as_one_user_message(tmp_path: Path) -> None:
    for prompt in ("Once upon", ["Once upon"]):
        body = ask(tmp_path, COMPLETIONS, {"model": "echo", "prompt": prompt}).json
        assert body["object"] == "text_completion"
        assert body["id"].startswith("cmpl-")
        assert body["choices"] == [{"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": "stop"}]
    events = ask(tmp_path, COMPLETIONS, {"model": "echo", "prompt": "Once upon", **STREAM}).events
    assert "".join(e["choices"][0]["text"] for e in events[:-2]) == "Once upon"
    assert events[-2]["usage"]["total_tokens"] == 4


PIECES = st.lists(
    st.builds(Piece, st.text(min_size=1))
    | st.builds(Piece, text=st.text(), index=st.integers(0, 2))
    | st.builds(Piece, delta=st.fixed_dictionaries({"reasoning_content": st.text(min_size=1)})),
    max_size=10,
)
SUMMARY = Summary(backend="b", input_tokens=1, output_tokens=2, exact=True, cost=0, budget_left=None, attempts=())


@given(PIECES, st.text(min_size=1, max_size=20), st.booleans())
def test_what_is_written_is_what_our_own_reader_of_openai_streams_reads(
    pieces: list[Piece], model: str, usage: bool
) -> None:
    reply = ChatReply(ParsedRequest(model=model, messages=(), stream=True, include_usage=usage), "chatcmpl-x", 1)
    data = reply.begin() + b"".join(map(reply.piece, pieces)) + reply.end(SUMMARY)
    reader, scanner = ChatReader(3), EventScanner()
    read = [piece for event in scanner.feed(data) for piece in reader.event(event)]
    assert reader.complete
    for index in range(3):
        assert "".join(p.text for p in read if p.index == index) == "".join(p.text for p in pieces if p.index == index)
    assert [p.delta for p in read if p.delta] == [p.delta for p in pieces if p.delta]
    assert [p.usage.output_tokens for p in read if p.usage] == ([2] if usage else [])
    assert [p.finish_reason for p in read if p.finish_reason and p.index == 0] == ["stop"]


@given(st.lists(st.text(), max_size=10), st.text(max_size=20))
def test_the_text_of_completions_is_kept_to_the_character(texts: list[str], model: str) -> None:
    reply = CompletionReply(ParsedRequest(model=model, messages=(), include_usage=False), "cmpl-x", 1)
    pieces = [Piece(text) for text in texts]
    lines = (reply.begin() + b"".join(map(reply.piece, pieces)) + reply.end(SUMMARY)).decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    assert "".join(e["choices"][0]["text"] for e in events) == "".join(texts)
    assert json.loads(reply.whole(pieces, SUMMARY))["choices"][0]["text"] == "".join(texts)
