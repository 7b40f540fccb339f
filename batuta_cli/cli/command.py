"""The base of all commands: `--json` and `--quiet`, help with examples, lazy groups, refusal of misplaced secrets.

`help.py` formats the help. Before a command runs, `given.check` checks all its values by the metavars of the
parameters, so that a new command needs no code for that.
"""

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            name = console.settings.withheld.redact(args[0])
            meant = suggestions(args[0], ctx)
            ctx.fail(
                f"no such command {name!r}" + (f", did you mean {' or '.join(map(repr, meant))}?" if meant else "")
            )
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        help.write_help(self, ctx, formatter)


class CommandGroup(Group):
    """A command that has further commands: it runs itself when none of them is named.

    Its callback takes the context, and returns at once when `context.invoked_subcommand` is set.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return TyperGroup.parse_args(self, ctx, args)
        except typer.TyperException as error:
            _say_where(error, ctx)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "[COMMAND]"]

    def invoke(self, ctx: Any) -> Any:
        if not ctx._protected_args:
            console.settings.command = ctx.command_path.partition(" ")[2]
            given.check((parameter, ctx.params.get(parameter.name)) for parameter in self.params)
        else:
            for parameter in self.params:
                value = ctx.params.get(parameter.name)
                if value and value != parameter.get_default(ctx):
                    ctx.fail(f"{parameter.opts[0]} is an option of `{ctx.command_path}`, not of its commands")
        return super().invoke(ctx)


_SYNONYMS = {
    "rm": "remove",
    "del": "remove",
    "delete": "remove",
    "uninstall": "remove",
    "untrust": "remove",
    "ls": "list",
    "mv": "rename",
    "generate": "keygen",
    "generate-key": "keygen",
    "new": "keygen",
    "check-signature": "verify",
    "checksum": "hash",
    "sum": "hash",
    "show": "inspect",
}
"""Words of other tools for our commands."""


def suggestions(name: str, context: Any) -> list[str]:
    """Commands that a user may have meant by `name`: one of this group, else of that name in any group."""
    wanted = _SYNONYMS.get(name, name)
    here = list(context.command.list_commands(context))
    for candidate in (name, wanted):
        if candidate in here:
            return [candidate]
    root, here_path = context.find_root(), tuple(context.command_path.split())
    anywhere = [path for path in _paths(root.command, root, (str(root.info_name),)) if path[-1] == wanted]
    while here_path and not any(path[: len(here_path)] == here_path for path in anywhere):
        here_path = here_path[:-1]
    if near := [path for path in anywhere if path[: len(here_path)] == here_path]:
        return [" ".join(path) for path in sorted(near, key=lambda path: (len(path), path))]
    return difflib.get_close_matches(name, here, n=2)


def _paths(group: Any, context: Any, prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(context):
        child = group.get_command(context, name)
        if child is None or child.hidden:
            continue
        yield (*prefix, name)
        if isinstance(child, TyperGroup):
            yield from _paths(child, context, (*prefix, name))


def _say_where(error: Any, context: Any) -> None:
    # The parser does not say to which command an option without a value belongs.
    if getattr(error, "ctx", context) is None:
        error.ctx = context


def _name_of(info: Any) -> str:
    return info.name or typer.main.get_command_name(info.callback.__name__)


class LazyChild(NamedTuple):
    """Where a command or group of commands is: it is imported when it is used."""

    module: str
    attribute: str
    summary: str | None = None
    """Its help in one line; None: the help of its group imports it."""


class LazyGroup(Group):
    """A group that imports the module of a command when it is used."""

    children: Mapping[str, LazyChild]
    """In the order of the help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.children)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.children:
            return None
        place = self.children[cmd_name]
        topic: typer.Typer = getattr(import_module(place.module), place.attribute)
        if topic.info.name == cmd_name or topic.registered_callback:
            return typer.main.get_command(topic)
        # Only the one command is built, not the others of its module.
        found = (info for info in topic.registered_commands if cmd_name == _name_of(info))
        return typer.main.get_command_from_info(next(found), pretty_exceptions_short=False, rich_markup_mode=None)


def examples(*lines: str) -> str:
    """The examples at the end of a help text: one command a line, or a comment that begins with `#`."""
    return "\n".join(lines)


def command_group(name: str, help: str, cls: type[Group] = Group) -> typer.Typer:
    """A new command group with the shared behaviour."""
    return typer.Typer(name=name, help=help, cls=cls, add_completion=False, rich_markup_mode=None)
