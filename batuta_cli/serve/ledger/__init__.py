"""Where spending is kept: one small contract, `Ledger`, and one module for each place.

    ledger = open_ledger("sqlite:///var/lib/batuta/ledger.sqlite3")

`book.py` has the rules, once; `memory.py` and `sqlite.py` only keep rows. A ledger that cannot be read or written is a
`LedgerError`, never an empty one: whoever cannot count what is spent must not spend.
"""

from typing import Literal

from batuta_cli.errors import UsageError
from batuta_cli.serve.ledger.base import LEASE, Entry, Hold, Ledger, Moment, Reset, Settled, Standing, Use

__all__ = [
    "LEASE",
    "Durability",
    "Entry",
    "Hold",
    "Ledger",
    "Moment",
    "Reset",
    "Settled",
    "Standing",
    "Use",
    "open_ledger",
]

Durability = Literal["normal", "full"]
"""What a power cut may take: the last commits, or nothing. Both survive `kill -9`."""

_HINT = "memory:, sqlite (the usual file), sqlite:///absolute/path or sqlite:relative/path"


def open_ledger(url: str, *, durability: Durability = "normal") -> Ledger:
    """The ledger that `url` names; nothing is read or made before it is used.

    `memory:` forgets when the process ends and is no other process's business; `sqlite` is the file of this user,
    `sqlite:///path` and `sqlite:path` are others. Raises `UsageError` for anything else.
    """
    scheme, separator, rest = url.partition(":")
    if url == "memory:":
        from batuta_cli.serve.ledger.memory import MemoryLedger

        return MemoryLedger()
    if scheme == "sqlite":
        from batuta_cli.serve.ledger.sqlite import SqliteLedger

        return SqliteLedger(_sqlite_path(rest) if separator else _usual_path(), durability=durability)
    if scheme in ("redis", "rediss"):
        raise UsageError(
            "this version of batuta keeps no ledger in Redis",
            hint="batuta config set budget.ledger sqlite keeps it on this host",
        )
    raise UsageError("no ledger has such an address", hint=f"known: {_HINT}")


def _usual_path() -> str:
    from batuta_cli import paths

    return str(paths.ledger_file())


def _sqlite_path(rest: str) -> str:
    import os

    path = rest
    if rest.startswith("//"):
        path = rest[2:]
        if not path.startswith("/"):
            raise UsageError("a ledger in SQLite is on this host", hint=f"known: {_HINT}")
    if not path or path.endswith("/") or "\0" in path:
        raise UsageError("the address of the ledger names no file", hint=f"known: {_HINT}")
    return os.path.abspath(path)
