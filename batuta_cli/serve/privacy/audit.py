"""The audit log: what the privacy gate allowed and refused, written before the connection is opened.

One file a process, `<UTC start>-<pid>-<random>.jsonl` in `paths.audit_dir()`, mode 0600. One decision a line, never
content:

    {"sequence":1,"time":"2026-11-23T22:30:00.123456Z","request":"…","tier":"sovereign","backend":"llamacpp",
     "address":"127.0.0.1:8080","decision":"allowed","reason":"the loopback","previous":"<hash>","hash":"<hash>"}

without blanks and line breaks, in this order, ASCII alone. `hash` is the SHA-256, in hexadecimal, of the line without
`,"hash":"…"` and the line feed; `previous` is the `hash` of the line before, 64 zeros in the first. `sequence` counts
from 1. So `verify_log` finds every edit, gap, duplicate and change of order. It cannot see that lines were cut off the
end, or a whole file taken away: for that, keep what `heads` gives in another place, and have it looked for.

The head of a file is the hash of its last record. The head of a whole log is the SHA-256 of its files' lines as
`LogReport.lines` has them; it changes with every record, those of the files stay findable.

A log that cannot be written raises `AuditError` for sovereign and private requests; a standard one goes ahead, and
`AuditLog.lost` counts. Whoever can write the files can also write a whole new log: the chain is no signature.
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
from batuta_cli.files import display, errors_named, open_regular
from batuta_cli.serve.tiers import PrivacyTier

SUFFIX = ".jsonl"
NO_HASH = "0" * 64
"""What the first record has for the hash before it, and the head of a file without a record."""

_LONGEST_FIELD = 300  # characters; a host name has at most 253
_LONGEST_LINE = 64 * 1024  # bytes; six escaped fields of the longest are 11 KiB
_FIELDS = ("sequence", "time", "request", "tier", "backend", "address", "decision", "reason", "previous")
_json = json.encoder.encode_basestring_ascii
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}')


class Decision(NamedTuple):
    """What the gate said of one connection."""

    request_id: str
    tier: PrivacyTier
    backend: str
    address: str
    """Where it would go: an address and port, `unix:` and a path, or a host name that was not resolved."""
    allowed: bool
    reason: str


class AuditLog:
    """The log of this process; safe for threads, and for a child that goes on with its parent's log."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or paths.audit_dir()
        self.lost = 0
        """Decisions for standard requests that could not be written."""
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
        """Write one decision; it is in the file when this returns.

        Raises `AuditError` when it could not be written and its tier is sovereign or private.
        """
        if self._pid != os.getpid():  # a child of fork: the parent goes on with its file
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
                hint=f"nothing was sent; without a log a {decision.tier} request is refused",
            ) from error

    def _append(self, decision: Decision) -> None:
        if not self._in_place():
            self._open()
        now = dt.datetime.now(dt.UTC)
        # One for each request: put together by hand, which takes a fifth of what json.dumps does.
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
                raise OSError(28, os.strerror(28))  # ENOSPC: only a full disk divides so short a write
        except OSError:
            self._take_back()
            raise
        self._size += len(line)
        self._sequence, self._previous = self._sequence + 1, digest

    def _in_place(self) -> bool:
        """Whether the open file still has its name: it may have been removed, moved or replaced."""
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
        # Half a line would join with the next one; where it cannot be cut off, the next one gets a new file.
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file; a later decision begins another one."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True)
class FileReport:
    """What one file of the log shows."""

    name: str
    records: int
    head: str
    problems: tuple[str, ...] = ()
    incomplete: bool = False
    """The last line has no end: the process or the machine went down in the middle of it, or its end was cut off."""


@dataclass(frozen=True)
class LogReport:
    """What all files of a log show."""

    files: tuple[FileReport, ...]
    lost_heads: tuple[str, ...] = ()
    """Heads that were asked for and are in no file."""

    @property
    def ok(self) -> bool:
        """Whether every file is an unbroken chain and every head that was asked for is there."""
        return not self.lost_heads and not any(file.problems for file in self.files)

    @property
    def records(self) -> int:
        """How many decisions there are."""
        return sum(file.records for file in self.files)

    @property
    def lines(self) -> str:
        """A line for each file: its head, two blanks, the number of records, two blanks, its name."""
        return "".join(f"{file.head}  {file.records}  {display(file.name)}\n" for file in self.files)

    @property
    def head(self) -> str:
        """The head of the whole log."""
        return hashlib.sha256(self.lines.encode()).hexdigest()


def verify_log(where: Sequence[Path] | None = None, heads: Iterable[str] = ()) -> LogReport:
    """Look at every record of a log.

    Args:
        where: files, or directories of them; the log of this user by default.
        heads: hashes of records that must be in it, or the head of the whole log.

    Raises:
        NotFoundError: a file or directory does not exist, or there is no file of a log in any of them.
        OperationError: a file or directory cannot be read.
    """
    wanted = {head.lower() for head in heads}
    missing = set(wanted)
    reports = tuple(_verify_file(path, missing) for path in _files(where))
    report = LogReport(reports)
    missing.discard(report.head)
    return LogReport(reports, tuple(sorted(missing)))


def read_heads(text: str) -> list[str]:
    """The hashes in what `serve audit head` printed once. Raises `InvalidInputError`."""
    found = []
    for line in text.splitlines():
        head, _, rest = line.partition("  ")
        if not is_head(head) or not rest:
            raise InvalidInputError("not what batuta serve audit head prints")
        # The head of the whole log is passed over: it was another one as soon as a record was added.
        if head != NO_HASH and not rest.endswith(f"  {WHOLE}"):
            found.append(head)
    return found


WHOLE = "*"
"""Stands for the whole log in place of a file's name; no file of a log has such a name."""


def is_head(text: str) -> bool:
    """Whether a text has the form of a head."""
    return re.fullmatch(r"[0-9A-Fa-f]{64}", text) is not None


def _files(where: Sequence[Path] | None) -> list[Path]:
    places = [paths.audit_dir()] if where is None else where
    for path in places:
        if not path.exists() or (where is None and not path.is_dir()):
            kind = "file or directory" if where else "directory"
            raise NotFoundError(
                f"{display(path)}: no such {kind}: nothing was logged there yet, or the log was removed"
            )
    files = [file for path in places for file in (_inside(path) if path.is_dir() else [path])]
    if not files:
        shown = ", ".join(display(path) for path in places)
        raise NotFoundError(f"{shown}: no audit log is there: nothing was logged yet, or the log was removed")
    return files


def _inside(directory: Path) -> list[Path]:
    with errors_named(directory):
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    return [directory / name for name in names]


def _verify_file(path: Path, missing: set[str]) -> FileReport:
    """Check one file, and take the hashes that it has out of `missing`."""
    problems: list[str] = []
    records, previous, incomplete = 0, NO_HASH, False
    sequence = 0
    try:
        descriptor = open_regular(path)
    except (InvalidInputError, NotFoundError):  # it was there, or named: something else has its name now
        return FileReport(path.name, 0, NO_HASH, ("is not a regular file, and the log was kept in one",))
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
                problems.append(f"line {number} is record {record['sequence']}, where {sequence + 1} is due")
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
    """Whether a line is what is left of a record when its writing was cut short, its line feed missing at least."""
    match = _HASH.search(line)
    return not line.endswith(b"\n") and len(line) < _LONGEST_LINE and (match is None or match.end() == len(line))


def _read(line: bytes) -> tuple[dict[str, Any] | None, str | None, str]:
    """A line's record, the hash it says it has, and what is wrong with it."""
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
