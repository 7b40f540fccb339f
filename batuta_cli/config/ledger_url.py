"""Ledger URLs, after SQLAlchemy's convention (https://docs.sqlalchemy.org/en/20/core/engines.html#sqlite).

| URL | ledger |
|---|---|
| `sqlite` | the SQLite file of this user |
| `sqlite:////absolute/path` | another SQLite file |
| `sqlite:///relative/path` | another SQLite file, relative to the current directory |
| `redis://host:6379/0` | database 0 of a Redis server, for any number of hosts; port and database are optional |
| `rediss://host:6379/0` | the same over TLS |
| `memory:` | the memory of one process; it is empty again when the process ends |

Any other text is refused: a host, a user, a password, a query, a fragment, `~`, and the schemes of other databases.
Percent signs have no special meaning. No error repeats the URL, because it may contain a password.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

KNOWN = "sqlite, sqlite:////absolute/path, sqlite:///relative/path, redis://host:6379/0, rediss://… or memory:"
"""The valid ledger URLs, for messages."""

_UNKNOWN = f"a ledger URL must be {KNOWN}"
_REDIS = re.compile(
    r"://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:/(?P<database>[0-9]{0,4}))?"
)
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
    path: str | None = None
    """The absolute path of the ledger's file; None for this user's own file, or for a ledger without a file."""
    host: str = ""
    """Of a server: its name or address."""
    port: int = 0
    database: int = 0


@dataclass(frozen=True)
class LedgerScheme:
    """A row of `LEDGERS`."""

    module: str
    """The module in `serve/budget/ledger/`."""
    read: Callable[[str], LedgerUrl]
    """Reads what follows the scheme. Raises `LedgerUrlError`."""
    shared: bool = False
    """Whether several processes can use it."""


def parse_ledger_url(url: str) -> LedgerUrl:
    """Parse a ledger URL. Raises `LedgerUrlError`, whose text does not contain the URL."""
    before, separator, rest = url.partition("://")
    if separator and ("@" in rest.partition("/")[0] or (before not in LEDGERS and "@" in rest)):
        raise LedgerUrlError("a ledger URL must not have a user or a password")
    scheme = url.partition(":")[0]
    if scheme not in LEDGERS:
        raise LedgerUrlError(_UNKNOWN)
    return LEDGERS[scheme].read(url.removeprefix(scheme))


def _memory(rest: str) -> LedgerUrl:
    if rest != ":":
        raise LedgerUrlError(_UNKNOWN)
    return LedgerUrl("memory")


def _redis(scheme: str) -> Callable[[str], LedgerUrl]:
    def read(rest: str) -> LedgerUrl:
        for character in "?#":
            if character in rest:
                raise LedgerUrlError(f"a ledger URL must not have {_SPECIAL[character]}")
        match = _REDIS.fullmatch(rest)
        port = int(match["port"] or 6379) if match else 0
        if match is None or not 0 < port < 65536:
            raise LedgerUrlError(f"must be {scheme}://host:6379/0: a host, a port and the number of a database")
        return LedgerUrl(scheme, None, match["host"].strip("[]"), port, int(match["database"] or 0))

    return read


def _sqlite(rest: str) -> LedgerUrl:
    if not rest:
        return LedgerUrl("sqlite")
    if not rest.startswith("://"):
        raise LedgerUrlError(_UNKNOWN)
    host, _, path = rest.removeprefix("://").partition("/")
    if host:
        raise LedgerUrlError("sqlite:// takes no host; use sqlite:////absolute/path")
    _check_path(path)
    # abspath keeps two leading slashes, which POSIX allows to have another meaning.
    return LedgerUrl("sqlite", os.path.abspath(f"/{path.lstrip('/')}" if path.startswith("/") else path))


def _check_path(path: str) -> None:
    for character, what in _SPECIAL.items():
        if character in path:
            raise LedgerUrlError(f"a ledger URL must not have {what}")
    if path == ":memory:":
        raise LedgerUrlError("sqlite:///:memory: is not a file; use memory:")
    if not path.strip("/") or path.endswith(("/", "/.", "/..")) or path in (".", "..") or "\0" in path:
        raise LedgerUrlError("a ledger URL must name a file; use sqlite:////absolute/path")


LEDGERS: Mapping[str, LedgerScheme] = {
    "sqlite": LedgerScheme("sqlite", _sqlite, shared=True),
    "redis": LedgerScheme("redis", _redis("redis"), shared=True),
    "rediss": LedgerScheme("redis", _redis("rediss"), shared=True),
    "memory": LedgerScheme("memory", _memory),
}
"""The ledgers by the scheme of their URLs."""
