"""The text of config.toml: its values, their lines, and edits of one value that leave the rest unchanged.

`tomllib` gives the values of a document but not their positions. The scanner of this module finds the statements. It
handles only strings, brackets and comments, because `tomllib` has already found the document valid. `tomllib` also
checks each edit: when the new text does not have exactly the intended values, `tomli_w` writes the whole file, and the
caller is told that the comments are lost.
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
    """A table's header, or a key with its value, with its position in the text."""

    path: KeyPath
    line: int
    header: bool
    start: int
    value: int
    """The start of the value; of a header, its end."""
    end: int


@dataclass(frozen=True)
class Document:
    """A valid TOML document: its text and its values."""

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
        """The line of the value at `path`; within an inline table, the line of that table."""
        wanted = tuple(path[:_DEPTH])
        while wanted and wanted not in self._lines:
            wanted = wanted[:-1]
        return self._lines.get(wanted, 1)


@dataclass(frozen=True)
class Edit:
    """A new text, and whether comments of the old text were lost."""

    text: str
    comments_lost: bool


def read(path: Path) -> Document | None:
    """The document in a file; None when the file does not exist.

    Raises `ConfigError` when it is not a regular file, too large, not UTF-8 or not TOML, and `OperationError` when it
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
    """Parse TOML; `file` is its name in messages. Raises `ConfigError` with the line."""
    try:
        # Keeps decimal digits exactly: 0.1 stays ten cents.
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
    """`value` as TOML. Strings are one line without control characters, for which JSON and TOML are the same."""
    import json

    return json.dumps(value, ensure_ascii=False)


def edit(document: Document, path: KeyPath, value: str) -> Edit:
    """Set the key `path` to the TOML literal `value`, with the least change of the text."""
    expected = copy.deepcopy(document.data)
    table = expected
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = tomllib.loads(f"value = {value}", parse_float=exact)["value"]

    edited = _in_place(document, path, value)
    return edited if _means(edited.text, expected) else _rewritten(document, expected)


def remove(document: Document, path: KeyPath) -> Edit:
    """Remove the key `path`, which the document contains. Comments on other lines stay."""
    expected, text = _without(document, path), document.text
    for statement in document.statements:
        if statement.path == path and not statement.header:
            start, end = _lines(text, statement)
            removed = text[:start] + text[end:]
            alone = not text[start : statement.start].strip()
            if alone and (_means(removed, expected) or _means(removed, expected | {path[0]: {}})):
                return Edit(removed, "#" in text[statement.start : end])
    return _rewritten(document, expected)


def remove_table(document: Document, path: KeyPath) -> Edit:
    """Remove the table `path` with its keys and the comments between them. Other comments stay."""
    expected, text, lost = _without(document, path), document.text, False
    for statement in reversed(document.statements):
        if statement.path[: len(path)] == path:
            start, end = _lines(text, statement)
            lost |= "#" in text[statement.start : end]
            text = text[:start] + text[end:]
    if _means(text, expected) or _means(text, expected | {path[0]: {}}):
        return Edit(text, lost)
    return _rewritten(document, expected)


def _without(document: Document, path: KeyPath) -> dict[str, Any]:
    """The values of a document without `path`."""
    expected = copy.deepcopy(document.data)
    table = expected
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]
    if not table and len(path) == 2:  # an empty table is removed too; an empty backend stays a backend
        del expected[path[0]]
    return expected


def _lines(text: str, statement: TomlStatement) -> tuple[int, int]:
    """The start and the end of the lines of a statement."""
    return text.rfind("\n", 0, statement.start) + 1, text.find("\n", statement.end) + 1 or len(text)


def _rewritten(document: Document, expected: dict[str, Any]) -> Edit:
    """The whole file written again, without comments."""
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

    assignment = f"{table_name(path[-1:])} = {value}"
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
    """A table's name as it is written between brackets, quoted where TOML requires it."""
    return ".".join(part if _BARE_KEY.fullmatch(part) and "." not in part else literal(part) for part in path)


def _commented_default(text: str, key: str, start: int, limit: int) -> tuple[int, int] | None:
    """The position of `# key = value` in a comment of a table: from the number sign to the end of the value."""
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
        assert key is not None  # noqa: S101 - in a valid document every other statement begins with a key
        value, end = _value(text, key.end() + 1)
        yield TomlStatement((*table, *_key_path(key[0])), line, False, start, value, end)
        position = end


def _value(text: str, position: int) -> tuple[int, int]:
    """The start and the end of the value after an equals sign."""
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
    """The parts of a dotted key of a document."""
    if _BARE_KEY.fullmatch(source):
        return tuple(source.strip().split("."))
    table: Any = tomllib.loads(f"{source} = 0")
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return tuple(parts)
