"""Rotating an own key: a new key takes its name, the old one is kept, retired, and endorses the new one.

The order keeps a usable key at every moment. First the old pair is copied to `NAME.DATE` and the endorsement written,
then the new pair takes the name, then the trust store trusts the new key and retires the old one.
"""

import datetime as dt
import os
from dataclasses import dataclass, replace
from pathlib import Path

from batuta_cli import paths
from batuta_cli.files import StrPath, atomic_output, write_file
from batuta_cli.pacha import keyring, trust
from batuta_cli.pacha.endorsement import Endorsement
from batuta_cli.pacha.keyring import OwnKey
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.trust import TrustedKey, TrustStore
from batuta_cli.pacha.trust_sources import agreeing

ENDORSEMENT_SUFFIX = ".endorsement"


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """The result of a rotation: the new key, where the old one is now, and the endorsement to publish."""

    key: SigningKey
    path: Path
    old: OwnKey
    endorsement: Path
    retired_from: dt.datetime


def rotate(
    own: OwnKey,
    old: SigningKey,
    *,
    old_passphrase: bytes | None,
    new_passphrase: bytes | None,
    endorsement: StrPath | None = None,
) -> Rotation:
    """Replace the own key `own`, whose private half is `old`, by a new one.

    Args:
        old_passphrase: encrypts the kept copy of the old key; None for none.
        new_passphrase: encrypts the new key; None for none.
        endorsement: where to write the endorsement; beside the kept key by default.

    Raises `DamagedStateError` when the system's trust store has another key for the name, `OutputExistsError` when the
    file `endorsement` exists, `OperationError`.
    """
    name = own.identity
    new = SigningKey.generate(name)
    now = trust.now()
    retired_from = now + dt.timedelta(seconds=1)  # a signature that was made in this second stays valid

    def change(store: TrustStore) -> TrustStore:
        known = store.find(own.public)
        if known is not None:
            ends = [time for time in (known.valid_until, retired_from) if time]
            store = store.with_key(replace(known, valid_until=min(ends)))
        return store.with_key(TrustedKey(name, new.verifying_key, now))

    checked = agreeing(change)
    checked(trust.load())  # refused before a file is written
    kept = _free_name(name, now)
    default = paths.keys_dir() / (keyring.file_stem(kept) + ENDORSEMENT_SUFFIX)
    target = default if endorsement is None else Path(endorsement)
    atomic_output(target)  # refused before a file is written
    keyring.save_own(old, kept, passphrase=old_passphrase)
    stated = Endorsement(name=name, old_key=own.public, new_key=new.verifying_key, created=now)
    write_file(target, stated.sign(old))
    path = keyring.save_own(new, name, passphrase=new_passphrase, force=True)
    trust.update(checked)
    return Rotation(key=new, path=path, old=keyring.find_own(kept), endorsement=target, retired_from=retired_from)


def _free_name(name: str, now: dt.datetime) -> str:
    """`NAME.DATE`, or `NAME.DATE.2` and so on when the key was rotated before on that day."""
    candidate, number = f"{name}.{now:%Y-%m-%d}", 1
    while os.path.lexists(keyring.key_path(candidate)):
        number += 1
        candidate = f"{name}.{now:%Y-%m-%d}.{number}"
    return candidate
