"""The names of objects, `name:tag`, and the file `names.toml` that maps them to addresses.

The file is only written under the store's lock, whole or not at all. A damaged one is a `DamagedStateError` and is
never read as empty, because `gc` would then delete every object.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from batuta_cli.errors import DamagedStateError, InvalidInputError, NotFoundError
from batuta_cli.files import display, read_limited, write_file
from batuta_cli.pacha.hashing import PREFIX, ContentAddress

DEFAULT_TAG = "latest"

_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME = re.compile(f"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(_WORD)
_NAME_LIMIT = 200
_TAG_LIMIT = 128
_FILE_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, order=True)
class StoreName:
    """A name in the store; its `str` is `name:tag`."""

    name: str
    tag: str = DEFAULT_TAG

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME` or `NAME:TAG`; the tag is `latest` by default.

        Raises `InvalidInputError` unless name and tag are ASCII letters, digits, `.`, `_` and `-` (the name also `/`),
        without a leading dot or dash and without `..`.
        """
        name, colon, tag = text.partition(":")
        if not colon:
            tag = DEFAULT_TAG
        if not _NAME.fullmatch(name) or not _TAG.fullmatch(tag) or ".." in text:
            raise InvalidInputError(
                f"not a name for the store: {display(text)}",
                hint="NAME[:TAG] of letters, digits, . _ - (and / in NAME), without a leading dot or dash, without ..",
            )
        if len(name) > _NAME_LIMIT or len(tag) > _TAG_LIMIT:
            raise InvalidInputError(
                f"not a name for the store: longer than {_NAME_LIMIT} characters, or its tag than {_TAG_LIMIT}"
            )
        if name == PREFIX.rstrip(":"):
            raise InvalidInputError(f"not a name for the store: {display(text)}, because blake3: begins an address")
        return cls(name, tag)


Reference = ContentAddress | StoreName
"""A name or an address of an object."""


def parse_reference(text: str) -> Reference:
    """Read `blake3:<hex>` or `NAME[:TAG]`. Raises `InvalidInputError`."""
    return ContentAddress.parse(text) if text.startswith(PREFIX) else StoreName.parse(text)


@dataclass(frozen=True)
class StoredName:
    """What a name means: an address, its size in bytes, and the name of the file or directory it was added from."""

    address: ContentAddress
    size: int
    file: str | None = None
    directory: bool = False
    """The address is that of a directory, which has a manifest; its size is that of all its files together."""


Names = Mapping[StoreName, StoredName]


def load(path: Path) -> dict[StoreName, StoredName]:
    """Read `names.toml`. Raises `NotFoundError`, `DamagedStateError`."""
    try:
        return _parse(tomllib.loads(read_limited(path, _FILE_LIMIT).decode()))
    except NotFoundError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, InvalidInputError) as error:
        raise DamagedStateError(
            f"{display(path)}: the names of the store are damaged: {display(error)}",
            hint="restore or repair it; the objects themselves are not touched, and gc does nothing until then",
        ) from None


def save(path: Path, names: Names) -> None:
    """Write `names.toml` whole or not at all. The caller holds the store's lock."""
    import tomli_w

    rows = {str(name): _row(entry) for name, entry in sorted(names.items(), key=lambda item: item[0])}
    write_file(path, tomli_w.dumps({"names": rows}).encode(), force=True, mode=0o600)


def _row(entry: StoredName) -> dict[str, Any]:
    row: dict[str, Any] = {"address": str(entry.address), "size": entry.size}
    return row | ({} if entry.file is None else {"file": entry.file}) | ({"directory": True} if entry.directory else {})


def _parse(document: dict[str, Any]) -> dict[StoreName, StoredName]:
    # A table without [names] is damage as well: an emptied file must not look like a store without names.
    _only(document, {"names"})
    rows = document["names"]
    if not isinstance(rows, dict):
        raise TypeError("names is not a table")
    names = {StoreName.parse(text): _entry(row) for text, row in rows.items()}
    if len(names) != len(rows):
        raise ValueError("one name is listed twice")
    return names


def _entry(row: Any) -> StoredName:
    if not isinstance(row, dict):
        raise TypeError("an entry is not a table")
    _only(row, {"address", "size", "file", "directory"})
    address, size, file, directory = row["address"], row["size"], row.get("file"), row.get("directory", False)
    if not isinstance(address, str) or type(size) is not int or size < 0 or not isinstance(file, str | None):
        raise TypeError("an entry is not address, size and file")
    if not isinstance(directory, bool):
        raise TypeError("directory is not true or false")
    return StoredName(ContentAddress.parse(address), size, file, directory)


def _only(table: dict[str, Any], allowed: set[str]) -> None:
    if unknown := sorted(set(table) - allowed):
        raise ValueError(f"unknown key {unknown[0]!r}")
