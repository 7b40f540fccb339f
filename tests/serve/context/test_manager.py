"""`ContextWindow` and `ContextManager`: the windows, the counts and the defaults behind `batuta serve context`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batuta_cli.config import ModelSection
from batuta_cli.errors import ContextOverflowError, InvalidInputError, TemplateError, UsageError
from batuta_cli.serve import ChatMessage, ContextManager, ContextWindow, TruncationStrategy
from batuta_cli.serve.context.manager import PromptCounter
from batuta_cli.serve.messages import Role, parse_messages
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.tokens import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount


def words(messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> TokenCount:
    """A token a word."""
    return TokenCount(sum(len(message.content.split()) for message in messages), True, "words")


TALK = [
    ChatMessage.system("be brief"),
    ChatMessage.user("one two three"),
    ChatMessage.assistant("four five"),
    ChatMessage.user("six seven"),
]


def test_the_limit_is_the_window_less_the_reserve() -> None:
    manager = ContextManager(ContextWindow(12, 3), words)
    assert manager.size.limit == 9
    assert manager.count(TALK).tokens == 9
    assert manager.fits(TALK)
    assert not ContextManager(ContextWindow(12, 4), words).fits(TALK)


@pytest.mark.parametrize(
    ("window", "reserve"), [(0, 0), (-1, 0), (10, 10), (10, 11), (10, -1), (True, 0), (10.0, 1), ("10", 1), (10, None)]
)
def test_a_window_that_leaves_no_room_or_is_no_number_is_refused(window: Any, reserve: Any) -> None:
    with pytest.raises(UsageError):
        ContextWindow(window, reserve)


def test_truncate_drops_the_oldest_turns_unless_told_otherwise() -> None:
    manager = ContextManager(ContextWindow(10, 4), words)
    found = manager.truncate(TALK)
    assert found.messages == (TALK[0], TALK[3])
    assert found.dropped == (2, 3)
    assert (found.before.tokens, found.after.tokens) == (9, 4)
    with pytest.raises(ContextOverflowError):
        manager.truncate(TALK, TruncationStrategy.ERROR)


@pytest.mark.parametrize("name", ["SlidingWindow", "sliding-window", "MiddleOut", "middle_out", "Error"])
def test_a_strategy_is_read_in_any_spelling(name: str) -> None:
    assert TruncationStrategy.parse(name) in TruncationStrategy


def test_a_model_has_the_window_and_the_reserve_of_the_table() -> None:
    manager = ContextManager.for_model("llama-2-70b")
    assert manager.size == ContextWindow(4096, 1024)
    assert "http" in manager.source and manager.as_of


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"window": 2000}, ContextWindow(2000, 500)),
        ({"window": 100_000}, ContextWindow(100_000, 1024)),
        ({"reserve": 0}, ContextWindow(4096, 0)),
        ({"window": 500, "reserve": 499}, ContextWindow(500, 499)),
        ({"models": {"llama-2-70b": ModelSection(context_window=3000)}}, ContextWindow(3000, 750)),
        ({"models": {"llama-2-70b": ModelSection(context_window=3000)}, "window": 2000}, ContextWindow(2000, 500)),
    ],
)
def test_what_is_given_overrides_the_config_and_the_config_the_table(
    options: dict[str, Any], size: ContextWindow
) -> None:
    assert ContextManager.for_model("llama-2-70b", **options).size == size


def test_a_model_without_a_window_is_an_error_unless_one_is_given() -> None:
    with pytest.raises(UsageError) as caught:
        ContextManager.for_model("llama-2-7b-32k")
    assert "--window" in (caught.value.hint or "")
    assert ContextManager.for_model("llama-2-7b-32k", window=32_768).size == ContextWindow(32_768, 4096)


@pytest.mark.parametrize(("window", "reserve"), [(0, None), (-5, None), (4096, 4096), (None, 4096), (None, -1)])
def test_a_window_without_room_for_a_prompt_is_refused(window: int | None, reserve: int | None) -> None:
    with pytest.raises(UsageError):
        ContextManager.for_model("llama-2-70b", window=window, reserve=reserve)


def test_a_conversation_with_openai_is_counted_as_their_api_counts_it() -> None:
    """Three tokens a message, its role and its content, and three for the answer; one word is one token here."""
    count = ContextManager.for_model("gpt-4").count([ChatMessage.user("hello")])
    assert (count.tokens, count.exact) == (3 + 1 + 1 + 3, True)


@given(
    st.sampled_from(["llama-2-70b", "mixtral-8x7b", "gemma-2-9b-it", "llama-3-8b", "claude-3-opus", "gpt-4"]),
    st.lists(st.tuples(st.text("ab c", max_size=80), st.text("ab c", max_size=80)), max_size=8),
    st.sampled_from(["be brief", "", None]),
    st.sampled_from([TruncationStrategy.SLIDING_WINDOW, TruncationStrategy.MIDDLE_OUT]),
    st.integers(60, 600),
)
def test_what_is_left_is_a_prompt_of_the_models_own_format_within_the_limit(
    model: str, pairs: list[tuple[str, str]], system: str | None, strategy: TruncationStrategy, window: int
) -> None:
    messages = [] if system is None else [ChatMessage.system(system)]
    for asked, answered in pairs:
        messages += [ChatMessage.user(asked), ChatMessage.assistant(answered)]
    messages.append(ChatMessage.user("and now?"))
    manager = ContextManager.for_model(model, window=window, reserve=10, system_fallback="merge")
    try:
        found = manager.truncate(messages, strategy)
    except ContextOverflowError:
        assume(False)
    assert manager.count(found.messages) == found.after
    if not manager.fits(found.messages):  # only an estimate, of the messages that must be kept
        assert not found.after.exact
        assert found.messages[-1] == messages[-1] and sum(m.role is Role.USER for m in found.messages) == 1
    assert [message for n, message in enumerate(messages, 1) if n not in found.dropped] == list(found.messages)


def test_a_template_that_forbids_the_conversation_is_an_error_before_anything_is_dropped() -> None:
    twice = [ChatMessage.user("one"), ChatMessage.user("two")]
    with pytest.raises(TemplateError, match="message 2"):
        ContextManager.for_model("llama-2-70b", window=30, reserve=1).truncate(twice)


TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather of a city."}}
BROAD = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}: {{ tool.function.description }}]{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}({{ m.reasoning_content }}){% endfor %}{{ mood }}"
)
"""A template that reads tools, thoughts and a variable."""


def with_template(text: str, gguf: Path) -> ContextManager:
    counter = PromptCounter("mine", ChatTemplateEngine.from_template(text), str(gguf))
    return ContextManager(ContextWindow(4096, 100), counter)


def test_tools_and_fields_and_variables_are_counted_as_the_template_writes_them(gguf: Path) -> None:
    manager = with_template(BROAD, gguf)
    (message,) = parse_messages([{"role": "boss", "content": "Hi", "reasoning_content": "Why?"}], complete=True)
    options = {"tools": [TOOL], "chat_template_kwargs": {"mood": " good"}, "temperature": 0}
    prompt = "[weather: The weather of a city.]boss: Hi(Why?) good"
    expected = TokenCount(tokenizer_for(str(gguf)).count(prompt), True, tokenizer_for(str(gguf)).name)
    assert manager.count([message], options) == expected
    assert manager.unread([message], options) == []


def test_what_the_template_does_not_read_is_reported_and_bounded_from_above(gguf: Path) -> None:
    manager = with_template("{% for m in messages %}{{ m.content }}{% endfor %}", gguf)
    (message,) = parse_messages([{"role": "user", "content": "Hi", "reasoning_content": "Why?"}], complete=True)
    options = {"tools": [TOOL], "chat_template_kwargs": {"mood": "good"}}
    tokenizer = tokenizer_for(str(gguf))
    count = manager.count([message], options)
    assert not count.exact and count.tokens > tokenizer.count("Hi") + tokenizer.count(json.dumps([TOOL]))
    assert manager.unread([message], options) == [
        "the template does not read tools",
        "the template does not read mood",
        "the template does not read reasoning_content (first in message 1)",
    ]


def test_variables_of_a_model_without_a_known_template_are_reported() -> None:
    manager = ContextManager.for_model("gpt-4o")
    options = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}
    assert manager.unread([ChatMessage.user("Hi")], options) == [
        "the template of gpt-4o is not known; enable_thinking is not counted"
    ]


def test_further_fields_of_a_message_are_bounded_where_no_template_is_known() -> None:
    manager = ContextManager.for_model("gpt-4o")
    text = "Because the sky is blue. " * 20
    plain: dict[str, Any] = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []}
    (given,) = parse_messages([{**plain, "reasoning_content": text}], complete=True)
    (without,) = parse_messages([plain], complete=True)
    assert manager.count([without]).exact
    count = manager.count([given])
    assert not count.exact
    assert count.tokens >= manager.count([without]).tokens + tokenizer_for("gpt-4o").count(text)


@pytest.mark.parametrize("model", ["gpt-4o", "qwen3-8b", "claude-3-opus"])
def test_an_image_is_not_counted_by_guess(model: str) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = parse_messages([{"role": "user", "content": [part]}], complete=True)
    with pytest.raises(InvalidInputError, match="message 1: has a content part of type image_url") as caught:
        ContextManager.for_model(model).count(messages)
    assert "--backend" in (caught.value.hint or "")
