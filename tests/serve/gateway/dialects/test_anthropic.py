"""Anthropic's Messages API: what is asked becomes OpenAI's, what is answered becomes Anthropic's."""

from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.pipeline.request import ChatRequest
from tests.serve.gateway.support import MESSAGES, Asking, ask, message, run

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def asked(tmp_path: Path, body: Any) -> ChatRequest:
    """What the pipeline was asked."""

    async def scenario(asking: Asking) -> ChatRequest:
        response = await asking.ask(MESSAGES, body)
        assert response.status == 200, response.body
        return asking.pipeline.requests[0]

    request = run(tmp_path, scenario)
    assert isinstance(request, ChatRequest)
    return request


def said(request: ChatRequest) -> list[dict[str, Any]]:
    return [m.to_dict() for m in request.messages]


def test_a_conversation_with_tools_becomes_openais(tmp_path: Path) -> None:
    request = asked(
        tmp_path,
        {
            "model": "echo",
            "max_tokens": 77,
            "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief.", "cache_control": {}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "x"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Łódź"}},
                        {"type": "tool_use", "id": "t2", "name": "time", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "noon"}]},
                        {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                        {"type": "text", "text": "Well?"},
                    ],
                },
            ],
            "tools": [
                {"name": "weather", "description": "the weather", "input_schema": SCHEMA},
                {"name": "time", "input_schema": {"type": "object"}},
            ],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            "temperature": 0.5,
            "top_k": 7,
            "metadata": {"user_id": "u-1"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "service_tier": "auto",
        },
    )
    assert said(request) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Łódź"}'}},
                {"id": "t2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "t2"},
        {"role": "tool", "content": "rain", "tool_call_id": "t1"},
        {"role": "user", "content": "Well?"},
    ]
    assert request.max_tokens == 77
    assert request.options == {
        "temperature": 0.5,
        "top_k": 7,
        "stop": ["END"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "the weather", "parameters": SCHEMA},
            },
            {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(("kind", "openai"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_the_choice_of_a_tool_is_mapped(tmp_path: Path, kind: str, openai: str) -> None:
    tools = [{"name": "f", "input_schema": {}, "type": "custom"}]
    request = asked(tmp_path, message(tools=tools, tool_choice={"type": kind}))
    assert request.options["tool_choice"] == openai


BLOCK = {"type": "text", "text": "x"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no max_tokens": ({"max_tokens": None}, "max_tokens"),
    "no messages": ({"messages": []}, "messages"),
    "messages no list": ({"messages": "hi"}, "messages"),
    "tool role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
    "system turn with an image": ({"messages": [{"role": "system", "content": [{"type": "image"}]}]}, "messages"),
    "image without data": (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
        "messages",
    ),
    "user thinks": (
        {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]},
        "messages",
    ),
    "no role": ({"messages": [{"content": "x"}]}, "messages"),
    "no object": ({"messages": ["x"]}, "messages"),
    "content null": ({"messages": [{"role": "user", "content": None}]}, "messages"),
    "content empty": ({"messages": [{"role": "user", "content": []}]}, "messages"),
    "block no object": ({"messages": [{"role": "user", "content": ["x"]}]}, "messages"),
    "block without type": ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages"),
    "block without text": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
    "image": ({"messages": [{"role": "user", "content": [BLOCK, {"type": "image", "source": {}}]}]}, "messages"),
    "system number": ({"system": 7}, "messages"),
    "system image": ({"system": [{"type": "image"}]}, "messages"),
    "user calls": (
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]},
        "messages",
    ),
    "call without input": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]},
        "messages",
    ),
    "call without name": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "input": {}}]}]},
        "messages",
    ),
    "result without id": ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages"),
    "result without call": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]},
        "messages",
    ),
    "NUL": ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages"),
    "tools no list": ({"tools": {"f": 1}}, "tools"),
    "stream": ({"stream": "yes"}, "stream"),
    "tools of text": ({"tools": ["x"]}, "tools"),
    "tool without schema": ({"tools": [{"name": "f"}]}, "tools"),
    "tool of an odd type": ({"tools": [{"type": 7, "name": "web_search"}]}, "tools"),
    "output of an odd format": ({"output_config": {"format": {"type": "xml"}}}, "output_config"),
    "fallbacks": ({"fallbacks": [{"model": "x"}]}, "fallbacks"),
    "thread": ({"thread": {"type": "create"}}, "thread"),
    "choice": ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "tool"}}, "tool_choice"),
    "stop": ({"stop_sequences": [1]}, "stop_sequences"),
    "temperature": ({"temperature": "hot"}, "temperature"),
    "top_k": ({"top_k": 1.5}, "top_k"),
    "user": ({"metadata": {"user_id": 1}}, "metadata"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_in_anthropics_shape(tmp_path: Path, name: str) -> None:
    change, field = WRONG[name]
    done = ask(tmp_path, MESSAGES, message() | change)
    assert (done.status, done.json["type"], done.error["type"]) == (400, "error", "invalid_request_error")
    assert done.json["request_id"] == done.headers["x-request-id"]
    assert field in done.error["message"] or field == "messages"


def test_a_stored_thread_is_refused_so_that_the_official_client_sends_the_whole_conversation(tmp_path: Path) -> None:
    """`anthropic` 2 drops the field `thread` when it reads these details; without them its tool runner fails."""
    response = ask(tmp_path, MESSAGES, message(thread={"type": "create"}))
    assert (response.status, response.error["type"]) == (400, "invalid_request_error")
    assert response.error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert "details" not in ask(tmp_path, MESSAGES, message(max_tokens=0)).error


def test_head_of_the_root_is_answered(tmp_path: Path) -> None:
    assert ask(tmp_path, "/", method="HEAD").status == 200
