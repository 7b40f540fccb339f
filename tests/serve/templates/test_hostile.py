"""A template is a stranger's code: whatever it does ends in an error, soon, and this process lives."""

import contextlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.engine import ChatTemplateEngine

HELLO = [ChatMessage.user("Hello")]

HOSTILE = {
    "loops for ever": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}"
    "{% endfor %}{% endfor %}",
    "has a range without end": "{% for i in range(10**15) %}x{% endfor %}",
    "calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "loops into itself": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "is its own block": "{% block a %}{{ self.a() }}{% endblock %}",
    "contains itself": "{% set ns = namespace(s=1) %}{% set ns.s = ns %}{{ ns }}",
    "repeats a text": "{{ 'x' * 10**12 }}",
    "repeats a list": "{{ ([1] * 10**12) | length }}",
    "doubles a text": "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubles a list": "{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}"
    "{{ n.l | length }}",
    "chains lists": "{% set n = namespace(l=[1]) %}{% for i in range(50) %}{% set n.l = n.l | chain(n.l) %}{% endfor %}"
    "{{ n.l | length }}",
    "pads with the format method": "{{ '{:>99999999999}'.format('x') }}",
    "pads by a gigabyte": "{{ '{:>1000000000}'.format('x') }}",
    "pads and looks away": "{{ '{:>1500000000}'.format('x') | length }}",
    "pads with the format filter": "{{ '%99999999999s' | format('x') }}",
    "indents JSON": "{{ [1] | tojson(indent=99999999999) }}",
    "indents": "{{ 'a\\nb' | indent(99999999999) }}",
    "joins with a long text": "{{ range(100000) | join('x' * 100000) }}",
    "replaces itself": "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s | replace('x', 'xx') %}"
    "{% endfor %}{{ n.s }}",
    "writes dates with a long format": "{% for i in range(90000) %}{{ strftime_now('%Y' * 100000) }}{% endfor %}",
    "raises to a power": "{{ 10 ** 100000000 }}",
    "nests brackets": "{{ " + "(" * 200_000 + "1" + ")" * 200_000 + " }}",
    "nests lists": "{{ " + "[" * 200_000 + "]" * 200_000 + " }}",
    "nests conditions": "{% if 1 %}" * 30_000 + "{% endif %}" * 30_000,
    "denies": "{{ " + "not " * 200_000 + "1 }}",
    "negates": "{{ " + "-" * 200_000 + "1 }}",
    "adds": "{{ 1" + "+1" * 300_000 + " }}",
    "chains attributes": "{{ x" + ".a" * 300_000 + " }}",
    "chains filters": "{{ 1" + "|string" * 100_000 + " }}",
    "chains choices": "{{ " + "1 if 1 else " * 80_000 + "1 }}",
    "is larger than any template": " " * 2_000_000,
    "reads a file": "{% include '/etc/passwd' %}",
    "extends a file": "{% extends '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}{{ os.system('id') }}",
    "reaches for the class of a text": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reaches for the class of a message": "{{ messages[0].__class__.__base__.__subclasses__() }}",
    "reaches for globals": "{{ raise_exception.__globals__['json'] }}",
    "reaches for code": "{{ strftime_now.__self__.__class__.__init__.__globals__.os }}",
    "is no template": "{% for ",
    "is binary": "{{ \x01\x02 }}",
    "has an unknown tag": "{% exec 'id' %}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_an_error_within_two_seconds_and_the_next_one_renders(source: str) -> None:
    """Seconds of the processor, of the worker too: the clock of a busy machine says less."""
    before = _processor_seconds()
    with pytest.raises(TemplateError):
        engine = ChatTemplateEngine.from_template(source)
        with contextlib.closing(engine):
            engine.apply(HELLO)
    assert _processor_seconds() - before < 2
    assert ChatTemplateEngine.from_template("{{ messages[0].content }}").apply(HELLO) == "Hello"


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("doubles a list", "it needs too much memory, in line 1"),
        ("pads and looks away", "it needs too much memory, in line 1"),
        ("nests lists", "it nests too deeply"),
        ("loops for ever", "it takes too long"),
    ],
)
def test_time_memory_and_steps_are_bounded_each_by_itself(tmp_path: Path, name: str, reason: str) -> None:
    """In a process of its own, which must live to say so."""
    template = tmp_path / "t.jinja"
    template.write_text(HOSTILE[name])
    program = """
import sys
from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates import isolation
from batuta_cli.serve.templates.engine import ChatTemplateEngine
isolation._PATIENCE, isolation.SECONDS = 3600, float(sys.argv[2])
try:
    ChatTemplateEngine.from_template(open(sys.argv[1]).read()).apply([ChatMessage.user("Hello")])
except TemplateError as error:
    print(error)
"""
    seconds = "0.8" if "too long" in reason else "50"
    command = [sys.executable, "-c", program, str(template), seconds]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = f"the template cannot be rendered: {reason}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_a_text_that_is_too_long_for_a_template_is_not_even_read() -> None:
    with pytest.raises(TemplateError, match="longer than 1,048,576 characters"):
        ChatTemplateEngine.from_template(" " * 1024 * 1024 + "{{ messages[0].content }}")


def test_templates_of_strangers_are_never_rendered_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from batuta_cli.serve.templates import own, render

    class RenderedHere(BaseException):
        """No error of a template."""

    def refuse(*, trusted: bool = False) -> None:
        raise RenderedHere

    monkeypatch.setattr(render, "environment", refuse)
    own._renderer.cache_clear()
    assert ChatTemplateEngine.from_template("{{ messages[0].content }}").apply(HELLO) == "Hello"
    with pytest.raises(RenderedHere):
        ChatTemplateEngine("chatml").apply(HELLO)


@pytest.mark.parametrize(
    ("count", "text"), [(100_000, "Hello"), (50, "word and more " * 75_000), (50, "日本語\n" * 100_000)]
)
def test_long_conversations_render(count: int, text: str) -> None:
    messages = [ChatMessage.assistant(text) if i % 2 else ChatMessage.user(text) for i in range(count)]
    for engine in (
        ChatTemplateEngine("chatml"),
        ChatTemplateEngine("qwen3"),
        ChatTemplateEngine.from_template("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"),
    ):
        assert engine.apply(messages).count(text) == count
        engine.close()
