"""Deletes old files of an audit log so that the rest can still be verified.

Before files are deleted, a record `pruned` with the last sequence and head of each is written to the newest file. It
also repeats the `pruned` records in the deleted files, as far as files that stay name those older files. So a file that
is named somewhere either exists, or a record says that it was pruned.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from batuta_cli.errors import BatutaError
from batuta_cli.files import locked, open_regular
from batuta_cli.serve.privacy.audit_format import (
    MOST_HEADS,
    FileHead,
    first_record,
    head_of,
    heads_in,
    lines_of,
    log_files,
    read_record,
)


def newest_heads(directory: Path) -> list[FileHead]:
    """The heads of the newest files of a log, the oldest first; files without a record are left out."""
    heads = []
    for path in log_files(directory)[-MOST_HEADS:]:
        with contextlib.suppress(OSError, BatutaError):  # pruned by another process, not readable, not a file
            if head := head_of(path):
                heads.append(head)
    return heads


def prune(own: Path, write: Callable[[Sequence[FileHead]], None], *, keep_bytes: int, before: float | None) -> None:
    """Delete the files last written before the time `before`, and the oldest ones until `keep_bytes` bytes are left.

    The caller holds the `pruning_lock`. `own` is never deleted. `write` appends a record `pruned` to `own`; nothing is
    deleted when it fails. Raises `OSError`, and what `write` raises.
    """
    victims = _victims(own, keep_bytes, before)
    if not victims:
        return
    heads = [head for path in victims if (head := head_of(path))]
    kept = [path for path in log_files(own.parent) if path not in victims]
    named = {head.name for path in kept for head in _named_in(path)}
    repeated = [head for path in victims for head in _pruned_in(path) if head.name in named]
    records = [*repeated, *heads]
    for start in range(0, len(records), MOST_HEADS):
        write(records[start : start + MOST_HEADS])
    for path in victims:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def pruning_lock(directory: Path) -> AbstractContextManager[None]:
    """Held by a process that prunes, from before it reads the heads that its new file names."""
    return locked(directory / "prune.lock")


def _victims(own: Path, keep_bytes: int, before: float | None) -> list[Path]:
    files = []
    for path in log_files(own.parent):
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                files.append((found.st_mtime, path, found.st_size))
    files.sort()
    total = sum(size for _, _, size in files)
    victims = []
    for modified, path, size in files:
        too_old = before is not None and modified < before
        if path != own and (too_old or (keep_bytes and total > keep_bytes)):
            victims.append(path)
            total -= size
    return victims


def _named_in(path: Path) -> list[FileHead]:
    with contextlib.suppress(OSError, BatutaError):
        return heads_in(first_record(path)) or []
    return []


def _pruned_in(path: Path) -> list[FileHead]:
    with os.fdopen(open_regular(path), "rb") as file:
        records = (read_record(line)[0] for line in lines_of(file) if b'"pruned":[' in line)
        return [head for record in records if record and "pruned" in record for head in heads_in(record) or ()]
