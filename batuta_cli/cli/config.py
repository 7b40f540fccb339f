"""`batuta config`: shows and changes the configuration."""

import os
from typing import Annotated, Any

import typer

from batuta_cli import config, paths
from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.cli.ledger_option import warn_of_limits, warn_of_new_limits
from batuta_cli.errors import UsageError
from batuta_cli.files import display

app = command_group("config", "Show and change the configuration: path, show, get, set, unset, init.")

_Key = Annotated[
    str, typer.Argument(metavar="KEY", help="TABLE.KEY, backends.NAME.KEY or models.NAME.KEY.", show_default=False)
]
_Value = Annotated[
    list[str],
    typer.Argument(metavar="VALUE", help="The value; of a list, the values separated by commas.", show_default=False),
]
_Origin = Annotated[bool, typer.Option("--origin", help="Show the origin of each value.")]
_Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")]


@app.command(
    "path",
    cls=Command,
    epilog=examples("batuta config path", '$EDITOR "$(batuta config path)"', "batuta config path --json"),
)
def path() -> console.CommandResult:
    """Print the path of the configuration file. --json also shows whether it exists."""
    file = paths.config_file()
    return console.CommandResult({"path": display(file), "exists": os.path.isfile(file)}, text=display(file))


@app.command(
    "show",
    cls=Command,
    epilog=examples(
        "batuta config show",
        "batuta config show --origin",
        "BATUTA_BUDGET_DAILY_BUDGET_USD=5 batuta config show --origin",
        "batuta config show --json --origin",
    ),
)
def show(origin: _Origin = False) -> console.CommandResult:
    """Print the effective configuration as TOML: defaults, then the file, then BATUTA_... environment variables.

    --origin prints a table with the origin of each value: the default, a line of the file, or a variable.
    """
    settings = config.load()
    warn_of_limits(settings)
    entries = list(settings.entries())
    result: dict[str, Any] = {}
    for entry in entries:
        table = result
        for part in entry.path[:-1]:
            table = table.setdefault(part, {})
        table[entry.path[-1]] = {"value": entry.plain, "origin": entry.origin.to_json()} if origin else entry.plain
    if not origin:
        return console.CommandResult(result, text=_as_toml(entries))
    rows = [(entry.key, entry.literal, str(entry.origin)) for entry in entries]
    return console.CommandResult(result, text=console.Table(("KEY", "VALUE", "ORIGIN"), rows))


@app.command(
    "get",
    cls=Command,
    epilog=examples("batuta config get budget.daily_budget_usd", "batuta config get backends.groq.models"),
)
def get(key: _Key) -> console.CommandResult:
    """Print one effective value without quotes, a list as JSON. An unknown key is exit 2."""
    entry = config.load().entry(key)
    return console.CommandResult(_to_json(entry), text=entry.text)


@app.command(
    "set",
    cls=Command,
    # A value may begin with a dash, and the parser would quote a refused option, which may be a pasted secret.
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "batuta config set pacha.default_key alice@example.com",
        "batuta config set budget.daily_budget_usd 25.00",
        "batuta config set privacy.local_networks 10.1.0.0/16,fd00::/8",
        "batuta config set backends.groq.api_key_env GROQ_API_KEY",
    ),
)
def set_(key: _Key, value: _Value) -> console.CommandResult:
    """Write one value to the configuration file. Its comments and order stay.

    The value and the file are checked first; if one of them is invalid, nothing is changed. The configuration must not
    contain secrets: a key such as api_key_env takes the name of an environment variable.
    """
    if len(value) != 1:
        raise UsageError(f"a key takes one value, not {len(value)}", hint="put a value with spaces in quotes")
    if key.startswith("backends.") and key.endswith(".profile") and value[0]:
        from batuta_cli.serve.backends import ServingBackend

        ServingBackend.parse(value[0])  # reports a misspelt name now instead of at the next request
    change = config.set_value(key, value[0])
    return _changed(change)


@app.command(
    "unset",
    cls=Command,
    epilog=examples("batuta config unset budget.timezone", "batuta config unset backends.groq"),
)
def unset(key: _Key) -> console.CommandResult:
    """Remove one key from the configuration file, so that its default applies again, or a whole backend or model.

    Comments on other lines stay. It is not an error when the file does not have the key.
    """
    removed = config.unset_table(key)
    if removed is not None:
        if not removed:
            console.note(f"{display(key)} is not in {display(paths.config_file())}")
        return console.CommandResult({"key": key, "changed": removed}, f"{display(key)} is removed" if removed else "")
    change = config.unset(key)
    if change is None:
        console.note(f"{display(key)} is not set in {display(paths.config_file())}")
        return console.CommandResult({"key": key, "changed": False})
    return _changed(change)


def _changed(change: config.Change) -> console.CommandResult:
    entry = change.entry
    if entry.path[0] == "budget":
        warn_of_new_limits()
    if change.comments_lost:
        file = display(paths.config_file())
        console.warn(f"{file}: the comments of this file were lost, because it was written again as a whole")
    if change.overridden_by:
        console.warn(f"the environment variable {change.overridden_by} overrides it")
    result = {
        **_to_json(entry),
        "changed": True,
        "comments_lost": change.comments_lost,
        "overridden_by": change.overridden_by,
    }
    return console.CommandResult(result, text=f"{entry.key} = {entry.literal}  ({entry.origin})")


@app.command(
    "init",
    cls=Command,
    epilog=examples("batuta config init", 'batuta config init && $EDITOR "$(batuta config path)"'),
)
def init(force: _Force = False) -> console.CommandResult:
    """Write a configuration file that documents every key in a comment, with its default.

    The file sets no value until a key's comment sign is removed.
    """
    file = config.init(force=force)
    return console.CommandResult({"path": display(file)}, text=f"wrote {display(file)}")


def _as_toml(entries: list[config.ConfigEntry]) -> str:
    lines: list[str] = []
    table: tuple[str, ...] = ()
    for entry in entries:
        if entry.path[:-1] != table:
            table = entry.path[:-1]
            lines += [""] * bool(lines) + [f"[{config.table_name(table)}]"]
        lines.append(f"{entry.path[-1]} = {entry.literal}")
    return "\n".join(lines)


def _to_json(entry: config.ConfigEntry) -> dict[str, Any]:
    return {"key": entry.key, "value": entry.plain, "origin": entry.origin.to_json()}
