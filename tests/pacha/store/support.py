"""What the tests of the store share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.store import (
    Store,
    StoreName,
)

MIB = 1024 * 1024
LLAMA = StoreName("llama", "8b")


def everything(store: Store) -> set[str]:
    """All files in the store but those that every store has."""
    found = {str(p.relative_to(store.root)) for p in store.root.rglob("*") if not p.is_dir()}
    return found - {"lock", "names.toml"}


def object_name(address: ContentAddress) -> str:
    return f"blake3/{address.hex[:2]}/{address.hex[2:]}"


def damage(path: str) -> None:
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"BAD!")
    os.chmod(path, 0o444)


CHILD = """
import sys
from pathlib import Path
from batuta_cli import files
from batuta_cli.errors import BatutaError
from batuta_cli.pacha.store import Store, StoreName, add, add_stream
root, hidden, name, *paths = sys.argv[1:]
if hidden == "hidden":  # as on a file system without O_TMPFILE
    files.AtomicOutput._open_unnamed = lambda self: False
store, name = Store(Path(root)), StoreName.parse(name) if name else None
try:
    for path in paths:
        print(add(store, path, name=name).address)
    if not paths:
        print(add_stream(store, 0, "stdin", name=name).address)
except BatutaError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


def child(
    store: Store, *paths: Path, name: str = "", hidden: bool = False, preexec: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    """A process that adds files, or its standard input."""
    arguments = [str(store.root), "hidden" if hidden else "unnamed", name, *map(str, paths)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=None if paths else subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=preexec,  # noqa: PLW1509 - the tests have no threads
    )


def half_fed(store: Store, *, name: str = "", hidden: bool = False) -> subprocess.Popen[bytes]:
    """A process that has read and written 9 MiB and waits for more."""
    process = child(store, name=name, hidden=hidden)
    assert process.stdin is not None
    process.stdin.write(b"m" * (9 * MIB))  # returns when all but what fits in a pipe has been read
    process.stdin.flush()
    return process


def finish(process: subprocess.Popen[bytes]) -> str:
    output, _ = process.communicate()
    return output.decode().strip()
