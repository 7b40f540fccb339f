"""Finds Git LFS pointers: small text files that stand in a checkout in place of the real file.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: UTF-8 text below 1024 bytes whose first line is
`version` and a URL.
"""

import os
from collections.abc import Sequence

from batuta_cli.errors import BatutaError
from batuta_cli.files import StrPath, open_regular
from batuta_cli.pacha.scanning import scan

_LIMIT = 1024  # bytes; a pointer is smaller
_FIRST_LINES = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",  # before the first release
    b"version http://git-media.io/v/2\n",
)


def lfs_pointers(path: StrPath, *, ignore: Sequence[str] = (), follow_symlinks: bool = False) -> list[str]:
    """The names of the pointers in a model, `.` for a single file. `ignore` are relative paths, see `hashing.scan`.

    Files that cannot be read are passed over; reading the model reports them.
    """
    try:
        entries = scan(path, ignore=ignore, follow_symlinks=follow_symlinks, allow_empty=True, unusable=[])
    except BatutaError:
        return []
    return [entry.name for entry in entries if entry.size < _LIMIT and _is_pointer(entry.path)]


def _is_pointer(path: str) -> bool:
    try:
        descriptor = open_regular(path)
    except BatutaError:
        return False
    try:
        return os.read(descriptor, _LIMIT).replace(b"\r\n", b"\n").startswith(_FIRST_LINES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
