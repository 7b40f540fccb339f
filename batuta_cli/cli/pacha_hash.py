"""`batuta pacha hash`: content addresses, in the line format of `b3sum`."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import (
    FollowSymlinks,
    Ignore,
    is_stream,
    located_size,
    read_stdin,
    total_size,
    warn_of_unmatched,
)
from batuta_cli.errors import InvalidInputError, NotFoundError, UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.checklist import ListedDigest

commands = typer.Typer()


@commands.command(
    "hash",
    cls=Command,
    epilog=examples(
        "batuta pacha hash model.gguf",
        "batuta pacha hash ./*.gguf > CHECKSUMS",
        "batuta pacha hash --check CHECKSUMS",
        "batuta pacha hash --algorithm sha256 model.gguf",
        "curl -s https://example.com/model.gguf | batuta pacha hash -",
    ),
)
def hash_paths(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH...", help="Files, directories, store names; - is stdin.")
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", "-c", metavar="FILE", help="Check the addresses listed in FILE.")
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="With --check: skip listed files that do not exist.")
    ] = False,
    algorithm: Annotated[
        str, typer.Option(metavar="blake3|sha256", help="sha256 prints the lines of sha256sum, for files only.")
    ] = "blake3",
    ignore: Ignore = None,
    follow_symlinks: FollowSymlinks = False,
) -> console.CommandResult:
    """Print content addresses (BLAKE3): blake3:<hex>  PATH."""
    if algorithm not in ("blake3", "sha256"):
        raise UsageError(f"no such algorithm: {display(algorithm)}", hint="blake3 or sha256")
    if (check is None) == (not paths):
        raise UsageError("name the PATHs to hash, or one list with --check FILE", hint="batuta pacha hash --help")
    if ignore_missing and check is None:
        raise UsageError("--ignore-missing is for --check FILE")
    if check is not None:
        return _check(check, algorithm, ignore_missing)
    if algorithm == "sha256" and (ignore or follow_symlinks):
        raise UsageError("--ignore and --follow-symlinks are for directories, which have no SHA-256 digest")
    if ignore:
        from batuta_cli.pacha.ignoring import check_globs

        check_globs(ignore)
    return for_each(paths or [], lambda path: _hash(path, algorithm, ignore or [], follow_symlinks), size=located_size)


def _hash(path: str, algorithm: str, ignore: list[str], follow_symlinks: bool) -> Done:
    from batuta_cli.pacha.checklist import format_line

    digest = _digest(path, algorithm, ignore, follow_symlinks)
    line = format_line(digest, path)
    kind = "digest" if algorithm == "sha256" else "address"
    return Done({kind: str(digest)}, display(line) if sys.stdout.isatty() else line)


def _digest(path: str, algorithm: str, ignore: list[str], follow_symlinks: bool) -> "ListedDigest":
    from batuta_cli.files import open_stream
    from batuta_cli.pacha.hashing import content_address, hash_stream
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.sha256 import sha256_of, sha256_of_stream

    of_stream = sha256_of_stream if algorithm == "sha256" else hash_stream
    if path == "-":
        return of_stream(0, "stdin")
    found = locate(path)
    if is_stream(found.path):
        descriptor = open_stream(found.path)
        try:
            return of_stream(descriptor, path)
        finally:
            os.close(descriptor)
    warn_of_unmatched(path, found.path, ignore)
    with console.progress(f"hashing {path}", total_size(found.path)) as advance:
        if algorithm == "sha256":
            return sha256_of(found.path, advance)
        return content_address(found.path, ignore=ignore, follow_symlinks=follow_symlinks, progress=advance)


_LIST_LIMIT = 64 * 1024 * 1024  # bytes


def _check(file: str, algorithm: str, ignore_missing: bool) -> console.CommandResult:
    from batuta_cli.files import read_limited
    from batuta_cli.pacha.checklist import parse_list
    from batuta_cli.pacha.hashing import content_address
    from batuta_cli.pacha.sha256 import Sha256Digest, sha256_of

    data = read_stdin(_LIST_LIMIT) if file == "-" else read_limited(file, _LIST_LIMIT)
    try:
        wanted = parse_list(data, algorithm)
    except InvalidInputError as error:
        raise InvalidInputError(f"{display(file)}: {error.message}") from None
    if ignore_missing:
        wanted = [(digest, path) for digest, path in wanted if os.path.lexists(path)]
        if not wanted:
            raise NotFoundError(f"{display(file)}: none of the listed files exists, so nothing was checked")
    queue = iter(wanted)

    def one(path: str) -> Done:
        expected, _ = next(queue)
        is_sha256 = isinstance(expected, Sha256Digest)
        # A list names files, never objects of the store or stdin: those could stand in for a missing file.
        actual = sha256_of(path) if is_sha256 else content_address(path)
        kind = "digest" if is_sha256 else "address"
        if actual != expected:
            message = f"{display(path)}: FAILED, the content is {actual}"
            raise VerificationError(message, hint=_hint_on_algorithm(path, expected), result={kind: str(actual)})
        return Done({kind: str(actual)}, f"{display(path)}: OK")

    return for_each([path for _, path in wanted], one, size=total_size)


def _hint_on_algorithm(path: str, expected: Any) -> str | None:
    """What to say when the listed digest is right under the other algorithm."""
    from batuta_cli.pacha.hashing import ContentAddress
    from batuta_cli.pacha.sha256 import sha256_of

    if not isinstance(expected, ContentAddress) or os.path.isdir(path) or sha256_of(path).digest != expected.digest:
        return None
    return "the list has SHA-256 digests: batuta pacha hash --check FILE --algorithm sha256"
