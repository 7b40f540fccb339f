"""The text of config.toml: what it says, on which line, and how to change one value and nothing else.

`tomllib` says what a document means; it does not say where. The scanner here finds where the statements of a document
begin and end, which takes only strings, brackets and comments, because it runs after `tomllib` has found the document
valid. An edit is believed when `tomllib` reads from the new text exactly what was intended; else the file is written
anew by `tomli_w`, and the caller is told that its comments are lost.
"""

import copy
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from batuta_cli.config.kinds import exact
from batuta_cli.errors import ConfigError, InvalidInputError, NotFoundError
from batuta_cli.files import display, read_limited
from batuta_cli.secrecy import hide_tokens

_LIMIT = 256 * 1024  # bytes; tomllib takes quadratic time over some texts
_DEPTH = 3  # the longest path of a key: backends.NAME.KEY

_TEXT = r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\''''
_KEY = re.compile(rf"(?:{_TEXT}|[^\"'=])+", re.DOTALL)
_HEADER = re.compile(rf"(\[\[?)((?:{_TEXT}|[^\"'\]])+)\]\]?", re.DOTALL)
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_TOKEN = re.compile(
    rf"(?P<text>{_TEXT})|(?P<open>[\[{{])|(?P<close>[\]}}])|(?P<comment>#[^\n]*)|\n|[^\"'\[\]{{}}#\n]+", re.DOTALL
)
_BARE_KEY = re.compile(r"[ \t]*[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*[ \t]*")

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class TomlStatement:
    """A table's header, or a key with its value, and where it stands in the text."""

    path: KeyPath
    line: int
    header: bool
    start: int
    value: int
    """Where the value begins; of a header, its end."""
    end: int


@dataclass(frozen=True)
class Document:
    """A valid TOML document: its text and what it means."""

    file: str
    text: str
    data: dict[str, Any]

    @cached_property
    def statements(self) -> list[TomlStatement]:
        """All headers and keys, in order."""
        return list(_scan(self.text))

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        lines: dict[KeyPath, int] = {}
        for statement in self.statements:
            for length in range(1, min(len(statement.path), _DEPTH) + 1):
                lines.setdefault(statement.path[:length], statement.line)
        return lines

    def line(self, path: Sequence[str]) -> int:
        """The line on which the value of `path` was given; inside an inline table, the line of that."""
        wanted = tuple(path[:_DEPTH])
        while wanted and wanted not in self._lines:
            wanted = wanted[:-1]
        return self._lines.get(wanted, 1)


@dataclass(frozen=True)
class Edit:
    """A new text, and whether comments of the old one are gone from it."""

    text: str
    comments_lost: bool


def read(path: Path) -> Document | None:
    """The document in a file, None when there is no such file.

    Raises `ConfigError` when it is no regular file, too large, not UTF-8 or not TOML, and `OperationError` when it
    cannot be read.
    """
    try:
        data = read_limited(path, _LIMIT)
    except NotFoundError:
        return None
    except InvalidInputError as error:
        raise ConfigError(error.message) from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{display(path)}:{line}: not UTF-8 text", hint="save it as UTF-8") from None
    return parse(text, display(path))


def parse(text: str, file: str) -> Document:
    """Parse TOML; `file` is how messages call it. Raises `ConfigError` with the line."""
    try:
        # Decimal digits are kept as they are written: 0.1 stays ten cents.
        return Document(file, text, tomllib.loads(text, parse_float=exact))
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply") from None
    except ValueError as error:
        what, where = re.fullmatch(r"(.*?)(?: \(at (.*)\))?", str(error), re.DOTALL).groups()  # type: ignore[union-attr]
        place = re.fullmatch(r"line (\d+), column (\d+)", where or "")
        line = int(place[1]) if place else text.count("\n") + (not text.endswith("\n"))
        column = f" (column {place[2]})" if place else ""
        reason = hide_tokens(what[:1].lower() + what[1:])
        raise ConfigError(f"{file}:{line}: not valid TOML: {display(reason)}{column}") from None


def literal(value: object) -> str:
    """`value` as TOML. Strings are one line without control characters, so that JSON's escapes are TOML's."""
    import json

    return json.dumps(value, ensure_ascii=False)


def edit(document: Document, path: KeyPath, value: str) -> Edit:
    """Give the key `path` the TOML literal `value`, with as little change to the text as can be."""
    expected = copy.deepcopy(document.data)
    table = expected
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = tomllib.loads(f"value = {value}", parse_float=exact)["value"]

    edited = _in_place(document, path, value)
    if _means(edited.text, expected):
        return edited
    import tomli_w

    return Edit(tomli_w.dumps(expected), comments_lost="#" in document.text)


def remove(document: Document, path: KeyPath) -> Edit:
    """Take the key `path` out, which the document has; comments of other lines stay."""
    expected = copy.deepcopy(document.data)
    table = expected
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]
    if not table and len(path) == 2:  # an empty table says nothing; an empty backend is one all the same
        del expected[path[0]]

    text = document.text
    for statement in document.statements:
        if statement.path == path and not statement.header:
            start = text.rfind("\n", 0, statement.start) + 1
            end = text.find("\n", statement.end) + 1 or len(text)
            removed = text[:start] + text[end:]
            alone = not text[start : statement.start].strip()
            if alone and (_means(removed, expected) or _means(removed, expected | {path[0]: {}})):
                return Edit(removed, "#" in text[statement.start : end])
    import tomli_w

    return Edit(tomli_w.dumps(expected), comments_lost="#" in text)


def remove_table(document: Document, path: KeyPath) -> Edit:
    """Take the table `path` out with all its keys; comments between them go with it, others stay."""
    expected = copy.deepcopy(document.data)
    outer = expected
    for part in path[:-1]:
        outer = outer[part]
    del outer[path[-1]]
    if not outer:
        del expected[path[0]]

    text, lost = document.text, False
    for statement in reversed(document.statements):
        if statement.path[: len(path)] == path:
            start = text.rfind("\n", 0, statement.start) + 1
            end = text.find("\n", statement.end) + 1 or len(text)
            lost |= "#" in text[statement.start : end]
            text = text[:start] + text[end:]
    if _means(text, expected) or _means(text, expected | {path[0]: {}}):
        return Edit(text, lost)
    import tomli_w

    return Edit(tomli_w.dumps(expected), comments_lost="#" in document.text)


def _means(text: str, expected: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text, parse_float=exact) == expected
    except ValueError:
        return False


def _in_place(document: Document, path: KeyPath, value: str) -> Edit:
    text, statements = document.text, document.statements
    newline = "\r\n" if "\r\n" in text else "\n"
    for statement in statements:
        if statement.path == path and not statement.header:
            old = text[statement.value : statement.end]
            return Edit(text[: statement.value] + value + text[statement.end :], "\n" in old and "#" in old)

    assignment = f"{path[-1]} = {value}"
    headers = [n for n, s in enumerate(statements) if s.header and s.path == path[:-1]]
    if not headers:
        gap = "" if not text.strip() else newline if text.endswith("\n") else newline * 2
        return Edit(f"{text}{gap}[{table_name(path[:-1])}]{newline}{assignment}{newline}", False)

    first = headers[0]
    following = next((n for n in range(first + 1, len(statements)) if statements[n].header), len(statements))
    limit = statements[following].start if following < len(statements) else len(text)
    header_end = statements[first].end
    if place := _commented_default(text, path[-1], header_end, limit):
        start, end = place
        return Edit(text[:start] + assignment + text[end:], False)
    after = text.find("\n", statements[following - 1].end)
    if after < 0:
        return Edit(f"{text}{newline}{assignment}{newline}", False)
    return Edit(text[: after + 1] + assignment + newline + text[after + 1 :], False)


def table_name(path: KeyPath) -> str:
    """A table's name as it stands between brackets, quoted where TOML asks for it."""
    return ".".join(part if _BARE_KEY.fullmatch(part) and "." not in part else literal(part) for part in path)


def _commented_default(text: str, key: str, start: int, limit: int) -> tuple[int, int] | None:
    """Where a table has `# key = value` in a comment: from the number sign to the end of the value."""
    table_end = re.compile(r"^[ \t]*#[ \t]*\[", re.MULTILINE).search(text, start, limit)  # a table in a comment
    if table_end:
        limit = table_end.start()
    pattern = re.compile(rf"^[ \t]*(#[ \t]*{re.escape(key)}[ \t]*=[^\r\n]*)", re.MULTILINE)
    for found in pattern.finditer(text, start, limit):
        candidate = found[1].lstrip("# \t")
        try:
            tomllib.loads(candidate)
        except ValueError:  # prose
            continue
        statement = next(_scan(candidate))
        return found.start(1), found.end(1) - len(candidate) + statement.end
    return None


def _scan(text: str) -> Iterator[TomlStatement]:
    """The statements of a valid document."""
    position, line, counted = 0, 1, 0
    table: KeyPath = ()
    while True:
        if blank := _BLANK.match(text, position):
            position = blank.end()
        if position >= len(text):
            return
        start = position
        line += text.count("\n", counted, start)
        counted = start
        if header := _HEADER.match(text, position):
            table = _key_path(header[2])
            position = header.end()
            yield TomlStatement(table, line, True, start, position, position)
            continue
        key = _KEY.match(text, position)
        assert key is not None  # noqa: S101 - the document is valid: what is no header begins with a key
        value, end = _value(text, key.end() + 1)
        yield TomlStatement((*table, *_key_path(key[0])), line, False, start, value, end)
        position = end


def _value(text: str, position: int) -> tuple[int, int]:
    """Where the value after an equals sign begins and ends."""
    while text[position] in " \t":
        position += 1
    start = end = position
    depth = 0
    while found := _TOKEN.match(text, position):
        position = found.end()
        if depth == 0 and (found.lastgroup == "comment" or found[0] == "\n"):
            break
        depth += {"open": 1, "close": -1}.get(found.lastgroup or "", 0)
        if found[0].strip():
            end = position - len(found[0]) + len(found[0].rstrip())
    return start, end


def _key_path(source: str) -> KeyPath:
    """The parts of a dotted key as it stands in a document."""
    if _BARE_KEY.fullmatch(source):
        return tuple(source.strip().split("."))
    table: Any = tomllib.loads(f"{source} = 0")
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return tuple(parts)
