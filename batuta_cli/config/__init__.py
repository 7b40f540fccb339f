"""The configuration: defaults, then `config.toml`, then the environment.

`load` returns a `Config`, one frozen dataclass a table, with the origin of every value. An unknown key or an invalid
value is a `ConfigError` that names file and line, or the variable, and the most similar known key. All errors of a file
are reported together. No message quotes a value, and the configuration must not contain secrets.

Environment variables override the file: `BATUTA_<TABLE>_<KEY>`, `BATUTA_BACKENDS_<NAME>_<KEY>`. Lists are separated by
commas, and an empty variable is an empty value. A variable whose name begins like that of a table but names no key is
an error, so that a misspelt limit is noticed. Other `BATUTA_…` variables are ignored. The options `--set KEY=VALUE` of
commands override both.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batuta_cli import paths
from batuta_cli.config import document as toml
from batuta_cli.config.check import Found, Origin, add_environment, add_overrides, from_document, parse_key
from batuta_cli.config.document import KeyPath, table_name
from batuta_cli.config.kinds import RefusedValueError, did_you_mean
from batuta_cli.config.schema import (
    BACKENDS,
    ENTRY_TABLES,
    MODELS,
    NAMED,
    SETTINGS,
    TABLE_DOCS,
    TABLES,
    AuditSection,
    BackendSection,
    Budget,
    FailoverSection,
    GatewaySection,
    ModelSection,
    Net,
    PachaSection,
    Privacy,
    RedisSection,
    Router,
    Setting,
    TimeoutsSection,
    find,
    is_name,
    split,
    variable,
)
from batuta_cli.dollars import limit_warnings
from batuta_cli.errors import ConfigError, OutputExistsError
from batuta_cli.files import display, locked, write_file

__all__ = [
    "AuditSection",
    "BackendSection",
    "Budget",
    "Change",
    "Config",
    "ConfigEntry",
    "FailoverSection",
    "GatewaySection",
    "ModelSection",
    "Net",
    "Origin",
    "PachaSection",
    "Privacy",
    "RedisSection",
    "Router",
    "TimeoutsSection",
    "check_values",
    "documented",
    "init",
    "load",
    "set_value",
    "set_values",
    "table_name",
    "unset",
    "unset_table",
]


@dataclass(frozen=True)
class ConfigEntry:
    """One key of the configuration with its value, as batuta's type and as a TOML type."""

    path: KeyPath
    value: Any
    plain: Any
    origin: Origin

    @property
    def key(self) -> str:
        """Its name, `table.key`."""
        return ".".join(self.path)

    @property
    def text(self) -> str:
        """The bare value, lists as JSON; the form that `set_value` accepts."""
        return self.plain if isinstance(self.plain, str) else toml.literal(self.plain)

    @property
    def literal(self) -> str:
        """The value as TOML."""
        return toml.literal(self.plain)


@dataclass(frozen=True)
class Config:
    """The effective configuration."""

    pacha: PachaSection = field(default_factory=PachaSection)
    budget: Budget = field(default_factory=Budget)
    privacy: Privacy = field(default_factory=Privacy)
    router: Router = field(default_factory=Router)
    timeouts: TimeoutsSection = field(default_factory=TimeoutsSection)
    failover: FailoverSection = field(default_factory=FailoverSection)
    audit: AuditSection = field(default_factory=AuditSection)
    network: Net = field(default_factory=Net)
    redis: RedisSection = field(default_factory=RedisSection)
    gateway: GatewaySection = field(default_factory=GatewaySection)
    backends: Mapping[str, BackendSection] = field(default_factory=dict)
    models: Mapping[str, ModelSection] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """`[aliases]`: other names for models."""
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`[fallbacks]`: the models that may answer in the place of another one."""
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)
    """The origins of the values that are not defaults, by `table.key`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about valid values that contradict each other."""
        return limit_warnings(self.budget.daily_budget_usd, self.budget.max_request_cost_usd)

    def entries(self) -> Iterator[ConfigEntry]:
        """Every key with its value, tables and keys in the order of the schema."""
        tables: dict[KeyPath, Any] = {(table,): getattr(self, table) for table in TABLES if table not in NAMED}
        tables |= {(table, name): inner for table in NAMED for name, inner in getattr(self, table).items()}
        for prefix, table in tables.items():
            for name, setting in SETTINGS[prefix[0]].items():
                path, value = (*prefix, name), getattr(table, name)
                origin = self.origins.get(".".join(path), Origin())
                yield ConfigEntry(path, value, setting.kind.toml(value), origin)
        for table_key, entry_table in ENTRY_TABLES.items():
            for name, value in getattr(self, table_key).items():
                origin = self.origins.get(f"{table_key}.{name}", Origin())
                yield ConfigEntry((table_key, name), value, entry_table.kind.toml(value), origin)

    def entry(self, key: str) -> ConfigEntry:
        """The entry of `table.key`. Raises `ConfigError` for an unknown key or backend."""
        path, _ = parse_key(key)
        for entry in self.entries():
            if entry.path == path:
                return entry
        near = did_you_mean(path[1], getattr(self, path[0]))
        raise ConfigError(
            f"no {_word(path[0])} {path[1]} is configured{near}",
            hint=f"batuta config set {key} VALUE configures it",
        )


def _word(table: str) -> str:
    return NAMED[table].one if table in NAMED else ENTRY_TABLES[table].one


@dataclass(frozen=True)
class Change:
    """The result of `set_value` or `unset`."""

    entry: ConfigEntry
    comments_lost: bool
    """Whether the comments of the file could not be kept."""
    overridden_by: str | None
    """The environment variable that overrides the new value, or the default."""


def load(path: Path | None = None, environ: Mapping[str, str] | None = None, overrides: Iterable[str] = ()) -> Config:
    """The effective configuration; without a file, the defaults.

    `overrides` are texts `KEY=VALUE`. Raises `ConfigError` for errors in the file, the environment or `overrides`, and
    `OperationError` when the file cannot be read.
    """
    try:
        document = toml.read(path or paths.config_file())
    except paths.NoHomeError:  # without a home there is no file
        document = None
    found = from_document(document) if document else Found()
    add_environment(found, os.environ if environ is None else environ)
    add_overrides(found, overrides)
    tables = {table: declared(**found.of((table,))) for table, declared in TABLES.items() if table not in NAMED}
    backends = {name: BackendSection(**found.of((BACKENDS, name))) for name in found.named[BACKENDS]}
    models = {name: ModelSection(**found.of((MODELS, name))) for name in found.named[MODELS]}
    entries: dict[str, Any] = {table: found.of((table,)) for table in ENTRY_TABLES}
    return Config(**tables, **entries, backends=backends, models=models, origins=found.origins)


def set_value(key: str, text: str, path: Path | None = None) -> Change:
    """Write one value to the file; see `set_values`."""
    return set_values({key: text}, path)[0]


def set_values(values: Mapping[str, str], path: Path | None = None) -> list[Change]:
    """Write values to the file in one step, all or none. Comments and order stay. A new file gets mode 0600.

    Raises `ConfigError` and changes nothing when a key or a value is invalid, or the file has an error.
    """
    path = path or paths.config_file()
    wanted = dict(_checked(key, text) for key, text in values.items())
    lost = set()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        document = toml.read(path) or toml.parse("", display(path))
        from_document(document)
        for key_path, (setting, value) in wanted.items():
            edited = toml.edit(document, key_path, toml.literal(setting.kind.toml(value)))
            document = toml.parse(edited.text, document.file)
            if edited.comments_lost:
                lost.add(key_path)
        write_file(path, document.text.encode(), force=True, mode=0o600)
    changes = []
    for key_path, (setting, value) in wanted.items():
        origin = Origin("file", document.file, document.line(key_path))
        hidden_by = variable(key_path) if variable(key_path) in os.environ else None
        changes.append(
            Change(ConfigEntry(key_path, value, setting.kind.toml(value), origin), key_path in lost, hidden_by)
        )
    return changes


def check_values(values: Mapping[str, str]) -> None:
    """Check values as `set_values` does, without writing. Raises `ConfigError`."""
    for key, text in values.items():
        _checked(key, text)


def _checked(key: str, text: str) -> tuple[KeyPath, tuple[Setting, Any]]:
    key_path, setting = parse_key(key)
    try:
        return key_path, (setting, setting.kind.check(setting.kind.read(text)))
    except RefusedValueError as refused:
        raise ConfigError(f"{key} {refused}", hint=refused.hint) from None


def unset(key: str, path: Path | None = None) -> Change | None:
    """Remove one key from the file, so that its default applies again; None when the file does not have it.

    Raises `ConfigError` and changes nothing for an unknown key, or when the file has an error.
    """
    path = path or paths.config_file()
    key_path, setting = parse_key(key)
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        document = toml.read(path)
        if document is None or key_path not in from_document(document).values:
            return None
        edited = toml.remove(document, key_path)
        write_file(path, edited.text.encode(), force=True, mode=0o600)
    hidden_by = variable(key_path) if variable(key_path) in os.environ else None
    plain = setting.kind.toml(setting.default)
    return Change(ConfigEntry(key_path, setting.default, plain, Origin()), edited.comments_lost, hidden_by)


def unset_table(key: str, path: Path | None = None) -> bool | None:
    """Remove a backend or model from the file: `backends.NAME`. False when the file does not have it.

    None when `key` names no such table. Raises `ConfigError` and changes nothing when the file has an error.
    """
    table, _, name = key.partition(".")
    if table not in NAMED or not is_name(table, name):
        return None
    path = path or paths.config_file()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        document = toml.read(path)
        if document is None or name not in from_document(document).named[table]:
            return None if find(split(key)) else False
        write_file(path, toml.remove_table(document, (table, name)).text.encode(), force=True, mode=0o600)
    return True


def init(path: Path | None = None, *, force: bool = False) -> Path:
    """Write the documented file, in which every key is a comment with its default.

    Raises `OutputExistsError` when the file exists and `force` is false.
    """
    path = path or paths.config_file()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        try:
            write_file(path, documented().encode(), force=force, mode=0o600)
        except OutputExistsError as error:
            hint = "batuta config set KEY VALUE changes one value; --force replaces the file"
            raise OutputExistsError(error.message, hint=hint) from None
    return path


def documented() -> str:
    """The text of a configuration file that documents every key and sets none."""
    lines = [
        "# The configuration of batuta. Every key is shown as a comment with its default.",
        "# To change a key, remove the number sign, or use: batuta config set KEY VALUE",
        "# Environment variables BATUTA_<TABLE>_<KEY> override this file, options of commands override both.",
        "# The origin of each value: batuta config show --origin",
        "# This file must not contain secrets; an *_env key names the environment variable that holds one.",
    ]
    for table, settings in SETTINGS.items():
        example = f"# {NAMED[table].example}" if table in NAMED else f"[{table}]"
        lines += ["", f"# {TABLE_DOCS[table]}", example]
        for number, setting in enumerate(settings.values()):
            default = toml.literal(setting.kind.toml(setting.default))
            lines += [""] * (number > 0) + [f"# {line}" for line in setting.doc.split("\n")]
            lines.append(f"# {setting.name} = {default}")
    for table, entry_table in ENTRY_TABLES.items():
        doc = [f"# {line}" for line in entry_table.doc.split("\n")]
        lines += ["", *doc, f"[{table}]", f"# {entry_table.example}"]
    return "\n".join(lines) + "\n"
