"""Jinja as chat templates use it, on minijinja, within a bound of work.

What a template may rely on is what transformers gives it: `trim_blocks`, `lstrip_blocks`, `loopcontrols`,
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, `{% generation %}` blocks, the methods of Python's
strings, lists and dicts. Nothing is loaded from files: include, import and extends find no template.

The work is bounded, the memory is not, and some templates overflow minijinja's stack: a template that is not ours
belongs into `worker`. This module is also what runs there, so it imports nothing of batuta.

A failure never quotes the messages: neither what a template passes to `raise_exception` nor an error of the engine is
shown unless the text stands literally in the template.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any

_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_SHOWN = 200  # characters of a text that a template passes to raise_exception

_KINDS = {
    "SyntaxError": "syntax error",
    "OutOfFuel": "it takes too many steps",
    "UndefinedError": "undefined value",
    "UnknownFilter": "unknown filter",
    "UnknownFunction": "unknown function",
    "UnknownMethod": "unknown method",
    "UnknownTest": "unknown test",
    "TemplateNotFound": "it refers to another template",
}
_NAMED = re.compile(r"(?:filter|function|test|method named) (\w+)")


class RenderError(Exception):
    """A template that cannot be rendered, and why.

    `refused` when it called `raise_exception` itself; the reason is then its own, or empty.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused


class _TemplateRaised(Exception):
    pass


def fuel_for(size: int, messages: int) -> int:
    """The work, in minijinja's steps, that rendering so many bytes in so many messages may take.

    minijinja charges for the text as well; the most thorough of our templates needs some 80 steps a message.
    """
    return 1_000_000 + size // 8 + 100 * messages


class Renderer:
    """A compiled template. Raises `RenderError` when the text is no template."""

    def __init__(self, source: str) -> None:
        from minijinja import Environment, TemplateError

        self._source = source
        self._now = dt.datetime.min
        self._environment = Environment(
            templates={"chat": _GENERATION.sub(_as_condition, source)},
            debug=False,  # its errors would quote the messages
            trim_blocks=True,
            lstrip_blocks=True,
            auto_escape_callback=lambda name: False,
            pycompat=True,
            filters={"tojson": _to_json, "trim": _trim},
            globals={"raise_exception": _refuse, "strftime_now": self._strftime},
        )
        self._error = TemplateError

    def render(self, context: Mapping[str, Any], *, fuel: int, now: dt.datetime) -> str:
        """The text for the variables in `context`, which the template may change. Raises `RenderError`."""
        self._now = now
        self._environment.fuel = fuel
        try:
            return self._environment.render_template("chat", **context)
        except _TemplateRaised as refusal:
            said = str(refusal)
            raise RenderError(said[:_SHOWN] if said in self._source else "", refused=True) from None
        except self._error as error:
            raise RenderError(self._reason(error)) from None
        except MemoryError:
            raise RenderError("it needs too much memory") from None
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise RenderError(f"a filter or function failed with {type(error).__name__}") from None

    def _strftime(self, form: str) -> str:
        return self._now.strftime(form)

    def _reason(self, error: Any) -> str:
        reason = _KINDS.get(error.kind, "an operation failed")
        named = _NAMED.search(str(error.message))
        if reason.startswith("unknown") and named and named[1] in self._source:
            reason += f" {named[1]}"
        return f"{reason}, in line {error.line}" if error.line else reason


def _as_condition(match: re.Match[str]) -> str:
    return f"{match[1]}{'endif' if match[2] else 'if true'}{match[3]}"


def _refuse(text: object = "") -> None:
    raise _TemplateRaised(str(text))


def _to_json(value: object, indent: int | None = None, **options: Any) -> str:
    return json.dumps(
        value,
        ensure_ascii=options.get("ensure_ascii", False),
        indent=indent,
        separators=options.get("separators"),
        sort_keys=options.get("sort_keys", False),
    )


def _trim(value: object, characters: str | None = None) -> str:
    """Python's idea of white space, which is not quite Unicode's."""
    return str(value).strip(characters)
