"""The root of the command line: `main` runs a command and turns every error into an exit code."""

import os
import signal
import sys
import types
from typing import Any, NoReturn

import typer

from batuta_cli import __version__
from batuta_cli.cli import console, given
from batuta_cli.cli.command import LazyChild, LazyGroup, examples
from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.faults import as_typed
from batuta_cli.files import os_error

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# The beginning of the parser's message about surplus arguments. It quotes them, and one may be a password.
_EXTRA = "got unexpected extra argument"


class _Root(LazyGroup):
    children = {  # noqa: RUF012 - typer instantiates the class
        "pacha": LazyChild(
            "batuta_cli.cli.pacha", "app", "Make model files trustworthy: sign, verify, encrypt, hash, store."
        ),
        "serve": LazyChild("batuta_cli.cli.serve", "app", "Make model requests correct, private and within budget."),
        "config": LazyChild(
            "batuta_cli.cli.config", "app", "Show and change the configuration: path, show, get, set, unset, init."
        ),
    }


app = typer.Typer(
    name="batuta",
    cls=_Root,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its tracebacks show the values of variables
    # Inherited by all commands. Lines over 100 columns are hard to read.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(value: bool) -> None:
    if value:
        raise typer.Exit(console.finish(console.CommandResult({"version": __version__}, f"batuta {__version__}")))


@app.callback(
    epilog=examples(
        "batuta pacha keygen --identity alice@example.com",
        "batuta pacha sign model.gguf",
        "batuta pacha verify model.gguf",
        "batuta pacha --help",
    )
)
def root(
    version: bool = typer.Option(
        False, "--version", "-V", help="Print the version and exit.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Make model files trustworthy, and model requests correct, private and within budget."""


def main() -> NoReturn:
    """Run the command line of this process."""
    _use_utf8()
    _replace_closed_streams()
    try:
        status = run(sys.argv[1:])
    except Exception as error:
        # Reporting an error failed. A traceback could show secrets that the report removes.
        os.write(2, f"error: the error could not be reported: {type(error).__name__}\n".encode())
        status = 1
    sys.exit(status)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode in a locale of another encoding.

    Arguments and file names are UTF-8 on every machine; read as ISO-8859-1, one model would have another content
    address. Python decodes them before this code runs (PEP 540).
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same command


def _replace_closed_streams() -> None:
    """Open /dev/null in place of closed standard streams, so that no other file gets their descriptors.

    stdin is opened for writing and stdout for reading, so that using them is an error instead of a silent loss.
    """
    for number, (name, flags) in enumerate((("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))):
        if getattr(sys, name) is None:
            os.open(os.devnull, flags)  # gets the lowest free descriptor
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Raises nothing, and shows a traceback only with BATUTA_DEBUG=1."""
    given.note(arguments, os.environ)
    console.settings.command = None
    console.settings.json = "--json" in _before_separator(arguments)  # needed also when parsing fails
    console.settings.quiet = not {"--quiet", "-q"}.isdisjoint(_before_separator(arguments))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _terminate)
    try:
        outcome = app(arguments, prog_name="batuta", standalone_mode=False)
    except BatutaError as error:
        return console.fail(error)
    except (KeyboardInterrupt, EOFError, typer.Abort):
        outcome = INTERRUPTED
    except BrokenPipeError:
        console.finish(console.CommandResult(None))
        return 1
    except typer.TyperException as error:
        return console.fail(_usage_error(error))
    except OSError as error:  # from writing help; other failures are typed where they happen
        return console.fail(os_error(error, error.filename or "stdout"))
    except BaseException as error:
        typed = as_typed(error)
        if typed is not None:
            typed.__cause__ = error
            return console.fail(typed)
        if isinstance(error, SystemExit):
            raise  # a signal
        return console.fail(_internal_error(error))
    if isinstance(outcome, console.CommandResult):
        return console.finish(outcome)
    if isinstance(outcome, console.ProgramStatus):
        return outcome.code
    if outcome == INTERRUPTED:
        return console.fail(_Interrupted("interrupted"))
    return outcome if isinstance(outcome, int) else 0


class _Interrupted(BatutaError):
    exit_code = INTERRUPTED
    kind = "interrupted"


def _before_separator(arguments: list[str]) -> list[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _terminate(number: int, frame: types.FrameType | None) -> NoReturn:
    # An exception, so that incomplete outputs are removed on the way out.
    sys.exit(128 + number)


def _usage_error(error: Any) -> UsageError:
    message = error.format_message().strip().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    if context is not None and message.startswith(_EXTRA):
        message = f"too many arguments: {context.command_path} takes {_takes(context.command)}"
    if context is None:
        return UsageError(message, hint="batuta --help")
    console.settings.command = context.command_path.partition(" ")[2] or None
    return UsageError(message, hint=f"{context.command_path} --help")


def _takes(command: Any) -> str:
    arguments = [str(p.metavar) for p in command.params if p.param_type_name == "argument"]
    return " ".join(arguments) if arguments else "options only"


def _internal_error(error: BaseException) -> BatutaError:
    # The text of a foreign exception may quote a secret, so only its type is shown.
    internal = BatutaError(
        f"internal error: {type(error).__name__}",
        hint="this is a bug in batuta; run again with BATUTA_DEBUG=1 for the traceback to report",
    )
    internal.__cause__ = error
    return internal
