"""Tools and response formats are counted by the tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.tokens import count_messages, tokenizer_for

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def agent_tools(number: int) -> list[dict[str, Any]]:
    """Tools as coding agents send them: long descriptions in prose, a few parameters."""
    prose = "Reads a file from the local file system. You may access any file directly by using this tool. " * 30
    return [
        {**WEATHER, "function": {**WEATHER["function"], "name": f"tool{n}", "description": prose}}
        for n in range(number)
    ]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4"])
def test_tools_are_counted_by_the_tokenizer_and_not_by_the_byte(model: str) -> None:
    tools = agent_tools(20)
    messages = [ChatMessage.user("Hello")]
    plain, count = count_messages(model, messages), count_messages(model, messages, options={"tools": tools})
    text = json.dumps(tools)
    added = count.tokens - plain.tokens
    assert not count.exact and "tools" in count.method
    assert tokenizer_for(model).count(text) <= added < len(text) / 3


def test_tools_without_a_known_tokenizer_are_bounded_from_above() -> None:
    tools = agent_tools(20)
    count = count_messages("claude-3-opus", [ChatMessage.user("Hello")], options={"tools": tools})
    # Claude counts up to 1.4 tokens where cl100k counts one, and adds up to 530 for its instructions.
    assert count.tokens > 1.4 * tokenizer_for("gpt-4").count(json.dumps(tools)) + 530


@pytest.mark.parametrize("field", ["tools", "functions", "response_format", "documents"])
def test_each_field_that_becomes_part_of_the_prompt_is_counted(field: str, gguf: Path) -> None:
    messages = [ChatMessage.user("Hello")]
    for arguments in ({"model": "gpt-4o"}, {"model": str(gguf), "render": lambda _, **__: "Hello"}):
        plain = count_messages(messages=messages, **arguments)
        count = count_messages(messages=messages, options={field: [WEATHER], "temperature": 1}, **arguments)
        assert plain.exact and not count.exact
        assert count.tokens >= plain.tokens + tokenizer_for(str(arguments["model"])).count(json.dumps([WEATHER]))


def test_options_that_are_not_part_of_the_prompt_leave_the_count_exact() -> None:
    messages = [ChatMessage.user("Hello")]
    options = {"temperature": 0.5, "tools": [], "response_format": None, "stop": ["a" * 1000]}
    assert count_messages("gpt-4o", messages, options=options) == count_messages("gpt-4o", messages)


def test_the_margin_covers_a_template_that_indents_the_json() -> None:
    tools = [WEATHER] * 5
    count = count_messages("gpt-4o", [ChatMessage.user("Hello")], options={"tools": tools})
    assert count.tokens > tokenizer_for("gpt-4o").count(json.dumps(tools, indent=4)) + 600
