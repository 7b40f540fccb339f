"""Every named format renders what its reference renders, byte for byte.

`prompts.json` was made by running the references themselves; `references.py` says the same in Python for conversations
that nobody wrote down.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage, parse_messages
from batuta_cli.serve.templates.detection import detect_format
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import NamedFormat, SystemPlace, named_format, named_formats
from batuta_cli.serve.templates.render import Renderer
from batuta_cli.serve.templates.template_input import as_own_context, numbered
from tests.serve.templates.conversations import TEXT, conversations
from tests.serve.templates.references import REFERENCES
from tests.serve.templates.test_families import PUBLISHED

PROMPTS: dict[str, Any] = json.loads(Path(__file__).with_name("prompts.json").read_text())
DAY = dt.date(2026, 11, 23)
CASES = [(name, case) for name, format in PROMPTS["formats"].items() for case in format["cases"]]


def _day(name: str) -> dt.date | None:
    return DAY if name == "gpt-oss" else None  # the others' references leave their dates alone


@pytest.mark.parametrize("name", sorted(named_formats()))
def test_without_the_sandbox_a_format_writes_the_same(name: str) -> None:
    format, thought = named_format(name), ChatMessage.assistant("<think>\na\n</think>\n\nHi")
    messages = as_own_context(numbered([ChatMessage.user(" Hello {{ x }} "), thought, ChatMessage.user("")]))
    context: dict[str, Any] = {
        "messages": messages,
        "bos_token": format.bos_token,
        "eos_token": format.eos_token,
        "tools": None,
    }
    context |= {"documents": None, "add_generation_prompt": True}
    now = dt.datetime(2026, 11, 23)
    outside = Renderer(format.template, trusted=True).render(context, now=now)
    assert outside == Renderer(format.template).render(context, now=now)


@pytest.mark.parametrize(
    ("name", "case"), CASES, ids=[f"{n}-{c['conversation']}-{c['add_generation_prompt']}" for n, c in CASES]
)
def test_the_prompt_is_the_references(name: str, case: dict[str, Any]) -> None:
    messages = parse_messages(PROMPTS["conversations"][case["conversation"]])
    engine, generate = ChatTemplateEngine(name), case["add_generation_prompt"]
    if "prompt" in case:
        assert engine.apply(messages, add_generation_prompt=generate, date=_day(name)) == case["prompt"]
    else:
        with pytest.raises(TemplateError, match=r"message 1: the format .* has no system messages"):
            engine.apply(messages, add_generation_prompt=generate)
    if "prompt_with_system_fallback_drop" in case:
        dropped = engine.apply(messages, add_generation_prompt=generate, system_fallback="drop")
        assert dropped == case["prompt_with_system_fallback_drop"]


def test_the_names_are_those_of_the_references() -> None:
    assert set(PROMPTS["formats"]) == set(REFERENCES)
    assert set(named_formats()) == set(REFERENCES) | set(PUBLISHED)


@pytest.mark.parametrize("format", [named_format(name) for name in REFERENCES], ids=lambda f: f.name)
def test_any_conversation_renders_as_by_the_reference(format: NamedFormat) -> None:
    engine, reference = ChatTemplateEngine(format.name), REFERENCES[format.name]
    calls = int(min(format.tool_calls, 2))

    @given(conversations(system=format.system is not SystemPlace.NONE, calls=calls), st.booleans())
    def check(messages: list[ChatMessage], generate: bool) -> None:
        prompt = engine.apply(messages, add_generation_prompt=generate, date=_day(format.name))
        assert prompt == reference(messages, generate)

    check()


def test_the_template_of_the_real_smollm2_is_recognised_and_writes_the_same_prompts(gguf: Path) -> None:
    found = detect_format(gguf)
    assert found.name == "smollm2"
    own, named = ChatTemplateEngine.from_detection(found), ChatTemplateEngine("smollm2")

    @settings(max_examples=30)
    @given(conversations(), st.booleans())
    def check(messages: list[ChatMessage], generate: bool) -> None:
        prompt = own.apply(messages, add_generation_prompt=generate)
        assert prompt == named.apply(messages, add_generation_prompt=generate)

    check()
    own.close()


@pytest.mark.parametrize("format", [f for f in named_formats().values() if f.joins], ids=lambda f: f.name)
def test_mistral_joins_neighbouring_messages_of_one_role(format: NamedFormat) -> None:
    engine, reference = ChatTemplateEngine(format.name), REFERENCES[format.name]
    anyone = st.sampled_from([ChatMessage.user, ChatMessage.assistant, ChatMessage.system])
    later = st.lists(st.tuples(anyone, TEXT), max_size=6)

    @given(TEXT, later)
    def check(first: str, rest: list[Any]) -> None:
        messages = [ChatMessage.user(first), *(make(text) for make, text in rest)]
        assert engine.apply(messages) == reference(messages, True)

    check()
