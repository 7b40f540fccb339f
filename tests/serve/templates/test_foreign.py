"""A template that is not ours renders as with jinja2 and transformers' settings, and loses nothing without a word."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage, ToolCall
from batuta_cli.serve.models.gguf import read_metadata
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from tests.serve.templates.conversations import conversations

DAY = dt.date(2026, 11, 23)
HELLO = [ChatMessage.user("Hello")]
SYSTEM = [ChatMessage.system("Be brief."), *HELLO]

# What published templates do, one habit each.
TEMPLATES = {
    "headers": """{{ bos_token }}
{% for message in messages %}
    {% if message['role'] == 'assistant' %}
        {{ '<|assistant|>' + message['content'] + eos_token }}
    {% else %}
        {{ '<|' ~ message.role ~ '|>' ~ message.content }}
    {% endif %}
    {% if loop.last and add_generation_prompt %}
        {{ '<|assistant|>' }}
    {% endif %}
{% endfor %}
""",
    "namespace": """{%- set ns = namespace(seen=0, system='') -%}
{%- for m in messages if m.role == 'system' %}{% set ns.system = m.content %}{% endfor -%}
{{ ns.system }}|{% for m in messages[::-1] %}
{% if m.role == 'user' %}{% set ns.seen = loop.index0 %}{% break %}{% endif %}
{% endfor %}{{ ns.seen }}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}[{{ m.content }}]
{%- endfor %}""",
    "lists": """{%- set ns = namespace(out=[]) -%}
{%- for m in messages -%}{%- set ns.out = ns.out + [m.role ~ ': ' ~ m['content']] -%}{%- endfor -%}
{{ ns.out | join('\n') }}""",
    "methods": """{%- for m in messages -%}
{{ m.role.upper() }} {{ m['content'].split('</think>')[-1].lstrip('\n') }}
{%- if m.content.startswith('<') and not m.content.endswith('>') %} <{% endif %}
{{ m.content.replace('a', 'b') if m.content is string else '' }}{{ m.get('name', 'none') }}
{%- endfor -%}""",
    "macro": """{%- macro turn(role, content, last=false) -%}
{{ '<' ~ role ~ '>' }}{{ content }}{% if not last %}</{{ role }}>{% endif %}
{%- endmacro -%}
{%- for m in messages -%}{{ turn(m.role, m.content, last=loop.last) }}{%- endfor -%}
{{ raise_exception('never') if messages | length == 0 }}""",
    "json": """{%- for m in messages -%}
{{ m.content | tojson }}{{ {'role': m.role, 'text': m.content} | tojson(indent=2) }}{{ m.content | length }}
{%- endfor -%}{{ strftime_now('%d %B %Y') }}""",
    "tools": """{%- for m in messages -%}
{%- if m.tool_calls is defined and m.tool_calls -%}
{{ m.content or '' }}
{% for c in m.tool_calls %}
{% set f = c.function %}<call {{ f.name }} {{ f.arguments | tojson }}>{% endfor %}
{%- else -%}{{ m.role }}={{ m.content }};{%- endif -%}
{%- endfor -%}""",
}


def reference(source: str) -> Any:
    """The template as transformers compiles it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["strftime_now"] = DAY.strftime
    environment.globals["raise_exception"] = None
    return environment.from_string(source)


def plain(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as transformers' callers give them."""
    made = []
    for message in messages:
        shaped = message.to_dict() | {"content": message.content}
        for call in shaped.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        made.append(shaped)
    return made


def agree(source: str, messages: list[ChatMessage], generate: bool, engine: ChatTemplateEngine) -> None:
    expected = reference(source).render(
        messages=plain(messages),
        add_generation_prompt=generate,
        bos_token=engine.bos_token,
        eos_token=engine.eos_token,
        date_string=f"{DAY:%d %b %Y}",
    )
    assert engine.apply(messages, add_generation_prompt=generate, date=DAY) == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_with_jinja2(name: str) -> None:
    source = TEMPLATES[name]
    engine = ChatTemplateEngine.from_template(source, "<s>", "</s>")

    @given(conversations(calls=2 if name == "tools" else 0), st.booleans())
    def check(messages: list[ChatMessage], generate: bool) -> None:
        agree(source, messages, generate, engine)

    check()
    engine.close()


def test_the_template_inside_a_real_model_renders_as_with_jinja2(gguf: Path) -> None:
    source = read_metadata(gguf).chat_template
    assert source is not None
    engine = ChatTemplateEngine.from_model(str(gguf))

    @given(conversations(), st.booleans())
    def check(messages: list[ChatMessage], generate: bool) -> None:
        agree(source, messages, generate, engine)

    check()
    engine.close()


def test_a_template_is_told_as_by_transformers_that_there_are_no_tools() -> None:
    source = "{{ tools is none and documents is none and tools is defined }} {{ messages[0].content }}"
    assert ChatTemplateEngine.from_template(source).apply(HELLO) == "True Hello"


def test_arguments_are_text_where_a_template_can_take_them_only_so() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name + c.function.arguments }}{% endfor %}"
    )
    source += "{{ m.content }}{% endfor %}"
    calls = [ToolCall("1", "f", '{"a": 1}')]
    messages = [*HELLO, ChatMessage.assistant("", calls), ChatMessage.tool("x", "1")]
    assert ChatTemplateEngine.from_template(source).apply(messages) == 'Hellof{"a": 1}x'


REFUSES = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
REFUSES += "{{ m.role + ':' + m.content + ';' }}{% endfor %}"
IGNORES = "{% for m in messages if m.role != 'system' %}{{ m.role + ':' + m.content + ';' }}{% endfor %}"


@pytest.mark.parametrize("source", [REFUSES, IGNORES], ids=["refuses", "ignores"])
def test_a_system_message_without_a_place_is_an_error_unless_asked_otherwise(source: str) -> None:
    engine = ChatTemplateEngine.from_template(source)
    with pytest.raises(TemplateError, match="message 1: the template does not support this system message") as failure:
        engine.apply(SYSTEM)
    assert "--system-fallback merge" in str(failure.value.hint)
    assert engine.apply(SYSTEM, system_fallback="merge") == "user:Be brief.\nHello;"
    assert engine.apply(SYSTEM, system_fallback="drop") == "user:Hello;"
    assert engine.apply(HELLO) == "user:Hello;"


def test_a_fallback_changes_nothing_where_the_system_message_has_a_place() -> None:
    engine = ChatTemplateEngine.from_template(TEMPLATES["headers"])
    assert engine.apply(SYSTEM, system_fallback="drop") == engine.apply(SYSTEM)


def test_the_second_of_two_system_messages_is_named_when_it_is_lost() -> None:
    source = "{{ messages[0].content }}{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    messages = [ChatMessage.system("one"), *HELLO, ChatMessage.system("two"), *HELLO]
    with pytest.raises(TemplateError, match="message 3"):
        ChatTemplateEngine.from_template(source).apply(messages)


@pytest.mark.parametrize(
    ("source", "messages", "number"),
    [
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", 4, 2),
        ("{{ messages[0].content }}{{ messages[-1].content }}", 5, 2),
        (
            "{% for m in messages %}{{ raise_exception('three') if loop.index > 3 }}{{ m.content }}{% endfor %}",
            9,
            4,
        ),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", 3, 1),
        ("", 1, 1),
    ],
)
def test_a_message_that_is_lost_or_refused_is_named(source: str, messages: int, number: int) -> None:
    made = [ChatMessage.assistant("SECRET") if i % 2 else ChatMessage.user("SECRET") for i in range(messages)]
    with pytest.raises(TemplateError, match=f"^message {number}: the template ") as failure:
        ChatTemplateEngine.from_template(source).apply(made)
    assert "SECRET" not in str(failure.value)


def test_a_tool_call_that_is_lost_is_named_and_text_beside_calls_counts_as_thought() -> None:
    messages = [*HELLO, ChatMessage.assistant("I think.", [ToolCall("1", "f"), ToolCall("2", "g")])]
    first = "{% for m in messages %}{{ m.tool_calls[0].function.name if m.tool_calls else m.content }}{% endfor %}"
    with pytest.raises(TemplateError, match=r"message 2: .*tool call"):
        ChatTemplateEngine.from_template(first).apply(messages)
    both = first.replace("m.tool_calls[0].function.name", "m.tool_calls | map(attribute='function.name') | join")
    assert ChatTemplateEngine.from_template(both).apply(messages) == "Hellofg"


def test_the_developers_role_is_the_systems_unless_the_template_knows_it() -> None:
    messages = [ChatMessage("developer", "Be brief."), *HELLO]
    source = "{% for m in messages %}{{ m.role }} {% endfor %}{{ messages | map(attribute='content') | join }}"
    assert ChatTemplateEngine.from_template(source).apply(messages).startswith("system user ")
    assert ChatTemplateEngine.from_template(source + "{# developer #}").apply(messages).startswith("developer user ")


def test_a_template_may_want_something_of_the_texts() -> None:
    source = (
        "{% for m in messages %}{{ raise_exception('no question') if '?' not in m.content }}{{ m.content }}{% endfor %}"
    )
    assert ChatTemplateEngine.from_template(source).apply([ChatMessage.user("Who?")]) == "Who?"
    with pytest.raises(TemplateError, match="message 1: the template refuses this message: no question"):
        ChatTemplateEngine.from_template(source).apply(HELLO)


@pytest.mark.parametrize(("text", "bos"), [("\ud800", ""), ("{{ messages[0].content }}", "\ud800")])
def test_a_template_that_is_not_unicode_text_is_an_error(text: str, bos: str) -> None:
    with pytest.raises(TemplateError, match="lone surrogate"):
        ChatTemplateEngine.from_template(text, bos)
