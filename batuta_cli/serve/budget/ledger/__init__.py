"""The ledger: stores spending. `base.py` has the contract `Ledger`, and each kind of storage is one module.

    ledger = open_ledger("sqlite:////var/lib/batuta/ledger.sqlite3")

`rules.py` has the rules, `memory.py` and `sqlite.py` store rows. A ledger that cannot be read or written raises
`LedgerError` and is never taken for an empty one, so that uncounted money is not spent.
"""

from importlib import import_module
from typing import Literal, Protocol, cast

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
"""Losses in a power cut: `normal` may lose the last commits, `full` loses none. Both survive `kill -9`."""


class LedgerModule(Protocol):
    """What the module of each scheme in `config.ledger_url.LEDGERS` has."""

    def opened(self, path: str | None, durability: Durability, /) -> Ledger:
        """The ledger at the path in its URL; None for the ledger of this user, or for one without a file."""


def open_ledger(url: str, *, durability: Durability = "normal") -> Ledger:
    """The ledger at `url`. The first use opens or creates the file.

    `sqlite` is this user's file; `sqlite:////absolute/path` and `sqlite:///relative/path` (relative to the current
    directory) are other files; `memory:` is the memory of this process. Raises `UsageError` for any other URL. The
    message does not repeat the URL.
    """
    from batuta_cli.config.ledger_url import LedgerUrlError, parse_ledger_url

    try:
        found = parse_ledger_url(url)
    except LedgerUrlError as refused:
        raise UsageError(str(refused), hint=refused.hint) from None
    module = cast("LedgerModule", import_module(f"{__name__}.{found.scheme}"))
    return module.opened(found.path, durability)
