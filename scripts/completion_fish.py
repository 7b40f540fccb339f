"""The fish completion: one `complete` a thing to offer, on condition that the words before the cursor lead there."""

from scripts.docs_tree import Command, Kind, Option, Value

_HEAD = r"""# fish completion for batuta
#
# Generated from the commands by `make docs`. It is static: batuta is not run at TAB.

function __batuta_at --description 'Whether the next word is a command of this group'
    set -l named
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or set -a named $word
    end
    test "$named" = "$argv"
end

# __batuta_in COMMAND [NUMBER [VALUED OPTION...]]: whether the next word belongs to this command; with a NUMBER, whether
# it is the argument of that number, or with 1+ any argument.
function __batuta_in --description 'Whether the next word belongs to this command'
    set -l command (string split ' ' -- $argv[1])
    set -l wanted $argv[2]
    set -l valued $argv[3..]
    set -l number 1
    set -l options yes
    set -l value no
    for word in (commandline -opc)[2..]
        if test $value = yes
            set value no
            continue
        end
        if test $options = yes
            if test "$word" = --
                set options no
                continue
            else if string match -q -- '--*' $word
                contains -- $word $valued; and set value yes
                continue
            else if string match -qr -- '^-.' $word
                set -l letters (string split '' -- (string sub -s 2 -- $word))
                for i in (seq (count $letters))
                    if contains -- -$letters[$i] $valued
                        test $i -eq (count $letters); and set value yes
                        break
                    end
                end
                continue
            end
        end
        if set -q command[1]
            test "$word" = $command[1]; or return 1
            set -e command[1]
        else
            set number (math $number + 1)
        end
    end
    set -q command[1]; and return 1
    test -z "$wanted" -o "$wanted" = 1+ -o "$wanted" = $number
end

complete -c batuta -f
"""


def fish_completion(tree: Command) -> str:
    """The text of `completions/batuta.fish`."""
    return "\n".join((_HEAD, *(_command(command) for command in tree.walk())))


def _command(command: Command) -> str:
    words = " ".join(command.path[1:])
    valued = [name for option in command.options if option.value for name in option.names]
    here = f"__batuta_at {words}".strip() if command.commands else f"__batuta_in {_quote(words)}"
    if command.commands and command.runs:  # its commands stand in the place of a first argument
        here = " ".join(("__batuta_in", _quote(words), "1", *valued))
    lines = [f"# {' '.join(command.path)}"]
    lines += [_line(here, f"-a {child.name}", child.summary) for child in command.commands]
    lines += [_line(here, _option(option), option.help) for option in command.options]
    for number, argument in enumerate(command.arguments, start=1):
        if argument.value.kind is Kind.PROGRAM:
            lines.append(_line(" ".join((here, str(number), *valued)), "-a '(__fish_complete_command)'", ""))
        place = "1+" if argument.repeatable else number
        offered = _offer(argument.value)
        if offered:
            lines.append(_line(" ".join((here, str(place), *valued)), offered, ""))
    return "\n".join(lines) + "\n"


def _line(condition: str, what: str, description: str) -> str:
    described = f" -d {_quote(description)}" if description else ""
    return f"complete -c batuta -n {_quote(condition)} {what}{described}"


def _option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.value:
        offered = _offer(option.value)
        names.append(f"-r {offered}" if option.value.kind is Kind.FILE else f"-x {offered}".rstrip())
    return " ".join(names)


def _offer(value: Value) -> str:
    return {
        Kind.FILE: "-F",
        Kind.PROGRAM: "-F",
        Kind.VARIABLE: "-a '(set -nx)'",
        Kind.CHOICE: f"-a '{' '.join(value.choices)}'",
        Kind.FREE: "",
    }[value.kind]


def _quote(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace("'", r"\'")
    return f"'{escaped}'"
