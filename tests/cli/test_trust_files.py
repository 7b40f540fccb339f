"""`batuta pacha trust export` and `import`, `verify --trust FILE`, and the system's trust store, as commands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.trust import TrustedKey, TrustStore, load, now, to_toml
from tests.cli.support import (
    Done,
    answer,
    on_a_terminal,
    own_key,
    result,
    revoke_key,
    signed_model,
    trust_file,
    trust_key,
)
from tests.conftest import Run

ALICE = SigningKey.generate("alice")
BOB = SigningKey.generate("bob")

_LAUNCHER = """
import sys
from pathlib import Path
from batuta_cli import paths
paths.SYSTEM_TRUST_FILE = Path(sys.argv.pop(1))
from batuta_cli.cli.app import main
main()
"""

Launch = Callable[..., Done]


@pytest.fixture
def with_system(environment: dict[str, str], work: Path, tmp_path: Path) -> Launch:
    """Run batuta with a system trust store in another place, which no option or variable of the command could do."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that belongs to root")
    path = tmp_path / "etc" / "trust.toml"
    path.parent.mkdir()

    def launch(store: TrustStore, *arguments: str, code: int) -> Done:
        path.write_bytes(to_toml(store))
        command = [sys.executable, "-c", _LAUNCHER, str(path), *arguments]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done

    return launch


def store_of(*keys: SigningKey) -> TrustStore:
    return TrustStore(tuple(TrustedKey(str(key.identity), key.verifying_key, now()) for key in keys))


def test_an_exported_trust_store_is_imported_elsewhere(batuta: Run, home: Path, work: Path, tmp_path: Path) -> None:
    trust_key(home, ALICE, "alice")
    trust_key(home, BOB, "bob")
    revoke_key(home, BOB, "laptop stolen")
    batuta("pacha", "trust", "export", "--output", "team.toml", code=0)
    other = {"XDG_DATA_HOME": str(tmp_path / "other")}
    done = batuta("pacha", "trust", "import", "team.toml", "--yes", env=other, code=0)
    assert f"revoke the key {BOB.verifying_key.key_id}: laptop stolen" in done.stdout
    assert f"trust alice (key {ALICE.verifying_key.key_id})" in done.stdout
    signed_model(work, ALICE)
    batuta("pacha", "verify", "model", env=other, code=0)
    (work / "model.sig").unlink()
    signed_model(work, BOB)
    batuta("pacha", "verify", "model", env=other, code=4)


def test_export_goes_to_stdout_and_replaces_no_file(batuta: Run, home: Path, work: Path) -> None:
    trust_key(home, ALICE, "alice")
    done = batuta("pacha", "trust", "export", code=0)
    (work / "team.toml").write_text(done.stdout)
    assert load(trust_file(home)).keys == load(work / "team.toml").keys
    batuta("pacha", "trust", "export", "--output", "team.toml", code=2)
    batuta("pacha", "trust", "export", "--output", "team.toml", "--force", code=0)
    assert [row["name"] for row in result(batuta("pacha", "trust", "export", "--json"))["keys"]] == ["alice"]


def test_import_without_a_terminal_needs_yes_and_changes_nothing(batuta: Run, home: Path, work: Path) -> None:
    (work / "team.toml").write_bytes(to_toml(store_of(ALICE)))
    done = batuta("pacha", "trust", "import", "team.toml", code=2)
    assert "hint: --yes" in done.stderr
    assert f"trust alice (key {ALICE.verifying_key.key_id})" in done.stderr
    assert not trust_file(home).exists()
    document = answer(batuta("pacha", "trust", "import", "team.toml", "--json", code=2))
    assert [(row["change"], row["name"]) for row in document["result"]["changes"]] == [("trust", "alice")]


@pytest.mark.parametrize(("typed", "trusted"), [("y", ["alice"]), ("n", []), ("", [])])
def test_import_asks_on_a_terminal(
    environment: dict[str, str], home: Path, work: Path, typed: str, trusted: list[str]
) -> None:
    (work / "team.toml").write_bytes(to_toml(store_of(ALICE)))
    arguments = ["pacha", "trust", "import", "team.toml"]
    status, shown = on_a_terminal(arguments, environment, work, [("make these changes? [y/N]", typed)])
    assert f"trust alice (key {ALICE.verifying_key.key_id})" in shown.partition("[y/N]")[0]
    assert [entry.name for entry in load(trust_file(home)).keys] == trusted
    assert status == (0 if trusted else 1)


def test_a_second_import_has_nothing_to_change_and_asks_nothing(batuta: Run, work: Path) -> None:
    (work / "team.toml").write_bytes(to_toml(store_of(ALICE)))
    batuta("pacha", "trust", "import", "team.toml", "--yes", code=0)
    assert "nothing to change" in batuta("pacha", "trust", "import", "team.toml", code=0).stdout


def test_import_of_a_revoked_key_does_not_trust_it(batuta: Run, home: Path, work: Path) -> None:
    revoke_key(home, ALICE)
    (work / "team.toml").write_bytes(to_toml(store_of(ALICE)))
    done = batuta("pacha", "trust", "import", "team.toml", "--yes", code=0)
    assert "do not trust alice" in done.stdout
    assert load(trust_file(home)).keys == ()


def test_import_shows_a_second_key_under_a_known_name(batuta: Run, home: Path, work: Path) -> None:
    trust_key(home, ALICE, "alice")
    (work / "team.toml").write_bytes(to_toml(store_of(BOB.with_identity("alice"))))
    done = batuta("pacha", "trust", "import", "team.toml", "--yes", code=0)
    assert f"in addition to its key {ALICE.verifying_key.key_id}" in done.stdout


def test_allowed_signers_of_openssh_are_imported_and_patterns_refused(batuta: Run, home: Path, work: Path) -> None:
    line = ALICE.verifying_key.to_openssh().decode()
    (work / "allowed_signers").write_text(f"# git\nalice {line}")
    batuta("pacha", "trust", "import", "allowed_signers", "--yes", code=0)
    assert [entry.name for entry in load(trust_file(home)).keys] == ["alice"]
    done = batuta("pacha", "trust", "import", "-", "--yes", input=f"*@example.com {line}", code=2)
    assert "stdin: line 1: the principal *@example.com is a pattern" in done.stderr


@pytest.mark.parametrize("kind", ["toml", "allowed_signers", "stdin"])
def test_verify_with_a_trust_file_accepts_its_keys_alone(batuta: Run, home: Path, work: Path, kind: str) -> None:
    trust_key(home, BOB, "bob")
    file, data = ("-" if kind == "stdin" else "ci.trust"), to_toml(store_of(ALICE)).decode()
    if kind == "allowed_signers":
        data = f"alice {ALICE.verifying_key.to_openssh().decode()}"
    (work / "ci.trust").write_text(data)
    signed_model(work, ALICE)
    done = batuta("pacha", "verify", "model", "--trust", file, "--json", input=data, code=0)
    assert result(done)[0]["signers"][0]["name"] == "alice"
    batuta("pacha", "verify", "model", "--trust", file, "--identity", "bob", input=data, code=4)
    (work / "model.sig").unlink()
    signed_model(work, BOB)
    batuta("pacha", "verify", "model", "--trust", file, input=data, code=4)
    batuta("pacha", "verify", "model", code=0)


def test_verify_with_a_trust_file_obeys_the_user_s_revocations(batuta: Run, home: Path, work: Path) -> None:
    (work / "ci.toml").write_bytes(to_toml(store_of(ALICE)))
    signed_model(work, ALICE)
    revoke_key(home, ALICE, "stolen")
    assert "revoked" in batuta("pacha", "verify", "model", "--trust", "ci.toml", code=4).stderr


def test_verify_with_a_missing_or_malformed_trust_file(batuta: Run, home: Path, work: Path) -> None:
    signed_model(work, own_key(home))
    batuta("pacha", "verify", "model", "--trust", "nowhere", code=1)
    (work / "empty").touch()
    batuta("pacha", "verify", "model", "--trust", "empty", code=2)
    batuta("pacha", "verify", "model", "--trust", "", code=1)


def test_keys_of_the_system_count_and_are_listed_as_such(with_system: Launch, work: Path) -> None:
    signed_model(work, ALICE)
    with_system(store_of(ALICE), "pacha", "verify", "model", code=0)
    done = with_system(store_of(ALICE), "pacha", "trust", "list", code=0)
    assert "trusted by the system" in done.stdout
    [row] = result(with_system(store_of(ALICE), "pacha", "trust", "list", "--json", code=0))["keys"]
    assert (row["name"], row["system"]) == ("alice", True)


def test_a_user_can_refuse_but_not_remove_a_key_of_the_system(with_system: Launch, work: Path) -> None:
    signed_model(work, ALICE)
    done = with_system(store_of(ALICE), "pacha", "trust", "remove", "alice", code=1)
    assert f"batuta pacha trust revoke {ALICE.verifying_key.key_id}" in done.stderr
    with_system(store_of(ALICE), "pacha", "trust", "retire", "alice", "--from", "2020-01-01", code=0)
    assert "counts until 2020" in with_system(store_of(ALICE), "pacha", "verify", "model", code=4).stderr
    with_system(store_of(ALICE), "pacha", "trust", "revoke", "alice", code=0)
    assert "revoked" in with_system(store_of(ALICE), "pacha", "verify", "model", code=4).stderr


def test_a_key_that_disagrees_with_the_system_is_refused_everywhere(
    with_system: Launch, home: Path, work: Path
) -> None:
    system = store_of(BOB.with_identity("alice"))
    (work / "alice.pub").write_bytes(ALICE.verifying_key.to_pem())
    (work / "team.toml").write_bytes(to_toml(store_of(ALICE)))
    for arguments in (
        ("trust", "add", "alice", "alice.pub"),
        ("trust", "import", "team.toml", "--yes"),
        ("keygen", "--identity", "alice"),
    ):
        assert "as alice" in with_system(system, "pacha", *arguments, code=1).stderr
    assert not trust_file(home).exists()
    assert not (home / "data" / "batuta" / "keys").exists()
    signed_model(work, ALICE)
    trust_key(home, ALICE, "alice")
    with_system(system, "pacha", "verify", "model", code=1)
    with_system(system, "pacha", "trust", "remove", ALICE.verifying_key.key_id, code=0)
    with_system(system, "pacha", "verify", "model", code=4)


def test_a_key_that_the_system_revoked_does_not_sign(with_system: Launch, home: Path, work: Path) -> None:
    from batuta_cli.pacha.trust import Revocation

    key = own_key(home)
    (work / "model").write_bytes(b"weights")
    revoked = TrustStore((), (Revocation(key.verifying_key, now(), "stolen"),))
    assert "revoked" in with_system(revoked, "pacha", "sign", "model", code=4).stderr
