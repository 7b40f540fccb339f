"""The paths of batuta's own files, in the XDG base directories (https://specifications.freedesktop.org/basedir-spec).

Only `private_dir` creates a directory, with mode 0700. Where neither the XDG variable, nor HOME, nor the
user's passwd entry names a directory, they raise `NoHomeError`.
"""

import os
from pathlib import Path

from platformdirs.unix import Unix

from batuta_cli.errors import OperationError

_DIRS = Unix("batuta", appauthor=False)

SYSTEM_TRUST_FILE = Path("/etc/batuta/trust.toml")
"""Keys that all users of this machine trust; only root may write it. No variable points elsewhere."""


class NoHomeError(OperationError):
    """The user has no home directory, and a path in it is needed. Exit 1."""

    kind = "no_home"


def _in_home(kind: str) -> Path:
    """The user's base directory of a kind: `config`, `data`, `state` or `cache`."""
    try:
        path = Path(getattr(_DIRS, f"user_{kind}_dir"))
    except RuntimeError:  # what pathlib raises when it cannot expand ~
        path = Path("~")
    if path.parts[:1] == ("~",):
        raise NoHomeError(
            f"there is no home directory: HOME is not set, and the user id {os.getuid()} has no passwd entry",
            hint=f"set HOME or XDG_{kind.upper()}_HOME to a directory",
        )
    return path


def config_file() -> Path:
    """`$XDG_CONFIG_HOME/batuta/config.toml`."""
    return _in_home("config") / "config.toml"


def keys_dir() -> Path:
    """The user's own key pairs: one `.key` and one `.pub` file an identity."""
    return _in_home("data") / "keys"


def trust_file() -> Path:
    """The trust store: the keys whose signatures are accepted."""
    return _in_home("data") / "trust" / "trust.toml"


def store_dir() -> Path:
    """The content-addressed store."""
    return _in_home("data") / "store"


def state_dir() -> Path:
    """`$XDG_STATE_HOME/batuta`: the ledger and the audit log."""
    return _in_home("state")


def ledger_file() -> Path:
    """The SQLite ledger of the budget."""
    return state_dir() / "ledger.sqlite3"


def audit_dir() -> Path:
    """The audit log, one file a process."""
    return state_dir() / "audit"


def private_dir(path: Path) -> Path:
    """Create `path` and its parents with mode 0700. Existing directories keep their mode.

    Raises `OperationError`.
    """
    missing = []
    current = path
    while not current.is_dir():
        missing.append(current)
        if current.parent == current:
            break
        current = current.parent
    try:
        for directory in reversed(missing):
            os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise OperationError(f"cannot create the directory {path}: {error.strerror}") from error
    return path


def digests_dir() -> Path:
    """The digest cache of `--cached`, one file a model. It may be deleted at any time."""
    return _in_home("cache") / "digests"


def digest_key_file() -> Path:
    """The key that authenticates the digest cache; not in the cache's directory, which CI systems save and restore."""
    return state_dir() / "digest-cache.key"


def client_keys_file() -> Path:
    """The client keys of the gateway."""
    return _in_home("data") / "gateway" / "keys.toml"


def client_keys_marker() -> Path:
    """A file that exists once client keys have been required; not in their directory, which may be removed."""
    return state_dir() / "client-keys-required"
