"""Where spending is kept: one small contract, `Ledger`, and one module for each place.

    ledger = open_ledger("sqlite:////var/lib/batuta/ledger.sqlite3")

`book.py` has the rules, once; `memory.py` and `sqlite.py` only keep rows. A ledger that cannot be read or written is a
`LedgerError`, never an empty one: a process that cannot count what is spent must not spend.
"""

from typing import Literal

from batuta_cli.errors import UsageError
from batuta_cli.serve.budget.ledger.base import (
    LEASE,
    DayStatus,
    Ledger,
    LedgerEntry,
    Moment,
    ReservationRow,
    Reset,
    Rezoned,
    Settled,
    Use,
)

__all__ = [
    "LEASE",
    "DayStatus",
    "Durability",
    "Ledger",
    "LedgerEntry",
    "Moment",
    "ReservationRow",
    "Reset",
    "Rezoned",
    "Settled",
    "Use",
    "open_ledger",
]

Durability = Literal["normal", "full"]
"""What a power cut may take: the last commits, or nothing. Both survive `kill -9`."""


def open_ledger(url: str, *, durability: Durability = "normal") -> Ledger:
    """The ledger that `url` names; nothing is read or made before it is used.

    `sqlite` is the file of this user, `sqlite:////absolute/path` and `sqlite:///relative/path` (relative to the current
    directory) are other files. `memory:` is the memory of this process. Raises `UsageError` for anything else, without
    repeating it.
    """
    from batuta_cli.config.ledger_url import LedgerUrlError, parse_ledger_url

    try:
        found = parse_ledger_url(url)
    except LedgerUrlError as refused:
        raise UsageError(str(refused), hint=refused.hint) from None
    if found.in_memory:
        from batuta_cli.serve.budget.ledger.memory import MemoryLedger

        return MemoryLedger()
    from batuta_cli import paths
    from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger

    return SqliteLedger(found.path or str(paths.ledger_file()), durability=durability)
