"""Templates are rendered as plain Jinja2 with the settings of transformers renders them."""

import datetime as dt
import json
from typing import Any

import pytest
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.engine import ChatTemplateEngine

DAY = dt.date(2026, 11, 23)
HELLO = [ChatMessage.user("Hello")]


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


REFUSES = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"


REFUSES += "{{ m.role + ':' + m.content + ';' }}{% endfor %}"


def test_the_blocks_that_mark_answers_for_training_mean_nothing_here() -> None:
    source = "{% for m in messages %} {% generation -%} {{ m.content }}! {%- endgeneration %} {% endfor %}"
    assert ChatTemplateEngine.from_template(source).apply(HELLO) == " Hello! "


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


def test_a_template_is_rendered_in_the_sandbox_unless_it_is_one_of_this_package() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from batuta_cli.serve.templates.render import Renderer, RenderError, environment

    assert type(environment()) is ImmutableSandboxedEnvironment
    with pytest.raises(RenderError, match="internals of Python"):
        Renderer("{{ ''.__class__.__mro__ }}").render({}, now=dt.datetime(2026, 11, 23))
