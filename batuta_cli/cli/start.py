"""The `batuta` program: what happens before the command line is parsed, with as few imports as possible.

Parsing takes longer than printing a version, so `--version` alone is answered here.
"""

import gc
import os
import sys
from typing import NoReturn

from batuta_cli import __version__

_COLLECT_AFTER = 100_000
"""New containers between two runs of the garbage collector. With Python's 700 it runs about a hundred times while a
command is imported, when there is no garbage yet."""


def main() -> NoReturn:
    """The `batuta` command."""
    if sys.argv[1:] in (["--version"], ["-V"]) and _version_is_printed():
        sys.exit(0)
    gc.set_threshold(_COLLECT_AFTER)
    from batuta_cli.cli import app

    try:
        app.main()
    finally:
        gc.freeze()  # else the interpreter looks for cycles in all modules before it ends


def _version_is_printed() -> bool:
    """Print the version; False where that fails, which the parser's own `--version` then reports."""
    try:
        return os.write(1, f"batuta {__version__}\n".encode()) > 0
    except OSError:
        return False
