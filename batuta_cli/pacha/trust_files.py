"""Trust files that are given to others: exported, imported, and used by `verify --trust`.

The format is that of `trust.toml` (docs/formats.md#trust-store). OpenSSH `allowed_signers` files are read as well.

An import only adds keys and revocations and narrows periods of validity. It never lifts a revocation or a limit, and
never trusts a key that is revoked here. `merge` returns each change, so that a user can be asked before it is made.
"""

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import StrPath, display, read_limited
from batuta_cli.pacha.trust import Revocation, TrustedKey, TrustStore, now, parse_toml

TRUST_FILE_LIMIT = 64 * 1024 * 1024
"""Bytes; a larger trust file is refused unread."""

ChangeKind = Literal["trust", "limit", "revoke", "skip"]
"""A new key, a shorter period of validity, a new revocation; or a key that is skipped because it is revoked here."""


@dataclass(frozen=True)
class TrustChange:
    """One difference that an import makes. `beside` has the ids of the other keys that are trusted under the name."""

    kind: ChangeKind
    entry: TrustedKey | Revocation
    beside: tuple[str, ...] = ()


def read_trust_file(path: StrPath) -> TrustStore:
    """The keys and revocations in a trust file. Raises as `parse_trust` and `read_limited`."""
    return parse_trust(read_limited(path, TRUST_FILE_LIMIT), display(path))


def parse_trust(data: bytes, source: str) -> TrustStore:
    """Read `trust.toml` or an `allowed_signers` file. Raises `InvalidInputError` that names `source`."""
    from batuta_cli.pacha.allowed_signers import parse_allowed_signers

    if not data.strip():
        raise InvalidInputError(f"{source}: is empty", hint="batuta pacha trust export writes a trust file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInputError(f"{source}: not a trust file (not UTF-8 text)") from None
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "[")
    if not first.startswith("["):
        return parse_allowed_signers(text, source, now())
    try:
        return parse_toml(text)
    except InvalidInputError as error:
        raise InvalidInputError(f"{source}: not a trust file: {error.message}") from None


def merge(store: TrustStore, given: TrustStore) -> tuple[TrustStore, tuple[TrustChange, ...]]:
    """`store` with the keys and revocations of `given`, and the differences.

    Raises `UsageError` when a key is trusted under another name, `InvalidInputError` when two periods of validity have
    no time in common.
    """
    changes: list[TrustChange] = []
    for revocation in given.revoked:
        if store.revocation_of(revocation.key) is None:
            store = store.with_revocation(revocation)
            changes.append(TrustChange("revoke", revocation))
    for entry in given.keys:
        known = store.find(entry.key)
        if store.revocation_of(entry.key):
            if known is None:
                changes.append(TrustChange("skip", entry))
            continue
        if known is None:
            beside = tuple(trusted.key.key_id for trusted in store.keys if trusted.name == entry.name)
            store = store.with_key(replace(entry, added=now()))
            changes.append(TrustChange("trust", entry, beside))
            continue
        if known.name != entry.name:
            raise UsageError(
                f"the key {entry.key.key_id} is trusted as {display(known.name)} here, and as {display(entry.name)} in"
                " the file",
                hint=f"batuta pacha trust remove {entry.key.key_id}",
            )
        narrowed = with_limits(known, entry.valid_from, entry.valid_until)
        if narrowed != known:
            store = store.with_key(narrowed)
            changes.append(TrustChange("limit", narrowed))
    return store, tuple(changes)


def with_limits(entry: TrustedKey, valid_from: dt.datetime | None, valid_until: dt.datetime | None) -> TrustedKey:
    """`entry`, valid only in what its own period and the given one have in common."""
    starts = [time for time in (entry.valid_from, valid_from) if time]
    ends = [time for time in (entry.valid_until, valid_until) if time]
    return replace(entry, valid_from=max(starts, default=None), valid_until=min(ends, default=None))
