"""Ledger URLs, after SQLAlchemy's convention (https://docs.sqlalchemy.org/en/20/core/engines.html#sqlite).

| URL | ledger |
|---|---|
| `sqlite` | the SQLite file of this user |
| `sqlite:////absolute/path` | another SQLite file |
| `sqlite:///relative/path` | another SQLite file, relative to the current directory |
| `memory:` | the memory of one process; it is empty again when the process ends |

Any other text is refused: a host, a user, a password, a query, a fragment, `~`, and the schemes of other databases.
Percent signs have no special meaning. No error repeats the URL, because it may contain a password.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KNOWN = "sqlite, sqlite:////absolute/path, sqlite:///relative/path or memory:"
"""The valid ledger URLs, for messages."""

NO_REDIS = "this version of batuta has no Redis ledger"
_UNKNOWN = f"a ledger URL must be {KNOWN}"
_SPECIAL = {"?": "a query (?)", "#": "a fragment (#)", "~": "~, which is not expanded to a home directory"}


class LedgerUrlError(ValueError):
    """A text is not a valid ledger URL. `hint` says what to type."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint or f"a ledger is {KNOWN}"


@dataclass(frozen=True)
class LedgerUrl:
    """A parsed ledger URL."""

    scheme: str
    """A key of `LEDGERS`."""
    path: str | None
    """The absolute path of the ledger's file; None for this user's own file, or for a ledger without a file."""


def parse_ledger_url(url: str) -> LedgerUrl:
    """Parse a ledger URL. Raises `LedgerUrlError`, whose text does not contain the URL."""
    before, separator, rest = url.partition("://")
    if separator and ("@" in rest.partition("/")[0] or (before not in LEDGERS and "@" in rest)):
        raise LedgerUrlError("a ledger URL must not have a user or a password")
    scheme = url.partition(":")[0]
    if scheme.lower() in ("redis", "rediss"):
        raise LedgerUrlError(NO_REDIS, "batuta config set budget.ledger sqlite keeps the ledger on this host")
    if scheme not in LEDGERS:
        raise LedgerUrlError(_UNKNOWN)
    return LedgerUrl(scheme, LEDGERS[scheme](url.removeprefix(scheme)))


def _no_file(rest: str) -> None:
    if rest != ":":
        raise LedgerUrlError(_UNKNOWN)


def _sqlite_file(rest: str) -> str | None:
    if not rest:
        return None
    if not rest.startswith("://"):
        raise LedgerUrlError(_UNKNOWN)
    host, _, path = rest.removeprefix("://").partition("/")
    if host:
        raise LedgerUrlError("sqlite:// takes no host; use sqlite:////absolute/path")
    _check_path(path)
    # abspath keeps two leading slashes, which POSIX allows to have another meaning.
    return os.path.abspath(f"/{path.lstrip('/')}" if path.startswith("/") else path)


def _check_path(path: str) -> None:
    for character, what in _SPECIAL.items():
        if character in path:
            raise LedgerUrlError(f"a ledger URL must not have {what}")
    if path == ":memory:":
        raise LedgerUrlError("sqlite:///:memory: is not a file; use memory:")
    if not path.strip("/") or path.endswith(("/", "/.", "/..")) or path in (".", "..") or "\0" in path:
        raise LedgerUrlError("a ledger URL must name a file; use sqlite:////absolute/path")


LEDGERS: Mapping[str, Callable[[str], str | None]] = {"sqlite": _sqlite_file, "memory": _no_file}
"""The ledgers by the scheme of their URLs, which is also the name of their module in `serve/budget/ledger/`.

Each has a function that reads the rest of the URL. It returns the absolute path of the ledger's file, or None, and
raises `LedgerUrlError`.
"""
