"""Combines the trust stores that apply here: the user's own, `/etc/batuta/trust.toml`, and a file given to `verify`.

The system's file counts only when it and every directory above it belong to root and no other user can write to them;
anything else is a `DamagedStateError`, because another user could have added a key. When both stores trust a name, they
must trust the same key. A key in both is valid only while both say so.

Revocations of all stores always count, also when the keys come from a given file alone.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from batuta_cli import paths
from batuta_cli.errors import DamagedStateError, InvalidInputError, NotFoundError
from batuta_cli.files import display, errors_named
from batuta_cli.pacha import trust
from batuta_cli.pacha.trust import TrustedKey, TrustStore

SYSTEM_OWNER = 0
"""The user id that must own the system's trust store: root."""


def load_system(path: Path | None = None) -> TrustStore:
    """The system's trust store; empty when the file does not exist.

    Raises `DamagedStateError` when it is damaged, belongs to another user, or can be written by another user.
    """
    path = path or paths.SYSTEM_TRUST_FILE
    try:
        with errors_named(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except NotFoundError:
        if os.path.islink(path):
            raise DamagedStateError(f"{display(path)}: is a link to nowhere, which does not exist") from None
        return TrustStore()
    with os.fdopen(descriptor, "rb", buffering=0) as file, errors_named(path):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedStateError(f"{display(path)}: not a regular file")
        _check_owner(path, status, f"chown root {path} && chmod 644 {path}")
        for directory in Path(os.path.realpath(path)).parents:
            _check_owner(directory, os.stat(directory), f"chown root {directory} && chmod go-w {directory}")
        from batuta_cli.pacha.trust_files import TRUST_FILE_LIMIT  # few machines have this file

        data = b""
        while len(data) <= TRUST_FILE_LIMIT and (piece := file.read(TRUST_FILE_LIMIT + 1 - len(data))):
            data += piece
    try:
        return trust.parse_toml(data.decode())
    except (UnicodeDecodeError, InvalidInputError) as error:
        raise DamagedStateError(
            f"{display(path)}: the system's trust store is damaged: {display(error)}",
            hint="repair it as root; nothing can be verified until then",
        ) from None


def _check_owner(path: Path, status: os.stat_result, repair: str) -> None:
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX  # entries can be replaced by owners only
    if status.st_uid != SYSTEM_OWNER:
        reason = f"belongs to the user {status.st_uid}, not to root"
    elif status.st_mode & 0o022 and not sticky:
        reason = f"mode {stat.S_IMODE(status.st_mode):04o} lets other users write to it"
    else:
        return
    raise DamagedStateError(
        f"{display(path)}: {reason}, so the system's trust store cannot be relied on",
        hint=f"check its content, then as root: {repair}",
    )


def effective(only: TrustStore | None = None) -> TrustStore:
    """The trust store that signatures are judged by: the user's and the system's, or the keys of `only`.

    Raises as `trust.load` and `load_system`.
    """
    own, system = trust.load(), load_system()
    return combine(own, system) if only is None else _revoking(only, own, system)


def combine(own: TrustStore, system: TrustStore) -> TrustStore:
    """The user's and the system's store as one. Raises `DamagedStateError` as `check_agrees`."""
    if system == TrustStore():
        return own
    from batuta_cli.pacha.trust_files import with_limits

    for entry in own.keys:
        check_agrees(entry, system)
    keys = [
        with_limits(entry, other.valid_from, other.valid_until) if (other := system.find(entry.key)) else entry
        for entry in own.keys
    ]
    both = replace(own, keys=(*keys, *(entry for entry in system.keys if own.find(entry.key) is None)))
    return _revoking(both, system)


def _revoking(store: TrustStore, *others: TrustStore) -> TrustStore:
    for other in others:
        for revocation in other.revoked:
            store = store.with_revocation(revocation)
    return store


def check_agrees(entry: TrustedKey, system: TrustStore) -> None:
    """Raise `DamagedStateError` when the system trusts another key under this name, or this key under another name."""
    for other in system.keys:
        if (other.name == entry.name) != (other.key == entry.key):
            raise DamagedStateError(
                f"{display(paths.SYSTEM_TRUST_FILE)} trusts the key {other.key.key_id} as {display(other.name)}; here"
                f" the key {entry.key.key_id} is {display(entry.name)}",
                hint=f"batuta pacha trust remove {entry.key.key_id}",
            )


def update(change: Callable[[TrustStore], TrustStore]) -> TrustStore:
    """As `trust.update` on the user's store, and refuses a new key that disagrees with the system's store."""
    return trust.update(agreeing(change))


def agreeing(change: Callable[[TrustStore], TrustStore]) -> Callable[[TrustStore], TrustStore]:
    """`change` with the check of `check_agrees` for every key that it adds."""
    system = load_system()

    def checked(before: TrustStore) -> TrustStore:
        after = change(before)
        for entry in after.keys:
            if before.find(entry.key) is None:
                check_agrees(entry, system)
        return after

    return checked
