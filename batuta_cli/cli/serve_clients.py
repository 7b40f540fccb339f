"""`batuta serve env` and `serve launch`: known clients, pointed at the gateway."""

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.errors import MissingDependencyError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.config import Config
    from batuta_cli.serve.gateway.client_programs import ClientSettings

commands = typer.Typer()

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="claude, codex, opencode, aider or llm.")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model; by default the only one in the configuration.")
]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The gateway's address; by default that of the configuration.")
]
KeyVariable = Annotated[
    str | None,
    typer.Option("--key-env", metavar="VAR", help="The variable with the client key [BATUTA_CLIENT_KEY, if set]."),
]


@dataclass(frozen=True)
class _Shell:
    """How a shell sets and clears a variable, and defines a command with options."""

    set: str
    clear: str
    function: str
    quote: Callable[[str], str]
    reference: str


def _fish_quote(text: str) -> str:
    r"""A word of fish: within single quotes only `\` and `'` are special (https://fishshell.com/docs/current/#quotes)."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell_quote(text: str) -> str:
    """A verbatim string of PowerShell (about_Quoting_Rules)."""
    return "'" + text.replace("'", "''") + "'"


_SHELLS = {
    "sh": _Shell(
        "export {name}={value}", "unset {name}", '{name}() {{ command {name} {arguments} "$@"; }}', shlex.quote, '"${}"'
    ),
    "fish": _Shell(
        "set -gx {name} {value}",
        "set -e {name}",
        "function {name}; command {name} {arguments} $argv; end",
        _fish_quote,
        '"${}"',
    ),
    "powershell": _Shell(
        "$env:{name} = {value}",
        "Remove-Item Env:{name} -ErrorAction SilentlyContinue",
        "function {name} {{ & (Get-Command {name} -CommandType Application)[0] {arguments} @args }}",
        _powershell_quote,
        "$env:{}",
    ),
}
_SHELLS |= dict.fromkeys(("bash", "zsh"), _SHELLS["sh"])


@commands.command(
    "env",
    cls=Command,
    epilog=examples(
        'eval "$(batuta serve env claude --model smollm2-135m)"',
        "batuta serve env opencode --model smollm2-135m --shell fish | source",
        "batuta serve env codex --model smollm2-135m --key-env GATEWAY_KEY --json",
    ),
)
def env(
    client: Client,
    model: Model = None,
    url: Url = None,
    key_env: KeyVariable = None,
    shell: Annotated[
        str | None, typer.Option(metavar="sh|bash|zsh|fish|powershell", help="The shell; by default that of $SHELL.")
    ] = None,
) -> console.CommandResult:
    """Print the variables and options that point a client at the gateway, as commands of a shell.

    The client's telemetry and update checks are switched off. Its own files are not changed. The client key is not
    printed: the commands refer to the variable that holds it.
    """
    chosen = _shell(shell)
    settings = _settings(client, model, url, key_env)
    result = {
        "client": settings.program.name,
        "variables": settings.variables,
        "key_variables": dict.fromkeys(settings.key_variables, settings.key_variable),
        "cleared": list(settings.cleared),
        "arguments": list(settings.arguments),
    }
    return console.CommandResult(result, "\n".join(_lines(settings, chosen)))


@commands.command(
    "launch",
    cls=Command,
    context_settings={"allow_interspersed_args": True},
    epilog=examples(
        "batuta serve launch claude --model smollm2-135m",
        'batuta serve launch codex --model smollm2-135m -- exec "Explain this directory."',
        "BATUTA_CLIENT_KEY=$(cat key) batuta serve launch aider --url http://gateway.example:8484",
    ),
)
def launch(
    client: Client,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS...]", help="Arguments of the client.")
    ] = None,
    model: Model = None,
    url: Url = None,
    key_env: KeyVariable = None,
) -> console.CommandResult:
    """Start a client that uses the gateway; its exit status is that of this command.

    Keys of model services are taken out of its environment, and its telemetry and update checks are switched off. Its
    own files are not changed.
    """
    import shutil
    import sys

    from batuta_cli.config import load
    from batuta_cli.serve.gateway.client_programs import provider_keys

    settings = _settings(client, model, url, key_env)
    program = settings.program
    path = shutil.which(program.name)
    if path is None:
        raise MissingDependencyError(f"{program.name} is not installed", hint=program.install)
    environment = settings.environment(os.environ, provider_keys(load()))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(path, [program.name, *settings.arguments, *(arguments or [])], environment)  # noqa: S606 - the client
    except OSError as error:
        raise UsageError(f"cannot start {display(path)}: {error.strerror}", hint=program.install) from None


def _settings(client: str, model: str | None, url: str | None, key_env: str | None) -> "ClientSettings":
    """The settings of a client; a file that it needs is written."""
    from batuta_cli import paths
    from batuta_cli.config import load
    from batuta_cli.secrecy import is_variable_name
    from batuta_cli.serve.gateway import client_programs

    program = client_programs.program_named(client)
    config: Config = load()
    variable = key_env or (client_programs.KEY_VARIABLE if os.environ.get(client_programs.KEY_VARIABLE) else "")
    if key_env is not None and not (is_variable_name(key_env) and os.environ.get(key_env)):
        raise UsageError("--key-env names no variable that is set", hint="it takes the name of the variable, not a key")
    directory = str(paths.state_dir() / "clients" / program.name) if program.file else ""
    settings = client_programs.settings_for(
        program,
        url=url or client_programs.gateway_url(config),
        model=model or client_programs.only_model(config),
        key_variable=variable,
        directory=directory,
    )
    if settings.file:
        from pathlib import Path

        from batuta_cli.files import write_file

        folder = paths.private_dir(Path(directory))
        write_file(folder / settings.file[0], settings.file[1].encode(), force=True, mode=0o600)
    return settings


def _shell(name: str | None) -> _Shell:
    from batuta_cli.serve.names import unknown_name

    name = name or ("fish" if os.path.basename(os.environ.get("SHELL", "")) == "fish" else "sh")
    if name not in _SHELLS:
        raise unknown_name("shell", name, _SHELLS)
    return _SHELLS[name]


def _lines(settings: "ClientSettings", shell: _Shell) -> list[str]:
    key = shell.reference.format(settings.key_variable)
    values: Mapping[str, str] = {
        **{name: shell.quote(value) for name, value in settings.variables.items()},
        **dict.fromkeys(settings.key_variables, key),
    }
    lines = [shell.clear.format(name=name) for name in settings.cleared]
    lines += [shell.set.format(name=name, value=value) for name, value in values.items()]
    if settings.arguments:
        arguments = " ".join(map(shell.quote, settings.arguments))
        lines.append(shell.function.format(name=settings.program.name, arguments=arguments))
    return lines
