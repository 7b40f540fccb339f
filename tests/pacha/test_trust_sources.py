"""The user's and the system's trust stores together: who may write the latter, and what happens when they disagree."""

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from batuta_cli import paths
from batuta_cli.errors import DamagedStateError
from batuta_cli.pacha import trust
from batuta_cli.pacha.trust import Revocation, TrustedKey, TrustStore, to_toml
from batuta_cli.pacha.trust_sources import combine, effective, load_system, update
from tests.pacha.forge import ALICE, BOB, MALLORY, NOW

DAY = dt.timedelta(days=1)
ALICE_HERE = TrustedKey("alice", ALICE.verifying, NOW)
BOB_HERE = TrustedKey("bob", BOB.verifying, NOW)
STOLEN = Revocation(ALICE.verifying, NOW, "stolen")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that belongs to root")
Write = Callable[[TrustStore], Path]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a trust store to where the system's is, in a directory that only root can write."""
    path = tmp_path / "etc" / "batuta" / "trust.toml"
    monkeypatch.setattr(paths, "SYSTEM_TRUST_FILE", path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def write(store: TrustStore) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_toml(store))
        path.chmod(0o644)
        return path

    return write


def test_without_a_system_store_the_user_s_counts_alone(system: Write) -> None:
    assert load_system() == TrustStore()
    trust.update(lambda store: store.with_key(ALICE_HERE))
    assert effective().keys == (ALICE_HERE,)


@needs_root
def test_keys_of_both_stores_count(system: Write) -> None:
    system(TrustStore((BOB_HERE,)))
    trust.update(lambda store: store.with_key(ALICE_HERE))
    assert effective().keys == (ALICE_HERE, BOB_HERE)


@needs_root
def test_a_system_store_of_another_user_is_an_error(system: Write) -> None:
    os.chown(system(TrustStore((BOB_HERE,))), 1234, -1)
    with pytest.raises(DamagedStateError, match="belongs to the user 1234, not to root"):
        effective()


@needs_root
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_a_system_store_that_others_can_write_is_an_error(system: Write, mode: int) -> None:
    system(TrustStore((BOB_HERE,))).chmod(mode)
    with pytest.raises(DamagedStateError, match=f"mode {mode:04o} lets other users write"):
        effective()


@needs_root
@pytest.mark.parametrize("up", [0, 1])
def test_a_directory_above_the_system_store_that_others_can_write_is_an_error(system: Write, up: int) -> None:
    directory = system(TrustStore((BOB_HERE,))).parents[up]
    directory.chmod(0o777)
    with pytest.raises(DamagedStateError, match="lets other users write"):
        effective()
    directory.chmod(0o755)
    os.chown(directory, 1234, -1)
    with pytest.raises(DamagedStateError, match="belongs to the user 1234"):
        effective()


@needs_root
def test_a_link_to_a_file_of_another_user_is_an_error(system: Write, tmp_path: Path) -> None:
    path = system(TrustStore((BOB_HERE,)))
    real = tmp_path / "mallory" / "trust.toml"
    real.parent.mkdir()
    path.rename(real)
    path.symlink_to(real)
    assert load_system().keys == (BOB_HERE,)
    os.chown(real.parent, 1234, -1)
    with pytest.raises(DamagedStateError, match="belongs to the user 1234"):
        load_system()
    real.unlink()
    with pytest.raises(DamagedStateError, match="link to nowhere"):
        load_system()


@needs_root
@pytest.mark.parametrize("data", [b"[[key]]\n", b"\xff", b"alice ssh-ed25519 AAAA\n"])
def test_a_damaged_system_store_is_an_error(system: Write, data: bytes) -> None:
    system(TrustStore()).write_bytes(data)
    with pytest.raises(DamagedStateError, match="the system's trust store is damaged"):
        effective()


@needs_root
def test_the_same_name_with_another_key_is_an_error(system: Write) -> None:
    system(TrustStore((replace(BOB_HERE, name="alice"),)))
    trust.update(lambda store: store.with_key(ALICE_HERE))
    with pytest.raises(DamagedStateError, match=f"trusts the key {BOB.verifying.key_id} as alice"):
        effective()


@needs_root
def test_the_same_key_under_another_name_is_an_error(system: Write) -> None:
    system(TrustStore((replace(ALICE_HERE, name="mallory"),)))
    trust.update(lambda store: store.with_key(ALICE_HERE))
    with pytest.raises(DamagedStateError, match="as mallory"):
        effective()


@needs_root
def test_a_key_that_disagrees_with_the_system_is_not_added(system: Write) -> None:
    system(TrustStore((replace(BOB_HERE, name="alice"),)))
    with pytest.raises(DamagedStateError, match="as alice"):
        update(lambda store: store.with_key(ALICE_HERE))
    assert trust.load() == TrustStore()
    assert effective().keys == (replace(BOB_HERE, name="alice"),)


@pytest.mark.parametrize("own_first", [True, False])
def test_a_key_in_both_stores_is_valid_only_while_both_say_so(own_first: bool) -> None:
    early = replace(ALICE_HERE, valid_until=NOW)
    late = replace(ALICE_HERE, valid_from=NOW - DAY, valid_until=NOW + DAY)
    stores = [TrustStore((early,)), TrustStore((late,))]
    [entry] = combine(*(stores if own_first else reversed(stores))).keys
    assert (entry.valid_from, entry.valid_until) == (NOW - DAY, NOW)


@needs_root
def test_revocations_of_both_stores_count_also_beside_a_given_file(system: Write) -> None:
    system(TrustStore((), (STOLEN,)))
    trust.update(lambda store: store.with_revocation(Revocation(BOB.verifying, NOW, "lost")))
    given = TrustStore((ALICE_HERE, BOB_HERE), (Revocation(MALLORY.verifying, NOW, "file"),))
    assert {r.key for r in effective().revoked} == {ALICE.verifying, BOB.verifying}
    used = effective(given)
    assert {r.key for r in used.revoked} == {ALICE.verifying, BOB.verifying, MALLORY.verifying}
    assert used.keys == given.keys


def test_only_the_keys_of_a_given_file_count(system: Write) -> None:
    trust.update(lambda store: store.with_key(ALICE_HERE))
    assert effective(TrustStore((BOB_HERE,))).keys == (BOB_HERE,)


@pytest.mark.parametrize("variable", ["BATUTA_SYSTEM_TRUST_FILE", "XDG_CONFIG_DIRS", "XDG_DATA_DIRS"])
def test_no_variable_moves_the_system_store(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "batuta").mkdir()
    (tmp_path / "batuta" / "trust.toml").write_bytes(to_toml(TrustStore((BOB_HERE,))))
    monkeypatch.setenv(variable, str(tmp_path))
    assert load_system() == TrustStore()
