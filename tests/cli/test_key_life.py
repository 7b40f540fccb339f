"""`batuta pacha keys rotate`, `rename`, `remove` and `list`, and `trust add --endorsed-by`, on two machines."""

import datetime as dt
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from batuta_cli.pacha import trust
from batuta_cli.pacha.keyring import read_private_file
from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import (
    keys_dir,
    names_in,
    on_a_terminal,
    own_key,
    result,
    revoke_key,
    shows_no,
    signed_model,
    trust_file,
    trust_key,
)
from tests.conftest import Run

NAME = "release@example.com"


def verifier(tmp_path: Path) -> dict[str, str]:
    """Another machine: its own keys and trust store."""
    return {"XDG_DATA_HOME": str(tmp_path / "verifier")}


def a_second_later(home: Path, old: SigningKey) -> None:
    """Let the second pass in which a key that was just rotated still counts, by moving its end instead of waiting."""
    entry = trust.load(trust_file(home)).find(old.verifying_key)
    assert entry is not None and entry.valid_until is not None
    assert entry.valid_until <= trust.now() + dt.timedelta(seconds=1)
    earlier = replace(entry, valid_until=min(entry.valid_until, trust.now()))
    trust.update(lambda store: store.with_key(earlier), trust_file(home))


def states(batuta: Run) -> dict[str, str]:
    return {row["identity"]: row["state"] for row in result(batuta("pacha", "keys", "list", "--json", code=0))}


def test_a_rotation_keeps_old_signatures_and_signs_with_the_new_key(batuta: Run, home: Path, work: Path) -> None:
    old = own_key(home, NAME)
    signed_model(work, old, "old")
    done = result(batuta("pacha", "keys", "rotate", "--json", code=0))
    kept = done["old"]["identity"]
    assert kept == f"{NAME}.{trust.now():%Y-%m-%d}"
    assert done["old"]["key_id"] == old.verifying_key.key_id != done["key_id"]
    assert names_in(keys_dir(home)) == sorted(
        [f"{kept}.endorsement", *(f"{name}.{half}" for name in (NAME, kept) for half in ("key", "pub"))]
    )
    assert all(stat.S_IMODE((keys_dir(home) / f"{name}.key").stat().st_mode) == 0o600 for name in (NAME, kept))
    assert states(batuta) == {NAME: "trusted", kept: "retired"}
    (work / "new").write_bytes(b"new")
    batuta("pacha", "sign", "new", "--identity", NAME, code=0)
    signers = result(batuta("pacha", "verify", "old", "new", "--identity", NAME, "--json", code=0))
    assert [row["signers"][0]["key_id"] for row in signers] == [old.verifying_key.key_id, done["key_id"]]


def test_the_old_key_of_a_rotation_signs_no_more(batuta: Run, home: Path, work: Path) -> None:
    old = own_key(home, NAME)
    kept = result(batuta("pacha", "keys", "rotate", NAME, "--json", code=0))["old"]
    a_second_later(home, old)
    (work / "model").write_bytes(b"weights")
    done = batuta("pacha", "sign", "model", "--identity", kept["identity"], code=4)
    assert "was retired" in done.stderr
    assert not (work / "model.sig").exists()


def test_the_endorsement_is_written_where_it_is_asked_for_and_replaces_nothing(
    batuta: Run, home: Path, work: Path
) -> None:
    own_key(home, NAME)
    (work / "there").write_bytes(b"mine")
    batuta("pacha", "keys", "rotate", NAME, "--endorsement", "there", code=2)
    assert (work / "there").read_bytes() == b"mine"
    assert names_in(keys_dir(home)) == [f"{NAME}.key", f"{NAME}.pub"]
    batuta("pacha", "keys", "rotate", NAME, "--endorsement", "new.endorsement", code=0)
    assert (work / "new.endorsement").exists()
    assert not list(keys_dir(home).glob("*.endorsement"))


def test_a_second_rotation_on_a_day_keeps_all_keys(batuta: Run, home: Path) -> None:
    own_key(home, NAME)
    first = result(batuta("pacha", "keys", "rotate", NAME, "--json", code=0))
    second = result(batuta("pacha", "keys", "rotate", NAME, "--json", code=0))
    assert second["old"]["key_id"] == first["key_id"]
    assert second["old"]["identity"] == first["old"]["identity"] + ".2"
    assert len(states(batuta)) == 3


def test_an_encrypted_key_stays_encrypted(batuta: Run, home: Path) -> None:
    env = {"OLD": "correct horse", "NEW": "battery staple"}
    batuta("pacha", "keygen", "--identity", NAME, "--passphrase-env", "OLD", env=env, code=0)
    batuta("pacha", "keys", "rotate", NAME, "--passphrase-env", "NEW", env=env, code=3)
    assert len(states(batuta)) == 1
    done = batuta("pacha", "keys", "rotate", NAME, "--passphrase-env", "OLD", "--json", env=env, code=0)
    shows_no("correct horse", done)
    kept = result(done)["old"]["identity"]
    for name in (NAME, kept):
        SigningKey.parse(read_private_file(keys_dir(home) / f"{name}.key"), passphrase=b"correct horse")
    options = ("--passphrase-env", "OLD", "--new-passphrase-env", "NEW")
    batuta("pacha", "keys", "rotate", NAME, *options, env=env, code=0)
    SigningKey.parse(read_private_file(keys_dir(home) / f"{NAME}.key"), passphrase=b"battery staple")


def test_a_revoked_key_is_not_rotated(batuta: Run, home: Path) -> None:
    revoke_key(home, own_key(home, NAME))
    before = names_in(keys_dir(home))
    batuta("pacha", "keys", "rotate", NAME, code=4)
    assert names_in(keys_dir(home)) == before


def test_a_damaged_pair_is_not_rotated(batuta: Run, home: Path) -> None:
    own_key(home, NAME)
    (keys_dir(home) / f"{NAME}.pub").write_bytes(SigningKey.generate().verifying_key.to_pem())
    assert "does not belong to the public key" in batuta("pacha", "keys", "rotate", NAME, code=2).stderr


@pytest.fixture
def rotated(batuta: Run, home: Path, work: Path, tmp_path: Path) -> Path:
    """The endorsement of a rotated key; the verifier trusts the old key, and a model is signed by the new one."""
    trust_key(tmp_path / "verifier-home", own_key(home, NAME), NAME)
    target = tmp_path / "verifier" / "batuta" / "trust"
    target.mkdir(parents=True)
    (target / "trust.toml").write_bytes(trust_file(tmp_path / "verifier-home").read_bytes())
    (target / "trust.toml").chmod(0o600)
    done = result(batuta("pacha", "keys", "rotate", NAME, "--json", code=0))
    (work / "model").write_bytes(b"weights")
    batuta("pacha", "sign", "model", "--identity", NAME, code=0)
    return Path(done["endorsement"])


def test_an_endorsement_lets_others_trust_the_new_key(batuta: Run, rotated: Path, tmp_path: Path) -> None:
    env = verifier(tmp_path)
    batuta("pacha", "verify", "model", env=env, code=4)
    batuta("pacha", "trust", "add", NAME, "--endorsed-by", rotated, env=env, code=0)
    batuta("pacha", "verify", "model", "--identity", NAME, env=env, code=0)


def test_an_endorsement_counts_for_its_name_and_key_alone(
    batuta: Run, home: Path, rotated: Path, tmp_path: Path, work: Path
) -> None:
    env = verifier(tmp_path)
    (work / "other.pub").write_bytes(SigningKey.generate().verifying_key.to_pem())
    batuta("pacha", "trust", "add", "other", "--endorsed-by", rotated, env=env, code=4)
    done = batuta("pacha", "trust", "add", NAME, "other.pub", "--endorsed-by", rotated, env=env, code=4)
    assert "not the key" in done.stderr
    batuta("pacha", "verify", "model", env=env, code=4)
    batuta("pacha", "trust", "add", NAME, keys_dir(home) / f"{NAME}.pub", "--endorsed-by", rotated, env=env, code=0)


@pytest.mark.parametrize("command", ["revoke", "remove", "retire"])
def test_an_endorsement_by_a_refused_key_counts_nothing(
    batuta: Run, rotated: Path, tmp_path: Path, command: str
) -> None:
    env = verifier(tmp_path)
    batuta("pacha", "trust", command, NAME, *(["--from", "2026-01-01"] if command == "retire" else []), env=env, code=0)
    batuta("pacha", "trust", "add", NAME, "--endorsed-by", rotated, env=env, code=4)
    batuta("pacha", "verify", "model", env=env, code=4)


def test_an_endorsement_lying_beside_a_model_counts_nothing(
    batuta: Run, rotated: Path, work: Path, tmp_path: Path
) -> None:
    for name in ("model.endorsement", "model.sig.endorsement", rotated.name):
        (work / name).write_bytes(rotated.read_bytes())
    batuta("pacha", "verify", "model", env=verifier(tmp_path), code=4)
    batuta("pacha", "verify", "model", "--signature", rotated, env=verifier(tmp_path), code=2)


def test_trust_add_without_a_key_or_endorsement_says_what_is_missing(batuta: Run) -> None:
    assert "missing argument KEY" in batuta("pacha", "trust", "add", "x", code=2).stderr


def test_keys_list_shows_what_the_trust_store_says(batuta: Run, home: Path) -> None:
    own_key(home, "trusted")
    own_key(home, "untrusted", trusted=False)
    revoke_key(home, own_key(home, "revoked"))
    day = dt.timedelta(days=1)
    trust_key(home, own_key(home, "retired", trusted=False), "retired", valid_until=trust.now() - day)
    trust_key(home, own_key(home, "early", trusted=False), "early", valid_from=trust.now() + day)
    trust_key(home, own_key(home, "later", trusted=False), "later", valid_until=trust.now() + day)
    assert states(batuta) == {
        "trusted": "trusted",
        "untrusted": "untrusted",
        "revoked": "revoked",
        "retired": "retired",
        "early": "not_yet_valid",
        "later": "trusted",
    }
    text = batuta("pacha", "keys", "list", code=0).stdout
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert f"revoked {trust.now():%Y-%m-%d}" in rows["revoked"]
    assert "not trusted" in rows["untrusted"]


def test_a_renamed_key_signs_under_its_new_name(batuta: Run, home: Path, work: Path) -> None:
    key = own_key(home, "default")
    signed_model(work, key, "before")
    done = batuta("pacha", "keys", "rename", "default", NAME, code=0)
    assert "signatures that this key made as default are refused" in done.stderr
    assert names_in(keys_dir(home)) == [f"{NAME}.key", f"{NAME}.pub"]
    (work / "model").write_bytes(b"weights")
    batuta("pacha", "sign", "model", code=0)
    batuta("pacha", "verify", "model", "--identity", NAME, code=0)
    batuta("pacha", "verify", "before", code=4)


def test_a_rename_replaces_no_key_and_keeps_a_retirement(batuta: Run, home: Path) -> None:
    day = dt.timedelta(days=1)
    key = own_key(home, "a", trusted=False)
    trust_key(home, key, "a", valid_until=trust.now() - day)
    own_key(home, "b")
    before = {name: (keys_dir(home) / name).read_bytes() for name in names_in(keys_dir(home))}
    batuta("pacha", "keys", "rename", "a", "b", code=2)
    assert {name: (keys_dir(home) / name).read_bytes() for name in names_in(keys_dir(home))} == before
    batuta("pacha", "keys", "rename", "a", "c", code=0)
    assert states(batuta)["c"] == "retired"
    batuta("pacha", "keys", "rename", "nowhere", "d", code=1)
    batuta("pacha", "keys", "rename", "c", "x\u200by", code=2)


def test_a_rename_or_removal_of_the_default_key_is_told(batuta: Run, home: Path) -> None:
    own_key(home, "a")
    batuta("config", "set", "pacha.default_key", "a", code=0)
    assert "batuta config set pacha.default_key b" in batuta("pacha", "keys", "rename", "a", "b", code=0).stderr
    batuta("config", "set", "pacha.default_key", "b", code=0)
    assert "batuta config unset pacha.default_key" in batuta("pacha", "keys", "remove", "b", "--yes", code=0).stderr


def test_removing_a_key_is_asked_first(batuta: Run, environment: dict[str, str], home: Path, work: Path) -> None:
    key = own_key(home, "a")
    signed_model(work, key)
    assert "--yes" in batuta("pacha", "keys", "remove", "a", code=2).stderr
    arguments = ["pacha", "keys", "remove", "a"]
    assert on_a_terminal(arguments, environment, work, [("[y/N]", "n")])[0] == 1
    assert names_in(keys_dir(home)) == ["a.key", "a.pub"]
    assert on_a_terminal(arguments, environment, work, [("[y/N]", "y")])[0] == 0
    assert names_in(keys_dir(home)) == []
    batuta("pacha", "verify", "model", code=0)
    batuta("pacha", "keys", "remove", "a", "--yes", code=1)
