"""A prompt that ends inside the assistant's last message."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage, ToolCall, parse_messages
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import named_formats

USER, ANSWER = ChatMessage.user("Hi"), ChatMessage.assistant("Ho")
CALL = ChatMessage.assistant("", [ToolCall("c1", "add", '{"a": 1}')])
PROMPTS: dict[str, Any] = json.loads(Path(__file__).with_name("prompts.json").read_text())


@pytest.mark.parametrize("case", PROMPTS["continue_final_message"]["cases"], ids=lambda c: f"{c['format']}-{c['case']}")
def test_a_continued_message_ends_the_prompt_as_in_transformers(case: dict[str, Any]) -> None:
    messages = parse_messages(case["messages"])
    for generate in (True, False):
        prompt = ChatTemplateEngine(case["format"]).apply(
            messages, continue_final_message=True, add_generation_prompt=generate
        )
        assert prompt == case["prompt"]


def test_a_continued_message_ends_the_prompt_also_where_it_is_repeated_or_trimmed() -> None:
    trims = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}"
    for content, expected in (
        ("yes ", "<yes><yes"),
        ("yes", "<yes><yes"),
        ("", "<><"),
        (" \n", "<><"),
        (" a", "<a><a"),
    ):
        messages = [ChatMessage.user(content), ChatMessage.assistant(content)]
        assert ChatTemplateEngine.from_template(trims).apply(messages, continue_final_message=True) == expected
    keeps = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    messages = [ChatMessage.user("yes \n"), ChatMessage.assistant("yes \n")]
    assert ChatTemplateEngine.from_template(keeps).apply(messages, continue_final_message=True) == "<yes \n><yes \n"


def test_only_the_assistants_last_words_can_be_continued() -> None:
    engine = ChatTemplateEngine("chatml")
    with pytest.raises(TemplateError, match="message 1: only an assistant's message can be continued"):
        engine.apply([USER], continue_final_message=True)
    with pytest.raises(TemplateError, match="message 2: tool calls cannot be continued"):
        ChatTemplateEngine("qwen3").apply([USER, CALL], continue_final_message=True)


@pytest.mark.parametrize("name", [name for name in named_formats() if name != "raw"])
def test_a_continued_prompt_is_a_beginning_of_the_whole_one(name: str) -> None:
    engine, day = ChatTemplateEngine(name), dt.date(2026, 1, 2)
    whole = engine.apply([USER, ANSWER], add_generation_prompt=False, date=day)
    begun = engine.apply([USER, ANSWER], continue_final_message=True, date=day)
    assert begun.endswith("Ho") and whole.startswith(begun)
    assert len(whole) > len(begun) or name.startswith("glm")  # GLM does not mark the end of a response
