"""Anthropic's content blocks as OpenAI's messages, for backends that do not speak Anthropic's API."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.dialects.test_anthropic import asked, said
from tests.serve.gateway.support import MESSAGES
from tests.serve.gateway.support_backends import HI, answers
from tests.serve.gateway.support_backends import asked as over
from tests.serve.support_pipeline import servers

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}


def user(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": list(blocks)}]} | more


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value} | more


def test_images_keep_their_place_between_texts(tmp_path: Path) -> None:
    by_url = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    request = asked(tmp_path, user(text("one"), PNG, text("two"), by_url))
    assert said(request)[0]["content"] == [
        text("one"),
        PNG_PART,
        text("two"),
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    assert request.messages[0].content == "onetwo"


def test_documents_become_files_or_text(tmp_path: Path) -> None:
    blocks = [
        {"type": "document", "title": "a.pdf", "source": PDF},
        {"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "plain"}},
        {"type": "document", "source": {"type": "content", "content": [text("inner"), PNG]}},
        {"type": "document", "source": {"type": "content", "content": "words"}},
        {"type": "search_result", "title": "R", "source": "https://example.com", "content": [text("found")]},
    ]
    content = said(asked(tmp_path, user(*blocks)))[0]["content"]
    assert content == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
        text("T\n"),
        text("C\n"),
        text("plain"),
        text("inner"),
        PNG_PART,
        text("words"),
        text("R\nhttps://example.com\nfound"),
    ]


def test_text_alone_stays_text(tmp_path: Path) -> None:
    request = asked(tmp_path, user(text("one "), text("two", cache_control={"type": "ephemeral"})))
    assert said(request) == [{"role": "user", "content": "one two"}]
    assert request.dropped == ("cache_control",)


def test_a_system_turn_stays_in_its_place(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "system", "content": [text("It is "), text("noon.")]},
        {"role": "assistant", "content": "b"},
        {"role": "system", "content": "It is one."},
        {"role": "user", "content": "c"},
    ]
    request = asked(tmp_path, user(messages=turns, system="Be brief."))
    assert [(m["role"], m["content"]) for m in said(request)] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("system", "It is noon."),
        ("assistant", "b"),
        ("system", "It is one."),
        ("user", "c"),
    ]


def test_images_of_a_tools_result_follow_it_as_content_of_the_user(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("see"), PNG], "is_error": True}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result, text("Well?")]}]
    request = asked(tmp_path, user(messages=turns))
    assert said(request)[1:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "see"},
        {"role": "user", "content": [PNG_PART, text("Well?")]},
    ]
    assert request.dropped == ("is_error",)


def test_thinking_becomes_reasoning_and_what_only_anthropic_reads_is_dropped_by_name(tmp_path: Path) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "redacted_thinking", "data": "xyzzy"},
        text("Hi"),
    ]
    turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": "Well?"}]
    request = asked(tmp_path, user(messages=turns, thinking={"type": "adaptive"}))
    assert said(request)[0] == {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}
    assert set(request.dropped) == {"redacted_thinking", "thinking"}


@pytest.mark.parametrize(
    "blocks",
    [
        [{"type": "container_upload", "file_id": "f"}],
        [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
        [{"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}],
        [{"type": "of_next_year", "x": 1}],
    ],
)
def test_a_block_without_a_counterpart_needs_a_backend_of_this_api(tmp_path: Path, blocks: list[Any]) -> None:
    body = user(text("x"), *blocks) | {"model": "llama-3.3-70b-versatile"}
    assert asked(tmp_path, user(text("x"), *blocks)).native_only
    with servers(answers(HI)) as [one]:
        done = over(tmp_path, "groq", one, MESSAGES, body)
    assert (done.status, one.requests) == (400, [])
    assert "its API has no" in done.error["message"]


def test_what_the_client_asks_of_the_output_is_translated(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    config = {"effort": "max", "format": {"type": "json_schema", "schema": schema}, "task_budget": {"tokens": 7}}
    request = asked(tmp_path, user(text("x"), output_config=config))
    assert request.options == {
        "reasoning_effort": "xhigh",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": schema, "strict": True},
        },
    }
    assert request.dropped == ("output_config", "output_config.task_budget")[1:]
    assert asked(tmp_path, user(text("x"), output_config={"effort": "high"})).options == {}
    older = asked(tmp_path, user(text("x"), output_format={"type": "json_schema", "schema": schema}))
    assert older.options["response_format"]["json_schema"]["schema"] == schema


def test_fields_of_tools_that_have_no_counterpart_are_dropped_by_name(tmp_path: Path) -> None:
    tool = {
        "name": "f",
        "input_schema": {"type": "object"},
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "defer_loading": True,
    }
    request = asked(tmp_path, user(text("x"), tools=[tool]))
    assert request.options["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
    ]
    assert set(request.dropped) == {"tools.cache_control", "tools.defer_loading"}


@pytest.mark.parametrize("agent", ["claude_code_2.1.197"])
def test_the_first_requests_of_claude_code_are_read_whole(tmp_path: Path, agent: str) -> None:
    recorded = json.loads((Path(__file__).parents[3] / "data" / f"{agent}.json").read_text())
    title, first = (asked(tmp_path, entry["body"] | {"model": "echo", "stream": False}) for entry in recorded)
    assert title.options["response_format"]["type"] == "json_schema"
    assert len(first.options["tools"]) == 25
    assert "system" in [m.role for m in first.messages[1:]]
    assert not first.native_only and not first.unknown_fields
    assert {"metadata", "thinking", "context_management", "cache_control"} >= {
        name for name in first.dropped if "." not in name
    }
    assert first.native is not None and first.native.personal == ("metadata",)
