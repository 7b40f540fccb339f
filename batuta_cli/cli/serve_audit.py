"""`batuta serve audit`: verifies the audit log, and prints the heads that prove its completeness later."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.errors import DamagedStateError, InvalidInputError, UsageError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.serve.privacy.audit_verification import LogReport

group = command_group("audit", "Verify the log of the privacy gate's decisions.")

_SAVED_LIMIT = 16 * 1024 * 1024  # bytes of a saved list of heads, about 100 for each file of the log
_PROBLEMS_SHOWN = 10

Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH...", help="Files of the log, or directories of them. Default: this user's log."),
]


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve audit verify",
        "batuta serve audit verify --head heads.txt",
        "batuta serve audit verify --head 2240d50197ad051db4509d0538a2ef12393817dd8e47677c1e231bf525d639a8",
        "batuta serve audit verify --sealed 2026-11-26.seal --key auditor.pub",
        "batuta serve audit verify /backup/audit --json",
    ),
)
def verify(
    paths: Paths = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A hash that `audit head` printed, or a FILE with its output (- is stdin). Must be in the log.",
        ),
    ] = None,
    sealed: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A seal of `audit seal`, by a trusted key. Its heads must be in the log."),
    ] = None,
    key: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Accept seals of this public key only.")] = None,
    identity: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Accept seals of this trusted signer only.")
    ] = None,
) -> console.CommandResult:
    """Check that no decision was changed, removed, added or moved.

    A file names the ends of the files before it, so their removal is found too, unless `[audit]` of the configuration
    pruned them. Only the end of the newest file can be cut off unseen; --head finds that, with an earlier output of
    `audit head`, and --sealed with a seal of `audit seal`, which cannot be forged without its key. Exit 1 when the log
    is damaged or does not exist, 4 when a seal is not by an acceptable key. An incomplete last line, as a crash leaves
    it, is a warning.
    """
    from batuta_cli.serve.privacy.audit_verification import verify_log

    if (key or identity) and not sealed:
        raise UsageError("--key and --identity say whose seals count; none was given", hint="--sealed FILE")
    heads = [found for given in head or [] for found in _heads(given)]
    signers: dict[str, None] = {}
    if sealed:
        from batuta_cli.cli.serve_audit_seal import sealed_heads

        for found, signer in sealed_heads(sealed, key or [], identity or []):
            heads.append(found)
            signers[signer.name or f"the key {signer.key.key_id}"] = None
    report = verify_log(places(paths), heads)
    for file in report.files:
        if file.incomplete:
            console.warn(
                f"{display(file.name)}: the last line is incomplete: the process was killed, or the end was cut off"
            )
    result = _described(report) | {"missing_heads": list(report.lost_heads), "sealed_by": list(signers)}
    if not report.ok:
        return console.CommandResult(result, "", log_error(report))
    text = f"{count_in_words(report)}: every chain is unbroken"
    if report.pruned:
        text += f", {report.pruned} older file{'s' * (report.pruned != 1)} pruned"
    if heads:
        text += f", and {'the head is' if len(heads) == 1 else f'all {len(heads)} heads are'} in it"
    if signers:
        text += f"; sealed by {', '.join(map(display, signers))}"
    return console.CommandResult(result, text)


@group.command(
    cls=Command,
    epilog=examples(
        "batuta serve audit head > heads.txt",
        "# later, with heads.txt from a place that others cannot write:",
        "batuta serve audit verify --head heads.txt",
    ),
)
def head(paths: Paths = None) -> console.CommandResult:
    """Print the heads to keep in another place: one of each file, and one of the whole log.

    A line has a hash, the number of decisions and the name of the file. The line with * has the hash of the whole log:
    the SHA-256 of the lines before it, valid until the next decision. The heads of the files stay valid.
    """
    from batuta_cli.serve.privacy.audit_verification import WHOLE, verify_log

    report = verify_log(places(paths))
    result = _described(report)
    if not report.ok:
        return console.CommandResult(result, "", log_error(report))
    return console.CommandResult(result, f"{report.lines}{report.head}  {report.records}  {WHOLE}")


def places(paths: list[str] | None) -> list[Path] | None:
    """The places that `Paths` names."""
    return [Path(path) for path in paths] if paths else None


def _heads(given: str) -> list[str]:
    """The hashes of one --head."""
    from batuta_cli.cli.models import read_stdin
    from batuta_cli.files import read_limited
    from batuta_cli.serve.privacy.audit_verification import is_head, read_heads

    if is_head(given):
        return [given]
    if given != "-" and not os.path.exists(given):
        raise UsageError(
            f"--head {display(given)} is neither a hash of 64 hexadecimal digits nor an existing file",
            hint="batuta serve audit head > heads.txt",
        )
    data = read_stdin(_SAVED_LIMIT) if given == "-" else read_limited(given, _SAVED_LIMIT)
    try:
        return read_heads(data.decode())
    except (UnicodeDecodeError, InvalidInputError):
        name = "stdin" if given == "-" else display(given)
        raise InvalidInputError(f"{name}: not an output of batuta serve audit head") from None


def _described(report: "LogReport") -> dict[str, Any]:
    return {
        "head": report.head,
        "decisions": report.records,
        "pruned_files": report.pruned,
        "files": [
            {
                "name": file.name,
                "decisions": file.records,
                "head": file.head,
                "incomplete": file.incomplete,
                "problems": list(file.problems),
            }
            for file in report.files
        ],
    }


def log_error(report: "LogReport") -> DamagedStateError:
    """The error for a damaged log, with its problems."""
    problems = [f"{display(file.name)}: {problem}" for file in report.files for problem in file.problems]
    problems += [f"no decision has the hash {head}: a file or its end was removed" for head in report.lost_heads]
    if (more := len(problems) - _PROBLEMS_SHOWN) > 0:
        problems[_PROBLEMS_SHOWN:] = [f"and {more} more"]
    return DamagedStateError("the audit log is damaged\n" + "\n".join(problems))


def count_in_words(report: "LogReport") -> str:
    """The numbers of decisions and files of a log."""
    files, records = len(report.files), report.records
    return f"{records} decision{'s' * (records != 1)} in {files} file{'s' * (files != 1)}"
