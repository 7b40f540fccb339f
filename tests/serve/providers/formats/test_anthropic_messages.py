"""Anthropic's shape, by the examples of its documentation."""

from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall
from batuta_cli.serve.providers.formats.anthropic_messages import MessagesReader, outgoing
from batuta_cli.serve.providers.sse import EventScanner
from batuta_cli.serve.providers.wire import BackendError, Call, Piece, Usage

# https://docs.anthropic.com/en/docs/build-with-claude/streaming#basic-streaming-request
BASIC = b"""event: message_start
data: {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-3-opus-20240229", "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 25, "output_tokens": 1}}}

event: content_block_start
data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}}

event: content_block_stop
data: {"type": "content_block_stop", "index": 0}

event: message_delta
data: {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence":null}, "usage": {"output_tokens": 15}}

event: message_stop
data: {"type": "message_stop"}

"""  # noqa: E501 - as they come


def read(stream: bytes) -> tuple[list[Piece], bool]:
    reader, scanner = MessagesReader(), EventScanner()
    return [piece for event in scanner.feed(stream) for piece in reader.event(event)], reader.complete


def test_a_stream_is_read_to_its_text_its_end_and_its_usage() -> None:
    assert read(BASIC) == ([Piece("Hello"), Piece("!"), Piece("", finish_reason="stop", usage=Usage(25, 15))], True)


def test_a_stream_without_message_stop_is_not_complete() -> None:
    assert read(BASIC.rpartition(b"event: message_stop")[0])[1] is False


def test_an_error_event_is_an_error() -> None:
    stream = (
        b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
    )
    with pytest.raises(BackendError, match=r"the backend reports an error \(overloaded_error\)"):
        read(stream)


def test_tool_use_becomes_openai_s_tool_calls() -> None:
    stream = (  # each line as it comes
        b'data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"add","input":{}}}\n\n'  # noqa: E501
        b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\": 1}"}}\n\n'  # noqa: E501
        b'data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}\n\n'
    )
    begin = {"index": 0, "id": "t1", "type": "function", "function": {"name": "add", "arguments": ""}}
    pieces, _ = read(stream)
    assert [p.delta for p in pieces[:2]] == [
        {"tool_calls": [begin]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]},
    ]
    assert pieces[2].finish_reason == "tool_calls"


def test_a_whole_message_is_read() -> None:
    answer = {
        "type": "message",
        "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 7},
    }
    reader = MessagesReader()
    pieces = list(reader.whole(answer))
    assert (pieces[0], pieces[-1]) == (
        Piece("Hi"),
        Piece("", finish_reason="tool_calls", usage=Usage(25, 7, cached_tokens=20)),
    )
    assert reader.complete


def test_a_conversation_becomes_the_messages_api_s() -> None:
    messages = (
        ChatMessage.system("Be brief."),
        ChatMessage.user("add"),
        ChatMessage.assistant("", [ToolCall("c1", "add", '{"a": 1}'), ToolCall("c2", "add", "not json")]),
        ChatMessage.tool("2", "c1"),
        ChatMessage.tool("3", "c2"),
    )
    function = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {}}}
    options: dict[str, Any] = {
        "stop": "END",
        "temperature": 0,
        "frequency_penalty": 1,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
    }
    call = Call(model="claude", messages=messages, max_tokens=99, stream=False, options=options)
    sent = outgoing(call, ServingBackend.ANTHROPIC.profile)
    assert sent.path == "messages"
    assert sent.body == {
        "model": "claude",
        "max_tokens": 99,
        "stream": False,
        "system": "Be brief.",
        "temperature": 0,
        "stop_sequences": ["END"],
        "tools": [{"name": "add", "description": "adds", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": "add"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "2"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "3"},
                ],
            },
        ],
    }


def sent(**about: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"messages": (ChatMessage.user("Hi"),), "options": {}} | about
    call = Call(model="m", max_tokens=9, stream=False, **fields)
    return outgoing(call, ServingBackend.ANTHROPIC.profile).body


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({}, None),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_a_tool_and_parallel_calls_are_translated(options: dict[str, Any], choice: Any) -> None:
    assert sent(options={"tools": TOOLS, **options}).get("tool_choice") == choice


def test_content_parts_become_blocks() -> None:
    parts = (
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": "data:image/jpeg;base64,AAAA"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBBB"}},
    )
    assert sent(messages=(ChatMessage(Role.USER, "What?", parts=parts),))["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
    ]


@pytest.mark.parametrize("part", [{"type": "of_next_year"}, {"type": "file", "file": {"file_id": "f"}}])
def test_a_part_without_a_block_is_the_requests_fault(part: dict[str, Any]) -> None:
    with pytest.raises(BackendError) as raised:
        sent(messages=(ChatMessage(Role.USER, "", parts=(part,)),))
    assert (raised.value.status, raised.value.retryable, raised.value.sent) == (400, False, False)
