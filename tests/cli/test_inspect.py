"""`batuta pacha inspect`: what a file says about itself, without a secret and without a verdict."""

import os
import resource
from pathlib import Path

import pytest

from batuta_cli.pacha.encryption import encrypt_model
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from tests.cli.support import answer, bundle, hints, result, signed_model
from tests.conftest import Run

ALICE = "alice@example.com"


def test_a_signature_is_shown_and_nothing_of_it_is_believed(batuta: Run, work: Path) -> None:
    key = SigningKey.generate(ALICE)
    signed_model(work, key)
    done = batuta("pacha", "inspect", "model.sig", code=0)
    for words in (ALICE, key.verifying_key.key_id, "model", "blake3:", "bundle"):
        assert words in done.stdout
    assert "nothing was verified" in done.stderr
    found = result(batuta("pacha", "inspect", "model.sig", "--json", code=0))
    assert (found["kind"], found["format"], found["claimed_identity"]) == ("signature", "bundle", ALICE)
    assert found["signatures"] == [{"keyid": key.verifying_key.key_id}]
    assert found["files"][0]["size"] == 7
    by_pipe = batuta("pacha", "inspect", "-", "--json", input=(work / "model.sig").read_text(), code=0)
    assert result(by_pipe) == found
    sign_path(work / "model", key, format="pacha1").save(work / "p.sig")
    found = result(batuta("pacha", "inspect", "p.sig", "--json", code=0))
    assert (found["format"], found["binds"], found["claimed_identity"]) == ("pacha1", ["content"], ALICE)


@pytest.mark.parametrize("format", [1, 2])
def test_an_encrypted_file_is_described_without_its_password(batuta: Run, work: Path, format: int) -> None:
    data = encrypt_model(b"x" * 1000, "secret", format=format)
    (work / "x.enc").write_bytes(data)
    found = result(batuta("pacha", "inspect", "x.enc", "--json", code=0))
    assert (found["kind"], found["version"], found["plaintext_size"]) == ("encrypted", format, 1000)
    assert (found["kdf"], found["kdf_memory_kib"], found["kdf_passes"], found["kdf_lanes"]) == ("Argon2id", 65536, 3, 4)
    assert "Argon2id" in batuta("pacha", "inspect", "x.enc", code=0).stdout
    piped = batuta("pacha", "inspect", "-", "--json", input=data, text=False, code=0)
    assert piped.stdout.count(b'"plaintext_size": null') == 1  # type: ignore[arg-type]
    with open(work / "x.enc", "rb") as file:
        redirected = batuta("pacha", "inspect", f"/dev/fd/{file.fileno()}", code=0, pass_fds=[file.fileno()])
    assert "1000" in redirected.stdout


def test_what_is_neither_is_exit_2_and_says_what_may_have_been_meant(batuta: Run, work: Path) -> None:
    model = signed_model(work, SigningKey.generate(ALICE), "my model")
    done = batuta("pacha", "inspect", model.name, code=2)
    assert "my model: neither a signature nor an encrypted file" in done.stderr
    assert hints(done) == ["batuta pacha inspect 'my model.sig'"]
    damaged = {
        "empty": b"",
        "binary": bytes(range(256)),
        "magic": b"PACHAEN",
        "header": b"PACHAENC\x01",
        "version": b"PACHAENC\x09" + bytes(200),
        "cut": (work / "my model.sig").read_bytes()[:200],
        "object": b"{}",
        "escape": b'{"mediaType": "\x1b[31m"}',
    }
    for name, data in damaged.items():
        (work / name).write_bytes(data)
        done = batuta("pacha", "inspect", name, code=2)
        assert done.stderr.startswith(f"error: {name}: ")
        assert "\x1b" not in done.stderr and "Traceback" not in done.stderr
        assert batuta("pacha", "inspect", "-", input=data, text=False).returncode == 2
    assert "missing: no such file" in batuta("pacha", "inspect", "missing", code=1).stderr
    assert "is a directory" in batuta("pacha", "inspect", ".", code=2).stderr
    os.mkfifo(work / "fifo")
    assert "is a FIFO" in batuta("pacha", "inspect", "fifo", code=2).stderr
    with open(work / "large.sig", "wb") as file:
        file.write(b"{")
        file.truncate(65 << 20)
    failed = answer(batuta("pacha", "inspect", "large.sig", "--json", code=2))
    assert "larger than 67,108,864 bytes" in failed["error"]["message"]


def test_a_hostile_key_derivation_is_described_or_refused_but_never_run(batuta: Run, work: Path) -> None:
    good = encrypt_model(b"x", "secret", format=2)

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    for memory, code in ((100 * 1024 * 1024, 2), (0, 2), (1024 * 1024, 0)):
        (work / "x.enc").write_bytes(good[:54] + memory.to_bytes(4, "big") + good[58:])
        done = batuta("pacha", "inspect", "x.enc", code=code, preexec_fn=little_memory)
        assert f"{memory}" in (done.stdout + done.stderr).replace(",", "")


def test_names_inside_a_signature_never_drive_the_terminal(batuta: Run, work: Path) -> None:
    (work / "m").mkdir()
    (work / "m" / "a\n\x1b[31mred").write_bytes(b"x")
    for i in range(30):
        (work / "m" / f"{i}").write_bytes(b"x")
    (work / "m.sig").write_bytes(bundle(work / "m", SigningKey.generate(), identity="x", name="m\x1b[2J"))
    done = batuta("pacha", "inspect", "m.sig", code=0)
    assert "\x1b" not in done.stdout and "m\\x1b[2J" in done.stdout
    assert "and 11 more" in done.stdout
    assert len(result(batuta("pacha", "inspect", "m.sig", "--json"))["files"]) == 31
