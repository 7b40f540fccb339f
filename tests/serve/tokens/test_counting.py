"""Counting conversations: OpenAI's own numbers, rendered prompts, and estimates that say so."""

from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken.model
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.context.manager import ContextManager
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, parse_messages
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.tokens import TokenCount, count_messages, tokenizer_for

# openai-cookbook, How_to_count_tokens_with_tiktoken.ipynb: the messages, and what the API itself counted.
COOKBOOK: list[dict[str, Any]] = [
    {"role": "system",
     "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {"role": "system", "name": "example_user",
     "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
    {"role": "system", "name": "example_assistant",
     "content": "Let's talk later when we're less busy about how to do better."},
    {"role": "user",
     "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
]  # fmt: skip
COUNTED = {
    "gpt-3.5-turbo-0301": 127,
    "gpt-3.5-turbo-0613": 129,
    "gpt-4": 129,
    "gpt-4-0613": 129,
    "gpt-4o": 124,
    "gpt-4o-mini": 124,
}


@pytest.mark.parametrize(
    "model", ["gpt-6", "gpt-40", "gpt-4.7", "claude-3-opus", "gemini-1.5-pro", "llama-2-70b", "", "o"]
)
def test_a_model_that_is_not_known_is_estimated_and_says_so(model: str) -> None:
    count = count_messages(model, parse_messages(COOKBOOK))
    assert COUNTED["gpt-4"] < count.tokens < 5 * COUNTED["gpt-4"] and not count.exact
    assert "upper estimate" in count.method and model in count.method


def test_tool_calls_are_more_than_their_text_and_not_exact() -> None:
    call = ToolCall("call_1", "weather", '{"city": "Oslo"}')
    messages = [
        ChatMessage.user("Weather?"),
        ChatMessage(Role.ASSISTANT, "", tool_calls=(call,)),
        ChatMessage(Role.TOOL, "cold", tool_call_id="call_1"),
    ]
    plain = count_messages("gpt-4o", messages[:1])
    count = count_messages("gpt-4o", messages)
    texts = sum(map(tokenizer_for("gpt-4o").count, ["call_1", "weather", call.arguments, "cold", "call_1"]))
    assert plain.exact and not count.exact and "tool calls" in count.method
    assert count.tokens > plain.tokens + texts


def test_a_model_file_is_counted_by_its_rendered_prompt(gguf: Path) -> None:
    def render(messages: Any) -> str:
        return "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)

    count = count_messages(str(gguf), [ChatMessage.user("Hello")], render=render)
    # <|im_start|> user \n Hello <|im_end|> \n, as llama.cpp's server splits it
    assert (count.tokens, count.exact) == (6, True)
    without = count_messages(str(gguf), [ChatMessage.user("Hello")])
    assert without.tokens > count.tokens and not without.exact


def test_gpt_oss_is_counted_by_its_rendered_prompt() -> None:
    messages = [ChatMessage.user("Hello")]
    prompt = ChatTemplateEngine.from_model("gpt-oss-20b").apply(messages)
    expected = len(tiktoken.get_encoding("o200k_harmony").encode(prompt, allowed_special="all"))
    assert expected > 60
    counted = ContextManager.for_model("openai/gpt-oss-20b").count(messages)
    assert (counted.tokens, counted.exact) == (expected, True)
    estimate = count_messages("gpt-oss-20b", messages)
    assert estimate.tokens > expected and not estimate.exact


def test_a_named_tokenizer_comes_before_the_name_of_the_model(gguf: Path) -> None:
    counted = count_messages("gpt-4o", [ChatMessage.user("Hello")], tokenizer_path=gguf, render=lambda _: "Hello")
    assert counted == TokenCount(1, True, tokenizer_for(str(gguf)).name)


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5),
    model=st.sampled_from(["gpt-4", "gpt-4o", "claude-3-opus"]),
)
def test_a_longer_conversation_never_counts_less(texts: list[str], model: str) -> None:
    messages = [ChatMessage.user(text) for text in texts]
    counts = [count_messages(model, messages[: n + 1]).tokens for n in range(len(messages))]
    assert counts == sorted(set(counts))
