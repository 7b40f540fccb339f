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
from dataclasses import dataclass

KNOWN = "sqlite, sqlite:////absolute/path, sqlite:///relative/path or memory:"
"""The valid ledger URLs, for messages."""

NO_REDIS = "this version of batuta has no Redis ledger"
_PREFIX = "sqlite://"
_SPECIAL = {"?": "a query (?)", "#": "a fragment (#)", "~": "~, which is not expanded to a home directory"}


class LedgerUrlError(ValueError):
    """A text is not a valid ledger URL. `hint` says what to type."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint or f"a ledger is {KNOWN}"


@dataclass(frozen=True)
class LedgerUrl:
    """A parsed ledger URL."""

    in_memory: bool
    path: str | None = None
    """The absolute path of the SQLite file; None for this user's own file."""


def parse_ledger_url(url: str) -> LedgerUrl:
    """Parse a ledger URL. Raises `LedgerUrlError`, whose text does not contain the URL."""
    if url == "memory:":
        return LedgerUrl(in_memory=True)
    if url == "sqlite":
        return LedgerUrl(in_memory=False)
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if separator and ("@" in host or (scheme != "sqlite" and "@" in rest)):
        raise LedgerUrlError("a ledger URL must not have a user or a password")
    if scheme.lower() in ("redis", "rediss") or url.lower().startswith(("redis:", "rediss:")):
        raise LedgerUrlError(NO_REDIS, "batuta config set budget.ledger sqlite keeps the ledger on this host")
    if not url.startswith(_PREFIX):
        raise LedgerUrlError(f"a ledger URL must be {KNOWN}")
    if host:
        raise LedgerUrlError("sqlite:// takes no host; use sqlite:////absolute/path")
    _check_path(path if slash else "")
    # abspath keeps two leading slashes, which POSIX allows to have another meaning.
    return LedgerUrl(in_memory=False, path=os.path.abspath(f"/{path.lstrip('/')}" if path.startswith("/") else path))


def _check_path(path: str) -> None:
    for character, what in _SPECIAL.items():
        if character in path:
            raise LedgerUrlError(f"a ledger URL must not have {what}")
    if path == ":memory:":
        raise LedgerUrlError("sqlite:///:memory: is not a file; use memory:")
    if not path.strip("/") or path.endswith(("/", "/.", "/..")) or path in (".", "..") or "\0" in path:
        raise LedgerUrlError("a ledger URL must name a file; use sqlite:////absolute/path")
