"""Find the named format that renders the same prompts as a model's own template.

The template and every named format render a few conversations. The template is a format if all prompts and refusals
are equal; if several formats are equal, further conversations decide. A BOS at the beginning may differ, because
tokenizers add it. A template that equals no format can still belong to a family, by the tokens that it writes.

The template is rendered in the worker process. A template that fails has no format; rendering it for use reports the
error.
"""

import datetime as dt
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage, ToolCall
from batuta_cli.serve.templates.formats import NamedFormat, TemplateFormat, named_formats

if TYPE_CHECKING:
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

_SYSTEM = ChatMessage.system("Answer briefly.")
_ASK, _ANSWER, _MORE = ChatMessage.user("Hello?"), ChatMessage.assistant("Here I am."), ChatMessage.user("What is 2+2?")
_CALL = ChatMessage.assistant("", [ToolCall(id="call00001", name="sum", arguments='{"a": 2}')])
_THOUGHT_CALL = ChatMessage.assistant("<think>\nSum.\n</think>\n\n", _CALL.tool_calls)

_Conversation = Sequence[ChatMessage]

_DECIDE: Final[tuple[_Conversation, ...]] = ((_ASK,), (_ASK, _ANSWER, _MORE), (_SYSTEM, _ASK, _ANSWER, _MORE))
_PREFER: Final[tuple[_Conversation, ...]] = (
    (_ASK, ChatMessage.assistant("<think>\nI?\n</think>\n\nHere I am."), _MORE),
    (_ASK, _CALL, ChatMessage.tool("4", tool_call_id="call00001"), ChatMessage.assistant("It is 4."), _MORE),
    (_ASK, _THOUGHT_CALL, ChatMessage.tool("4", tool_call_id="call00001")),
)

_BOS, _EOS = "\ue000", "\ue001"  # private use: placeholders for tokens that the model's files do not contain
_DAY = dt.date(2024, 7, 26)  # the default date of the template of Llama 3.1


def recognise(template: str, bos_token: str | None, eos_token: str | None) -> tuple[TemplateFormat | None, str]:
    """Return the family of a template (None if unknown) and its named format (empty if unknown)."""
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

    bos, eos = (_BOS if bos_token is None else bos_token), (_EOS if eos_token is None else eos_token)
    try:
        engine = ChatTemplateEngine.from_template(template, bos, eos)
    except TemplateError:
        return _family(template), ""
    try:
        prompts = tuple(_prompt(engine, conversation) for conversation in _DECIDE)
        written = "".join(prompt for prompt in prompts if prompt)
        found = [
            named
            for named in named_formats().values()
            if _may_write(named, written) and _same(prompts, _references(named.name, _DECIDE), named, bos)
        ]
        if not found:
            return _family(written.replace(_EOS, "</s>") or template), ""
        if len(found) > 1:
            further = tuple(_prompt(engine, conversation) for conversation in _PREFER)
            found.sort(key=lambda n: (-_agreements(further, n, bos), n.bos_token != bos, not n.plain))
        return found[0].family, found[0].name
    finally:
        engine.close()


def _may_write(named: NamedFormat, written: str) -> bool:
    """Whether a text has a token or mark of a format; compiling the templates of all formats takes a second."""
    return any(token in written for token in (*named.control_tokens, *named.marks))


def _same(prompts: Sequence[str | None], references: Sequence[str | None], named: NamedFormat, bos: str) -> bool:
    pairs = zip(prompts, references, strict=True)
    # `raw` must be selected by name.
    return named.family is not TemplateFormat.RAW and all(
        _equal(own, reference, named, bos) for own, reference in pairs
    )


def _agreements(prompts: Sequence[str | None], named: NamedFormat, bos: str) -> int:
    pairs = zip(prompts, _references(named.name, _PREFER), strict=True)
    return sum(reference is not None and _equal(own, reference, named, bos) for own, reference in pairs)


def _equal(own: str | None, reference: str | None, named: NamedFormat, bos: str) -> bool:
    if own is None or reference is None:
        return own is reference
    own = own.removeprefix(bos).replace(_BOS, named.bos_token).replace(_EOS, named.eos_token)
    return own.removeprefix(named.bos_token) == reference.removeprefix(named.bos_token)


@cache
def _references(name: str, conversations: tuple[_Conversation, ...]) -> tuple[str | None, ...]:
    from batuta_cli.serve.templates.engine import ChatTemplateEngine

    engine = ChatTemplateEngine(name)
    return tuple(_prompt(engine, conversation) for conversation in conversations)


def _prompt(engine: "ChatTemplateEngine", conversation: _Conversation) -> str | None:
    """Return the prompt; None if the format or the template cannot express the conversation."""
    try:
        return engine.apply(conversation, date=_DAY)
    except TemplateError:
        return None


def _family(text: str) -> TemplateFormat | None:
    return next((family for family, marks in _markers() if all(mark in text for mark in marks)), None)


@cache
def _markers() -> tuple[tuple[TemplateFormat, tuple[str, ...]], ...]:
    table = tomllib.loads((files(__package__) / "patterns.toml").read_text(encoding="utf-8"))
    return tuple((TemplateFormat(row["family"]), tuple(row["all"])) for row in table["marker"])
