"""Prints results, tables, JSON, progress, questions and errors. No other module prints.

The rules of the user interface (docs/cli.md#rules-of-every-command):

* Results go to stdout. Progress, notes, warnings and errors go to stderr.
* `--json` prints exactly one document on stdout, also on failure and wrong usage: `{"ok", "command", "result",
  "error"}`. `error` is null or `{"kind", "message", "hint", "exit_code"}`.
* `--quiet` prints errors only.
* `-` is stdin or stdout. Binary output is never written to a terminal.
* An existing output is never overwritten without `--force`. An output that is also an input is refused.
* A file appears whole or not at all (see `files.atomic_output`).
* Work on more than 64 MiB shows a progress bar when stderr is a terminal.
* `NO_COLOR`, `FORCE_COLOR`, `COLUMNS` and `TERM=dumb` are obeyed. A table is plain text unless stdout is a terminal.
* An error names the fault and its place; the hint says what to type next. A traceback is shown only with
  `BATUTA_DEBUG=1`.
* Errors are lower case, without a full stop. The exit code is that of the error's class (`errors.py`).
* Control characters of files and servers are escaped before they reach a terminal.
* No password, key or message content is in an error, a note or a log, also when it was given in place of a path or a
  name. `settings.withheld` removes the secrets of the command line from every message, text, table and traceback, and
  from the JSON of a failure. The JSON `result` of a success and raw bytes are not changed; `given.check` has refused
  private keys before the command runs.
* Of several PATHs each result is printed when it is known, in their order; the worst one decides the exit code.

A command returns a `CommandResult`, which `finish` prints.
"""

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.files import Advance, display, escaped, os_error
from batuta_cli.secrecy import Withheld

PROGRESS_FROM = 64 * 1024 * 1024
"""Work on more bytes than this shows a progress bar (docs/cli.md#rules-of-every-command)."""

_LABEL_WIDTH = 40  # characters of a path and the counts beside the bar, which needs the rest of 80 columns
_LEAST_LABEL_WIDTH = 20

_COLOURS = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}


@dataclass(frozen=True)
class Table:
    """Rows with headings; aligned plain text unless stdout is a terminal."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class WorkSize:
    """What a progress bar counts."""

    bytes: int
    files: int = 1


@dataclass(frozen=True)
class CommandResult:
    """The outcome of a command: `result` for `--json`, `text` for people, `error` when the command failed."""

    result: Any
    text: str | Table = ""
    error: BatutaError | None = None
    raw: bytes | None = None
    """Bytes for stdout in place of `text`."""


@dataclass(frozen=True)
class ProgramStatus:
    """The outcome of a command that started a program: its exit status, and nothing to print."""

    code: int


@dataclass
class OutputSettings:
    """The values of the options that all commands share."""

    json: bool = False
    quiet: bool = False
    command: str | None = None
    notes: list[str] = field(default_factory=list)
    withheld: Withheld = field(default_factory=Withheld)
    """The secrets that no message repeats."""
    withheld_from_results: Withheld = field(default_factory=Withheld)
    """The same without the messages of a conversation, which some results repeat."""
    bar: "SharedBar | None" = None
    """The one progress bar of a command that works on several inputs."""
    stdout_error: BatutaError | None = None
    """Why a result could not be printed by `emit`."""


settings = OutputSettings()


def wants_colour(stream: Any) -> bool:
    """Whether to use colours: NO_COLOR and FORCE_COLOR (https://no-color.org, https://force-color.org), TERM, a tty."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, stream: Any = None) -> str:
    """`text` in colour if colours are in use."""
    if not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m"


def note(message: str) -> None:
    """Print a note to stderr, except under `--quiet` and `--json`."""
    if not settings.quiet and not settings.json:
        _to_stderr(_escape_lines(message))


def warn(message: str) -> None:
    """Print a warning to stderr, except under `--quiet`. Errors are raised instead."""
    if not settings.quiet:
        _to_stderr(f"{paint('warning:', 'warn', stream=sys.stderr)} {_escape_lines(message)}")


def emit(text: str, *, always: bool = False) -> None:
    """Print one of several results as soon as it is known.

    Prints nothing under `--json`, and nothing under `--quiet` unless it is to be printed `always`.

    A failure to print is kept for `finish`, so that the remaining inputs still decide the exit status.
    """
    if settings.json or (settings.quiet and not always) or not text:
        return
    try:
        with settings.bar.hidden() if settings.bar else contextlib.nullcontext():
            print(settings.withheld_from_results.redact(text), flush=True)
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        settings.stdout_error = os_error(error, "stdout")


def finish(outcome: CommandResult) -> int:
    """Show the outcome and return the exit status."""
    failure, settings.stdout_error = settings.stdout_error, None
    if failure is not None and outcome.error is None:
        outcome = CommandResult(outcome.result, error=failure)
    try:
        if settings.json:
            _print_json(outcome.result, outcome.error)
        elif not settings.quiet:
            _print_result(outcome)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:  # a full disk or a closed descriptor: the redirected output is incomplete
        _forget_stdout()
        failure = os_error(error, "stdout")
        if outcome.error is None or settings.json:
            _print_error(failure)
        if outcome.error is None:
            return failure.exit_code
    if outcome.error is None:
        return 0
    report(outcome.error)
    return outcome.error.exit_code


def fail(error: BatutaError) -> int:
    """Print an error and return its exit code."""
    return finish(CommandResult(result=error.result, error=error))


def _print_result(outcome: CommandResult) -> None:
    if outcome.raw is not None:
        sys.stdout.flush()
        sys.stdout.buffer.write(outcome.raw)
    elif isinstance(outcome.text, Table):
        _print_table(outcome.text)
    elif outcome.text:
        print(settings.withheld_from_results.redact(outcome.text))


def _print_json(result: Any, error: BatutaError | None) -> None:
    document = {
        "ok": error is None,
        "command": settings.command,
        "result": result if error is None else settings.withheld_from_results.redact_all(result),
        "error": None if error is None else describe(error),
    }
    print(_for_job_log(json.dumps(document, indent=2), "##\\u005b"))


def describe(error: BatutaError) -> dict[str, Any]:
    """An error as JSON-ready data."""
    redact = settings.withheld.redact
    return {
        "kind": error.kind,
        "message": redact(error.message),
        "hint": None if error.hint is None else redact(error.hint),
        "exit_code": error.exit_code,
    }


def report(error: BatutaError) -> None:
    """Print an error to stderr; the command may continue with other paths. BATUTA_DEBUG=1 adds the traceback."""
    if os.environ.get("BATUTA_DEBUG") == "1":
        import traceback

        _to_stderr(_escape_lines("".join(traceback.format_exception(error)).rstrip("\n")))
    if not settings.json:
        _print_error(error)


def _print_error(error: BatutaError) -> None:
    _to_stderr(f"{paint('error:', 'bad', stream=sys.stderr)} {_escape_lines(error.message)}")
    if error.hint:
        _to_stderr(f"{paint('hint:', 'bold', stream=sys.stderr)} {_escape_lines(error.hint)}")


def _escape_lines(text: str) -> str:
    return "\n".join(escaped(line) for line in settings.withheld.redact(text).split("\n"))


def _to_stderr(text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):
        print(_for_job_log(text, "##\\x5b"), file=sys.stderr, flush=True)


def _for_job_log(text: str, replacement: str) -> str:
    """`text` as a log of GitHub Actions may have it, where `##[command]` in the name of a file would be executed.

    The runner looks for it anywhere in a line of stdout and stderr:
    https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
    """
    return text.replace("##[", replacement) if os.environ.get("GITHUB_ACTIONS") == "true" else text


def _forget_stdout() -> None:
    # Python flushes stdout again at exit, which must not fail again.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def _print_table(table: Table) -> None:
    redact = settings.withheld_from_results.redact
    rows = [[display(redact(cell)) for cell in row] for row in table.rows]
    if not rows:
        return
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        rich_table = RichTable(*table.columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            rich_table.add_row(*(Text(cell, overflow="fold") for cell in row))
        Console().print(rich_table)
        return
    lines = [list(table.columns), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextlib.contextmanager
def progress(label: str, total: WorkSize | int | None) -> Iterator[Advance | None]:
    """A progress bar with rate and time left for more than 64 MiB of work, if stderr is a terminal.

    Yields what the work calls with each number of bytes done, or None when there is nothing to show. Inside
    `shared_progress` the one bar of all inputs is advanced instead. A plain number is the bytes of one file.
    """
    if settings.bar is not None:
        settings.bar.describe(label)
        yield settings.bar
        return
    with _bar(label, WorkSize(total) if isinstance(total, int) else total) as bar:
        settings.bar = bar  # `emit` takes it off the terminal
        try:
            yield bar
        finally:
            settings.bar = None


@contextlib.contextmanager
def shared_progress(count: int, total: WorkSize | None) -> Iterator["SharedBar | None"]:
    """One bar for `count` inputs of the size `total` together; every `progress` inside the block advances it."""
    with _bar("", total, count) as bar:
        settings.bar = bar
        try:
            yield bar
        finally:
            settings.bar = None


class SharedBar:
    """A progress bar, with the number of the current input when there are several, and of the files that are done."""

    def __init__(self, bar: Any, task: Any, count: int, files: int) -> None:
        self._bar, self._task, self._count, self._number = bar, task, count, 0
        self._label, self._files, self._files_done = "", files, 0

    def next_input(self) -> None:
        """Count one more input as begun."""
        self._number += 1

    def describe(self, label: str) -> None:
        """Show the work in hand."""
        self._label = display(label)
        self._show()

    def __call__(self, done: int) -> None:
        """Add bytes that are done."""
        self._bar.advance(self._task, done)

    def file_done(self) -> None:
        """Add one file that is done."""
        self._files_done += 1
        if self._files > self._count:
            self._show()

    def _show(self) -> None:
        counts = [f" ({self._number} of {self._count})"] if self._count > 1 else []
        counts += [f", {self._files_done:,} of {self._files:,} files"] if self._files > self._count else []
        text = "".join(counts)
        self._bar.update(self._task, description=_shortened(self._label, _LABEL_WIDTH - len(text)) + text)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the terminal while something else is printed."""
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextlib.contextmanager
def _bar(label: str, total: WorkSize | None, count: int = 1) -> Iterator[SharedBar | None]:
    shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not (settings.quiet or settings.json)
    if total is None or total.bytes <= PROGRESS_FROM or not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, redirect_stdout=False, expand=True) as bar:
        shared = SharedBar(bar, bar.add_task("", total=total.bytes), count, total.files)
        shared.describe(label)
        yield shared


def _shortened(label: str, width: int) -> str:
    half = max(width, _LEAST_LABEL_WIDTH) // 2
    return label if len(label) <= 2 * half else label[:half] + "…" + label[1 - half :]


def shell_word(text: str) -> str:
    """`text` quoted as one word of a shell command line."""
    import shlex

    if escaped(text) == text:
        return shlex.quote(text)
    # Shells interpret \n and \xff within $'…', so the escaped name is the name of the file.
    return "$'" + escaped(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def ask_secret(question: str, *, confirm: bool = False, hint: str) -> str:
    """Ask for a password on the terminal without echo; twice with `confirm`.

    Raises `UsageError` with `hint` without a terminal, and when the two inputs differ.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise UsageError(f"{question.lower()} is needed, and there is no terminal to ask on", hint=hint) from None
    from getpass import getpass

    try:
        question = _escape_lines(question)
        answer = getpass(f"{question}: ")
        same = not confirm or getpass(f"{question}, again: ") == answer
    except UnicodeError:  # this error contains the input, so it must not be the context of the error below
        answer = None
    if answer is None:
        raise UsageError("the input is not valid UTF-8", hint="check the terminal's encoding: locale")
    if not same:
        raise UsageError("the two inputs differ", hint="try again; nothing was written")
    return answer


def confirm(question: str, *, hint: str) -> bool:
    """Ask for yes or no on the terminal. Raises `UsageError` with `hint` without a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise UsageError("a confirmation is needed, and there is no terminal to ask on", hint=hint) from None
    try:
        os.write(terminal, f"{_escape_lines(question)} [y/N] ".encode())
        return os.read(terminal, 1024).strip().lower() in (b"y", b"yes")
    finally:
        os.close(terminal)


def binary_stdout() -> int:
    """The descriptor of stdout for binary output. Raises `UsageError` for a terminal, and under `--json`."""
    if settings.json:
        raise UsageError("--json writes its document to stdout, so the output cannot", hint="give --output FILE")
    if os.isatty(1):
        raise _to_terminal()
    return 1


def refuse_terminal(path: str) -> None:
    """Raise `UsageError` when `path` is a terminal such as `/dev/tty`, because binary output garbles it."""
    with contextlib.suppress(OSError):
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            terminal = os.isatty(descriptor)
        finally:
            os.close(descriptor)
        if terminal:
            raise _to_terminal()


def _to_terminal() -> UsageError:
    return UsageError("refusing to write binary output to the terminal", hint="give --output FILE, or redirect stdout")
