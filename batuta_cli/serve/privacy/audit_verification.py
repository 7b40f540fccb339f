"""Verifies an audit log, and gives the heads that prove its completeness later.

Every record must continue the one before it. Every file that another file names (see `audit_format.py`) must exist with
the named record, unless a record says that it was pruned. What this cannot find is that the end of the newest file was
cut off, or that the newest file was removed: for that, keep the heads in another place and pass them to `verify_log`. A
head that a `pruned` record names counts as found.

The head of a file is the hash of its last record. The head of a whole log is the SHA-256 of `LogReport.lines`; it
changes with every record. An earlier head of a file can still be found in it.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batuta_cli import paths
from batuta_cli.errors import BatutaError, InvalidInputError, NotFoundError
from batuta_cli.files import display, errors_named, open_regular
from batuta_cli.serve.privacy.audit_format import (
    NO_HASH,
    FileHead,
    first_record,
    heads_in,
    is_torn,
    lines_of,
    log_files,
    read_record,
)


@dataclass(kw_only=True, frozen=True)
class FileReport:
    """The verification of one file of the log."""

    name: str
    records: int
    head: str
    problems: tuple[str, ...] = ()
    incomplete: bool = False
    """The last line is incomplete: the process was killed while writing it, or the end of the file was cut off."""


@dataclass(frozen=True)
class LogReport:
    """The verification of all files of a log."""

    files: tuple[FileReport, ...]
    lost_heads: tuple[str, ...] = ()
    """Required heads that are in no file."""
    pruned: int = 0
    """The number of files that were deleted by the policy, as records say."""

    @property
    def ok(self) -> bool:
        """Whether every file is an unbroken chain and contains every required head."""
        return not self.lost_heads and not any(file.problems for file in self.files)

    @property
    def records(self) -> int:
        """The number of decisions."""
        return sum(file.records for file in self.files)

    @property
    def lines(self) -> str:
        """A line for each file: its head, the number of records and its name, separated by two spaces."""
        return "".join(f"{file.head}  {file.records}  {display(file.name)}\n" for file in self.files)

    @property
    def head(self) -> str:
        """The head of the whole log."""
        return hashlib.sha256(self.lines.encode()).hexdigest()


def verify_log(where: Sequence[Path] | None = None, heads: Iterable[str] = ()) -> LogReport:
    """Verify every record of a log.

    Args:
        where: files, or directories of them. Default: the log of this user.
        heads: hashes of records that must be in it, or the head of the whole log.

    Raises:
        NotFoundError: a file or directory does not exist, or none of them contains a log.
        OperationError: a file or directory cannot be read.
    """
    wanted = {head.lower() for head in heads}
    missing = set(wanted)
    files = files_of_log(where)
    directories = {path.parent for path in files} & {paths.audit_dir(), *(where or ())}
    references = _References(files, directories)
    reports = [_verify_file(path, missing, references) for path in files]
    problems = references.problems(set(files))
    reports = [
        replace(report, problems=(*report.problems, *sorted(problems.get(report.name, ())))) for report in reports
    ]
    report = LogReport(tuple(reports), pruned=len(references.pruned))
    missing.discard(report.head)
    return replace(report, lost_heads=tuple(sorted(missing)))


def read_heads(text: str) -> list[str]:
    """The hashes in an earlier output of `serve audit head`. Raises `InvalidInputError`."""
    heads = []
    for line in text.splitlines():
        head, _, rest = line.partition("  ")
        if not is_head(head) or not rest:
            raise InvalidInputError("not an output of batuta serve audit head")
        # The head of the whole log is skipped, because it changed with the next record.
        if head != NO_HASH and not rest.endswith(f"  {WHOLE}"):
            heads.append(head)
    return heads


WHOLE = "*"
"""Denotes the whole log in place of a file's name; no file of a log has this name."""


def is_head(text: str) -> bool:
    """Whether a text has the form of a head."""
    return re.fullmatch(r"[0-9A-Fa-f]{64}", text) is not None


def files_of_log(where: Sequence[Path] | None) -> list[Path]:
    """The files of a log, the oldest of each directory first. Raises `NotFoundError` when nothing is there."""
    places = [paths.audit_dir()] if where is None else where
    for path in places:
        if not path.exists() or (where is None and not path.is_dir()):
            kind = "file or directory" if where else "directory"
            raise NotFoundError(
                f"{display(path)}: no such {kind}: no decision was logged there yet, or the log was removed"
            )
    files = [file for path in places for file in (_inside(path) if path.is_dir() else [path])]
    if not files:
        shown = ", ".join(display(path) for path in places)
        raise NotFoundError(f"{shown}: no audit log: no decision was logged yet, or the log was removed")
    return files


def _inside(directory: Path) -> list[Path]:
    with errors_named(directory):
        return log_files(directory)


class _References:
    """The files that records name, and the files that records say were pruned."""

    def __init__(self, files: Iterable[Path], directories: Collection[Path]) -> None:
        self._directories = directories
        self._named: dict[Path, set[tuple[FileHead, str]]] = {}
        self._hashes: dict[Path, dict[int, str]] = {}
        self.pruned: set[tuple[Path, str]] = set()
        for path in files:
            with contextlib.suppress(OSError, BatutaError):
                for head in heads_in(first_record(path)) or ():
                    self._named.setdefault(path.parent / head.name, set()).add((head, path.name))

    def saw(self, path: Path, sequence: int, digest: str) -> None:
        """Take note of a record, if another file names it."""
        if path in self._named and any(head.sequence == sequence for head, _ in self._named[path]):
            self._hashes.setdefault(path, {})[sequence] = digest

    def problems(self, files: Collection[Path]) -> dict[str, list[str]]:
        """What is missing, by the names of the files that name it."""
        found: dict[str, list[str]] = {}
        for path, references in self._named.items():
            if path.parent not in self._directories or (path not in files and (path.parent, path.name) in self.pruned):
                continue
            for head, by in references:
                if path not in files:
                    found.setdefault(by, []).append(f"names the file {display(head.name)}, which was removed")
                elif self._hashes.get(path, {}).get(head.sequence) != head.head:
                    missing = f"record {head.sequence} of {display(head.name)}, which was removed or changed"
                    found.setdefault(by, []).append(f"names {missing}")
        return found


def _verify_file(path: Path, missing: set[str], references: _References) -> FileReport:
    """Verify one file, and remove its hashes from `missing`."""
    problems: list[str] = []
    records, previous, incomplete = 0, NO_HASH, False
    sequence = 0
    try:
        descriptor = open_regular(path)
    except (InvalidInputError, NotFoundError):  # it exists, and is a directory, a link to nothing or a device
        return FileReport(name=path.name, records=0, head=NO_HASH, problems=("is not a regular file",))
    with os.fdopen(descriptor, "rb") as file, errors_named(path):
        for number, line in enumerate(lines_of(file), 1):
            if is_torn(line):
                incomplete = True
                break
            record, digest, problem = read_record(line)
            if problem:
                problems.append(f"line {number} {problem}")
            if record is None:
                previous, sequence = digest or previous, sequence + 1
                continue
            if record["sequence"] != sequence + 1:
                problems.append(f"line {number} is record {record['sequence']} instead of {sequence + 1}")
            elif record["previous"] != previous:
                problems.append(f"line {number} does not continue the line before")
            sequence, previous = record["sequence"], str(digest)
            if "decision" in record:
                records += 1
            if not problem:
                missing.discard(previous)
                references.saw(path, sequence, previous)
                if "pruned" in record:
                    heads = heads_in(record) or ()
                    missing.difference_update(head.head for head in heads)
                    references.pruned.update((path.parent, head.name) for head in heads)
    return FileReport(name=path.name, records=records, head=previous, problems=tuple(problems), incomplete=incomplete)
