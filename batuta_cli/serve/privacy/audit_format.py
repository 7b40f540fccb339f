"""The lines of an audit log: three kinds of records, and how to read them.

* A decision: the fields `DECISION`.
* `files`, the first record of a file when there are other files: name, last sequence and head of each of the newest
  `MOST_HEADS` files. So the removal of a file, or of its end, is found by the files that were begun after it.
* `pruned`, written before old files are deleted: name, last sequence and head of each.

`docs/formats.md` has an example of each kind.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from batuta_cli.files import open_regular

SUFFIX = ".jsonl"
NO_HASH = "0" * 64
"""The `previous` of the first record, and the head of a file without records."""

DECISION = ("sequence", "time", "request", "tier", "backend", "address", "decision", "reason", "previous")
FILES = ("sequence", "time", "files", "previous")
PRUNED = ("sequence", "time", "pruned", "previous")

MOST_HEADS = 100
"""Files in one record."""

LONGEST_LINE = 64 * 1024  # bytes; 100 heads take 15 KiB, the six escaped fields of a decision up to 11 KiB
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_SEQUENCE = re.compile(rb'\{"sequence":([0-9]{1,18}),')


class FileHead(NamedTuple):
    """The name of a file, and the sequence and hash of its last record."""

    name: str
    sequence: int
    head: str


def sealed(text: str) -> tuple[bytes, str]:
    """The line of a record, given as JSON text without its hash; and the hash."""
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    return data[:-1] + f',"hash":"{digest}"}}\n'.encode(), digest


def list_text(kind: str, sequence: int, time: str, heads: Sequence[FileHead], previous: str) -> str:
    """The JSON text of a record `files` or `pruned`."""
    record = {"sequence": sequence, "time": time, kind: [list(head) for head in heads], "previous": previous}
    return json.dumps(record, separators=(",", ":"))


def log_files(directory: Path) -> list[Path]:
    """The files of a log in a directory, the oldest first."""
    return [directory / name for name in sorted(os.listdir(directory)) if name.endswith(SUFFIX)]


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, the longest ones in parts."""
    while line := file.readline(LONGEST_LINE):
        yield line


def is_torn(line: bytes) -> bool:
    """Whether a line is an incompletely written record, without its line feed."""
    match = _HASH.search(line)
    return not line.endswith(b"\n") and len(line) < LONGEST_LINE and (match is None or match.end() == len(line))


def read_record(line: bytes) -> tuple[dict[str, Any] | None, str | None, str]:
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
    if not isinstance(record, dict) or type(record.get("sequence")) is not int or not _has_fields(record):
        return None, digest, "is not a record"
    return record, digest, "" if hashlib.sha256(text).hexdigest() == digest else "was changed"


def _has_fields(record: dict[str, Any]) -> bool:
    fields = tuple(record)
    return fields == DECISION or (fields in (FILES, PRUNED) and heads_in(record) is not None)


def heads_in(record: dict[str, Any] | None) -> list[FileHead] | None:
    """The heads in a record `files` or `pruned`; None for another record."""
    found = record and (record.get("files") or record.get("pruned"))
    if not isinstance(found, list):
        return None
    heads = [FileHead(*head) for head in found if isinstance(head, list) and list(map(type, head)) == [str, int, str]]
    return heads if len(heads) == len(found) else None


def first_record(path: Path) -> dict[str, Any] | None:
    """The first record of a file. Raises `OSError`, and `BatutaError` when it is not a regular file."""
    with os.fdopen(open_regular(path), "rb") as file:
        return read_record(file.readline(LONGEST_LINE))[0]


def head_of(path: Path) -> FileHead | None:
    """The head of a file by its last complete line; None without one. Raises as `first_record`."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * LONGEST_LINE))
        lines = file.read().split(b"\n")
    for line in reversed(lines[:-1]):
        sequence, digest = _SEQUENCE.match(line), _HASH.search(line)
        if sequence and digest and digest.end() == len(line):
            return FileHead(path.name, int(sequence[1]), digest[1].decode())
    return None
