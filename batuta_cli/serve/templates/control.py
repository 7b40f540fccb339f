"""Control tokens in what users and tools wrote.

A model takes `<|im_end|>` for the end of a message whoever wrote it, once the prompt is tokenised with its special
tokens. So texts are scanned for the tokens of the format in use, and for those of all named formats: the model behind
a name is not always the one that was meant. What to do about them is the caller's choice (`Injection`); a text engine
can warn, refuse or change the text, but only the tokeniser could tell a token from its spelling.

`escape` and `strip` leave no token behind, also none that came about by taking another one out.
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

FINDINGS_LIMIT = 1000
"""No more are listed: a text of nothing but tokens has millions."""

_WRITERS = frozenset((Role.USER, Role.TOOL))
_WORD_JOINER = "\u2060"  # not seen, not a space, and no tokeniser drops it
_PIECE = 64
_HTML = frozenset(("<s>", "</s>"))  # struck-out text: a token only where the format in use has it


class Injection(NameEnum):
    """What to do about control tokens in the text of users and tools."""

    WARN = "warn"
    ERROR = "error"
    ESCAPE = "escape"
    STRIP = "strip"


@dataclass(frozen=True)
class Finding:
    """A control token where none belongs."""

    message: int
    """The message's number, from 1."""
    role: Role
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
    """The control tokens in the text of users and tools, the first `FINDINGS_LIMIT` of them.

    Raises `UsageError` for a format that is not known.
    """
    engine = format if isinstance(format, ChatTemplateEngine) else ChatTemplateEngine(format)
    return list(islice(_findings(messages, tokens_for(engine)), FINDINGS_LIMIT))


def guard(
    messages: Sequence[ChatMessage], mode: Injection | str, engine: ChatTemplateEngine
) -> tuple[list[ChatMessage], list[Finding]]:
    """The messages as they may go into a prompt, and the control tokens that they had.

    Raises `InjectionError` when there are any and the mode is `error`.
    """
    mode = Injection.parse(mode)
    findings = scan_control_tokens(messages, engine)
    if not findings or mode is Injection.WARN:
        return list(messages), findings
    if mode is Injection.ERROR:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise InjectionError(
            f"{findings[0]}{more}",
            hint="--on-injection escape breaks them up, strip takes them out, warn lets them pass",
        )
    change = escape if mode is Injection.ESCAPE else strip
    tokens = tokens_for(engine)
    return [_changed(message, change, tokens) for message in messages], findings


def tokens_for(engine: ChatTemplateEngine) -> tuple[str, ...]:
    """The tokens to look for: those of the engine's format, and the well-known ones."""
    return tuple(dict.fromkeys((*engine.control_tokens, *_well_known())))


def escape(text: str, tokens: Collection[str]) -> str:
    """The text with each token broken up by a character that is not seen (U+2060)."""
    pattern = _pattern(tuple(tokens))
    while pattern.search(text):
        text = pattern.sub(lambda match: match[0][0] + _WORD_JOINER + match[0][1:], text)
    return text


def strip(text: str, tokens: Collection[str]) -> str:
    """The text without the tokens, nor any that taking them out brings about; in one pass, however they nest."""
    if not _pattern(tuple(tokens)).search(text):
        return text
    ends = "".join(sorted({re.escape(token[-1]) for token in tokens}))
    longest_first = sorted(tokens, key=len, reverse=True)
    kept: list[str] = []  # joined, it never has a token
    # Short pieces, because the last one is cut each time that a token goes.
    for piece in re.findall(f"[^{ends}]{{0,{_PIECE}}}[{ends}]|[^{ends}]{{1,{_PIECE}}}", text):
        kept.append(piece)
        tail = _tail(kept, len(longest_first[0]))
        token = next((token for token in longest_first if tail.endswith(token)), "")
        _shorten(kept, len(token))
    return "".join(kept)


def _tail(pieces: Sequence[str], length: int) -> str:
    found: list[str] = []
    for piece in reversed(pieces):
        found.append(piece[-length:])
        length -= len(piece)
        if length <= 0:
            break
    return "".join(reversed(found))


def _shorten(pieces: list[str], length: int) -> None:
    while length > 0:
        piece = pieces.pop()
        if len(piece) > length:
            pieces.append(piece[:-length])
        length -= len(piece)


def _findings(messages: Iterable[ChatMessage], tokens: tuple[str, ...]) -> Iterator[Finding]:
    pattern = _pattern(tokens)
    for number, message in enumerate(messages, 1):
        if message.role in _WRITERS:
            for field, text in (("content", message.content), ("name", message.name or "")):
                for match in pattern.finditer(text):
                    yield Finding(number, message.role, field, match.start(), match[0])


def _changed(message: ChatMessage, change: Callable[[str, Collection[str]], str], tokens: Sequence[str]) -> ChatMessage:
    if message.role not in _WRITERS:
        return message
    name = None if message.name is None else change(message.name, tokens)
    return replace(message, content=change(message.content, tokens), name=name)


@lru_cache(maxsize=32)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


@lru_cache(maxsize=1)
def _well_known() -> tuple[str, ...]:
    every = (token for format in named_formats().values() for token in format.control_tokens)
    return tuple(dict.fromkeys(token for token in every if token not in _HTML))
