"""`--cached` of `verify` and `sign`: only files that changed since they were last read are read."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.errors import DamagedStateError, OperationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.digest_cache import DigestCache

Cached = Annotated[
    bool,
    typer.Option(
        "--cached",
        help="Do not read files that are unchanged, by inode and times, since they were read with this option.",
    ),
]


def open_cache(path: str, model: str) -> "DigestCache | None":
    """The digest cache for `model`, which the user called `path`; a warning and None where it cannot be used.

    Raises:
        UnsafeFileError, DamagedStateError: the key of the cache is readable by others, or damaged.
    """
    from batuta_cli.pacha.digest_cache import DigestCache, file_system

    try:
        cache = DigestCache.open(model)
    except DamagedStateError:
        raise
    except OperationError as error:  # such as a home directory that cannot be written
        console.warn(f"{display(path)}: --cached is not used: {error.message}")
        return None
    if cache is None:
        kind = file_system(model) or "an unknown file system"
        console.warn(f"{display(path)}: --cached is not used on {kind}, which does not show every change of a file")
    return cache


def told(path: str, cache: "DigestCache | None") -> tuple[dict[str, Any], str]:
    """What `--cached` has left out, as JSON and as a line of text; prints the warnings of the cache."""
    if cache is None:
        return {"cached": None}, ""
    for warning in cache.warnings:
        console.warn(f"{display(path)}: {warning}")
    total = cache.found + cache.read
    line = f"\n  {cache.found:,} of {total:,} files were not read again: unchanged in the digest cache (--cached)"
    return {"cached": {"unchanged": cache.found, "read": cache.read}}, line if total else ""
