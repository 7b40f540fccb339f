"""Runs a command on several PATHs: all are tried, each is reported, the most severe error decides the exit code."""

import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
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


def for_each(
    paths: Iterable[str], work: Callable[[str], Done], *, size: Callable[[str], console.WorkSize | None] | None = None
) -> console.CommandResult:
    """Run `work` on every path and combine the results.

    Of several paths each result and error is printed as soon as it is known, in order. Under `--json` all are in the
    one document at the end. `size` returns the bytes and files of a path, for one progress bar over all paths.
    """
    paths = list(paths)
    several = len(paths) > 1
    results: list[dict[str, Any]] = []
    text = ""
    failures: list[BatutaError] = []
    with console.shared_progress(len(paths), _total(paths, size)) if several else nullcontext() as bar:
        for path in paths:
            if bar is not None:
                bar.next_input()
            try:
                done = work(path)
            except BatutaError as error:
                named = naming(path, error)
                failures.append(named)
                results.append({"path": path, "ok": False, "error": console.describe(named)} | _details(error))
                if several:
                    console.report(named)
                continue
            results.append({"path": path, "ok": True, "error": None} | done.result)
            if several:
                console.emit(done.text)
            else:
                text = done.text
    if not failures:
        return console.CommandResult(results, text)
    final = worst(failures)
    if several:
        final = type(final)(f"{len(failures)} of {len(results)} failed")
    return console.CommandResult(results, text, final)


def _total(paths: list[str], size: Callable[[str], console.WorkSize | None] | None) -> console.WorkSize | None:
    """The bytes and files of all paths whose size is known; None when no bar is shown for them."""
    if size is None or not sys.stderr.isatty():
        return None
    known = [found for path in paths if (found := size(path)) is not None]
    return console.WorkSize(sum(one.bytes for one in known), sum(one.files for one in known))


def naming(path: str, error: BatutaError) -> BatutaError:
    """The error with the path in front, unless its message begins with the path or with a file beside or inside it."""
    shown = display(path)
    if error.message.startswith(shown) and (shown.endswith("/") or error.message[len(shown) :][:1] in ":./"):
        return error
    named = type(error)(f"{display(path)}: {error.message}", hint=error.hint, result=error.result)
    return named.with_traceback(error.__traceback__)


def _details(error: BatutaError) -> dict[str, Any]:
    return error.result if isinstance(error.result, dict) else {}
