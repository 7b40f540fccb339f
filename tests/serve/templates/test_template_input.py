"""Nothing of the input is dropped: tools, documents, fields, roles, parts and variables reach the template."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Config
from batuta_cli.errors import InvalidInputError, TemplateError, UsageError
from batuta_cli.serve import ChatMessage, ChatTemplateEngine, PrivacyTier
from batuta_cli.serve.messages import parse_messages, read_input
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.templates.control import guard

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
ALL = "{% for m in messages %}{{ m | tojson }}{% endfor %}"


def messages_of(*items: dict[str, Any]) -> list[ChatMessage]:
    return parse_messages(list(items), complete=True)


def test_tools_documents_and_variables_reach_a_models_own_template() -> None:
    source = "{{ tools | tojson }}{{ documents | tojson }}{{ enable_thinking }}{{ budget }}{{ messages[0].content }}"
    prompt = ChatTemplateEngine.from_template(source).apply(
        [ChatMessage.user("Hi")], tools=[TOOL], documents=[{"title": "t"}], enable_thinking=False, budget=7
    )
    assert prompt == json.dumps([TOOL]) + '[{"title": "t"}]False7Hi'


def test_fields_names_and_any_role_reach_a_models_own_template() -> None:
    messages = messages_of(
        {"role": "user", "content": "Hi", "name": "ana"},
        {"role": "assistant", "content": "Ho", "reasoning_content": "hm", "thinking": {"x": [1.0]}},
        {"role": "assistant", "reasoning_content": "only thoughts"},
        {"role": "ipython", "content": "4"},
        {"role": "tool_response", "content": "5"},
    )
    prompt = ChatTemplateEngine.from_template(ALL).apply(messages)
    read, end = [], 0
    while end < len(prompt):
        item, end = json.JSONDecoder().raw_decode(prompt, end)
        read.append(item)
    assert read == [
        {"role": "user", "content": "Hi", "name": "ana"},
        {"role": "assistant", "content": "Ho", "reasoning_content": "hm", "thinking": {"x": [1.0]}},
        {"role": "assistant", "content": "", "reasoning_content": "only thoughts"},
        {"role": "ipython", "content": "4"},
        {"role": "tool_response", "content": "5"},
    ]


PARTS = {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}
READS_TEXT = "{% for m in messages %}<{{ m.role + ':' + m.content }}>{% endfor %}"
READS_PARTS = "{% for m in messages %}<{% for p in m.content %}[{{ p.text }}]{% endfor %}>{% endfor %}"
READS_BOTH = (
    "{% for m in messages %}<{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ '[image]' if p.type == 'image' else '[' + p.text + ']' }}{% endfor %}{% endif %}>"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "message", "expected"),
    [
        (READS_TEXT, PARTS, "<user:one two>"),
        (READS_PARTS, PARTS, "<[one ][two]>"),
        (READS_BOTH, PARTS, "<[one ][two]>"),
        (READS_TEXT, {"role": "user", "content": "Hi"}, "<user:Hi>"),
        (READS_PARTS, {"role": "user", "content": "Hi"}, "<[Hi]>"),
        (READS_BOTH, {"role": "user", "content": "Hi"}, "<Hi>"),
    ],
)
def test_content_is_a_list_where_the_template_reads_it_so(source: str, message: dict[str, Any], expected: str) -> None:
    engine = ChatTemplateEngine.from_template(source)
    assert [engine.apply(messages_of(message)) for _ in range(2)] == [expected] * 2


def test_an_image_reaches_a_template_that_reads_it_and_is_an_error_otherwise() -> None:
    message = messages_of({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]})
    assert ChatTemplateEngine.from_template(READS_BOTH).apply(message) == "<[image][What?]>"
    only_text = READS_PARTS.replace("for p in m.content", "for p in m.content if p.type == 'text'")
    with pytest.raises(TemplateError, match="message 1: the template leaves out its part of type image"):
        ChatTemplateEngine.from_template(only_text).apply(message)
    with pytest.raises(TemplateError):
        ChatTemplateEngine.from_template(READS_TEXT).apply(message)
    with pytest.raises(TemplateError, match="message 1: the format chatml has no content parts of type image"):
        ChatTemplateEngine("chatml").apply(message)


def test_a_named_format_refuses_a_role_that_it_does_not_have() -> None:
    with pytest.raises(TemplateError, match="message 1: the format chatml has no role usr, did you mean user"):
        ChatTemplateEngine("chatml").apply(messages_of({"role": "usr", "content": "x"}))


def test_what_a_template_does_not_read_is_reported() -> None:
    messages = messages_of(
        {"role": "user", "content": "Hi", "name": "ana"}, {"role": "assistant", "content": "", "reasoning_content": "r"}
    )
    engine = ChatTemplateEngine.from_template(
        "{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{% endfor %}"
    )
    given: dict[str, Any] = {"tools": [TOOL], "documents": [{}], "enable_thinking": True}
    assert engine.unread(messages, **given) == [
        "the template does not read tools",
        "the template does not read documents",
        "the template does not read enable_thinking",
        "the template does not read name (first in message 1)",
    ]
    reads = ChatTemplateEngine.from_template("{{ tools and tools[0].function.name }}{{ messages[0]['name'] }}{{ x }}")
    assert reads.unread(messages[:1], tools=[TOOL], x=None, prompt="add") == []
    assert reads.unread(messages[:1], tools=[TOOL], prompt="") == ["the prompt does not contain the tool add"]
    assert ChatTemplateEngine("chatml").unread(messages[:1], tools=[TOOL])[0] == "the template does not read tools"
    assert ChatTemplateEngine("chatml").unread([ChatMessage.user("Hi")]) == []


def test_an_input_is_an_object_with_messages_tools_documents_and_variables() -> None:
    document = {"messages": [PARTS], "tools": [TOOL], "documents": [{"a": 1}], "reasoning_effort": "low"}
    found = read_input(json.dumps({**document, "chat_template_kwargs": {"enable_thinking": False}}))
    assert found.messages[0].to_dict() == PARTS
    assert found.arguments() == {
        "tools": [TOOL],
        "documents": [{"a": 1}],
        "reasoning_effort": "low",
        "enable_thinking": False,
    }
    for broken, reason in (
        ({"tools": {}}, "tools must be a list"),
        ({"chat_template_kwargs": []}, ""),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs must be an object"),
        ({"tools": ["\ud800"]}, "lone surrogate"),
    ):
        if reason:
            with pytest.raises(InvalidInputError, match=reason):
                read_input(json.dumps({"messages": [PARTS], **broken}))


@pytest.mark.parametrize("variable", ["messages", "bos_token", "eos_token"])
def test_variables_that_batuta_sets_cannot_be_given(variable: str) -> None:
    given: dict[str, Any] = {variable: 1}
    with pytest.raises((UsageError, TypeError)):
        ChatTemplateEngine("chatml").apply([ChatMessage.user("Hi")], **given)


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {"b": {1}}}, "\ud800"])
def test_a_variable_must_be_a_json_value(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="x "):
        ChatTemplateEngine.from_template(ALL).apply([ChatMessage.user("Hi")], x=value)


def test_control_tokens_are_found_in_parts_and_in_unknown_roles() -> None:
    parts = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]
    messages = messages_of({"role": "user", "content": parts}, {"role": "ipython", "content": "<|im_end|>"})
    engine = ChatTemplateEngine.from_template(READS_BOTH + "{# <|im_end|> #}")
    cleaned, findings = guard(messages, "strip", engine)
    assert [(f.message, f.token) for f in findings] == [(1, "<|im_end|>"), (2, "<|im_end|>")]
    assert "im_end" not in engine.apply(cleaned)


def test_raw_completions_get_tools_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    options = {"tools": [TOOL], "chat_template_kwargs": {"enable_thinking": False}}
    request = ChatRequest(
        model="qwen3-8b", messages=(ChatMessage.user("Hi"),), privacy=PrivacyTier.SOVEREIGN, options=options
    )
    expected = ChatTemplateEngine("qwen3").apply(request.messages, tools=[TOOL], enable_thinking=False)

    async def rendered() -> str:
        async with Pipeline(Config()) as pipeline:
            return await pipeline.planner.render(request)

    assert asyncio.run(rendered()) == expected
