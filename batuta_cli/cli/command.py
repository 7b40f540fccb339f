"""The base of all commands: `--json` and `--quiet`, help with examples, lazy groups, refusal of misplaced secrets.

`help.py` formats the help. Before a command runs, `given.check` checks all its values by the metavars of the
parameters, so that a new command needs no code for that.
"""

import difflib
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from batuta_cli.cli import console, given, help


def _set_flag(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    if value:
        setattr(console.settings, str(parameter.name), True)


def shared_options() -> list[TyperOption]:
    """The options of every command and group."""
    flags = (
        (["--json"], "Print one JSON document: {ok, command, result, error}."),
        (["--quiet", "-q"], "Print errors only."),
    )
    return [
        TyperOption(
            param_decls=declarations,
            is_flag=True,
            default=False,
            expose_value=False,
            callback=_set_flag,
            help=text,
            rich_help_panel=help.SHARED,
        )
        for declarations, text in flags
    ]


class Command(TyperCommand):
    """A command with the shared options. It tells the console its name before it runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            _say_where(error, ctx)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(help.usage_of(p) for p in self.params if isinstance(p, TyperArgument))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        help.write_help(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        console.settings.command = ctx.command_path.partition(" ")[2]
        given.check((parameter, ctx.params.get(parameter.name)) for parameter in self.params)
        return super().invoke(ctx)


class Group(TyperGroup):
    """A group that shows its help when no command is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing and not console.settings.json:
            typer.echo(ctx.get_help(), color=ctx.color)
            raise typer.Exit(2)
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            _say_where(error, ctx)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        help.write_help(self, ctx, formatter)


def _say_where(error: Any, context: Any) -> None:
    # The parser does not say to which command an option without a value belongs.
    if getattr(error, "ctx", context) is None:
        error.ctx = context


class LazyGroup(Group):
    """The root group: imports the module of a command group when it is used, or when help lists the groups."""

    groups: dict[str, str]
    """The name of each group, and the module that has its `app`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings = {**help.CONTEXT, **self.context_settings}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.groups)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.groups:
            return None
        return typer.main.get_command(import_module(self.groups[cmd_name]).app)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.groups and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.groups, n=1)
            ctx.fail(f"no such command '{args[0]}'" + (f", did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)


def examples(*lines: str) -> str:
    """The examples at the end of a help text: one command a line, or a comment that begins with `#`."""
    return "\n".join(lines)


def command_group(name: str, help: str) -> typer.Typer:
    """A new command group with the shared behaviour."""
    return typer.Typer(name=name, help=help, cls=Group, add_completion=False, rich_markup_mode=None)
