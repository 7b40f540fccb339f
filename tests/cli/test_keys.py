"""`batuta pacha keygen` and `batuta pacha keys`: pairs on disk, foreign formats, and what must never be shown."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import (
    answer,
    hints,
    in_a_shell,
    keys_dir,
    names_in,
    own_key,
    result,
    revoke_key,
    shows_no,
    trust_file,
    trust_key,
)
from tests.conftest import Run

ALICE = "alice@example.com"
PASSPHRASE = "correct horse battery"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_keygen_makes_a_trusted_pair_that_openssl_reads(batuta: Run, home: Path) -> None:
    done = batuta("pacha", "keygen", "--identity", ALICE, code=0)
    private, public = keys_dir(home) / f"{ALICE}.key", keys_dir(home) / f"{ALICE}.pub"
    for words in (ALICE, str(private), str(public), "not encrypted", f"batuta pacha trust add {ALICE} ed25519:"):
        assert words in done.stdout
    assert done.stderr == ""
    assert "ED25519 Private-Key" in openssl("pkey", "-in", private, "-noout", "-text")
    assert openssl("pkey", "-in", private, "-pubout") == public.read_text()
    shows_no(private.read_text().splitlines()[1], done)
    [entry] = result(batuta("pacha", "trust", "list", "--json", code=0))["keys"]
    assert entry["name"] == ALICE
    assert entry["key_id"] in done.stdout


def test_keys_are_private_from_the_start_whatever_the_umask(batuta: Run, home: Path, work: Path) -> None:
    batuta("pacha", "keygen", code=0, umask=0)
    assert [mode(p) for p in (home / "data/batuta", keys_dir(home), trust_file(home).parent)] == [0o700] * 3
    assert mode(keys_dir(home) / "default.key") == mode(trust_file(home)) == 0o600
    batuta("pacha", "keygen", "--output", work / "ci.key", code=0, umask=0o022)
    assert (mode(work / "ci.key"), mode(work / "ci.pub")) == (0o600, 0o644)


@pytest.mark.parametrize("identity", ["it's Zoë; $(touch x)", "-rf"])
def test_the_line_that_trusts_a_key_elsewhere_can_be_copied_into_a_shell(
    batuta: Run, environment: dict[str, str], home: Path, identity: str
) -> None:
    done = batuta("pacha", "keygen", f"--identity={identity}", code=0)
    line = done.stdout.splitlines()[-1].strip()
    elsewhere = environment | {"XDG_DATA_HOME": str(home / "elsewhere")}
    in_a_shell(line, elsewhere, home)
    listed = result(batuta("pacha", "trust", "list", "--json", env=elsewhere))["keys"]
    assert [k["name"] for k in listed] == [identity]
    assert not (home / "x").exists()


def test_a_pair_is_replaced_only_by_force(batuta: Run, home: Path) -> None:
    batuta("pacha", "keygen", code=0)
    private = keys_dir(home) / "default.key"
    before = private.read_bytes()
    done = batuta("pacha", "keygen", code=2)
    assert f"{private}: already exists" in done.stderr
    assert "--force" in done.stderr
    assert private.read_bytes() == before
    batuta("pacha", "keygen", "--force", code=0)
    assert private.read_bytes() != before
    assert openssl("pkey", "-in", private, "-pubout") == private.with_suffix(".pub").read_text()
    private.unlink()  # the public half alone is not overwritten either
    batuta("pacha", "keygen", code=2)
    assert names_in(keys_dir(home)) == ["default.pub"]


def test_keygen_writes_a_pair_elsewhere_and_never_half_of_one(batuta: Run, work: Path) -> None:
    found = result(batuta("pacha", "keygen", "--output", "ci", "--json", code=0))
    assert (found["private_path"], found["public_path"]) == ("ci", "ci.pub")
    assert names_in(work) == ["ci", "ci.pub"]
    (work / "other.pub").mkdir()
    batuta("pacha", "keygen", "--output", "other.key", code=2)
    batuta("pacha", "keygen", "--output", "other.key", "--force", code=2)
    batuta("pacha", "keygen", "--output", "missing/other.key", code=1)
    done = batuta("pacha", "keygen", "--output", "-", code=2)
    assert "two files" in done.stderr
    assert names_in(work) == ["ci", "ci.pub", "other.pub"]


def test_a_passphrase_encrypts_the_key_and_is_shown_nowhere(batuta: Run, home: Path) -> None:
    with_passphrase = {"KEY_PASS": PASSPHRASE}
    done = batuta("pacha", "keygen", "--passphrase-env", "KEY_PASS", env=with_passphrase, code=0)
    assert "encrypted with the passphrase" in done.stdout
    private = keys_dir(home) / "default.key"
    assert private.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    public = openssl("pkey", "-in", private, "-passin", f"pass:{PASSPHRASE}", "-pubout")
    assert public == private.with_suffix(".pub").read_text()
    [listed] = result(batuta("pacha", "keys", "list", "--json", env=with_passphrase, code=0))
    assert listed["encrypted"] is True
    shows_no(PASSPHRASE, done)


def test_a_passphrase_variable_that_is_unset_or_empty_makes_no_unencrypted_key(batuta: Run, home: Path) -> None:
    unset = batuta("pacha", "keygen", "--passphrase-env", "KEY_PASS", code=2)
    empty = batuta("pacha", "keygen", "--passphrase-env", "KEY_PASS", env={"KEY_PASS": ""}, code=2)
    assert "KEY_PASS" in unset.stderr and "KEY_PASS" in empty.stderr
    assert not keys_dir(home).exists()


@pytest.mark.parametrize(
    ("identity", "stem"),
    [
        ("../../etc/passwd", "%2E./../etc/passwd".replace("/", "%2F")),
        ("a/b c", "a%2Fb%20c"),
        ("..", "%2E."),
        ("-rf", "%2Drf"),
        (".hidden", "%2Ehidden"),
        ("Zoë", "Zo%C3%AB"),
        ("x" * 200, "x" * 200),
        ("ü" * 33, "%C3%BC" * 33),
    ],
)
def test_an_odd_identity_is_a_file_in_the_keys_directory_and_comes_back_whole(
    batuta: Run, home: Path, work: Path, identity: str, stem: str
) -> None:
    batuta("pacha", "keygen", f"--identity={identity}", code=0)
    assert names_in(keys_dir(home)) == [f"{stem}.key", f"{stem}.pub"]
    assert [k["identity"] for k in result(batuta("pacha", "keys", "list", "--json"))] == [identity]
    (work / "model").write_bytes(b"")
    batuta("pacha", "sign", "model", f"--identity={identity}", code=0)
    found = result(batuta("pacha", "verify", "model", f"--identity={identity}", "--json", code=0))
    assert found[0]["signers"][0]["name"] == identity


@pytest.mark.parametrize(
    "identity",
    ["x" * 201, "é" * 101, "a\nb", "a\x1b[31m", "alice\u202egpj", " ", b"\xff".decode(errors="surrogateescape")],
)
def test_an_identity_that_could_deceive_is_refused_wherever_one_is_given(
    batuta: Run, home: Path, work: Path, identity: str
) -> None:
    (work / "k.pem").write_bytes(SigningKey.generate().to_pem())
    (work / "k.pem").chmod(0o600)
    (work / "model").write_bytes(b"x")
    inline = SigningKey.generate().verifying_key.inline
    runs = [
        batuta("pacha", "keygen", "--identity", identity, code=2),
        batuta("pacha", "keys", "import", "k.pem", "--identity", identity, code=2),
        batuta("pacha", "sign", "model", "--key", "k.pem", "--identity", identity, code=2),
        batuta("pacha", "trust", "add", identity, inline, code=2),
    ]
    for done in runs:
        assert "identity" in done.stderr
        assert "\x1b" not in done.stderr and "\u202e" not in done.stderr
    assert names_in(work) == ["k.pem", "model"]
    assert not trust_file(home).exists() and not keys_dir(home).exists()


@pytest.mark.parametrize("character", ["\u200b", "\u00ad", "\U000e0061", "\u3164"])
def test_a_name_with_invisible_characters_is_refused_wherever_one_is_given(
    batuta: Run, home: Path, work: Path, character: str
) -> None:
    name = f"ali{character}ce"
    key = SigningKey.generate()
    (work / "model").write_bytes(b"x")
    (work / "k.pem").write_bytes(key.to_pem())
    (work / "k.pem").chmod(0o600)
    for arguments in (
        ["pacha", "keygen", "--identity", name],
        ["pacha", "keygen", "--identity", name, "--output", "new.key"],
        ["pacha", "keys", "import", "k.pem", "--identity", name],
        ["pacha", "keys", "export", name],
        ["pacha", "trust", "add", name, key.verifying_key.inline],
        ["pacha", "sign", "model", "--identity", name],
        ["pacha", "sign", "model", "--key", "k.pem", "--identity", name],
        ["pacha", "verify", "model", "--identity", name],
        ["pacha", "store", "add", "model", "--name", name],
        ["config", "set", "pacha.default_key", name],
    ):
        done = batuta(*arguments, code=2)
        assert f"ali{character.encode('unicode_escape').decode().replace('xad', 'u00ad')}ce" in done.stderr, arguments
        assert character not in done.stderr
    done = batuta("pacha", "sign", "model", env={"BATUTA_PACHA_DEFAULT_KEY": name}, code=2)
    assert "invisible" in done.stderr and character not in done.stderr
    assert names_in(work) == ["k.pem", "model"]
    assert not trust_file(home).exists() and not keys_dir(home).exists()


def test_an_identity_too_long_for_a_file_name_is_refused_with_the_way_round(batuta: Run, work: Path) -> None:
    identity = "ü" * 100  # 200 bytes, which a signature can hold, and 600 once they are escaped
    done = batuta("pacha", "keygen", "--identity", identity, code=2)
    assert "too long for a file name" in done.stderr and "--output" in done.stderr
    batuta("pacha", "keygen", "--identity", identity, "--output", "long.key", code=0)
    (work / "model").write_bytes(b"x")
    batuta("pacha", "sign", "model", "--key", "long.key", "--identity", identity, code=0)
    batuta("pacha", "verify", "model", "--identity", identity, code=0)


def test_keys_are_listed_and_an_empty_list_says_how_to_begin(batuta: Run, home: Path) -> None:
    done = batuta("pacha", "keys", "list", code=0)
    assert done.stdout == ""
    assert "batuta pacha keygen" in done.stderr
    key = own_key(home)
    done = batuta("pacha", "keys", "list", code=0)
    assert done.stdout.splitlines()[0].split() == ["IDENTITY", "KEY", "ID", "STATE", "ENCRYPTED", "FILE"]
    assert key.verifying_key.key_id in done.stdout


def test_a_private_key_that_others_can_read_is_refused_everywhere(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    private = keys_dir(home) / f"{ALICE}.key"
    (work / "model").write_bytes(b"x")
    secret = private.read_text().splitlines()[1]
    for loose in (0o604, 0o640, 0o622, 0o620):
        private.chmod(loose)
        runs = [
            batuta("pacha", "sign", "model", code=2),
            batuta("pacha", "sign", "model", "--key", private, code=2),
            batuta("pacha", "keys", "import", private, "--identity", "other", code=2),
        ]
        for done in runs:
            assert f"{loose:04o}" in done.stderr
            assert f"hint: chmod 600 {private}" in done.stderr
            shows_no(secret, done)
    assert answer(batuta("pacha", "sign", "model", "--json"))["error"]["kind"] == "unsafe_permissions"
    assert names_in(work) == ["model"]
    private.chmod(0o400)
    batuta("pacha", "sign", "model", code=0)


def test_the_hint_that_mends_a_key_file_can_be_copied(batuta: Run, environment: dict[str, str], work: Path) -> None:
    key = work / "my key; touch x"
    key.write_bytes(SigningKey.generate().to_pem())
    key.chmod(0o644)
    (work / "model").write_bytes(b"x")
    done = batuta("pacha", "sign", "model", "--key", key.name, code=2)
    in_a_shell(hints(done)[0], environment, work)
    assert mode(key) == 0o600
    assert names_in(work) == ["model", key.name]


def test_export_writes_what_openssl_and_ssh_and_trust_add_read(batuta: Run, home: Path, work: Path) -> None:
    key = own_key(home)
    for format in ("pem", "openssh", "inline"):
        done = batuta("pacha", "keys", "export", ALICE, "--format", format, code=0)
        (work / format).write_text(done.stdout)
        assert done.stderr == ""
    assert "ED25519 Public-Key" in openssl("pkey", "-pubin", "-in", work / "pem", "-noout", "-text")
    listed = subprocess.run(["ssh-keygen", "-l", "-f", work / "openssh"], capture_output=True, text=True, check=True)
    assert "(ED25519)" in listed.stdout
    fresh = {"XDG_DATA_HOME": str(home / "elsewhere")}
    for format in ("pem", "openssh", "inline"):
        found = result(batuta("pacha", "trust", "add", "alice", format, "--json", env=fresh, code=0))
        assert found["key_id"] == key.verifying_key.key_id
    by_stdin = batuta("pacha", "trust", "add", "alice", "-", "--json", input=(work / "pem").read_text(), env=fresh)
    assert result(by_stdin)["key_id"] == key.verifying_key.key_id


def test_export_never_writes_a_private_key_nor_over_a_file(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "out").write_text("precious")
    assert "already exists" in batuta("pacha", "keys", "export", "--output", "out", code=2).stderr
    assert (work / "out").read_text() == "precious"
    batuta("pacha", "keys", "export", "--output", "out", "--force", code=0)
    assert (work / "out").read_text() == (keys_dir(home) / f"{ALICE}.pub").read_text()
    assert "pem, openssh or inline" in batuta("pacha", "keys", "export", "--format", "der", code=2).stderr
    assert "bob" in batuta("pacha", "keys", "export", "bob", code=1).stderr
    own_key(home, "bob")
    done = batuta("pacha", "keys", "export", code=2)
    assert f"{ALICE}, bob" in done.stderr
    assert "batuta pacha keys export IDENTITY" in done.stderr


def test_the_hint_for_a_missing_key_can_be_copied(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"x")
    done = batuta("pacha", "sign", "model", "--identity", "Zoë Smith", code=1)
    assert "hint: batuta pacha keygen --identity 'Zoë Smith'" in done.stderr
    assert "batuta pacha keygen --identity" in batuta("pacha", "sign", "model", code=1).stderr


def test_keys_of_openssl_ssh_keygen_and_the_rust_crate_are_imported(batuta: Run, home: Path, work: Path) -> None:
    raw = SigningKey.generate()
    seed = subprocess.run(["openssl", "pkey", "-outform", "DER"], input=raw.to_pem(), capture_output=True, check=True)
    import base64

    body = base64.b64encode(seed.stdout[-32:]).decode()
    label = "PACHA ED25519 SIGNING KEY"
    (work / "pacha").write_text(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    openssl("genpkey", "-algorithm", "ed25519", "-out", work / "openssl")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "ssh"], check=True)
    (work / "model").write_bytes(b"x")
    for source in ("pacha", "openssl", "ssh"):
        (work / source).chmod(0o600)
        done = batuta("pacha", "keys", "import", source, "--identity", source, "--json", code=0)
        assert (
            openssl("pkey", "-in", keys_dir(home) / f"{source}.key", "-pubout")
            == Path(result(done)["public_path"]).read_text()
        )
        batuta("pacha", "sign", "model", "--identity", source, "--force", code=0)
        batuta("pacha", "verify", "model", "--identity", source, code=0)
        shows_no((work / source).read_text().splitlines()[1], done)
    listed = result(batuta("pacha", "keys", "list", "--json"))
    assert {k["key_id"] for k in listed if k["identity"] == "pacha"} == {raw.verifying_key.key_id}
    ssh_public = (work / "ssh.pub").read_text().split()[1]
    assert batuta("pacha", "keys", "export", "ssh", "--format", "openssh").stdout.split()[1] == ssh_public


def test_an_encrypted_ssh_key_keeps_its_passphrase(batuta: Run, home: Path, work: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", work / "ssh"], check=True)
    done = batuta("pacha", "keys", "import", "ssh", code=2)
    assert "--passphrase-env" in done.stderr
    wrong = batuta("pacha", "keys", "import", "ssh", "--passphrase-env", "P", env={"P": "nonsense!"}, code=3)
    assert not keys_dir(home).exists()
    right = batuta("pacha", "keys", "import", "ssh", "--passphrase-env", "P", env={"P": PASSPHRASE}, code=0)
    shows_no("nonsense!", wrong)
    shows_no(PASSPHRASE, right)
    assert (keys_dir(home) / "default.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_a_key_comes_from_stdin_or_a_variable_for_ci(batuta: Run, home: Path, work: Path) -> None:
    pem = SigningKey.generate().to_pem().decode()
    secret = pem.splitlines()[1]
    batuta("pacha", "keys", "import", "-", "--identity", "ci", input=pem, code=0)
    (work / "model").write_bytes(b"x")
    runs = [
        batuta("pacha", "sign", "model", "--key", "-", "--identity", "ci", input=pem, code=0),
        batuta("pacha", "verify", "model", "--identity", "ci", code=0),
        batuta("pacha", "sign", "model", "--key", "env:K", "--identity", "ci", "--force", env={"K": pem}, code=0),
        batuta("pacha", "verify", "model", "--identity", "ci", code=0),
        batuta("pacha", "sign", "model", "--key", "env:K", "--force", env={"K": secret}, code=2),
        batuta("pacha", "sign", "model", "--key", "env:K", "--force", "--json", env={"K": pem[:60]}, code=2),
    ]
    shows_no(secret, *runs)
    shows_no(pem.splitlines()[1][:30], runs[-1])
    assert "K is not set" in batuta("pacha", "sign", "model", "--key", "env:K", code=2).stderr
    assert batuta("pacha", "sign", "model", "--key", "-", code=2).stderr.startswith("error: stdin: not a private key")


def test_a_key_of_another_kind_or_a_damaged_one_is_refused(batuta: Run, home: Path, work: Path) -> None:
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", work / "rsa")
    openssl("genpkey", "-algorithm", "x25519", "-out", work / "x25519")
    pem = SigningKey.generate().to_pem()
    (work / "cut").write_bytes(pem[:70])
    (work / "empty").write_bytes(b"")
    (work / "binary").write_bytes(bytes(range(256)))
    (work / "large").write_bytes(pem + b"\n" * 100_000)
    (work / "public").write_bytes(SigningKey.generate().verifying_key.to_pem())
    for path in work.iterdir():
        path.chmod(0o600)
    words = {
        "rsa": "not an Ed25519 key",
        "x25519": "not an Ed25519 key",
        "cut": "private key",
        "empty": "not a private key",
        "binary": "not a private key",
        "large": "too large",
        "public": "is a public key",
    }
    for name, word in words.items():
        done = batuta("pacha", "keys", "import", name, code=2)
        assert done.stderr.startswith(f"error: {name}: ") and word in done.stderr
    assert "missing: no such file" in batuta("pacha", "keys", "import", "missing", code=1).stderr
    assert "is a directory" in batuta("pacha", "keys", "import", ".", code=2).stderr
    assert not keys_dir(home).exists() and not trust_file(home).exists()


def test_import_refuses_a_key_that_is_revoked_or_is_someone_else_before_anything_is_written(
    batuta: Run, home: Path, work: Path
) -> None:
    key = SigningKey.generate()
    (work / "k").write_bytes(key.to_pem())
    (work / "k").chmod(0o600)
    trust_key(home, key, "bob")
    before = trust_file(home).read_bytes()
    done = batuta("pacha", "keys", "import", "k", "--identity", "alice", code=2)
    assert "already trusted as bob" in done.stderr
    assert trust_file(home).read_bytes() == before
    revoke_key(home, key, "stolen")
    done = batuta("pacha", "keys", "import", "k", "--identity", "bob", code=2)
    assert "revoked" in done.stderr and "stolen" in done.stderr
    assert not keys_dir(home).exists()


def test_a_damaged_trust_store_stops_keygen_and_import_before_a_key_is_written(
    batuta: Run, home: Path, work: Path
) -> None:
    trust_file(home).parent.mkdir(parents=True)
    trust_file(home).write_text("[[key]]\nname = 3\n")
    (work / "k").write_bytes(SigningKey.generate().to_pem())
    (work / "k").chmod(0o600)
    for arguments in (["keygen"], ["keygen", "--output", "ci.key"], ["keys", "import", "k"]):
        done = batuta("pacha", *arguments, code=1)
        assert "trust store is damaged" in done.stderr
        assert str(trust_file(home)) in done.stderr
    assert names_in(work) == ["k"] and not keys_dir(home).exists()
    assert trust_file(home).read_text() == "[[key]]\nname = 3\n"


def test_a_home_that_cannot_be_written_is_an_error_that_names_it(batuta: Run, home: Path) -> None:
    (home / "data").write_text("a file where a directory is due")
    done = batuta("pacha", "keygen", code=1)
    assert str(home / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_file_may_be_a_pipe_as_from_a_secret_manager(
    environment: dict[str, str], work: Path, batuta: Run
) -> None:
    (work / "model").write_bytes(b"x")
    pem = SigningKey.generate().to_pem()
    read, write = os.pipe()
    os.write(write, pem)
    os.close(write)
    batuta("pacha", "sign", "model", "--key", f"/dev/fd/{read}", code=0, pass_fds=[read])
    os.close(read)
    assert names_in(work) == ["model", "model.sig"]
