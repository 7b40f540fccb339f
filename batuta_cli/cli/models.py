"""Options of the commands on model files, and checks of a model before the work begins."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from batuta_cli.cli.console import WorkSize, shell_word, warn
from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.files import display, errors_named, open_regular

Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="GLOB",
        help="Leave out these paths, relative to the model's root. * stays within a directory, ** does not.",
    ),
]
FollowSymlinks = Annotated[
    bool, typer.Option("--follow-symlinks", help="Read symbolic links to files inside a model directory.")
]


def is_stream(path: str) -> bool:
    """Whether `path` is a pipe or a device, which can be read once and has no size."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False  # the operation itself reports the error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def shell_path(path: str) -> str:
    """`path` as one shell word that is not read as an option."""
    return shell_word("./" + path if path.startswith("-") else path)


def read_stdin(limit: int) -> bytes:
    """All of stdin. Raises `InvalidInputError` when it is more than `limit` bytes, `OperationError`."""
    with errors_named("stdin"):
        data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise InvalidInputError(f"stdin: the input is longer than {limit:,} bytes")
    return data


def warn_of_unmatched(path: str, model: str, ignore: Sequence[str], signature: Sequence[str] = ()) -> None:
    """Warn of `--ignore` globs that match nothing in `model`, which the user called `path`.

    `signature` holds the path inside the model at which its signature will be written, which need not exist yet.
    """
    from batuta_cli.pacha.ignoring import expand_ignored, is_glob, matching_part

    for glob in expand_ignored(model, ignore).unmatched:
        if not any(matching_part([glob], place) for place in signature):
            later = (
                "globs are relative to the model's root" if is_glob(glob) else "the path is ignored if it appears later"
            )
            warn(f"{display(path)}: --ignore {display(glob)} matches nothing; {later}")


def warn_of_pointers(path: str, model: str, *, ignore: Sequence[str] = (), follow_symlinks: bool = False) -> None:
    """Warn of Git LFS pointers in `model`, which the user called `path`: the real files were not fetched."""
    from batuta_cli.pacha.ignoring import expand_ignored
    from batuta_cli.pacha.pointers import lfs_pointers

    try:
        left_out = expand_ignored(model, ignore).paths
    except BatutaError:
        return  # the work itself reports it
    for name in lfs_pointers(model, ignore=left_out, follow_symlinks=follow_symlinks):
        file = path if name == "." else os.path.join(path, name)
        warn(f"{display(file)}: is a Git LFS pointer and not the file itself; fetch the file: git lfs pull")


def total_size(path: str) -> WorkSize | None:
    """What is to be read, for the progress bar, or None when stderr is not a terminal."""
    from batuta_cli.pacha.scanning import scan

    if not sys.stderr.isatty():
        return None
    try:
        entries = scan(path, follow_symlinks=True, allow_empty=True)
        return WorkSize(sum(entry.size for entry in entries), len(entries))
    except BatutaError:
        return None  # the operation itself reports the error


def located_size(path: str) -> WorkSize | None:
    """`total_size` of what a PATH argument means: a file, a directory, or an object of the store."""
    from batuta_cli.pacha.locate import locate

    if path == "-":
        return None
    try:
        return total_size(locate(path).path)
    except BatutaError:
        return None  # reported when the path's turn comes


@contextlib.contextmanager
def opened(path: str) -> Iterator[list[int]]:
    """A descriptor of a single-file model, so that an output over it is refused. No descriptor for a directory."""
    if os.path.isdir(path):
        yield []
        return
    descriptor = open_regular(path)
    try:
        yield [descriptor]
    finally:
        os.close(descriptor)
