"""The ledger: stores spending. `base.py` has the contract `Ledger`, and each kind of storage is one module.

    ledger = open_ledger("sqlite:////var/lib/batuta/ledger.sqlite3")

`rules.py` has the rules; `memory.py` and `sqlite.py` store rows, and `redis.py` runs the same rules inside Redis. A
ledger that cannot be read or written raises `LedgerError` and is never taken for an empty one, so that uncounted money
is not spent.
"""

from importlib import import_module
from typing import Literal, NamedTuple, Protocol, cast

from batuta_cli.config import RedisSection
from batuta_cli.config.ledger_url import LEDGERS, LedgerUrl, LedgerUrlError, parse_ledger_url
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


class LedgerOptions(NamedTuple):
    """Options of ledgers; each kind of ledger uses its own."""

    durability: Durability
    redis: RedisSection


class LedgerModule(Protocol):
    """What the module of each scheme in `config.ledger_url.LEDGERS` has."""

    def opened(self, url: LedgerUrl, options: LedgerOptions, /) -> Ledger:
        """The ledger at a URL."""


def open_ledger(url: str, *, durability: Durability = "normal", redis: RedisSection | None = None) -> Ledger:
    """The ledger at `url`. The first use opens or creates the file, or connects to the server.

    `sqlite` is this user's file; `sqlite:////absolute/path` and `sqlite:///relative/path` (relative to the current
    directory) are other files; `redis://host:6379/0` and `rediss://…` are servers, whose user, password and certificate
    authorities `redis` names; `memory:` is the memory of this process. Raises `UsageError` for any other URL, and for a
    password's variable that is not set. The message does not repeat the URL.
    """
    try:
        found = parse_ledger_url(url)
    except LedgerUrlError as refused:
        raise UsageError(str(refused), hint=refused.hint) from None
    module = cast("LedgerModule", import_module(f"{__name__}.{LEDGERS[found.scheme].module}"))
    return module.opened(found, LedgerOptions(durability, redis or RedisSection()))
