"""The audit log: the decisions of the privacy gate, written before each connection is opened.

Each process writes its own file, `<UTC start>-<pid>-<random>.jsonl` in `paths.audit_dir()`, mode 0600. Each line is one
decision, without message content:

    {"sequence":1,"time":"2026-11-23T22:30:00.123456Z","request":"…","tier":"sovereign","backend":"llamacpp",
     "address":"127.0.0.1:8080","decision":"allowed","reason":"the loopback","previous":"<hash>","hash":"<hash>"}

without spaces and line breaks, in this order, in ASCII. `hash` is the SHA-256, in hexadecimal, of the line without
`,"hash":"…"` and the line feed. `previous` is the `hash` of the line before, 64 zeros in the first line. `sequence`
counts from 1. So `verify_log` finds every edit, gap, duplicate and change of order. It cannot find that the end of a
file was cut off, or that a whole file was removed; for that, keep the heads in another place and pass them to it.

The head of a file is the hash of its last record. The head of a whole log is the SHA-256 of `LogReport.lines`; it
changes with every record. An earlier head of a file can still be found in it.

When the log cannot be written, `record` raises `AuditError` for sovereign and private requests; standard requests
continue, and `AuditLog.lost` counts them. The chain is not a signature: an attacker who can write the files can write a
new log.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from batuta_cli import paths
from batuta_cli.errors import AuditError, BatutaError, InvalidInputError, NotFoundError
from batuta_cli.files import check_writable, display, errors_named, open_regular
from batuta_cli.serve.tiers import PrivacyTier

SUFFIX = ".jsonl"
NO_HASH = "0" * 64
"""The `previous` of the first record, and the head of a file without records."""

_LONGEST_FIELD = 300  # characters; a host name has at most 253
_LONGEST_LINE = 64 * 1024  # bytes; six escaped fields of the longest length take 11 KiB
_FIELDS = ("sequence", "time", "request", "tier", "backend", "address", "decision", "reason", "previous")
_json = json.encoder.encode_basestring_ascii
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}')


class Decision(NamedTuple):
    """The decision of the gate about one connection."""

    request_id: str
    tier: PrivacyTier
    backend: str
    address: str
    """Its destination: an address and port, `unix:` and a path, or a host name that was not resolved."""
    allowed: bool
    reason: str


class AuditLog:
    """The log of this process; safe for threads, and for a forked child that uses its parent's object."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or paths.audit_dir()
        self.lost = 0
        """The number of decisions about standard requests that could not be written."""
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._fd = -1
        self._path = self.directory
        self._size = 0
        self._sequence = 0
        self._previous = NO_HASH

    def record(self, decision: Decision) -> None:
        """Write one decision to the file.

        Raises `AuditError` when it could not be written and its tier is sovereign or private.
        """
        if self._pid != os.getpid():  # a forked child: the file is the parent's
            if self._fd >= 0:
                os.close(self._fd)
            self._reset()
        try:
            with self._lock:
                self._append(decision)
        except (OSError, BatutaError) as error:
            if decision.tier is PrivacyTier.STANDARD:
                self.lost += 1
                return
            reason = error.message if isinstance(error, BatutaError) else (error.strerror or str(error)).lower()
            raise AuditError(
                f"{display(self._path)}: the audit log cannot be written: {reason}",
                hint=f"nothing was sent; {decision.tier} requests are refused while the log cannot be written",
            ) from error

    def check_writable(self) -> None:
        """Raise `AuditError` when a record could not be written now. Writes none."""
        try:
            paths.private_dir(self.directory)
            check_writable(self.directory)
        except BatutaError as error:
            raise AuditError(f"the audit log cannot be written: {error.message}", hint=error.hint) from error

    def _append(self, decision: Decision) -> None:
        if not self._in_place():
            self._open()
        now = dt.datetime.now(dt.UTC)
        # Written for each request; this takes a fifth of the time of json.dumps.
        text = (
            f'{{"sequence":{self._sequence + 1},"time":"{now.isoformat(timespec="microseconds")[:26]}Z",'
            f'"request":{_json(decision.request_id[:_LONGEST_FIELD])},"tier":"{decision.tier}",'
            f'"backend":{_json(decision.backend[:_LONGEST_FIELD])},'
            f'"address":{_json(decision.address[:_LONGEST_FIELD])},'
            f'"decision":"{"allowed" if decision.allowed else "refused"}",'
            f'"reason":{_json(decision.reason[:_LONGEST_FIELD])},"previous":"{self._previous}"}}'
        ).encode()
        digest = hashlib.sha256(text).hexdigest()
        line = text[:-1] + f',"hash":"{digest}"}}\n'.encode()
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(28, os.strerror(28))  # ENOSPC: only a full disk shortens so short a write
        except OSError:
            self._take_back()
            raise
        self._size += len(line)
        self._sequence, self._previous = self._sequence + 1, digest

    def _in_place(self) -> bool:
        """Whether the open file still has its name: false when it was removed, moved or replaced."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except OSError:
            return False

    def _open(self) -> None:
        self.close()
        paths.private_dir(self.directory)
        self._path = self.directory / (
            f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size, self._sequence, self._previous = 0, 0, NO_HASH

    def _take_back(self) -> None:
        # A partial line would join with the next one. If it cannot be cut off, the next record begins a new file.
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file. The next decision begins a new one."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True)
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
    reports = tuple(_verify_file(path, missing) for path in _files(where))
    report = LogReport(reports)
    missing.discard(report.head)
    return LogReport(reports, tuple(sorted(missing)))


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


def _files(where: Sequence[Path] | None) -> list[Path]:
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
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    return [directory / name for name in names]


def _verify_file(path: Path, missing: set[str]) -> FileReport:
    """Verify one file, and remove its hashes from `missing`."""
    problems: list[str] = []
    records, previous, incomplete = 0, NO_HASH, False
    sequence = 0
    try:
        descriptor = open_regular(path)
    except (InvalidInputError, NotFoundError):  # it exists, and is a directory, a link to nothing or a device
        return FileReport(path.name, 0, NO_HASH, ("is not a regular file",))
    with os.fdopen(descriptor, "rb") as file, errors_named(path):
        for number, line in enumerate(_lines(file), 1):
            if _is_torn(line):
                incomplete = True
                break
            record, digest, problem = _read(line)
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
            records += 1
            if not problem:
                missing.discard(previous)
    return FileReport(path.name, records, previous, tuple(problems), incomplete)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_LONGEST_LINE):
        yield line


def _is_torn(line: bytes) -> bool:
    """Whether a line is an incompletely written record, without its line feed."""
    match = _HASH.search(line)
    return not line.endswith(b"\n") and len(line) < _LONGEST_LINE and (match is None or match.end() == len(line))


def _read(line: bytes) -> tuple[dict[str, Any] | None, str | None, str]:
    """The record of a line, the hash written in it, and its fault."""
    match = _HASH.search(line)
    if match is None or line[match.end() :] != b"\n":
        return None, None, "is not a record"
    text = line[: match.start()] + b"}"
    digest = match[1].decode()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None, digest, "was changed"
    if not isinstance(record, dict) or tuple(record) != _FIELDS or type(record["sequence"]) is not int:
        return None, digest, "is not a record"
    return record, digest, "" if hashlib.sha256(text).hexdigest() == digest else "was changed"
