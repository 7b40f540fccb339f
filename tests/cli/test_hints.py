"""Hints that can be followed: commands of another group, secrets that a CI system changed, links to nowhere."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import own_key, shows_no, signed_model
from tests.conftest import BATUTA, Run

KEY = SigningKey.generate("alice")
PEM = KEY.to_pem().decode()
PUBLIC = KEY.verifying_key.to_pem().decode()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("pacha", "revoke", "x"), "'batuta pacha trust revoke'"),
        (("pacha", "retire", "x"), "'batuta pacha trust retire'"),
        (("pacha", "rotate"), "'batuta pacha keys rotate'"),
        (("pacha", "gc"), "'batuta pacha store gc'"),
        (("pacha", "store", "rm", "x"), "'remove'"),
        (("pacha", "store", "ls"), "'list'"),
        (("pacha", "store", "delete", "x"), "'remove'"),
        (("pacha", "trust", "rm", "x"), "'remove'"),
        (("pacha", "keys", "generate"), "'batuta pacha keygen'"),
        (("pacha", "keys", "revoke", "x"), "'batuta pacha trust revoke'"),
        (("sign", "x"), "'batuta pacha sign'"),
        (("verify", "x"), "'batuta pacha verify' or 'batuta pacha store verify' or 'batuta serve audit verify'"),
        (("pach", "sign"), "'pacha'"),
        (("pacha", "trust", "revokee", "x"), "'revoke' or 'remove'"),
    ],
)
def test_a_command_of_another_group_or_tool_is_suggested(batuta: Run, arguments: tuple[str, ...], meant: str) -> None:
    done = batuta(*arguments, code=2)
    assert done.stderr.splitlines()[0].endswith(f", did you mean {meant}?")


def test_a_key_in_the_place_of_a_command_is_not_repeated(batuta: Run) -> None:
    shows_no(
        PEM.splitlines()[1], batuta("pacha", PEM, code=2), batuta(PEM, code=2), batuta("pacha", "trust", PEM, code=2)
    )


SPOILED: dict[str, Callable[[str], str]] = {
    "literal line breaks": lambda pem: pem.strip().replace("\n", "\\n"),
    "literal line breaks of Windows": lambda pem: pem.strip().replace("\n", "\\r\\n"),
    "literal line breaks and a last one": lambda pem: pem.replace("\n", "\\n"),
    "spaces": lambda pem: pem.strip().replace("\n", " "),
    "base64": lambda pem: base64.b64encode(pem.encode()).decode(),
    "base64 in lines": lambda pem: base64.encodebytes(pem.encode()).decode(),
    "base64url": lambda pem: base64.urlsafe_b64encode(pem.encode()).decode(),
    "double quotes": lambda pem: f'"{pem}"',
    "single quotes": lambda pem: f"'{pem.strip()}'\n",
    "quotes and literal line breaks": lambda pem: '"' + pem.replace("\n", "\\n") + '"',
    "carriage returns": lambda pem: pem.replace("\n", "\r\n"),
    "byte order mark": lambda pem: "\ufeff" + pem,
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_key_that_a_ci_system_changed_is_read(batuta: Run, work: Path, how: str) -> None:
    (work / "model").write_bytes(b"weights")
    secret = SPOILED[how](PEM)
    env = {"SIGNING_KEY": secret}
    done = batuta("pacha", "sign", "model", "--key", "env:SIGNING_KEY", "--identity", "alice", env=env, code=0)
    shows_no(PEM.splitlines()[1], done)
    (work / "alice.pub").write_text(SPOILED[how](PUBLIC), newline="")
    batuta("pacha", "verify", "model", "--key", "alice.pub", code=0)
    batuta("pacha", "keys", "import", "-", "--identity", "alice", input=secret.encode(), text=False, code=0)


@pytest.mark.parametrize("how", SPOILED)
def test_an_encrypted_or_ecdsa_key_that_a_ci_system_changed_is_read(
    batuta: Run, work: Path, tmp_path: Path, how: str
) -> None:
    (work / "model").write_bytes(b"weights")
    encrypted = KEY.to_pem(b"correct horse").decode()
    made = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        capture_output=True,
        check=True,
    )
    env = {"K": SPOILED[how](encrypted), "P": "correct horse", "EC": SPOILED[how](made.stdout.decode())}
    batuta("pacha", "sign", "model", "--key", "env:K", "--passphrase-env", "P", "--identity", "a", env=env, code=0)
    batuta("pacha", "sign", "model", "--oms-key", "env:EC", env=env, code=0)


@pytest.mark.parametrize("secret", ["aGVsbG8gd29ybGQ=", "'", '""', "-----BEGIN PRIVATE KEY-----\\nAAAA", "hello world"])
def test_what_is_no_key_after_all_is_an_error_that_does_not_repeat_it(batuta: Run, work: Path, secret: str) -> None:
    (work / "model").write_bytes(b"weights")
    done = batuta("pacha", "sign", "model", "--key", "env:K", "--identity", "a", env={"K": secret}, code=2)
    assert len(secret) < 3 or secret not in done.stderr


def test_a_secret_that_a_group_can_read_has_a_hint_that_works(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"weights")
    (work / "secret").write_bytes(KEY.to_pem())
    (work / "secret").chmod(0o440)
    done = batuta("pacha", "sign", "model", "--key", "secret", "--identity", "a", code=2)
    assert "mode 0440 lets others read" in done.stderr and "--key - < secret" in done.stderr
    line = f"{BATUTA} pacha sign model --identity a --key - < secret"
    batuta("pacha", "sign", "model", "--key", "-", "--identity", "a", input=KEY.to_pem().decode(), code=0)
    assert line.endswith(done.stderr.strip().rpartition(": ")[2])


def test_a_secret_on_a_read_only_file_system_is_not_to_be_chmodded(batuta: Run, work: Path, tmp_path: Path) -> None:
    mount = tmp_path / "secrets"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        (mount / "key").write_bytes(KEY.to_pem())
        (mount / "key").chmod(0o440)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        (work / "model").write_bytes(b"weights")
        done = batuta("pacha", "sign", "model", "--key", mount / "key", code=2)
        assert "chmod" not in done.stderr
        assert f"\n  --key - < {mount / 'key'}\n" in done.stderr
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("options", [(), ("--follow-symlinks",)])
def test_a_dangling_link_in_a_model_is_named_with_its_target(batuta: Run, work: Path, options: tuple[str, ...]) -> None:
    (work / "d").mkdir()
    (work / "d" / "f").touch()
    (work / "d" / "x").symlink_to("nowhere")
    done = batuta("pacha", "hash", "d", *options, code=2)
    assert done.stderr.startswith("error: d/x: is a link to nowhere, which does not exist\n")
    batuta("pacha", "hash", "d", "--ignore", "x", code=0)


def test_a_link_that_dangles_after_signing_is_a_difference(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "d").mkdir()
    (work / "d" / "f").write_bytes(b"1")
    (work / "there").write_bytes(b"2")
    (work / "d" / "x").symlink_to("../there")
    batuta("pacha", "sign", "d", "--follow-symlinks", code=0)
    batuta("pacha", "verify", "d", code=0)
    (work / "there").unlink()
    assert "x" in batuta("pacha", "verify", "d", code=3).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("hash", "x"),
        ("verify", "x"),
        ("sign", "x"),
        ("encrypt", "x"),
        ("inspect", "x"),
        ("store", "add", "x"),
        ("verify", "model", "--key", "x"),
        ("verify", "model", "--trust", "x"),
        ("verify", "model", "--signature", "x"),
        ("sign", "model", "--key", "x"),
        ("trust", "add", "n", "x"),
        ("hash", "--check", "x"),
    ],
)
def test_a_dangling_link_as_an_input_is_named_with_its_target(
    batuta: Run, home: Path, work: Path, arguments: tuple[str, ...]
) -> None:
    signed_model(work, own_key(home))
    (work / "x").symlink_to("nowhere")
    done = batuta("pacha", *arguments, env={"MODEL_KEY": "secret"}, code=1)
    assert "x: is a link to nowhere, which does not exist" in done.stderr


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),
        (b"secret\r", "secret\r"),
        (b"secret\r\r\n", "secret\r"),
        (b"secret \r\n", "secret "),
    ],
)
def test_one_line_end_of_a_password_file_is_dropped(batuta: Run, work: Path, content: bytes, password: str) -> None:
    (work / "f").write_bytes(b"weights")
    (work / "p").write_bytes(content)
    batuta("pacha", "encrypt", "f", "--format", "2", "--password-file", "p", code=0)
    (work / "f").unlink()
    batuta("pacha", "decrypt", "f.enc", env={"MODEL_KEY": password}, code=0)
    assert (work / "f").read_bytes() == b"weights"
