"""Find control tokens in the text of users and tools.

A model reads `<|im_end|>` as the end of a message, also when a user typed it. The scan looks for the tokens of the
format in use and of all named formats, because the detected format can be wrong. The caller chooses the action
(`Injection`): warn, refuse or change the text. Only the tokenizer can distinguish a token from its spelling.

After `escape` or `strip` the text contains no token, including tokens that a removal would create.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

from batuta_cli.errors import InjectionError
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.formats import TemplateFormat, named_formats
from batuta_cli.serve.templates.template_input import Numbered

FINDINGS_LIMIT = 1000
"""Findings listed at most: a long text of tokens has millions."""

_TRUSTED = frozenset((Role.SYSTEM, Role.DEVELOPER, Role.ASSISTANT))  # text of other roles is scanned
_WORD_JOINER = "\u2060"  # invisible, not a space, and kept by tokenizers
_PIECE = 64
_HTML = frozenset(("<s>", "</s>"))  # HTML for struck-out text: a control token only in formats that use it


class Injection(NameEnum):
    """The action for control tokens in the text of users and tools."""

    WARN = "warn"
    ERROR = "error"
    ESCAPE = "escape"
    STRIP = "strip"


@dataclass(kw_only=True, frozen=True)
class Finding:
    """A control token in the text of a user or a tool."""

    message: int
    """The message's number, from 1."""
    role: Role | str
    field: str
    """`content` or `name`."""
    offset: int
    """Characters of the text before it."""
    token: str

    def __str__(self) -> str:
        place = "" if self.field == "content" else f" of its {self.field}"
        return f"message {self.message} ({self.role}): control token {self.token} at character {self.offset}{place}"


def scan_control_tokens(
    messages: Sequence[ChatMessage], format: ChatTemplateEngine | TemplateFormat | str
) -> list[Finding]:
    """Return the control tokens in the text of users and tools, at most `FINDINGS_LIMIT`.

    Raises `UsageError` if the format is unknown.
    """
    engine = format if isinstance(format, ChatTemplateEngine) else ChatTemplateEngine(format)
    return list(islice(_findings(messages, tokens_for(engine)), FINDINGS_LIMIT))


def guard(
    messages: Sequence[ChatMessage], mode: Injection | str, engine: ChatTemplateEngine
) -> tuple[list[ChatMessage], list[Finding]]:
    """Apply the mode to the messages; return the messages to render and the findings.

    Raises `InjectionError` if the mode is `error` and there is a finding.
    """
    mode = Injection.parse(mode)
    findings = scan_control_tokens(messages, engine)
    if not findings or mode is Injection.WARN:
        return list(messages), findings
    if mode is Injection.ERROR:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise InjectionError(
            f"{findings[0]}{more}",
            hint="use --on-injection escape to break the tokens up, strip to remove them, or warn to keep them",
        )
    change = escape if mode is Injection.ESCAPE else strip
    tokens = tokens_for(engine)
    return [_changed(message, change, tokens) for message in messages], findings


def tokens_for(engine: ChatTemplateEngine) -> tuple[str, ...]:
    """Return the tokens to look for: those of the engine's format and of all named formats."""
    return tuple(dict.fromkeys((*engine.control_tokens, *_well_known())))


def escape(text: str, tokens: Collection[str]) -> str:
    """Insert an invisible character (U+2060) into each token."""
    pattern = _pattern(tuple(tokens))
    while pattern.search(text):
        text = pattern.sub(lambda match: match[0][0] + _WORD_JOINER + match[0][1:], text)
    return text


def strip(text: str, tokens: Collection[str]) -> str:
    """Remove the tokens, including tokens that a removal would create, in one pass over the text."""
    if not _pattern(tuple(tokens)).search(text):
        return text
    ends = "".join(sorted({re.escape(token[-1]) for token in tokens}))
    longest_first = sorted(tokens, key=len, reverse=True)
    kept: list[str] = []  # joined, the pieces contain no token
    # Pieces are short because a removal copies the last one.
    for piece in re.findall(f"[^{ends}]{{0,{_PIECE}}}[{ends}]|[^{ends}]{{1,{_PIECE}}}", text):
        kept.append(piece)
        tail = _tail(kept, len(longest_first[0]))
        token = next((token for token in longest_first if tail.endswith(token)), "")
        _shorten(kept, len(token))
    return "".join(kept)


def _tail(pieces: Sequence[str], length: int) -> str:
    tail: list[str] = []
    for piece in reversed(pieces):
        tail.append(piece[-length:])
        length -= len(piece)
        if length <= 0:
            break
    return "".join(reversed(tail))


def _shorten(pieces: list[str], length: int) -> None:
    while length > 0:
        piece = pieces.pop()
        if len(piece) > length:
            pieces.append(piece[:-length])
        length -= len(piece)


def _findings(messages: Iterable[ChatMessage], tokens: tuple[str, ...]) -> Iterator[Finding]:
    pattern = _pattern(tokens)
    for number, message in enumerate(messages, 1):
        if message.role not in _TRUSTED:
            for field, text in (("content", message.content), ("name", message.name or "")):
                for match in pattern.finditer(text):
                    yield Finding(message=number, role=message.role, field=field, offset=match.start(), token=match[0])


def _changed(message: ChatMessage, change: Callable[[str, Collection[str]], str], tokens: Sequence[str]) -> ChatMessage:
    if message.role in _TRUSTED:
        return message
    name = None if message.name is None else change(message.name, tokens)
    # One text part replaces all, because a token can span several.
    changed = Numbered(0, message).with_content(change(message.content, tokens)).message
    return replace(changed, name=name)


@lru_cache(maxsize=32)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


@lru_cache(maxsize=1)
def _well_known() -> tuple[str, ...]:
    every = (token for format in named_formats().values() for token in format.control_tokens)
    return tuple(dict.fromkeys(token for token in every if token not in _HTML))
