"""Checks the keys and values of a configuration file and of the environment.

All errors of a file are reported together in one `ConfigError`: file and line or variable, key, the expected value, and
the most similar known key. Values are not quoted, and secrets in the place of a key are hidden.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from batuta_cli.config.document import Document, KeyPath
from batuta_cli.config.kinds import RefusedValueError, did_you_mean, names_a_secret, nearest
from batuta_cli.config.schema import (
    BACKENDS,
    ENTRY_TABLES,
    MODELS,
    NAMED,
    SETTINGS,
    TABLES,
    Setting,
    find,
    is_name,
    split,
    variable,
)
from batuta_cli.errors import ConfigError
from batuta_cli.files import display
from batuta_cli.secrecy import hide_tokens

_ERRORS_SHOWN = 10
_NAME_LENGTH = 64

_ALL_TABLES = (*TABLES, *ENTRY_TABLES)
_TABLE_OF = {name: table for table, settings in SETTINGS.items() if table not in NAMED for name in settings}


@dataclass(frozen=True)
class Origin:
    """The source of a value. `str` gives the form that is shown."""

    source: Literal["default", "file", "environment", "option"] = "default"
    file: str | None = None
    line: int | None = None
    variable: str | None = None

    def __str__(self) -> str:
        return self.variable or (f"{self.file}:{self.line}" if self.file else self.source)

    def to_json(self) -> dict[str, Any]:
        """The fields that are not None, for `--json`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Found:
    """The given values by path, with their origins. A later value overrides an earlier one."""

    values: dict[KeyPath, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    named: dict[str, dict[str, None]] = field(default_factory=lambda: {table: {} for table in NAMED})
    """The names within each table of `NAMED`, in order, also of tables without a value."""

    def add(self, path: KeyPath, value: Any, origin: Origin) -> None:
        """Add one value."""
        self.values[path] = value
        self.origins[".".join(path)] = origin
        if path[0] in NAMED:
            self.named[path[0]][path[1]] = None

    def of(self, table: KeyPath) -> dict[str, Any]:
        """The given values of one table."""
        return {path[-1]: value for path, value in self.values.items() if path[:-1] == table}


class _Problems:
    """Collects the errors of one file, or of the environment, into one `ConfigError`."""

    def __init__(self) -> None:
        self._problems: list[tuple[int, str, str | None]] = []

    def add(self, order: int, message: str, hint: str | None = None) -> None:
        self._problems.append((order, message, hint))

    def raise_any(self) -> None:
        """Raise `ConfigError` if there are errors."""
        if not self._problems:
            return
        ordered = sorted(self._problems, key=lambda problem: problem[0])
        messages = [message for _, message, _ in ordered[:_ERRORS_SHOWN]]
        if more := len(ordered) - len(messages):
            messages.append(f"and {more} more")
        raise ConfigError("\n".join(messages), hint=next((hint for _, _, hint in ordered if hint), None))


def from_document(document: Document) -> Found:
    """The values of a document. Raises `ConfigError` with all its errors, in the order of the lines."""
    found, problems = Found(), _Problems()
    for path, value in _leaves(document.data):
        line = document.line(path)
        where = f"{document.file}:{line}: "
        setting = find(path)
        if setting is None:
            if path[0] in NAMED and len(path) == 2 and isinstance(value, dict) and is_name(*path):
                found.named[path[0]][path[1]] = None
                continue
            message, hint = _unknown(path, value)
            problems.add(line, where + message, hint)
            continue
        try:
            found.add(path, setting.kind.check(value), Origin("file", document.file, line))
        except RefusedValueError as refused:
            problems.add(line, f"{where}{_shown(path)} {refused}", refused.hint)
    problems.raise_any()
    return found


def _leaves(data: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """The values of all keys; also values in the place of a table, and the named tables."""
    for table, content in data.items():
        if table not in _ALL_TABLES or not isinstance(content, dict):
            yield (table,), content
        elif table not in NAMED:
            yield from (((table, key), value) for key, value in content.items())
        else:
            for name, inner in content.items():
                yield (table, name), inner
                if isinstance(inner, dict) and is_name(table, name):
                    yield from (((table, name, key), value) for key, value in inner.items())


def _unknown(path: KeyPath, value: object = None) -> tuple[str, str | None]:
    """The message and the hint for an unknown key."""
    if path[0] in ENTRY_TABLES:
        return _unknown_entry(path, value)
    name, known = _shown(path), SETTINGS.get(path[0])
    if names_a_secret(path[-1]) and not isinstance(value, dict):
        return _secret_named(path, name)
    if known is None:
        if not isinstance(value, dict) and (near := nearest(path[-1], _TABLE_OF)):
            return f"unknown key {name}, did you mean {_TABLE_OF[near]}.{near}?", None
        return (
            f"unknown {'table' if isinstance(value, dict) else 'key'} {name}{did_you_mean(path[0], _ALL_TABLES)}",
            None,
        )
    if path[0] in NAMED:
        return _unknown_in_named(path, name, value)
    if len(path) == 1:
        return f"{name} must be a table", f"write [{path[0]}] on a separate line, and its keys below"
    return f"unknown key {name}{did_you_mean(path[1], known)}", None


def _unknown_entry(path: KeyPath, value: object) -> tuple[str, str]:
    table = ENTRY_TABLES[path[0]]
    hint = f"its lines are like {table.example}"
    if len(path) == 1:
        return f"{path[0]} must be a table", hint
    if len(path) > 2 or isinstance(value, dict):
        return f"{_shown(path)} is a table", f"put a name with dots in quotes: {table.example}"
    return f"{_shown(path)}: a model's name {NAMED[MODELS].rule}", hint


def _unknown_in_named(path: KeyPath, name: str, value: object) -> tuple[str, str | None]:
    naming = NAMED[path[0]]
    hint = f"such a table begins with a line like {naming.example}"
    if len(path) == 1:
        return f"{name} must be a table of tables, one for each {naming.one}", hint
    if len(path) == 2 and not isinstance(value, dict):
        return f"{name} must be a table, one for each {naming.one}", hint
    if not is_name(path[0], path[1]):
        return f"{_shown(path[:2])}: a {naming.one}'s name {naming.rule}", None
    return f"unknown key {name}{did_you_mean(path[-1], SETTINGS[path[0]])}", None


def _secret_named(path: KeyPath, name: str) -> tuple[str, str]:
    backend = path[1] if path[0] == BACKENDS and len(path) == 3 and is_name(BACKENDS, path[1]) else None
    hint = "keep it in an environment variable"
    if path[0] == BACKENDS:
        key = f"backends.{backend or 'NAME'}.api_key_env"
        variable_name = f"{(backend or 'my').upper().replace('-', '_')}_API_KEY"
        hint += f", and give the name of that variable: batuta config set {key} {variable_name}"
    return f"{name} is a secret, and the configuration must not contain secrets", hint


def _shown(path: Collection[str]) -> str:
    """A key from a file or a command line, for a message."""
    return ".".join(display(hide_tokens(part)[:_NAME_LENGTH]) or '""' for part in path)


def parse_key(key: str) -> tuple[KeyPath, Setting]:
    """The path and the setting of `table.key`. Raises `ConfigError`."""
    path = split(key)
    setting = find(path)
    if setting is not None:
        return path, setting
    hint = "batuta config show lists them"
    if len(path) == 1 and path[0] in ENTRY_TABLES:
        entry_table = ENTRY_TABLES[path[0]]
        raise ConfigError(f"{path[0]} is a table, not a key", hint=f"its lines are like {entry_table.example}")
    if len(path) == 1 and path[0] in TABLES:
        keys = ", ".join(SETTINGS[path[0]])
        raise ConfigError(f"{path[0]} is a table, not a key", hint=f"its keys: {keys}")
    if len(path) == 2 and path[0] in NAMED:
        raise ConfigError(f"{_shown(path)} is a table, not a key", hint=f"its keys: {', '.join(SETTINGS[path[0]])}")
    if len(path) == 2 and path[0] in TABLES and not names_a_secret(path[1]):
        near = nearest(path[1], SETTINGS[path[0]])
        raise ConfigError(
            f"unknown key {_shown(path)}" + (f", did you mean {path[0]}.{near}?" if near else ""), hint=hint
        )
    if len(path) == 2 and path[0] not in TABLES and path[1] in _TABLE_OF:
        raise ConfigError(f"unknown key {_shown(path)}, did you mean {_TABLE_OF[path[1]]}.{path[1]}?", hint=hint)
    message, own_hint = _unknown(path)
    raise ConfigError(message, hint=own_hint or hint)


def add_environment(found: Found, environ: Mapping[str, str]) -> None:
    """Let environment variables override the values. Raises `ConfigError` with all errors."""
    problems = _Problems()
    for name in sorted(environ):
        table = next((t for t in _ALL_TABLES if name.startswith(variable((t, "")))), None)
        if table is None:
            continue
        if table in ENTRY_TABLES:
            hint = f"write them into the file: batuta config set {table}.NAME VALUE; unset or rename the variable"
            problems.add(0, f"{_shown((name,))}: variables cannot set {table}", hint)
            continue
        path = _variable_path(table, name, found.named)
        setting = find(path) if path else None
        if path is None or setting is None:
            problems.add(0, *_unknown_variable(table, name, found.named))
            continue
        try:
            found.add(path, setting.kind.check(setting.kind.read(environ[name])), Origin("environment", variable=name))
        except RefusedValueError as refused:
            problems.add(0, f"{name}: {_shown(path)} {refused}", refused.hint)
    problems.raise_any()


def add_overrides(found: Found, overrides: Iterable[str]) -> None:
    """Let the texts `KEY=VALUE` of the command line override the values. Raises `ConfigError`."""
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError("--set takes KEY=VALUE", hint="for instance: --set timeouts.first_token=300")
        path, setting = parse_key(key.strip())
        try:
            found.add(path, setting.kind.check(setting.kind.read(value)), Origin("option"))
        except RefusedValueError as refused:
            raise ConfigError(f"--set {_shown(path)} {refused}", hint=refused.hint) from None


def _variable_path(table: str, name: str, named: Mapping[str, Collection[str]]) -> KeyPath | None:
    """The path of the key that an environment variable overrides."""
    rest = name.removeprefix(variable((table, "")))
    if table not in NAMED:
        return table, rest.lower()
    # When two keys match the end of the name, the longer key counts.
    for key in sorted(SETTINGS[table], key=len, reverse=True):
        inner = rest.removesuffix(f"_{key.upper()}")
        if inner != rest:
            # A variable shows neither dashes nor case; a name in the file that matches does.
            known = [n for n in named[table] if variable((n,)) == variable((inner,))]
            return (table, known[0], key) if len(known) == 1 else (table, inner.lower(), key)
    return None


def _unknown_variable(table: str, name: str, named: Mapping[str, Collection[str]]) -> tuple[str, str | None]:
    prefixes = [(table, n) for n in named[table]] if table in NAMED else [(table,)]
    known = [variable((*prefix, key)) for prefix in prefixes for key in SETTINGS[table]]
    shown = _shown((name,))
    if names_a_secret(name):
        hint = f"names that begin with {variable((table, ''))} override the configuration; rename the variable"
        if table == BACKENDS:
            hint += ", and give its new name in BATUTA_BACKENDS_<NAME>_API_KEY_ENV"
        return f"{shown}: unknown key; the configuration must not contain secrets", hint
    hint = f"names that begin with {variable((table, ''))} override the configuration; unset or rename the variable"
    return f"{shown}: unknown key{did_you_mean(name, known)}", hint
