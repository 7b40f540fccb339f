"""Runs a command on several PATHs: all are tried, each is reported, the most severe error decides the exit code."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from batuta_cli.cli import console
from batuta_cli.errors import BatutaError, worst
from batuta_cli.files import display


@dataclass(frozen=True)
class Done:
    """The result for one PATH."""

    result: dict[str, Any]
    text: str


def for_each(paths: Iterable[str], work: Callable[[str], Done]) -> console.CommandResult:
    """Run `work` on every path and combine the results."""
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    failures: list[BatutaError] = []
    for path in paths:
        try:
            done = work(path)
        except BatutaError as error:
            named = _naming(path, error)
            failures.append(named)
            results.append({"path": path, "ok": False, "error": console.describe(named)} | _details(error))
        else:
            results.append({"path": path, "ok": True, "error": None} | done.result)
            lines.append(done.text)
    text = "\n".join(line for line in lines if line)
    if not failures:
        return console.CommandResult(results, text)
    final = worst(failures)
    if len(results) > 1:
        for failure in failures:
            console.report(failure)
        summary = type(final)(f"{len(failures)} of {len(results)} failed")
        return console.CommandResult(results, text, summary)
    return console.CommandResult(results, text, final)


def _naming(path: str, error: BatutaError) -> BatutaError:
    """The error with the path in front, unless its message begins with the path or with a file beside or inside it."""
    shown = display(path)
    if error.message.startswith(shown) and (shown.endswith("/") or error.message[len(shown) :][:1] in ":./"):
        return error
    named = type(error)(f"{display(path)}: {error.message}", hint=error.hint, result=error.result)
    return named.with_traceback(error.__traceback__)


def _details(error: BatutaError) -> dict[str, Any]:
    return error.result if isinstance(error.result, dict) else {}
