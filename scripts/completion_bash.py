"""The bash completion: one table of the commands, and a short parser that walks the words up to the cursor."""

from scripts.docs_tree import Command, Kind, Value

_SPECIAL = {Kind.FILE: "<file>", Kind.VARIABLE: "<variable>", Kind.PROGRAM: "<program>", Kind.FREE: ""}

_HEAD = """\
# bash completion for batuta
#
# Generated from the commands by `make docs`. It is static: batuta is not run at TAB. It needs bash 4.4 and no library.

# The values of a command: its subcommands, its options, and what the value of option or argument number $2 may be.
# Fails when $2 takes no value.
_batuta_at() {
    subcommands='' options='' value=''
    case $1 in
"""

# Files are left to readline itself (compopt -o default): it knows quotes, spaces, ~ and marks directories.
# COMP_WORDS is cut at COMP_WORDBREAKS, so that --format=1 is three words and env:VAR is, too.
_TAIL = r"""
        *) return 1 ;;
    esac
    [[ -z ${2-} ]]
}

_batuta_offer() {  # $1 stands before each of the words
    case $value in
        '') ;;
        '<file>')
            if [[ -z $1 ]]; then
                compopt -o bashdefault -o default 2>/dev/null
            else
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -P "$1" -f -- "$cur")
            fi
            ;;
        '<program>')
            compopt -o bashdefault -o default 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            ;;
        '<variable>') mapfile -t COMPREPLY < <(compgen -P "$1" -e -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -P "$1" -W "$value" -- "$cur") ;;
    esac
}

_batuta() {
    local IFS=$' \t\n' subcommands options value
    local command=batuta cur=${COMP_WORDS[COMP_CWORD]} word='' name=''
    local option='' separated='' option_before='' # the option whose value is next; whether -- was met
    local -i i j number=1 number_before=1         # the number of the argument that is next
    COMPREPLY=()
    _batuta_at "$command"

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = && $option == --* ]]; then
            continue
        elif [[ $word == [:=]* ]]; then # the word before goes on
            i+=1
            if ((i == COMP_CWORD)); then
                option=$option_before number=$number_before
            fi
            continue
        fi
        option_before=$option number_before=$number
        if [[ -n $option ]]; then
            option=''
        elif [[ $word =~ ^[0-9\&]*[\<\>]+[\&\|]?$ ]]; then
            option='>'
        elif [[ -z $separated && $word == -- ]]; then
            separated=1
        elif [[ -z $separated && $word == --* ]]; then
            if [[ $word != *=* ]] && _batuta_at "$command" "$word"; then
                option=$word
            fi
        elif [[ -z $separated && $word == -?* ]]; then
            for ((j = 1; j < ${#word}; j++)); do # -fo FILE, or -foFILE
                name=-${word:j:1}
                if _batuta_at "$command" "$name"; then
                    ((j + 1 < ${#word})) || option=$name
                    break
                fi
            done
        else
            _batuta_at "$command"
            if [[ -z $subcommands ]]; then
                number+=1
            elif [[ " $subcommands " == *" $word "* ]]; then
                command+=" $word"
            else
                return 0
            fi
        fi
    done

    if [[ $cur == : || ($cur == = && -z $option) ]]; then
        option=$option_before number=$number_before
    fi
    [[ $cur == [:=] ]] && cur=''
    _batuta_at "$command"
    if [[ $option == '>' ]]; then
        value='<file>'
        _batuta_offer ''
    elif [[ -n $option ]]; then
        _batuta_at "$command" "$option"
        _batuta_offer ''
    elif [[ -z $separated && $cur == --*=* ]]; then
        name=${cur%%=*} cur=${cur#*=}
        _batuta_at "$command" "$name" && _batuta_offer "$name="
    elif [[ -z $separated && $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ -n $subcommands ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$subcommands" -- "$cur")
    elif _batuta_at "$command" "$number"; then
        _batuta_offer ''
    fi
    return 0
}

complete -F _batuta batuta
"""


def bash_completion(tree: Command) -> str:
    """The text of `completions/batuta.bash`."""
    return _HEAD + "\n".join(_case(command) for command in tree.walk()) + _TAIL


def _case(command: Command) -> str:
    lines = [f"{' '.join(command.path)!r})"]
    if command.commands:
        lines.append(f"    subcommands={' '.join(c.name for c in command.commands)!r}")
    lines.append(f"    options={' '.join(name for option in command.options for name in option.names)!r}")
    if values := _values(command):
        lines.append("    case ${2-} in")
        lines += [f"        {' | '.join(names)}) value={value!r} && return 0 ;;" for value, names in values.items()]
        lines.append("    esac")
    lines.append("    ;;")
    return "\n".join(f"        {line}" for line in lines)


def _values(command: Command) -> dict[str, list[str]]:
    """What the values may be, each with the options, or the numbers of the arguments, that take it."""
    found: dict[str, list[str]] = {}
    for number, argument in enumerate(command.arguments, start=1):
        if argument.value.kind is Kind.PROGRAM:  # before the pattern of its arguments
            found[_SPECIAL[Kind.PROGRAM]] = [str(number)]
    for option in command.options:
        if option.value:
            found.setdefault(_words(option.value), []).extend(option.names)
    for number, argument in enumerate(command.arguments, start=1):
        words = _SPECIAL[Kind.FILE] if argument.value.kind is Kind.PROGRAM else _words(argument.value)
        found.setdefault(words, []).append("[1-9]*" if argument.repeatable else str(number))
    return found


def _words(value: Value) -> str:
    return " ".join(value.choices) or _SPECIAL[value.kind]
