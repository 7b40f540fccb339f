"""A template that is not ours renders as with jinja2 and transformers' settings, and loses nothing without a word."""

import datetime as dt
import json
import os
import selectors
import signal
from collections.abc import Iterator
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


def test_the_blocks_that_mark_answers_for_training_mean_nothing_here() -> None:
    source = "{% for m in messages %} {% generation -%} {{ m.content }}! {%- endgeneration %} {% endfor %}"
    assert ChatTemplateEngine.from_template(source).apply(HELLO) == " Hello! "


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


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no: ' + messages[0].content) }}",
        "{{ messages[0].content }}{{ raise_exception(messages[0].content) if 'RIV' in messages[0].content }}",
        "{{ messages[0].content | int }}",
        "{{ messages[0].content[0] + 1 }}",
        "{{ messages[0][messages[0].content].x }}",
        "{{ messages[0].content | no_such_filter }}",
        "{% include messages[0].content %}",
        "{{ messages[0].content() }}",
        "{{ {}[messages[0].content].y }}",
    ],
)
def test_no_error_quotes_a_message(source: str) -> None:
    with pytest.raises(TemplateError) as failure:
        ChatTemplateEngine.from_template(source).apply([ChatMessage.user("PRIVATE")])
    assert "PRIVATE" not in f"{failure.value} {failure.value.hint}"


def test_what_a_template_says_itself_is_shown_without_control_characters() -> None:
    source = "{{ raise_exception('No tools\x1b[2J here') }}"
    with pytest.raises(TemplateError, match=r"refuses this message: No tools\\x1b\[2J here"):
        ChatTemplateEngine.from_template(source).apply(HELLO)


@pytest.mark.parametrize("change", ["messages.append(messages[0])", "messages[0].update({})", "messages.pop()"])
def test_a_template_cannot_change_the_messages_as_in_transformers(change: str) -> None:
    source = f"{{% set _ = {change} %}}{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"
    messages = list(HELLO)
    with pytest.raises(TemplateError, match="access to internals"):
        ChatTemplateEngine.from_template(source).apply(messages)
    assert messages == HELLO


def test_filters_that_jinja2_loads_late_work_in_the_worker() -> None:
    source = "{{ messages | pprint | length > 9 }} {{ 'a b' | wordwrap(1) }} {{ lipsum(1) | length > 9 }}"
    source += "{{ messages[0].content | urlize }}{{ strftime_now('%A') | length > 3 }}{{ 'é' ~ '\\u00e9' }}"
    prompt = ChatTemplateEngine.from_template(source).apply(HELLO)
    assert prompt == "True a\nb TrueHelloTrueéé"


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


def test_a_template_may_want_something_of_the_texts() -> None:
    source = (
        "{% for m in messages %}{{ raise_exception('no question') if '?' not in m.content }}{{ m.content }}{% endfor %}"
    )
    assert ChatTemplateEngine.from_template(source).apply([ChatMessage.user("Who?")]) == "Who?"
    with pytest.raises(TemplateError, match="message 1: the template refuses this message: no question"):
        ChatTemplateEngine.from_template(source).apply(HELLO)


def test_an_interrupted_request_leaves_no_answer_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ChatTemplateEngine.from_template("{{ messages[0].content }}")
    engine.apply(HELLO)
    real = selectors.DefaultSelector.select

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        ready = real(self, timeout)
        if [key for key, _ in ready if key.events & selectors.EVENT_READ]:
            raise KeyboardInterrupt
        return ready

    with monkeypatch.context() as patched:
        patched.setattr(selectors.DefaultSelector, "select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.apply([ChatMessage.user("first")])
    assert engine.apply([ChatMessage.user("second")]) == "second"
    engine.close()


@pytest.mark.parametrize(("text", "bos"), [("\ud800", ""), ("{{ messages[0].content }}", "\ud800")])
def test_a_template_that_is_not_unicode_text_is_an_error(text: str, bos: str) -> None:
    with pytest.raises(TemplateError, match="lone surrogate"):
        ChatTemplateEngine.from_template(text, bos)


@pytest.fixture
def children() -> Iterator[list[int]]:
    """The process ids of this process's children, when asked."""

    class Children(list[int]):
        def __iter__(self) -> Iterator[int]:
            path = Path("/proc/self/task")
            for task in path.iterdir():
                yield from map(int, (task / "children").read_text().split())

    yield Children()


def test_the_worker_stays_for_the_next_prompt_and_ends_with_the_engine(children: list[int]) -> None:
    before = set(children)
    engine = ChatTemplateEngine.from_template("{{ messages[0].content }}")
    engine.apply(HELLO)
    (worker,) = set(children) - before
    engine.apply([ChatMessage.user("again")])
    assert set(children) - before == {worker}
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert engine.apply(HELLO) == "Hello"
    engine.close()
    assert not set(children) - before
    assert engine.apply(HELLO) == "Hello"
    del engine
    assert not set(children) - before


@pytest.mark.parametrize(
    "expression",
    [
        "none is iterable",
        "'s' is sequence",
        "1.0 | tojson",
        "{'x': 1.0, 'y': 1e16, 'z': 1e-7, 'n': 10**20} | tojson",
        "1e16",
        "missing | trim",
        "'<&>' | e",
        "range(3)",
        "'\\x1c a'.strip()",
        "'a b c'.rsplit(' ', 1)",
        "'a=b'.partition('=')",
        "'prefix'.removeprefix('pre')",
        "'7'.zfill(3)",
        "'x'.center(5)",
        "'%s and %d' % ('a', 1)",
        "range is callable",
        "'a b c' | wordcount",
        "'a long text of words' | truncate(9)",
        "'abc'.format_map({}) == 'abc'",
    ],
)
def test_an_expression_gives_what_jinja2_gives(expression: str) -> None:
    source = "{{ " + expression + " }}{{ messages[0].content }}"
    expected = reference(source).render(messages=plain(HELLO), missing=None)
    source = source.replace("missing", "none")
    assert ChatTemplateEngine.from_template(source).apply(HELLO) == expected


def test_a_condition_on_absent_tools_is_as_in_jinja2() -> None:
    source = "{% if tools is iterable and tools | length > 0 %}T{% endif %}{{ messages[0].content }}"
    assert ChatTemplateEngine.from_template(source).apply(HELLO) == "Hello"
