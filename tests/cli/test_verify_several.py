"""`batuta pacha verify` with several `--key` and `--identity`, and with keys from a shell's process substitution."""

import subprocess
from pathlib import Path

import pytest

from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import own_key, result, revoke_key, signed_model, trust_key
from tests.conftest import BATUTA, Run


def public_file(work: Path, key: SigningKey, name: str) -> Path:
    path = work / f"{name}.pub"
    path.write_bytes(key.verifying_key.to_pem())
    return path


@pytest.fixture
def keys(work: Path) -> dict[str, SigningKey]:
    """Three keys with their public halves in files; `alice` signed the model."""
    made = {name: SigningKey.generate(name) for name in ("alice", "bob", "carol")}
    for name, key in made.items():
        public_file(work, key, name)
    signed_model(work, made["alice"])
    return made


@pytest.mark.parametrize("order", [("alice.pub", "bob.pub"), ("bob.pub", "alice.pub"), ("alice.pub",)])
def test_any_of_several_keys_is_accepted(batuta: Run, keys: dict[str, SigningKey], order: tuple[str, ...]) -> None:
    options = [word for name in order for word in ("--key", name)]
    done = batuta("pacha", "verify", "model", *options, "--json", code=0)
    assert [signer["key_id"] for signer in result(done)[0]["signers"]] == [keys["alice"].verifying_key.key_id]


def test_none_of_several_keys_is_exit_4(batuta: Run, keys: dict[str, SigningKey]) -> None:
    done = batuta("pacha", "verify", "model", "--key", "bob.pub", "--key", "carol.pub", code=4)
    assert f"signed by another key than those given: {keys['alice'].verifying_key.key_id}" in done.stderr


def test_a_revoked_key_is_refused_among_several(batuta: Run, home: Path, keys: dict[str, SigningKey]) -> None:
    revoke_key(home, keys["alice"])
    batuta("pacha", "verify", "model", "--key", "bob.pub", "--key", "alice.pub", code=4)


def test_any_of_several_identities_is_accepted(batuta: Run, home: Path, keys: dict[str, SigningKey]) -> None:
    trust_key(home, keys["alice"], "alice")
    batuta("pacha", "verify", "model", "--identity", "bob", "--identity", "alice", code=0)
    done = batuta("pacha", "verify", "model", "--identity", "bob", "--identity", "carol", code=4)
    assert "not by bob or carol" in done.stderr


def test_an_empty_identity_accepts_no_signer(batuta: Run, home: Path, keys: dict[str, SigningKey]) -> None:
    trust_key(home, keys["alice"], "alice")
    batuta("pacha", "verify", "model", "--identity", "", code=4)


def test_identity_is_checked_together_with_several_keys(batuta: Run, keys: dict[str, SigningKey]) -> None:
    options = ("--key", "alice.pub", "--key", "bob.pub")
    batuta("pacha", "verify", "model", *options, "--identity", "alice", code=0)
    batuta("pacha", "verify", "model", *options, "--identity", "bob", code=4)


def test_a_key_given_twice_counts_once(batuta: Run, work: Path, keys: dict[str, SigningKey]) -> None:
    options = ("--key", "alice.pub", "--key", "alice.pub", "--require", "2")
    batuta("pacha", "verify", "model", *options, code=4)
    (work / "b.sig").write_bytes((work / "model.sig").read_bytes())
    batuta("pacha", "verify", "model", *options, "--signature", "model.sig", "--signature", "b.sig", code=4)


def test_two_of_several_keys_can_be_required(batuta: Run, work: Path, keys: dict[str, SigningKey]) -> None:
    (work / "model.sig").rename(work / "alice.sig")
    signed_model(work, keys["bob"])
    signatures = ("--signature", "alice.sig", "--signature", "model.sig", "--require", "2")
    given = ("--key", "alice.pub", "--key", "bob.pub")
    batuta("pacha", "verify", "model", *signatures, *given, code=0)
    batuta("pacha", "verify", "model", *signatures, "--key", "alice.pub", "--key", "carol.pub", code=4)


def test_stdin_can_be_one_of_several_keys_and_not_two(batuta: Run, work: Path, keys: dict[str, SigningKey]) -> None:
    given = (work / "alice.pub").read_text()
    batuta("pacha", "verify", "model", "--key", "bob.pub", "--key", "-", input=given, code=0)
    batuta("pacha", "verify", "model", "--key", "-", "--key", "-", input=given, code=2)


@pytest.mark.parametrize(
    "line",
    [
        "verify model --key <(cat alice.pub)",
        "verify model --key <(cat bob.pub) --key <(sleep 0.1; cat alice.pub)",
        "verify model --key alice.pub --signature <(cat model.sig)",
        "trust add alice <(cat alice.pub)",
        "inspect <(cat model.sig)",
        f"hash --check <({BATUTA} pacha hash model)",
    ],
)
def test_small_files_can_come_from_a_process_substitution(
    environment: dict[str, str], work: Path, keys: dict[str, SigningKey], line: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{BATUTA} pacha {line}"], env=environment, cwd=work, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_long_stream_is_not_read_as_a_key(environment: dict[str, str], work: Path, home: Path) -> None:
    signed_model(work, own_key(home))
    line = f"{BATUTA} pacha verify model --key <(cat /dev/zero)"
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=work, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "larger than 65,536 bytes" in done.stderr
