"""The zsh completion: a function a command, each a call of zsh's own `_arguments`."""

from scripts.docs_tree import Argument, Command, Kind, Option, Value

_HEAD = """\
#compdef batuta
#
# zsh completion for batuta. Generated from the commands by `make docs`. It is static: batuta is not run at TAB.
"""

# After -- comes a command line that zsh completes as any other.
_PROGRAM = """\
    local -i separator=${words[(i)--]}
    if ((separator < CURRENT)); then
        shift $separator words
        ((CURRENT -= separator))
        _normal
        return
    fi
""".splitlines()

_TAIL = """\
if [[ ${funcstack[1]} == _batuta ]]; then
    _batuta "$@" # zsh loads this file as the function
else
    compdef _batuta batuta
fi
"""


def zsh_completion(tree: Command) -> str:
    """The text of `completions/_batuta`."""
    return "\n".join((_HEAD, *(_function(command) for command in tree.walk()), _TAIL))


def _function(command: Command) -> str:
    specs = [_option(option) for option in command.options]
    if command.commands:
        return _group(command, specs)
    specs += [_argument(argument, number) for number, argument in enumerate(command.arguments, start=1)]
    program = _PROGRAM if any(argument.value.kind is Kind.PROGRAM for argument in command.arguments) else []
    return "\n".join((f"{_name(command)}() {{", *program, f"    _arguments -s -S {_lines(specs)}", "}", ""))


def _group(command: Command, specs: list[str]) -> str:
    known = "\n        ".join(_quote(f"{c.name}:{_escape(c.summary)}") for c in command.commands)
    specs += ["'1:command:->command'", "'*::argument:->argument'"]
    return "\n".join(
        (
            f"{_name(command)}() {{",
            "    local context curcontext=$curcontext state state_descr line ret=1",
            "    local -A opt_args",
            f"    local -a commands=(\n        {known}\n    )",
            f"    _arguments -C -s -S {_lines(specs)} && ret=0",
            "    case $state in",
            "        command) _describe -t commands command commands && ret=0 ;;",
            "        argument)",
            "            case $line[1] in",
            *(f"                {child.name}) {_name(child)} && ret=0 ;;" for child in command.commands),
            "            esac",
            "            ;;",
            "    esac",
            "    return ret",
            "}",
            "",
        )
    )


def _name(command: Command) -> str:
    return "_" + "_".join(command.path)


def _lines(words: list[str]) -> str:
    return "\\\n        " + " \\\n        ".join(words) if words else ""


def _option(option: Option) -> str:
    """An option in the language of `_arguments`: what excludes it, its names, its help, its value."""
    if option.repeatable:
        excluded = "*"
    elif option.ends_it:
        excluded = "(- *)"
    else:
        excluded = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
    names = [_named(name) if option.value else name for name in option.names]
    value = _value(option.value) if option.value else ""
    tail = f"[{_escape(option.help)}]{value}"
    if len(names) == 1:
        return _quote(f"{excluded}{names[0]}{tail}")
    return f"{_quote(excluded) if excluded else ''}{{{','.join(names)}}}{_quote(tail)}"


def _named(name: str) -> str:
    return f"{name}=" if name.startswith("--") else f"{name}+"  # --name=VALUE or --name VALUE; -nVALUE or -n VALUE


def _argument(argument: Argument, number: int) -> str:
    place = "*" if argument.repeatable else str(number)
    colon = "" if argument.required or argument.repeatable else ":"
    value = _value(argument.value)
    if argument.value.kind is Kind.FREE:  # a message must not come in the way of an option that is being typed
        value = f"{value.rstrip()}{{[[ $PREFIX == -* ]] || _message {_escape(argument.value.metavar)}}}"
    return _quote(f"{place}{colon}{value}")


def _value(value: Value) -> str:
    actions = {
        Kind.FILE: "_files",
        Kind.VARIABLE: '_parameters -g "*export*"',
        Kind.PROGRAM: "_files",
        Kind.CHOICE: f"({' '.join(value.choices)})",
        Kind.FREE: " ",
    }
    return f":{_escape(value.metavar.removeprefix('-- ').removesuffix('...'))}:{actions[value.kind]}"


def _escape(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text


def _quote(text: str) -> str:
    return "'" + text.replace("'", r"'\''") + "'"
