"""The trust store `trust/trust.toml`: trusted keys and certificate authorities with their names, and revoked ones.

Written under a lock, whole or not at all. A damaged file is a `DamagedStateError`, never an empty trust store, because
its revocations would be lost with it. For the same reason a store that was written once has a marker beside it,
`trust.toml.written`: when the marker is there and the store is not, the store is missing, which is an error as well.
The marker follows the store and never precedes it, so that a process that is killed between the two leaves a store
without a marker, as the first versions did; it gets one the next time it is read. A user who wants to begin with an
empty trust store deletes both files.

Revocation is total: a revoked key verifies nothing, whatever date a signature claims, and stays revoked when the key
is removed. Retiring a key keeps what it signed before a date, which assumes that it was never stolen, because the
date is the signer's own claim.
"""

import contextlib
import datetime as dt
import os
import shlex
import stat
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batuta_cli import paths
from batuta_cli.errors import (
    BatutaError,
    DamagedStateError,
    InvalidInputError,
    NotFoundError,
    OutputExistsError,
    UnsafeFileError,
    UsageError,
)
from batuta_cli.files import display, locked, read_limited, write_file
from batuta_cli.pacha.keys import VerifyingKey, check_identity, check_recorded_identity

if TYPE_CHECKING:
    from batuta_cli.pacha.oms.eckeys import AnyKey

_ED25519 = "ed25519"
_LIMIT = 64 * 1024 * 1024
_MARKER_TEXT = b"# trust.toml was written here: if it is missing, it was lost, with the revocations in it\n"
_FIRST_LINE = "# trusted and revoked keys; change them with: batuta pacha trust\n"


@dataclass(frozen=True)
class TrustedKey:
    """A public key, the name under which its signatures count, and when (both ends optional, UTC).

    Of a certificate authority: its certificates count in that period, for the names that `verify` is asked for.
    """

    name: str
    key: "AnyKey"
    added: dt.datetime
    valid_from: dt.datetime | None = None
    valid_until: dt.datetime | None = None


@dataclass(frozen=True)
class Revocation:
    """A public key that verifies nothing any more, since when, and why."""

    key: "AnyKey"
    at: dt.datetime
    reason: str


@dataclass(frozen=True)
class TrustStore:
    """Trusted and revoked keys. A key may be both: then it is revoked."""

    keys: tuple[TrustedKey, ...] = ()
    revoked: tuple[Revocation, ...] = ()

    def revocation_of(self, key: "AnyKey") -> Revocation | None:
        """The revocation of a key, if there is one; a key and a certificate of it are revoked together."""
        return next((r for r in self.revoked if r.key.spki == key.spki), None)

    def find(self, key: "AnyKey") -> TrustedKey | None:
        """The entry of a key, if it is trusted."""
        return next((t for t in self.keys if t.key == key), None)

    def select(self, wanted: str) -> TrustedKey:
        """The one trusted key that `wanted` (a name, a key id or its beginning, `ed25519:…`) means.

        Raises `NotFoundError`, or `UsageError` when it means several.
        """
        matches = [t for t in self.keys if wanted in (t.name, t.key.inline)]
        if not matches and len(wanted) >= 8:
            matches = [t for t in self.keys if t.key.key_id.startswith(wanted.lower())]
        if not matches:
            raise NotFoundError(f"no trusted key is called {display(wanted)}", hint="batuta pacha trust list")
        if len(matches) > 1:
            ids = ", ".join(t.key.key_id for t in matches)
            raise UsageError(f"{display(wanted)} names several keys: {ids}", hint="name the key id instead")
        return matches[0]

    def with_key(self, trusted: TrustedKey) -> "TrustStore":
        """Add a key, or replace the entry it has under the same name.

        Raises `UsageError` when it is revoked, or trusted under another name: one key is one signer.
        """
        existing = self.find(trusted.key)
        if existing is None or existing.name != trusted.name:
            check_identity(trusted.name)
        if revocation := self.revocation_of(trusted.key):
            raise UsageError(
                f"the key {trusted.key.key_id} was revoked on {revocation.at:%Y-%m-%d}: {display(revocation.reason)}",
                hint="a revoked key stays revoked; make and trust a new one",
            )
        if existing and existing.name != trusted.name:
            raise UsageError(
                f"the key {trusted.key.key_id} is already trusted as {display(existing.name)}",
                hint=f"batuta pacha trust remove {trusted.key.key_id}",
            )
        if trusted.valid_from and trusted.valid_until and trusted.valid_from >= trusted.valid_until:
            raise InvalidInputError("the key's validity ends before it begins")
        return replace(self, keys=(*(t for t in self.keys if t.key != trusted.key), trusted))

    def without_key(self, key: "AnyKey") -> "TrustStore":
        """Remove a key from the trusted ones; a revocation stays."""
        return replace(self, keys=tuple(t for t in self.keys if t.key != key))

    def with_revocation(self, revocation: Revocation) -> "TrustStore":
        """Revoke a key, trusted or not; revoking it again changes nothing.

        Raises `InvalidInputError` for a reason that is not Unicode text.
        """
        try:
            revocation.reason.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("the reason must be Unicode text") from None
        if self.revocation_of(revocation.key):
            return self
        return replace(self, revoked=(*self.revoked, revocation))


def now() -> dt.datetime:
    """The current time in UTC, in whole seconds."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def load(path: Path | None = None) -> TrustStore:
    """Read the trust store; one that was never written is empty.

    Raises `DamagedStateError` when it is damaged, was emptied, or is missing beside its marker; `UnsafeFileError` when
    others can write it.
    """
    try:
        path = path or paths.trust_file()
    except paths.NoHomeError:  # no store was ever written in a home that does not exist
        return TrustStore()
    written = os.path.lexists(
        _marker(path)
    )  # checked first: a store that is being written now is written before its marker
    try:
        data = read_limited(path, _LIMIT)
        writable = stat.S_IMODE(os.stat(path).st_mode) & 0o022
    except NotFoundError:
        if not os.path.islink(path):  # not lexists: another process may have written the first store by now
            if written:
                raise _missing(path) from None
            return TrustStore()
        data, writable = b"", 0
    except InvalidInputError as error:
        raise DamagedStateError(error.message) from error
    if not data.strip():  # an empty store has a comment line
        raise DamagedStateError(
            f"{display(path)}: the trust store is lost, and the revocations in it", hint=_repair(path)
        )
    if writable:
        raise UnsafeFileError(
            f"{display(path)}: group or others can write to it", hint=f"chmod 600 {shlex.quote(str(path))}"
        )
    if not written:
        with contextlib.suppress(BatutaError):  # a read-only directory must not prevent verifying
            _mark(path)
    try:
        return parse_toml(data.decode())
    except (UnicodeDecodeError, InvalidInputError) as error:
        raise DamagedStateError(
            f"{display(path)}: the trust store is damaged: {display(error)}",
            hint="restore it from a backup; nothing can be verified until then",
        ) from None


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".written")


def _mark(path: Path) -> None:
    with contextlib.suppress(OutputExistsError):
        write_file(_marker(path), _MARKER_TEXT, mode=0o600)


def _missing(path: Path) -> DamagedStateError:
    return DamagedStateError(
        f"{display(path)}: the trust store is missing, and the revocations in it", hint=_repair(path)
    )


def _repair(path: Path) -> str:
    files = " ".join(shlex.quote(display(file)) for file in (path, _marker(path)))
    return (
        f"restore {display(path.name)} from a backup; or begin with an empty trust store, without any trusted key"
        f" or revocation:\n  rm -f {files}"
    )


def update(change: Callable[[TrustStore], TrustStore], path: Path | None = None) -> TrustStore:
    """Apply `change` to the trust store on disk, under a lock, and return the result. Raises as `load`."""
    path = path or paths.trust_file()
    paths.private_dir(path.parent)
    with locked(path.with_suffix(".lock")):
        before = load(path)
        after = change(before)
        if after != before:
            write_file(path, to_toml(after), force=True, mode=0o600)
            _mark(path)
    return after


def parse_toml(text: str) -> TrustStore:
    """Read the text of a `trust.toml`. Raises `InvalidInputError`."""
    try:
        return _parse(tomllib.loads(text))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInputError(str(error)) from None


def _parse(document: dict[str, Any]) -> TrustStore:
    _only(document, {"key", "revoked"})
    keys = tuple(_trusted(entry) for entry in _tables(document, "key"))
    if len({t.key for t in keys}) != len(keys):
        raise ValueError("one key is listed twice")
    revoked = tuple(
        Revocation(_public_key(e), _time(e, "at"), _text(e, "reason"))
        for e in _tables(document, "revoked", {"public_key", "key_type", "at", "reason"})
    )
    return TrustStore(keys, revoked)


def _trusted(entry: dict[str, Any]) -> TrustedKey:
    _only(entry, {"name", "public_key", "key_type", "added", "valid_from", "valid_until"})
    return TrustedKey(
        check_recorded_identity(_text(entry, "name")),
        _public_key(entry),
        _time(entry, "added"),
        _time(entry, "valid_from") if "valid_from" in entry else None,
        _time(entry, "valid_until") if "valid_until" in entry else None,
    )


def _public_key(entry: dict[str, Any]) -> "AnyKey":
    """The key of an entry: Ed25519 unless it has a `key_type`."""
    text, key_type = _text(entry, "public_key"), entry.get("key_type", _ED25519)
    if key_type == _ED25519:
        return VerifyingKey.from_base64(text)
    from batuta_cli.pacha.oms.eckeys import KEY_READERS  # not needed for Ed25519

    if key_type not in KEY_READERS:
        raise ValueError(f"unknown key_type {key_type!r}")
    return KEY_READERS[key_type](text)


def _tables(document: dict[str, Any], name: str, allowed: Iterable[str] | None = None) -> list[dict[str, Any]]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise TypeError(f"[[{name}]] is not a list of tables")
    for entry in entries:
        if allowed is not None:
            _only(entry, allowed)
    return entries


def _only(table: dict[str, Any], allowed: Iterable[str]) -> None:
    # A field that this version does not know may restrict trust, so it must not be ignored.
    if unknown := sorted(set(table) - set(allowed)):
        raise ValueError(f"unknown key {unknown[0]!r}")


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise TypeError(f"{name} {'is missing' if value is None else 'is not text'}")
    return value


def _time(entry: dict[str, Any], name: str) -> dt.datetime:
    value = entry.get(name)
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise TypeError(f"{name} is not a time with an offset")
    return value.astimezone(dt.UTC)


def to_toml(store: TrustStore) -> bytes:
    """The content of a `trust.toml`."""
    import tomli_w

    def row(entry: TrustedKey | Revocation) -> dict[str, Any]:
        fields = asdict(entry)
        fields["public_key"] = entry.key.base64
        fields["key_type"] = None if entry.key.key_type == _ED25519 else entry.key.key_type
        del fields["key"]
        return {name: value for name, value in fields.items() if value is not None}

    document = {"key": [row(t) for t in store.keys], "revoked": [row(r) for r in store.revoked]}
    return (_FIRST_LINE + tomli_w.dumps({name: rows for name, rows in document.items() if rows})).encode()
