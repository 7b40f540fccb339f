"""The command tree as plain data: what man pages and shell completions are made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer

from batuta_cli.cli import help
from batuta_cli.cli.app import app
from batuta_cli.config import schema


class Kind(Enum):
    """What a shell can offer for a value."""

    FILE = "file"
    VARIABLE = "environment variable"
    PROGRAM = "a program, then its arguments"
    CHOICE = "one of a few words"
    FREE = "anything"


@dataclass(frozen=True)
class Value:
    """The value of an option or an argument."""

    metavar: str
    kind: Kind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """An option or, without a value, a flag."""

    names: tuple[str, ...]
    help: str
    remarks: tuple[str, ...]
    value: Value | None
    repeatable: bool
    shared: bool
    """Every command has it."""

    @property
    def ends_it(self) -> bool:
        """Whether nothing else counts beside it."""
        return not {"--help", "--version"}.isdisjoint(self.names)


@dataclass(frozen=True)
class Argument:
    """A positional argument."""

    value: Value
    help: str
    remarks: tuple[str, ...]
    required: bool
    repeatable: bool

    @property
    def usage(self) -> str:
        """How a synopsis shows it."""
        return self.value.metavar if self.required else f"[{self.value.metavar}]"


@dataclass(frozen=True)
class Command:
    """A command, or a group when it has commands itself."""

    path: tuple[str, ...]
    """Its name with those of the groups around it: `("batuta", "pacha", "sign")`."""
    text: str
    summary: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]
    commands: tuple["Command", ...]
    runs: bool
    """Whether it does something by itself; False for a group that needs one of its commands."""

    @property
    def name(self) -> str:
        """The last word of its path."""
        return self.path[-1]

    def walk(self) -> Iterator["Command"]:
        """Itself and all commands below, in the order of help."""
        yield self
        for command in self.commands:
            yield from command.walk()


def command_tree() -> Command:
    """`batuta` as it stands."""
    return _command(typer.main.get_command(app), "batuta", None)


def _command(command: Any, name: str, parent: Any) -> Command:
    context = typer.Context(command, info_name=name, parent=parent, **command.context_settings)
    path = tuple(context.command_path.split())
    shown = [p for p in command.get_params(context) if not p.hidden]
    children = help.children_of(command, context) if help.is_group(command) else ()
    return Command(
        path=path,
        text=help.text_of(command),
        summary=help.summary_of(command),
        options=tuple(_option(p, path, context) for p in shown if p.param_type_name == "option"),
        arguments=tuple(_argument(p, path, context) for p in shown if p.param_type_name == "argument"),
        examples=tuple(help.examples_of(command)),
        commands=tuple(_command(child, child_name, context) for child_name, child in children),
        runs=not help.is_group(command) or command.invoke_without_command,
    )


def _option(parameter: Any, path: tuple[str, ...], context: Any) -> Option:
    return Option(
        names=tuple(help.names_of(parameter)),
        help=parameter.help or "",
        remarks=tuple(help.remarks_on(parameter, context)),
        value=None if parameter.is_flag else _value(help.metavar(parameter), path),
        repeatable=parameter.multiple,
        shared=help.section_of(parameter) == help.SHARED,
    )


def _argument(parameter: Any, path: tuple[str, ...], context: Any) -> Argument:
    return Argument(
        value=_value(help.metavar(parameter), path),
        help=parameter.help or "",
        remarks=tuple(help.remarks_on(parameter, context)),
        required=parameter.required,
        repeatable=parameter.nargs != 1,
    )


def _value(metavar: str, path: tuple[str, ...]) -> Value:
    """What may stand there, judged by the word that stands for it in help."""
    word = metavar.removesuffix("...")
    if word == "KEY" and "config" in path:
        return Value(metavar, Kind.CHOICE, _config_keys())
    alternatives = word.split("|")
    if word == "-- PROGRAM":
        return Value(metavar, Kind.PROGRAM)
    if not {"FILE", "PATH", "KEY"}.isdisjoint(alternatives) or (word == "MODEL" and "pacha" in path):
        return Value(metavar, Kind.FILE)
    if word == "VAR":
        return Value(metavar, Kind.VARIABLE)
    if len(alternatives) > 1 and word == word.lower():
        return Value(metavar, Kind.CHOICE, tuple(alternatives))
    return Value(metavar, Kind.FREE)


def _config_keys() -> tuple[str, ...]:
    # those of [backends] and [models] contain a name of the user's own
    tables = (table for table in schema.SETTINGS if table not in schema.NAMED)
    return tuple(f"{table}.{name}" for table in tables for name in schema.SETTINGS[table])
