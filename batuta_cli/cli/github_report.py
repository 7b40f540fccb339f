"""The report of `batuta pacha verify --report github`: annotations and a summary for a GitHub Actions job.

An annotation is a workflow command on stdout, one line: `::error file=model.gguf,title=…::message`
(https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands). A name or a message cannot begin
another command: their line breaks, `%`, and in properties `:` and `,` are escaped. Nothing else is printed on stdout.
The summary is a table that is appended to the file of the variable GITHUB_STEP_SUMMARY.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any, Self

from batuta_cli.cli import console
from batuta_cli.cli.many import Done
from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.files import display, errors_named, write_all

NAME = "github"

_TITLE = "batuta pacha verify"
_SHOWN = 9  # GitHub shows ten annotations of a kind for a step; one is for the model itself
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_IN_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY = _IN_DATA | {":": "%3A", ",": "%2C"}
_IN_CELL = {character: f"&#{ord(character)};" for character in "&<>|\\`*_[]~@#"} | {"\r": " ", "\n": "<br>"}


def annotation(kind: str, file: str, message: str) -> str:
    """One workflow command; `kind` is `error`, `warning` or `notice`."""
    properties = {"file": _in_workspace(file), "title": _TITLE}
    written = ",".join(f"{name}={_escaped(value, _IN_PROPERTY)}" for name, value in properties.items())
    return f"::{kind} {written}::{_escaped(message, _IN_DATA)}"


@dataclass
class GithubReport:
    """What is reported on the models of one command."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """Model, outcome and details, for the summary."""

    @classmethod
    def of(cls, wanted: str) -> Self:
        """The report that `--report` asks for. Raises `UsageError` for an unknown one, and beside `--json`."""
        if wanted != NAME:
            raise UsageError(f"no such report: {display(wanted)}", hint=f"--report {NAME}")
        if console.settings.json:
            raise UsageError("--report prints to stdout, and so does --json", hint="leave one of them out")
        return cls()

    def verified(self, path: str, done: Done) -> Done:
        """Take a model that verified; what is printed about it is a notice, and its warnings are warnings."""
        text = _COLOUR.sub("", done.text)
        lines = [annotation("warning", path, warning) for warning in done.result.get("warnings", [])]
        lines.append(annotation("notice", path, text))
        self.rows.append((path, "verified", text))
        return Done(done.result, "\n".join(lines))

    def failed(self, path: str, error: BatutaError) -> None:
        """Print the error about a model, and one about each file of it that differs."""
        details = error.result if isinstance(error.result, dict) else {}
        lines = [annotation("error", path, _with_hint(error))]
        lines += [
            annotation("error", os.path.join(path, name), words) for name, words in _differences(details)[:_SHOWN]
        ]
        console.emit("\n".join(lines), always=True)
        self.rows.append((path, f"failed (exit {error.exit_code})", _with_hint(error)))

    def failed_before(self, error: BatutaError) -> None:
        """Print an error that concerns no model, such as a key file that does not exist."""
        console.emit(f"::error title={_TITLE}::{_escaped(_with_hint(error), _IN_DATA)}", always=True)

    def write_summary(self) -> None:
        """Append the table to the job's summary, if this is a job. Raises `OperationError`."""
        file = os.environ.get("GITHUB_STEP_SUMMARY")
        if not file or not self.rows:
            return
        lines = [f"### {_TITLE}", "", "| model | result | details |", "|---|---|---|"]
        lines += [
            "| " + " | ".join(_escaped(display_lines(cell), _IN_CELL) for cell in row) + " |" for row in self.rows
        ]
        with errors_named(file):
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                write_all(descriptor, ("\n".join(lines) + "\n\n").encode(errors="backslashreplace"))
            finally:
                os.close(descriptor)


def display_lines(text: str) -> str:
    """`text` with the control characters of each line escaped."""
    return "\n".join(map(display, text.split("\n")))


def _with_hint(error: BatutaError) -> str:
    shown = console.describe(error)
    return display_lines(f"{shown['message']}\nhint: {shown['hint']}" if shown["hint"] else str(shown["message"]))


def _differences(details: dict[str, Any]) -> list[tuple[str, str]]:
    """The files of a directory that differ from what was signed, each with what is wrong."""
    kinds = (("changed", "is not what was signed"), ("missing", "is missing"), ("added", "was not signed"))
    found = [(name, words) for kind, words in kinds for name in details.get(kind, ()) if name != "."]
    renamed = details.get("renamed", ())
    return found + [(pair["to"], f"was signed as {display(pair['from'])}") for pair in renamed]


def _in_workspace(path: str) -> str:
    """A path as annotations need it: relative to the workspace when it is in there."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace:
        relative = os.path.relpath(os.path.abspath(path), workspace)
        return path if relative.startswith("..") else relative
    return path


def _escaped(text: str, replacements: dict[str, str]) -> str:
    return "".join(replacements.get(character, character) for character in text)
