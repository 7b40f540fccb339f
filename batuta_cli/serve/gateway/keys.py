"""The gateway's client keys: `btk_` and 32 random bytes, of which only the SHA-256 is kept.

    key, entry = create("ci")     # the key is shown once and cannot be had again
    ClientKeys().owner(key)       # "ci"

They stand in `gateway/keys.toml` in the data directory, written under a lock, mode 0600. A hash without salt is enough
for 256 random bits. A damaged or emptied file is a `DamagedStateError`, never an empty list: without a single key the
gateway would serve the loopback to everybody.

A running gateway sees a change with the next request, because it looks at the file's identity and time each time.

Once there was a key, one is required for good: neither revoking the last key nor removing the file admits requests
without one. A marker in the state directory records it. It is written before the first key, so that a crash between
the two leaves a gateway that refuses, never one that admits. A list that is missing though the marker is there is a
`DamagedStateError`; only `create` goes on from it, with a new list.
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
from dataclasses import asdict, dataclass, replace
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

PREFIX = "btk_"
_LIMIT = 16 * 1024 * 1024
_FIRST_LINE = "# client keys of the gateway, as SHA-256: batuta serve keys\n"
_LONGEST_NAME = 100
_MARKER_TEXT = b"client keys have been required here; without their list the gateway refuses requests\n"


@dataclass(frozen=True)
class ClientKey:
    """One key: whose it is, and whether it still counts."""

    name: str
    sha256: str
    created: dt.datetime
    revoked: dt.datetime | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > _LONGEST_NAME or not self.name.isprintable():
            raise InvalidInputError(f"a key's name has 1 to {_LONGEST_NAME} printable characters")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise InvalidInputError("sha256 is not 64 hexadecimal digits")


def create(name: str, path: Path | None = None) -> tuple[str, ClientKey]:
    """Make a key, in a new list if the list is missing.

    Raises `UsageError` when there is one of that name that is not revoked, `OperationError` when it cannot be written,
    and otherwise as `load`.
    """
    key = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
    entry = ClientKey(name, _digest(key.encode()).hex(), _now())

    def add(entries: tuple[ClientKey, ...]) -> tuple[ClientKey, ...]:
        if any(e.name == name and e.revoked is None for e in entries):
            raise UsageError(
                f"there is a key called {display(name)} already",
                hint=f"choose another name, or first batuta serve keys revoke {shlex.quote(display(name))}",
            )
        return (*entries, entry)

    _update(add, path, new=True)
    return key, entry


def revoke(name: str, path: Path | None = None) -> ClientKey:
    """Revoke the key of that name; a running gateway refuses it from its next request on.

    Raises `NotFoundError` when there is none that is not revoked, and as `load`.
    """
    found: list[ClientKey] = []

    def end(entries: tuple[ClientKey, ...]) -> tuple[ClientKey, ...]:
        found.extend(replace(e, revoked=_now()) for e in entries if e.name == name and e.revoked is None)
        if not found:
            raise NotFoundError(f"no key is called {display(name)}", hint="batuta serve keys list")
        return tuple(found[0] if e.sha256 == found[0].sha256 else e for e in entries)

    _update(end, path)
    return found[0]


def load(path: Path | None = None) -> tuple[ClientKey, ...]:
    """All keys, the revoked ones included; none when there is no file and never was a key.

    Writes the marker where it is missing and there are keys, as earlier versions left it. Raises `DamagedStateError`
    when the list is missing or cannot be relied upon, `UnsafeFileError` when others can write it.
    """
    path = path or paths.client_keys_file()
    entries = _read(path)
    if entries is None:
        if _was_required(path):
            raise _missing(path)
        return ()
    if entries:
        with contextlib.suppress(BatutaError):  # a state directory that cannot be written to makes no key invalid
            _mark(path)
    return entries


def _marker(path: Path) -> Path:
    """The marker of the user's own list is in the state directory, that of any other list beside it."""
    return paths.client_keys_marker() if path == paths.client_keys_file() else path.with_suffix(".required")


def _was_required(path: Path) -> bool:
    """Whether the marker is there. Raises `OperationError` when that cannot be seen."""
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
        f"{display(path)}: the list of client keys is missing, and client keys have been required",
        hint="restore the file from a backup, or make new keys: batuta serve keys create NAME",
    )


def _read(path: Path) -> tuple[ClientKey, ...] | None:
    """What the file has; None when there is no file. Raises as `load`."""
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
        raise UnsafeFileError(f"{display(path)}: others can write to it", hint=f"chmod 600 {shlex.quote(str(path))}")
    try:
        if not data.strip():  # a list without keys is written with a line in it
            raise ValueError("it is empty")
        document = tomllib.loads(data.decode())
        if set(document) - {"key"}:
            raise ValueError("it has an unknown table")
        return tuple(_entry(e) for e in document.get("key", []))
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidInputError) as error:
        raise DamagedStateError(
            f"{display(path)}: the list of client keys is damaged: {display(error)}",
            hint="restore the file from a backup, or remove it and make new keys: batuta serve keys create NAME",
        ) from None


def _entry(entry: dict[str, Any]) -> ClientKey:
    if set(entry) - {"name", "sha256", "created", "revoked"}:  # it may be a limit that this version does not know
        raise ValueError("a key has an unknown field")
    times = [entry.get("created"), *([entry["revoked"]] if "revoked" in entry else [])]
    if not isinstance(entry.get("name"), str) or not isinstance(entry.get("sha256"), str):
        raise TypeError("a key has no name or no sha256")
    if not all(isinstance(t, dt.datetime) and t.tzinfo for t in times):
        raise TypeError("a key's time is not a date and time with a time zone")
    return ClientKey(**entry)


def _update(
    change: Callable[[tuple[ClientKey, ...]], tuple[ClientKey, ...]], path: Path | None, *, new: bool = False
) -> None:
    """Change the list under its lock; with `new` also one that is not there."""
    import tomli_w

    path = path or paths.client_keys_file()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        entries = change((_read(path) or ()) if new else load(path))
        rows = [{k: v for k, v in asdict(e).items() if v is not None} for e in entries]
        _mark(path)
        write_file(path, (_FIRST_LINE + tomli_w.dumps({"key": rows})).encode(), force=True, mode=0o600)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class ClientKeys:
    """The keys as a running gateway knows them."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or paths.client_keys_file()
        self._seen: tuple[int, ...] = ()
        self._active: tuple[tuple[bytes, str], ...] = ()
        self._required = False

    def _refresh(self) -> None:
        seen: tuple[int, ...] | None
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size, found.st_mode)
        except FileNotFoundError:
            seen = None
        except OSError:
            with errors_named(self._path):
                raise
        if seen is None:
            if self._required or _was_required(self._path):
                self._seen, self._required = (), True
                raise _missing(self._path)
            return
        if seen == self._seen:
            return
        entries = load(self._path)
        self._active = tuple((bytes.fromhex(e.sha256), e.name) for e in entries if e.revoked is None)
        # A list without a single key where there was one is as little an invitation as a missing list.
        self._required = self._required or bool(entries) or _was_required(self._path)
        self._seen = seen

    @property
    def required(self) -> bool:
        """Whether every request needs a key, because there is or was one. Raises as `load`."""
        self._refresh()
        return self._required

    def owner(self, key: bytes) -> str | None:
        """The name of the key; None when it is unknown or revoked. Raises as `load`."""
        self._refresh()
        digest, owner = _digest(key), None
        for known, name in self._active:  # all of them, so that time tells nothing of which one it was
            if hmac.compare_digest(known, digest):
                owner = name
        return owner
