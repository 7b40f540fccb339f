"""OpenAI's shape: what is asked for, and what is read from the answers of several services."""

import json
from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.formats.openai_chat import ChatReader, outgoing
from batuta_cli.serve.providers.sse import Event, EventScanner
from batuta_cli.serve.providers.wire import BackendError, Call, Piece, Usage

CALL = Call(
    model="m",
    messages=(ChatMessage.system("Be brief."), ChatMessage.user("Hi")),
    max_tokens=64,
    stream=True,
    options={"temperature": 0.5},
)

# What api.openai.com sends (https://platform.openai.com/docs/api-reference/chat-streaming), shortened.
OPENAI = b"""data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":14}}

data: [DONE]

"""  # noqa: E501 - as they come


def read(stream: bytes) -> tuple[list[Piece], bool]:
    reader, scanner = ChatReader(), EventScanner()
    return [piece for event in scanner.feed(stream) for piece in reader.event(event)], reader.complete


def test_a_stream_is_read_to_its_text_its_end_and_its_usage() -> None:
    pieces, complete = read(OPENAI)
    assert "".join(p.text for p in pieces) == "Hello"
    assert [p.finish_reason for p in pieces if p.finish_reason] == ["stop"]
    assert [p.usage for p in pieces if p.usage] == [Usage(12, 2)]
    assert complete


def test_a_stream_that_stops_before_its_end_is_not_complete() -> None:
    events = OPENAI.split(b"\n\n")
    assert [read(b"\n\n".join(events[:n]) + b"\n\n")[1] for n in range(1, 7)] == [False] * 3 + [True] * 3


def test_usage_is_asked_for_and_options_are_passed_on() -> None:
    sent = outgoing(CALL, ServingBackend.VLLM.profile)
    assert sent.path == "chat/completions"
    assert sent.body == {
        "temperature": 0.5,
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 64,
    }


def test_a_prefix_goes_on_as_the_assistant_s_last_message() -> None:
    call = Call(model="m", messages=CALL.messages, max_tokens=64, stream=False, options={}, prefix="Once upon")
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    body = outgoing(call, ServingBackend.VLLM.profile).body
    assert body["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert body.items() >= fields.items()


def test_tool_calls_and_reasoning_are_relayed_as_they_are() -> None:
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]
    delta: dict[str, Any] = {"content": None, "tool_calls": calls, "reasoning_content": "hm"}
    data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()
    assert list(ChatReader().event(Event("", data))) == [Piece(delta={"tool_calls": calls, "reasoning_content": "hm"})]


def test_a_whole_answer_is_read() -> None:
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 2},
    }
    reader = ChatReader()
    assert list(reader.whole(answer)) == [Piece("Hello", finish_reason="length"), Piece(usage=Usage(12, 2))]
    assert reader.complete


@pytest.mark.parametrize(
    "data",
    [
        b'{"error": {"message": "secret text", "code": "rate_limit_exceeded"}}',
        b'{"error": "secret text"}',
        b"<html>secret text</html>",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_error_inside_a_stream_is_an_error_that_quotes_nothing(data: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        list(ChatReader().event(Event("", data)))
    assert "secret" not in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"choices": []}, {"choices": 5}, {"error": {"message": "no"}}, "text"]
)
def test_what_is_no_answer_is_an_error(answer: Any) -> None:
    with pytest.raises(BackendError):
        list(ChatReader().whole(answer))


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "1"}, 5, True])
def test_usage_that_cannot_be_believed_is_missing_not_zero(usage: Any) -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert [p.usage for p in ChatReader().whole(answer)] == [None]


def test_several_choices_are_told_apart() -> None:
    choices = [{"index": n, "delta": {"content": str(n)}, "finish_reason": None} for n in (0, 1)]
    data = json.dumps({"choices": choices}).encode()
    assert list(ChatReader(2).event(Event("", data))) == [Piece("0"), Piece("1", index=1)]
