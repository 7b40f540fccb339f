"""A rotation replaces an own key: what it writes, in the trust store too, and that a refused one writes nothing."""

import datetime as dt
from pathlib import Path

import pytest

from batuta_cli import paths
from batuta_cli.errors import BatutaError, DamagedStateError, OutputExistsError
from batuta_cli.pacha import keyring, trust, trust_sources
from batuta_cli.pacha.endorsement import Endorsement
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.rotation import Rotation, rotate
from batuta_cli.pacha.trust import TrustedKey, TrustStore
from tests.pacha.forge import BOB, NOW, trusting

NAME = "alice@example.com"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "now", lambda: NOW)


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SigningKey:
    """An own key that is trusted, in data directories of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(paths, "SYSTEM_TRUST_FILE", tmp_path / "no-system-file")
    key = SigningKey.generate(NAME)
    keyring.save_own(key, NAME)
    trust.update(lambda store: store.with_key(TrustedKey(NAME, key.verifying_key, NOW)))
    return key


def rotated(old: SigningKey, endorsement: Path | None = None, **passphrases: bytes | None) -> Rotation:
    given = {"old_passphrase": None, "new_passphrase": None} | passphrases
    return rotate(keyring.find_own(NAME), old, endorsement=endorsement, **given)


def files() -> set[str]:
    return {path.name for path in paths.keys_dir().iterdir()}


def test_the_new_key_has_the_name_and_the_old_one_is_kept_under_the_date(old: SigningKey) -> None:
    done = rotated(old)
    assert keyring.find_own(NAME).public == done.key.verifying_key != old.verifying_key
    assert done.old.identity == f"{NAME}.2026-11-23"
    assert keyring.find_own(done.old.identity).public == old.verifying_key


def test_the_trust_store_trusts_the_new_key_and_retires_the_old_one_a_second_later(old: SigningKey) -> None:
    done = rotated(old)
    store = trust.load()
    new_entry, old_entry = store.find(done.key.verifying_key), store.find(old.verifying_key)
    assert new_entry is not None and (new_entry.name, new_entry.valid_until) == (NAME, None)
    # Times of signatures have whole seconds, so one that was made in this second stays valid.
    assert old_entry is not None and old_entry.valid_until == done.retired_from == NOW + dt.timedelta(seconds=1)


def test_an_earlier_retirement_is_kept(old: SigningKey) -> None:
    earlier = NOW - dt.timedelta(days=3)
    trust.update(lambda store: store.with_key(TrustedKey(NAME, old.verifying_key, NOW, valid_until=earlier)))
    rotated(old)
    entry = trust.load().find(old.verifying_key)
    assert entry is not None and entry.valid_until == earlier


def test_the_old_key_endorses_the_new_one(old: SigningKey) -> None:
    done = rotated(old)
    endorsement = Endorsement.parse(done.endorsement.read_bytes(), "file")
    assert (endorsement.name, endorsement.old_key, endorsement.new_key) == (
        NAME,
        old.verifying_key,
        done.key.verifying_key,
    )


def test_each_passphrase_protects_its_own_key(old: SigningKey) -> None:
    done = rotated(old, old_passphrase=b"old one", new_passphrase=b"new one")
    for path, right, wrong in ((done.old.path, b"old one", b"new one"), (done.path, b"new one", b"old one")):
        assert SigningKey.parse(path.read_bytes(), passphrase=right)
        with pytest.raises(BatutaError):
            SigningKey.parse(path.read_bytes(), passphrase=wrong)


def test_a_second_rotation_on_a_day_has_a_number(old: SigningKey) -> None:
    first = rotated(old)
    second = rotated(first.key)
    third = rotated(second.key)
    names = [done.old.identity for done in (first, second, third)]
    assert names == [f"{NAME}.2026-11-23", f"{NAME}.2026-11-23.2", f"{NAME}.2026-11-23.3"]


def test_an_existing_endorsement_is_not_replaced_and_nothing_is_written(old: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"mine")
    before, store = files(), trust.load()
    with pytest.raises(OutputExistsError):
        rotated(old, tmp_path / "e")
    assert (files(), trust.load(), (tmp_path / "e").read_bytes()) == (before, store, b"mine")


def test_another_key_of_the_system_for_the_name_refuses_the_rotation_before_anything_is_written(
    old: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = TrustStore((BOB.trusted(NAME),))
    monkeypatch.setattr(trust_sources, "load_system", lambda: system)
    before, store = files(), trust.load()
    with pytest.raises(DamagedStateError):
        rotated(old)
    assert (files(), trust.load()) == (before, store)


def test_a_key_that_was_never_trusted_is_not_trusted_by_its_rotation(old: SigningKey) -> None:
    trust.update(lambda store: store.without_key(old.verifying_key))
    trust.update(lambda store: trusting(BOB))
    done = rotated(old)
    store = trust.load()
    assert store.find(old.verifying_key) is None
    assert store.find(done.key.verifying_key) is not None
