"""`batuta serve audit seal`, `verify --sealed` and `prove`: what the owner of the machine cannot undo unseen."""

import json
import os
import shutil
from pathlib import Path

import pytest

from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.tiers import PrivacyTier
from tests.cli.support import answer, result
from tests.conftest import Run

SOVEREIGN = PrivacyTier.SOVEREIGN


@pytest.fixture
def log(environment: dict[str, str]) -> Path:
    return Path(environment["XDG_STATE_HOME"]) / "batuta/audit"


def record(log: Path, *addresses: str, tier: PrivacyTier = SOVEREIGN) -> None:
    writing = AuditLog(log)
    for number, address in enumerate(addresses):
        writing.record(Decision(f"r{number}", tier, "b", address, True, "allowed by a test"))
    writing.close()


@pytest.fixture
def sealed(batuta: Run, log: Path, work: Path) -> Path:
    """A sealed log of three decisions, and the auditor's public key kept elsewhere."""
    batuta("pacha", "keygen", "--identity", "auditor@example.com", code=0)
    batuta("pacha", "keys", "export", "auditor@example.com", "--output", "auditor.pub", code=0)
    record(log, *["127.0.0.1:8080"] * 3)
    batuta("serve", "audit", "seal", "--output", "today.seal", code=0)
    return work / "today.seal"


def test_a_sealed_log_is_verified_with_the_public_key_alone(
    batuta: Run, log: Path, sealed: Path, tmp_path: Path
) -> None:
    record(log, "127.0.0.1:8080")  # the log goes on
    elsewhere = {"XDG_DATA_HOME": str(tmp_path / "auditor")}
    done = batuta("serve", "audit", "verify", "--sealed", "today.seal", "--key", "auditor.pub", env=elsewhere, code=0)
    assert "the head is in it; sealed by the key " in done.stdout
    assert result(batuta("serve", "audit", "verify", "--sealed", "today.seal", "--json", code=0))["sealed_by"] == [
        "auditor@example.com"
    ]


def test_a_cut_end_is_found(batuta: Run, log: Path, sealed: Path) -> None:
    [file] = log.iterdir()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    batuta("serve", "audit", "verify", code=0)  # without the seal it is not
    done = batuta("serve", "audit", "verify", "--sealed", "today.seal", code=1)
    assert "a file or its end was removed" in done.stderr


def test_a_log_that_was_written_anew_is_found(batuta: Run, log: Path, sealed: Path) -> None:
    shutil.rmtree(log)
    record(log, *["127.0.0.1:8080"] * 3)
    batuta("serve", "audit", "verify", code=0)
    batuta("serve", "audit", "verify", "--sealed", "today.seal", code=1)
    batuta("serve", "audit", "prove", "--sealed", "today.seal", code=1)


def test_a_log_of_which_all_files_were_removed_is_found(batuta: Run, log: Path, sealed: Path) -> None:
    shutil.rmtree(log)
    batuta("serve", "audit", "verify", "--sealed", "today.seal", code=1)


def test_a_seal_by_another_key_proves_nothing(batuta: Run, log: Path, sealed: Path, tmp_path: Path) -> None:
    other = {"XDG_DATA_HOME": str(tmp_path / "mallory")}
    batuta("pacha", "keygen", "--identity", "auditor@example.com", env=other, code=0)
    batuta("serve", "audit", "seal", "--output", "forged.seal", env=other, code=0)
    assert "no trusted key signed this" in batuta("serve", "audit", "verify", "--sealed", "forged.seal", code=4).stderr
    batuta("serve", "audit", "verify", "--sealed", "today.seal", "--identity", "bob@example.com", code=4)
    batuta("pacha", "trust", "revoke", "auditor@example.com", code=0)
    batuta("serve", "audit", "verify", "--sealed", "today.seal", code=4)
    batuta("serve", "audit", "seal", "--output", "again.seal", code=4)
    assert not os.path.exists(sealed.with_name("again.seal"))


def test_a_changed_seal_is_refused(batuta: Run, sealed: Path) -> None:
    document = json.loads(sealed.read_bytes())
    document["payload"] = document["payload"][:-8] + "AAAAAAAA"
    sealed.write_text(json.dumps(document))
    assert batuta("serve", "audit", "verify", "--sealed", "today.seal").returncode in (2, 4)
    sealed.write_bytes(b"{}")
    assert "not a seal" in batuta("serve", "audit", "verify", "--sealed", "today.seal", code=2).stderr


def test_a_damaged_log_is_not_sealed(batuta: Run, log: Path, sealed: Path, work: Path) -> None:
    [file] = log.iterdir()
    file.write_bytes(file.read_bytes().replace(b"127.0.0.1", b"127.0.0.2", 1))
    batuta("serve", "audit", "seal", "--output", "second.seal", code=1)
    assert not (work / "second.seal").exists()


def test_prove_lists_each_connection_of_the_tier_and_says_that_none_left(batuta: Run, log: Path, sealed: Path) -> None:
    record(log, "1.2.3.4:443", tier=PrivacyTier.STANDARD)
    done = batuta("serve", "audit", "prove", "--tier", "sovereign", "--sealed", "today.seal", code=0)
    assert done.stdout.count("on this machine") == 3
    assert "3 sovereign connections, 0 refused; none left this machine" in done.stderr
    found = result(batuta("serve", "audit", "prove", "--json", code=0))
    assert (len(found["connections"]), found["left_the_machine"]) == (3, 0)
    assert result(batuta("serve", "audit", "prove", "--since", "2999-01-01", "--json", code=0))["connections"] == []


def test_prove_fails_when_a_connection_left(batuta: Run, log: Path) -> None:
    record(log, "127.0.0.1:8080", "10.0.0.7:8080")
    done = batuta("serve", "audit", "prove", code=6)
    assert "1 of 2 sovereign connections left this machine, to 10.0.0.7:8080" in done.stderr
    assert answer(batuta("serve", "audit", "prove", "--json", code=6))["result"]["left_the_machine"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--key", "auditor.pub"),
        ("prove", "--identity", "x"),
        ("prove", "--tier", "secret"),
        ("prove", "--since", "x"),
    ],
)
def test_wrong_usage_is_told(batuta: Run, log: Path, arguments: tuple[str, ...]) -> None:
    record(log, "127.0.0.1:8080")
    batuta("serve", "audit", *arguments, code=2)
