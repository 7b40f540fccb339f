"""The parts that the layouts share: walking a directory, names that are digests, small JSON files of a cache."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.files import StrPath, display, errors_named, read_limited, utf8_name
from batuta_cli.pacha.caches.contents import CachedFile, FileStatus, FileUse, LeftOver, Repair

DOCUMENT_LIMIT = 64 * 1024 * 1024
"""Bytes of a manifest or an index; the listing of a repository of 100,000 files has 20 MB."""

_HEX = {"sha256": 64, "sha512": 128}
"""Digits of the registered algorithms of the OCI image specification (descriptor.md)."""
_DIGEST = re.compile(r"(sha256|sha512)[:-]([0-9a-f]+)")


def parse_blob_digest(text: object) -> tuple[str, str] | None:
    """Algorithm and hexadecimal digits of `sha256:…`, as Ollama's file names have it `sha256-…`; None otherwise."""
    found = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if found is None or len(found[2]) != _HEX[found[1]]:
        return None
    return found[1], found[2]


def entries_of(directory: StrPath) -> list[os.DirEntry[str]]:
    """What is in a directory, sorted by name. Raises `NotFoundError`, `OperationError`."""
    with errors_named(directory), os.scandir(directory) as found:
        return sorted(found, key=lambda entry: entry.name)


def files_below(directory: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The `/`-separated names and the paths of all files and links below a directory; links are not followed.

    Raises `NotFoundError`, `OperationError`.
    """
    for entry in entries_of(directory):
        name = prefix + utf8_name(entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path, name + "/")
        else:
            yield name, entry.path


def read_document(path: StrPath) -> dict[str, Any]:
    """The JSON object in a file.

    Raises `InvalidInputError` when it is not one, `NotFoundError`, `OperationError`.
    """
    return parse_document(read_limited(path, DOCUMENT_LIMIT), display(path))


def parse_document(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises `InvalidInputError`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"{name}: is not JSON") from None
    if not isinstance(document, dict):
        raise InvalidInputError(f"{name}: is not a JSON object")
    return document


def left_over(path: str, reason: str) -> LeftOver:
    """A file that no model uses."""
    try:
        size = os.lstat(path).st_size
    except OSError:
        size = 0
    return LeftOver(path, size, reason)


def unreadable(path: str, use: FileUse, error: BatutaError) -> CachedFile:
    """A part of a cache that cannot be read, such as a directory of another user."""
    return CachedFile(path, (use,), None, Repair(), None, FileStatus.UNREADABLE, error.message)


def from_home(environment: Mapping[str, str], *parts: str) -> list[str]:
    """The path of `parts` in the user's home, or nothing when there is no home."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return [os.path.join(home, *parts)] if os.path.isabs(home) else []
