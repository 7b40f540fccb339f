"""The gateway's client keys: `btk_` and 32 random bytes in base64url. Only the SHA-256 of a key is stored, with the
limits of the key (`key_limits.py`).

    key, entry = create("ci")     # the key itself is stored nowhere
    ClientKeys().find(key)        # the entry

The list is `gateway/keys.toml` in the data directory, written under a lock, mode 0600. The hash has no salt, which is
enough for 256 random bits. A damaged or empty file raises `DamagedStateError` and is never read as an empty list:
without keys the gateway serves every process of this machine.

A running gateway compares the file's identity and times at each request, so a change takes effect at once.

After the first key was created, a key stays required: neither revoking the last key nor removing the file admits
requests without one. A marker in the state directory records this. It is written before the first key, so that a crash
between the two leaves a gateway that refuses requests. A missing list beside a marker raises `DamagedStateError`;
`create` starts a new list.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import os
import secrets
import shlex
import stat
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batuta_cli import paths
from batuta_cli.errors import (
    BatutaError,
    DamagedStateError,
    InvalidInputError,
    NotFoundError,
    UnsafeFileError,
    UsageError,
)
from batuta_cli.files import display, errors_named, locked, read_limited, write_file
from batuta_cli.serve.gateway.key_limits import LIMIT_FIELDS, NO_LIMITS, KeyLimits

PREFIX = "btk_"
_LIMIT = 16 * 1024 * 1024
_FIRST_LINE = "# client keys of the gateway, as SHA-256: batuta serve keys\n"
_LONGEST_NAME = 100
_MARKER_TEXT = b"client keys have been required here; without their list the gateway refuses requests\n"


@dataclass(frozen=True)
class ClientKey:
    """One key: its name, its hash, and when it was created and revoked (UTC)."""

    name: str
    sha256: str
    created: dt.datetime
    revoked: dt.datetime | None = None
    admin: bool = False
    """It may also read `/metrics` from beyond the loopback."""
    limits: KeyLimits = NO_LIMITS

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise InvalidInputError(f"a key's name has 1 to {_LONGEST_NAME} printable characters")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise InvalidInputError("sha256 is not 64 hexadecimal digits")

    def active(self, now: dt.datetime) -> bool:
        """Whether the gateway accepts it at that time."""
        return self.revoked is None and not self.limits.expired(now)


def create(
    name: str, path: Path | None = None, *, admin: bool = False, limits: KeyLimits = NO_LIMITS
) -> tuple[str, ClientKey]:
    """Create a key, and the list if it is missing. Returns the key and its entry.

    Raises `UsageError` when a key of that name is not revoked, `OperationError` when the list cannot be written, and
    the errors of `load`.
    """
    key = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    entry = ClientKey(name, _digest(key.encode()).hex(), now(), admin=admin, limits=limits)

    def add(entries: tuple[ClientKey, ...]) -> tuple[ClientKey, ...]:
        if any(e.name == name and e.revoked is None for e in entries):
            raise UsageError(
                f"an active key is already called {display(name)}",
                hint=f"choose another name, or revoke it: batuta serve keys revoke {shlex.quote(display(name))}",
            )
        return (*entries, entry)

    _update(add, path, new=True)
    return key, entry


def revoke(name: str, path: Path | None = None) -> ClientKey:
    """Revoke the active key of that name; a running gateway refuses it from its next request on.

    Raises `NotFoundError` when no active key has that name, and the errors of `load`.
    """
    revoked: list[ClientKey] = []

    def end(entries: tuple[ClientKey, ...]) -> tuple[ClientKey, ...]:
        revoked.extend(replace(e, revoked=now()) for e in entries if e.name == name and e.revoked is None)
        if not revoked:
            raise NotFoundError(f"no active key is called {display(name)}", hint="batuta serve keys list")
        return tuple(revoked[0] if e.sha256 == revoked[0].sha256 else e for e in entries)

    _update(end, path)
    return revoked[0]


def load(path: Path | None = None) -> tuple[ClientKey, ...]:
    """All keys, revoked ones included; empty when no key was ever created.

    Writes the marker if there are keys and it is missing, because earlier versions wrote none. Raises
    `DamagedStateError` when the list is missing or damaged, `UnsafeFileError` when group or others can write it.
    """
    path = path or paths.client_keys_file()
    entries = _read(path)
    if entries is None:
        if _was_required(path):
            raise _missing(path)
        return ()
    if entries:
        with contextlib.suppress(BatutaError):  # the keys are valid all the same
            _mark(path)
    return entries


def _marker(path: Path) -> Path:
    """Path of the marker: in the state directory for the user's own list, beside any other list."""
    return paths.client_keys_marker() if path == paths.client_keys_file() else path.with_suffix(".required")


def _was_required(path: Path) -> bool:
    """Whether the marker exists. Raises `OperationError` when its directory cannot be read."""
    marker = _marker(path)
    try:
        os.lstat(marker)
    except FileNotFoundError:
        return False
    except OSError:
        with errors_named(marker):
            raise
    return True


def _mark(path: Path) -> None:
    """Write the marker if it is missing. Raises `OperationError`."""
    if not _was_required(path):
        marker = _marker(path)
        paths.private_dir(marker.parent)
        write_file(marker, _MARKER_TEXT, force=True, mode=0o600)


def _missing(path: Path) -> DamagedStateError:
    return DamagedStateError(
        f"{display(path)}: the list of client keys is missing, and client keys are required since one was created",
        hint="restore the file from a backup, or create new keys: batuta serve keys create NAME",
    )


def _read(path: Path) -> tuple[ClientKey, ...] | None:
    """The entries of the file; None when there is no file. Raises the errors of `load`."""
    try:
        data = read_limited(path, _LIMIT)
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except NotFoundError:
        if not os.path.lexists(path):
            return None
        raise
    except InvalidInputError as error:
        raise DamagedStateError(error.message) from None
    if mode & 0o022:
        raise UnsafeFileError(
            f"{display(path)}: group or others can write to it", hint=f"chmod 600 {shlex.quote(str(path))}"
        )
    try:
        if not data.strip():  # a list without keys has a comment line
            raise ValueError("it is empty")
        document = tomllib.loads(data.decode())
        if set(document) - {"key"}:
            raise ValueError("it has an unknown table")
        return tuple(_entry(e) for e in document.get("key", []))
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise DamagedStateError(
            f"{display(path)}: the list of client keys is damaged: {display(error)}",
            hint="restore the file from a backup, or remove it and create new keys: batuta serve keys create NAME",
        ) from None


def _entry(entry: dict[str, Any]) -> ClientKey:
    if set(entry) - {"name", "sha256", "created", "revoked", "admin"} - LIMIT_FIELDS:
        raise ValueError("a key has an unknown field")  # a newer version may have written another limit
    times = [entry.get("created"), *([entry["revoked"]] if "revoked" in entry else [])]
    if not isinstance(entry.get("name"), str) or not isinstance(entry.get("sha256"), str):
        raise TypeError("a key has no name or no sha256")
    if not isinstance(entry.get("admin", False), bool):
        raise TypeError("the field admin of a key is not true or false")
    if not all(isinstance(t, dt.datetime) and t.tzinfo for t in times):
        raise TypeError("a key's time is not a date and time with a time zone")
    own = {name: value for name, value in entry.items() if name not in LIMIT_FIELDS}
    return ClientKey(**own, limits=KeyLimits.from_toml(entry))


def _row(key: ClientKey) -> dict[str, Any]:
    fields = {"name": key.name, "sha256": key.sha256, "created": key.created, "revoked": key.revoked}
    own = {name: value for name, value in fields.items() if value is not None}
    return own | ({"admin": True} if key.admin else {}) | key.limits.to_toml()


def _update(
    change: Callable[[tuple[ClientKey, ...]], tuple[ClientKey, ...]], path: Path | None, *, new: bool = False
) -> None:
    """Change the list under its lock. With `new`, a missing list is an empty one."""
    import tomli_w

    path = path or paths.client_keys_file()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        entries = change((_read(path) or ()) if new else load(path))
        rows = [_row(e) for e in entries]
        _mark(path)
        write_file(path, (_FIRST_LINE + tomli_w.dumps({"key": rows})).encode(), force=True, mode=0o600)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def now() -> dt.datetime:
    """The current time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class ClientKeys:
    """The keys of a running gateway, read again when the file changes."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or paths.client_keys_file()
        self._identity: tuple[int, ...] = ()
        self._active: tuple[tuple[bytes, ClientKey], ...] = ()
        self._required = False

    def _refresh(self) -> None:
        identity: tuple[int, ...] | None
        try:
            status = os.stat(self._path)
            identity = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size, status.st_mode)
        except FileNotFoundError:
            identity = None
        except OSError:
            with errors_named(self._path):
                raise
        if identity is None:
            if self._required or _was_required(self._path):
                self._identity, self._required = (), True
                raise _missing(self._path)
            return
        if identity == self._identity:
            return
        entries = load(self._path)
        self._active = tuple((bytes.fromhex(e.sha256), e) for e in entries if e.revoked is None)
        # A key stays required when the list has become empty.
        self._required = self._required or bool(entries) or _was_required(self._path)
        self._identity = identity

    @property
    def required(self) -> bool:
        """Whether every request needs a key: a key was created at some time. Raises the errors of `load`."""
        self._refresh()
        return self._required

    def find(self, key: bytes) -> ClientKey | None:
        """The entry of the key; None when it is unknown or revoked. Raises the errors of `load`."""
        self._refresh()
        digest, match = _digest(key), None
        for known, entry in self._active:  # compare with all, so that the time does not depend on which one matches
            if hmac.compare_digest(known, digest):
                match = entry
        return match
