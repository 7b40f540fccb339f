"""The man pages: one for `batuta`, and one for each group with all of its commands."""

from collections.abc import Iterable

from batuta_cli.errors import BatutaError
from scripts import man_facts
from scripts.docs_tree import Command, Option
from scripts.roff import bold, escape, example, header, italic, paragraphs, section, subsection, tagged


def man_pages(tree: Command) -> dict[str, str]:
    """Every page, by file name."""
    pages = {"batuta.1": _root_page(tree)}
    for group in tree.commands:
        pages[f"{_page(group)}.1"] = _group_page(tree, group)
    return pages


def _page(command: Command) -> str:
    return "-".join(command.path)


def _root_page(tree: Command) -> str:
    own = [option for option in tree.options if not option.shared]
    shared = [option for option in tree.options if option.shared]
    return _join(
        header("batuta"),
        section("NAME", f"batuta \\- {escape(_bare(tree.summary))}"),
        section("SYNOPSIS", *_synopsis(tree)),
        section("DESCRIPTION", *paragraphs(man_facts.DESCRIPTION)),
        section("COMMANDS", *_contents(tree)),
        section("OPTIONS", *map(_option, own)),
        section("OPTIONS OF EVERY COMMAND", *map(_option, shared)),
        section("EXIT STATUS", *(tagged(bold(str(code)), escape(text)) for code, text in exit_codes())),
        section("FILES", *(tagged(italic(path), escape(text)) for path, text in man_facts.FILES)),
        section("ENVIRONMENT", *(tagged(bold(name), escape(text)) for name, text in man_facts.ENVIRONMENT)),
        section("EXAMPLES", example(tree.examples)),
        section("SEE ALSO", _see_also([_page(group) for group in tree.commands], man_facts.SEE_ALSO)),
    )


def _group_page(tree: Command, group: Command) -> str:
    commands = [command for command in group.walk() if command.runs]
    shared = [option for option in group.options if option.shared]
    others = [_page(other) for other in tree.commands if other is not group]
    return _join(
        header(_page(group)),
        section("NAME", f"{escape(_page(group))} \\- {escape(_bare(group.summary))}"),
        section("SYNOPSIS", *_synopsis(group)),
        section("DESCRIPTION", *paragraphs(group.text)),
        section("COMMANDS", *map(_command, commands)),
        section("OPTIONS OF EVERY COMMAND", *map(_option, shared)),
        section("EXIT STATUS", ".PP", f"See {bold('batuta')}(1)."),
        section("SEE ALSO", _see_also(["batuta", *others], ())),
    )


def _command(command: Command) -> str:
    own = [option for option in command.options if not option.shared]
    parts = [subsection(" ".join(command.path)), *_synopsis(command), *paragraphs(command.text)]
    parts += [tagged(italic(a.value.metavar), _told(a.help, a.remarks)) for a in command.arguments]
    parts += [_option(option) for option in own]
    if command.examples:
        parts += [".PP", "Examples:" if len(command.examples) > 1 else "Example:", example(command.examples)]
    return "\n".join(parts)


def _synopsis(command: Command) -> list[str]:
    words = [bold(" ".join(command.path)), f"[{italic('OPTIONS')}]"]
    if command.runs and command.commands:
        words.append(f"[{italic('COMMAND')}]")
    elif command.commands:
        words += [italic("COMMAND"), f"[{italic('ARGUMENTS')}]"]
    words += [italic(a.value.metavar) if a.required else f"[{italic(a.value.metavar)}]" for a in command.arguments]
    return [".PP", " ".join(words)]


def _contents(tree: Command) -> Iterable[str]:
    for group in tree.commands:
        yield from (subsection(" ".join(group.path)), f"In full in {bold(_page(group))}(1).")
        for command in group.walk():
            if command.runs:
                yield tagged(bold(" ".join(command.path[2:])), escape(command.summary))


def _option(option: Option) -> str:
    names = ", ".join(map(bold, option.names))
    value = f" {italic(option.value.metavar)}" if option.value else ""
    return tagged(names + value, _told(option.help, option.remarks))


def _told(text: str, remarks: Iterable[str]) -> str:
    return escape(f"{text} [{'; '.join(remarks)}]" if remarks else text)


def exit_codes() -> list[tuple[int, str]]:
    """The codes that this version exits with. Raises `KeyError` for one that `man_facts` does not explain."""
    used = {0, man_facts.INTERRUPTED} | {error.exit_code for error in _descendants(BatutaError)}
    return [(code, man_facts.EXIT_STATUS[code]) for code in sorted(used)]


def _descendants(error: type[BatutaError]) -> Iterable[type[BatutaError]]:
    yield error
    for child in error.__subclasses__():
        yield from _descendants(child)


def _see_also(pages: Iterable[str], foreign: Iterable[str]) -> str:
    return ",\n".join(f"{bold(page)}(1)" for page in (*pages, *foreign))


def _bare(sentence: str) -> str:
    """A sentence as it stands after a dash."""
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")


def _join(*parts: str) -> str:
    return "\n".join(parts) + "\n"
