"""Formats help: usage, text, arguments, options, commands, examples; the same text with and without a terminal.

typer's plain formatter wraps the lines. Its rich panels are not used, because they parse `[--x]` as markup, wrap
examples, and draw boxes into pipes and logs.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from typer.core import TyperArgument, TyperOption

from batuta_cli.cli import console

SHARED = "Options of every command"
"""The heading of `--json`, `--quiet` and `--help`."""


def write_help(command: Any, context: Any, formatter: Any) -> None:
    """Write the help of a command or group into typer's formatter."""
    context.color = console.wants_colour(sys.stdout)  # typer's echo strips colours from pipes unless told not to
    formatter.write_usage(
        context.command_path, " ".join(command.collect_usage_pieces(context)), console.paint("Usage:", "bold") + " "
    )
    formatter.write_paragraph()
    formatter.write_text(text_of(command))
    for heading, rows in _sections(command, context):
        with formatter.section(console.paint(heading, "bold")):
            formatter.write_dl(rows)
    if is_group(command):
        formatter.write_paragraph()
        formatter.write_text(f"`{context.command_path} COMMAND --help` shows its options and examples.")
    lines = examples_of(command)
    if lines:
        with formatter.section(console.paint("Examples", "bold")):
            for line in lines:  # not wrapped, so that they can be copied
                formatter.write(f"  {line}\n" if line.startswith("#") else f"  $ {line}\n")


def _sections(command: Any, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    parameters = [p for p in command.get_params(context) if not p.hidden]
    arguments = [p for p in parameters if isinstance(p, TyperArgument)]
    if arguments:
        yield "Arguments", [(metavar(p), _description(p, context)) for p in arguments]
    if is_group(command):
        yield "Commands", list(_summaries(command, context))
    options = [p for p in parameters if isinstance(p, TyperOption)]
    for heading in dict.fromkeys(sorted(map(section_of, options), key=SHARED.__eq__)):
        yield heading, [(_spelling(p), _description(p, context)) for p in options if section_of(p) == heading]


def is_group(command: Any) -> bool:
    """Whether it is a group of commands."""
    return hasattr(command, "list_commands")


def children_of(group: Any, context: Any) -> Iterator[tuple[str, Any]]:
    """The visible commands of a group, by name."""
    for name in group.list_commands(context):
        child = group.get_command(context, name)
        if child is not None and not child.hidden:
            yield name, child


def _summaries(group: Any, context: Any) -> Iterator[tuple[str, str]]:
    """The visible commands of a group with their descriptions; a lazy child that has one is not imported for it."""
    lazy = getattr(group, "children", {})
    described = {name: child.summary for name, child in lazy.items() if child.summary is not None}
    if len(described) == len(lazy) > 0:
        yield from described.items()
        return
    for name, child in children_of(group, context):
        yield name, summary_of(child)


def text_of(command: Any) -> str:
    """The description of a command, in paragraphs."""
    return inspect.cleandoc(command.help or "")


def summary_of(command: Any) -> str:
    """The description of a command, in one line."""
    return text_of(command).split("\n\n")[0].replace("\n", " ")


def examples_of(command: Any) -> list[str]:
    """The lines of `examples`."""
    return [line for line in (command.epilog or "").split("\n") if line]


def metavar(parameter: Any) -> str:
    """The placeholder of the value of an option or argument; empty for a flag."""
    if getattr(parameter, "is_flag", False):
        return ""
    choices = getattr(parameter.type, "choices", None)
    return parameter.metavar or ("|".join(map(str, choices)) if choices else (parameter.name or "").upper())


def usage_of(argument: Any) -> str:
    """An argument in the usage line, in brackets when it is optional."""
    return metavar(argument) if argument.required else f"[{metavar(argument)}]"


def section_of(option: Any) -> str:
    """The heading of an option's section."""
    return SHARED if option.name == "help" else option.rich_help_panel or "Options"


def names_of(option: Any) -> list[str]:
    """All spellings of an option, short ones first, in a fixed order (typer keeps those of `--help` in a set)."""
    return sorted((*option.opts, *option.secondary_opts), key=lambda name: (name.startswith("--"), name))


def _spelling(option: Any) -> str:
    names = names_of(option)
    margin = "    " if names[0].startswith("--") else ""
    return margin + " ".join(filter(None, (", ".join(names), metavar(option))))


def remarks_on(parameter: Any, context: Any) -> list[str]:
    """Facts of the declaration that the help text lacks: default, range, repeatable, required."""
    found = []
    if isinstance(parameter, TyperOption):
        default = parameter.default
        if not parameter.is_flag and parameter.show_default and default not in (None, "", ()) and not callable(default):
            found.append(f"default: {default}")
        if parameter.multiple:
            found.append("may be repeated")
        if parameter.required:
            found.append("required")
    smallest, largest = getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)
    if smallest is not None and largest is not None:
        found.append(f"{smallest} to {largest}")
    elif smallest is not None:
        found.append(f"at least {smallest}")
    elif largest is not None:
        found.append(f"at most {largest}")
    return found


def _description(parameter: Any, context: Any) -> str:
    remarks = remarks_on(parameter, context)
    return " ".join(filter(None, (parameter.help, f"[{'; '.join(remarks)}]" if remarks else "")))
