"""`batuta pacha check`: the caches of Hugging Face and Ollama, and OCI layouts, against the digests in their names."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.errors import BatutaError, NotFoundError, OperationError, VerificationError, worst
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.caches.checker import FileFinding, ModelFinding
    from batuta_cli.pacha.caches.contents import CacheContents, LeftOver
    from batuta_cli.pacha.caches.layouts import CacheAt

commands = typer.Typer()


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha check",
        "batuta pacha check hf",
        "batuta pacha check ollama",
        "batuta pacha check /srv/models/hub",
        "batuta pacha check ./image-layout --json",
    ),
)
def check(
    caches: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="hf|ollama|PATH...",
            help="A Hugging Face cache or --local-dir, Ollama's models, an OCI layout; by default the user's caches.",
        ),
    ] = None,
) -> console.CommandResult:
    """Compare the files of model caches with the digests that the caches keep: damage is exit 3. No network."""
    from batuta_cli.pacha.caches.layouts import default_caches, locate_cache

    results: list[dict[str, Any]] = []
    errors: list[BatutaError] = []
    found: list[CacheAt | BatutaError] = []
    for text in caches or ():
        try:
            found.append(locate_cache(text, os.environ))
        except BatutaError as error:
            found.append(error)
    if not caches:
        found += default_caches(os.environ)
    if not found:
        raise NotFoundError(
            "there is neither a Hugging Face cache nor Ollama's models in their usual places",
            hint="batuta pacha check PATH",
        )
    for cache in found:
        try:
            if isinstance(cache, BatutaError):
                raise cache
            result, failures = _check_one(cache)
        except BatutaError as error:
            result, failures = {"ok": False, "error": console.describe(error)}, [error]
            if len(found) > 1:
                console.report(error)
        results.append(result)
        errors += failures
    final = errors[0] if len(found) == 1 and len(errors) == 1 else _summed(errors)
    return console.CommandResult(results, "", final)


def _summed(errors: list[BatutaError]) -> BatutaError | None:
    if not errors:
        return None
    final = worst(errors)
    return type(final)("; ".join(dict.fromkeys(error.message for error in errors)))


def _check_one(cache: "CacheAt") -> tuple[dict[str, Any], list[BatutaError]]:
    """Check one cache, print each model's result when it is known, and return the JSON and what failed."""
    from batuta_cli.pacha.caches.checker import check_cache, work_of

    contents = cache.scan(os.environ)
    console.note(f"{cache.layout.TITLE}: {display(cache.root)}")
    with console.progress(f"checking {cache.root}", console.WorkSize(*work_of(contents))) as advance:
        findings = check_cache(contents, advance, _show)
    _show_left_overs(contents)
    if not contents.models:
        console.note("no models")
    failures = _failures(findings)
    result = {
        "ok": not failures,
        "error": console.describe(worst(failures)) if failures else None,
        "layout": cache.layout.LAYOUT,
        "path": cache.root,
        "models": [_model(finding) for finding in findings],
        "incomplete": _left_overs(contents.incomplete),
        "unverifiable": _left_overs(contents.unverifiable),
        "absent": list(contents.absent),
    }
    return result, failures


def _failures(findings: "list[ModelFinding]") -> list[BatutaError]:
    from batuta_cli.pacha.caches.contents import FileStatus

    count = len(findings)
    failures: list[BatutaError] = []
    for kind, words, statuses in (
        (VerificationError, "damaged", (FileStatus.DAMAGED, FileStatus.MISSING)),
        (OperationError, "not readable", (FileStatus.UNREADABLE,)),
        (OperationError, "no digest to compare with", (FileStatus.UNVERIFIABLE,)),
    ):
        bad = sum(1 for finding in findings if finding.with_status(*statuses))
        if bad:
            failures.append(kind(f"{words}: {bad:,} of {count:,} models"))
    return failures


def _show(finding: "ModelFinding") -> None:
    from batuta_cli.pacha.caches.contents import FileStatus

    name = display(finding.model.name)
    if finding.intact:
        total = sum(file.size or 0 for file in finding.files)
        count = len(finding.files)
        console.emit(f"{name}: {console.paint('intact', 'good')}, {count:,} file{'s'[: count != 1]}, {total:,} bytes")
        return
    for file in finding.files:
        if file.status is FileStatus.INTACT:
            continue
        what = display(file.file.uses[0].file)
        reason = file.reason.removeprefix(f"{display(file.file.path)}: ")
        lines = [f"{name}: {what} is {file.status}" + (f": {reason}" if reason else "")]
        lines.append(f"  {display(file.file.path)}")
        others = [f"{use.file} of {use.revision}" if use.revision else use.file for use in file.file.uses[1:]]
        lines += [f"  also {display(other)}" for other in others]
        kind = VerificationError if file.status in (FileStatus.DAMAGED, FileStatus.MISSING) else OperationError
        console.report(kind("\n".join(lines), hint=_hint(file)))


def _hint(file: "FileFinding") -> str | None:
    repair = file.file.repair
    commands = [" ".join(map(console.shell_word, command)) for command in file.commands]
    if not commands:
        return repair.advice or None
    lead = f"{repair.advice}:" if repair.advice else "fetch it again:"
    return "\n  ".join((lead, *commands))


def _show_left_overs(contents: "CacheContents") -> None:
    for kind, items in (("incomplete", contents.incomplete), ("not verifiable", contents.unverifiable)):
        for item in items:
            console.note(f"{kind}: {display(item.path)}, {item.size:,} bytes: {item.reason}")
    for name in contents.absent:
        console.note(f"not in the layout, which has images for other platforms: {display(name)}")


def _model(finding: "ModelFinding") -> dict[str, Any]:
    return {
        "name": finding.model.name,
        "ok": finding.intact,
        "files": [_file(file) for file in finding.files],
    }


def _file(finding: "FileFinding") -> dict[str, Any]:
    file = finding.file
    return {
        "files": [{"file": use.file, "revision": use.revision} for use in file.uses],
        "path": file.path,
        "status": str(finding.status),
        "reason": finding.reason or None,
        "size": finding.size,
        "expected": None if file.expected is None else str(file.expected),
        "found": None if finding.found is None else str(finding.found),
        "commands": [list(command) for command in finding.commands],
    }


def _left_overs(items: "tuple[LeftOver, ...]") -> list[dict[str, Any]]:
    return [{"path": item.path, "size": item.size, "reason": item.reason} for item in items]
