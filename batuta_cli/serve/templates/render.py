"""Compile and render chat templates with Jinja2, set up exactly as transformers sets it up.

Settings: `ImmutableSandboxedEnvironment`, `trim_blocks`, `lstrip_blocks`, `loopcontrols`, `{% generation %}` blocks,
`raise_exception`, `strftime_now`, and `tojson` without HTML escapes (transformers, `utils/chat_template_utils.py`).
Templates cannot load files: include, import and extends find no template.

The sandbox bounds neither work nor memory, so an untrusted template must be rendered in the worker process (`worker`).
This module runs there too, and imports nothing of batuta.

Failures raise `RenderError`. Its reason never quotes a message: a text is shown only if the template contains it.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_FILE = "<template>"  # the file name that Jinja2 gives to code compiled from text
_SHOWN = 200  # characters shown of a text that a template passes to raise_exception
_NAMED = re.compile(r"No (?:filter|test) named '(\w+)'|'(\w+)' is undefined")

_KINDS = {
    "TemplateSyntaxError": "syntax error",
    "TemplateAssertionError": "syntax error",
    "UndefinedError": "undefined value",
    "SecurityError": "access to internals of Python",
    "TemplateNotFound": "it refers to another template",
    "TemplatesNotFound": "it refers to another template",
    "RecursionError": "it nests too deeply",
    "MemoryError": "it needs too much memory",
    "UnicodeEncodeError": "the prompt contains a lone surrogate, which is not Unicode text",
}

_LIMITS = frozenset(("RecursionError", "MemoryError", "OverflowError"))

_NOW: ContextVar[dt.datetime] = ContextVar("now")


class RenderError(Exception):
    """A template cannot be rendered; `reason` says why.

    `refused` is true if the template called `raise_exception`; the reason is then the template's text, or empty.
    `exhausted` is true if it reached a limit of time, memory, nesting or the sandbox's limit of a range.
    """

    def __init__(self, reason: str, *, refused: bool = False, exhausted: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused
        self.exhausted = exhausted


class _TemplateRaised(Exception):
    pass


class Renderer:
    """A compiled template. Threads may share it. Raises `RenderError` if the text is not a template.

    A trusted one, of this package, needs no sandbox, which takes half of the time of a rendering.
    """

    def __init__(self, source: str, *, trusted: bool = False) -> None:
        self._source = source
        try:
            self._template = environment(trusted=trusted).from_string(source)
        except Exception as error:
            raise self._failure(error) from None

    def render(self, context: Mapping[str, Any], *, now: dt.datetime) -> str:
        """Return the text for the variables in `context`; `now` is the time of `strftime_now`.

        Raises `RenderError`. The template cannot change the values in `context`: the sandbox is immutable.
        """
        _NOW.set(now)
        try:
            return self._template.render(context)
        except Exception as error:
            raise self._failure(error) from None

    def names(self) -> frozenset[str]:
        """Return the names of variables, attributes and keys that the template reads."""
        return names_in(self._source)

    def _failure(self, error: Exception) -> RenderError:
        if isinstance(error, _TemplateRaised):
            text = str(error)
            return RenderError(text[:_SHOWN] if text in self._source else "", refused=True)
        kind = type(error).__name__
        reason = _KINDS.get(kind, f"a filter or function failed with {kind}")
        named = _NAMED.match(str(getattr(error, "message", "")))
        if named and (name := named[1] or named[2]) in self._source:
            reason = f"unknown filter or test {name}" if named[1] else f"undefined value {name}"
        line = getattr(error, "lineno", None) or _line(error)
        return RenderError(f"{reason}, in line {line}" if line else reason, exhausted=kind in _LIMITS)


def names_in(source: str) -> frozenset[str]:
    """Return the names of variables, attributes and keys that a template reads; empty if it is not a template."""
    from jinja2 import TemplateError, nodes

    try:
        tree = environment().parse(source)
    except (TemplateError, RecursionError):
        return frozenset()
    names = {node.name for node in tree.find_all(nodes.Name)}
    names |= {node.attr for node in tree.find_all(nodes.Getattr)}
    return frozenset(names | {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)})


@cache
def environment(*, trusted: bool = False) -> "Environment":
    """Return the environment of chat templates, with the sandbox unless they are trusted."""
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks responses for training; it does not change the text."""

        tags = {"generation"}  # noqa: RUF012  declared so by Jinja2

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("content"), [], [], body).set_lineno(line)

        def content(self, caller: Any) -> Any:
            return caller()

    kind = Environment if trusted else ImmutableSandboxedEnvironment
    made = kind(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = _strftime_now
    return made


def _line(error: BaseException) -> int | None:
    """Return the line of the template in which an error occurred; Jinja2 rewrites tracebacks to template lines."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _refuse(message: object) -> None:
    raise _TemplateRaised(str(message))


def _strftime_now(form: str) -> str:
    return _NOW.get().strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
