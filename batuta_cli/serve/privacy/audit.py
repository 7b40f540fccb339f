"""The audit log: the decisions of the privacy gate, written before each connection is opened.

Each process writes its own files, `<UTC start>-<pid>-<random>.jsonl` in `paths.audit_dir()`, mode 0600. It begins a new
file at a size or age (`AuditPolicy`), and may delete old ones (`audit_retention.py`). Each line is one decision,
without message content:

    {"sequence":1,"time":"2026-11-23T22:30:00.123456Z","request":"…","tier":"sovereign","backend":"llamacpp",
     "address":"127.0.0.1:8080","decision":"allowed","reason":"the loopback","previous":"<hash>","hash":"<hash>"}

without spaces and line breaks, in this order, in ASCII. `hash` is the SHA-256, in hexadecimal, of the line without
`,"hash":"…"` and the line feed. `previous` is the `hash` of the line before, 64 zeros in the first line. `sequence`
counts from 1. `audit_format.py` has the other kinds of records, and `audit_verification.py` finds every edit, gap,
duplicate and change of order.

When the log cannot be written, `record` raises `AuditError` for sovereign and private requests; standard requests
continue, and `AuditLog.lost` counts them. The chain is not a signature: an attacker who can write the files can write a
new log.
"""

import contextlib
import datetime as dt
import json
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from batuta_cli import paths
from batuta_cli.errors import AuditError, BatutaError
from batuta_cli.files import check_writable, display
from batuta_cli.serve.privacy.audit_format import NO_HASH, SUFFIX, FileHead, list_text, sealed
from batuta_cli.serve.privacy.audit_retention import newest_heads, prune, pruning_lock
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import AuditSection

_LONGEST_FIELD = 300  # characters; a host name has at most 253
_json = json.encoder.encode_basestring_ascii


class Decision(NamedTuple):
    """The decision of the gate about one connection."""

    request_id: str
    tier: PrivacyTier
    backend: str
    address: str
    """Its destination: an address and port, `unix:` and a path, or a host name that was not resolved."""
    allowed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class AuditPolicy:
    """When a process begins a new file, and which files are deleted."""

    rotate_bytes: int = 64 * 1024 * 1024
    rotate_seconds: float = 24 * 3600.0
    """0: no limit."""
    keep_bytes: int = 0
    """The size of all files together; 0: no limit."""
    keep_seconds: float = 0.0
    """Since the last record of a file; 0: no limit."""

    @classmethod
    def from_config(cls, section: "AuditSection") -> Self:
        """The policy of the configuration's `[audit]` table."""
        return cls(
            rotate_bytes=section.rotate_bytes,
            rotate_seconds=section.rotate_hours * 3600.0,
            keep_bytes=section.keep_bytes,
            keep_seconds=section.keep_days * 86_400.0,
        )


class AuditLog:
    """The log of this process; safe for threads, and for a forked child that uses its parent's object."""

    def __init__(self, directory: Path | None = None, policy: AuditPolicy | None = None) -> None:
        self.directory = directory or paths.audit_dir()
        self._policy = policy or AuditPolicy()
        self.lost = 0
        """The number of decisions about standard requests that could not be written."""
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._fd = -1
        self._path = self.directory
        self._size = 0
        self._begun = 0.0
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
        now = dt.datetime.now(dt.UTC)
        if not self._in_place() or self._is_full(now.timestamp()):
            self._open(now)
        # Written for each request; this takes a fifth of the time of json.dumps.
        self._write(
            f'{{"sequence":{self._sequence + 1},"time":"{_time(now)}",'
            f'"request":{_json(decision.request_id[:_LONGEST_FIELD])},"tier":"{decision.tier}",'
            f'"backend":{_json(decision.backend[:_LONGEST_FIELD])},'
            f'"address":{_json(decision.address[:_LONGEST_FIELD])},'
            f'"decision":"{"allowed" if decision.allowed else "refused"}",'
            f'"reason":{_json(decision.reason[:_LONGEST_FIELD])},"previous":"{self._previous}"}}'
        )

    def _write(self, text: str) -> None:
        line, digest = sealed(text)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(28, os.strerror(28))  # ENOSPC: only a full disk shortens so short a write
        except OSError:
            self._take_back()
            raise
        self._size += len(line)
        self._sequence, self._previous = self._sequence + 1, digest

    def _write_heads(self, kind: str, heads: Sequence[FileHead]) -> None:
        time = _time(dt.datetime.now(dt.UTC))
        self._write(list_text(kind, self._sequence + 1, time, heads, self._previous))

    def _is_full(self, now: float) -> bool:
        too_old = bool(self._policy.rotate_seconds) and not 0 <= now - self._begun < self._policy.rotate_seconds
        return self._size >= self._policy.rotate_bytes or too_old

    def _in_place(self) -> bool:
        """Whether the open file still has its name: false when it was removed, moved or replaced."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except OSError:
            return False

    def _open(self, now: dt.datetime) -> None:
        self.close()
        paths.private_dir(self.directory)
        prunes = bool(self._policy.keep_bytes or self._policy.keep_seconds)
        with pruning_lock(self.directory) if prunes else contextlib.nullcontext():
            self._begin_file(now)
            if prunes:
                with contextlib.suppress(OSError, BatutaError):  # the next new file tries again
                    prune(
                        self._path,
                        lambda heads: self._write_heads("pruned", heads),
                        keep_bytes=self._policy.keep_bytes,
                        before=now.timestamp() - self._policy.keep_seconds if self._policy.keep_seconds else None,
                    )

    def _begin_file(self, now: dt.datetime) -> None:
        others = newest_heads(self.directory)
        self._path = self.directory / f"{now:%Y%m%dT%H%M%SZ}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._begun = now.timestamp()
        self._size, self._sequence, self._previous = 0, 0, NO_HASH
        if others:
            self._write_heads("files", others)

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


def _time(now: dt.datetime) -> str:
    return f"{now.isoformat(timespec='microseconds')[:26]}Z"
