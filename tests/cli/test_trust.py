"""`batuta pacha trust`: whose signatures count here, from the words that are typed to the verdict of `verify`."""

import datetime as dt
import subprocess
import tomllib
from pathlib import Path

import pytest
from blake3 import blake3

from batuta_cli.pacha import trust
from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import (
    answer,
    bundle,
    forget_trust,
    hints,
    in_a_shell,
    keys_dir,
    names_in,
    own_key,
    result,
    shows_no,
    signed_model,
    trust_file,
    trust_key,
)
from tests.conftest import BATUTA, Run


@pytest.fixture
def bob(work: Path) -> SigningKey:
    """A signer who is not trusted yet; `model` is signed by him, `bob.pub` is his key."""
    key = SigningKey.generate("bob")
    signed_model(work, key)
    (work / "bob.pub").write_bytes(key.verifying_key.to_pem())
    return key


@pytest.mark.parametrize("name", ["Bob's; touch x", "-rf"])
def test_an_unknown_signer_comes_with_the_line_that_trusts_him(
    batuta: Run, environment: dict[str, str], work: Path, name: str
) -> None:
    signed_model(work, SigningKey.generate(name))
    done = batuta("pacha", "verify", "model", code=4)
    line = hints(done)[-1]
    assert line.startswith("batuta pacha trust add ")
    in_a_shell(line, environment, work)
    batuta("pacha", "verify", "model", code=0)
    assert names_in(work) == ["model", "model.sig"]


def test_trust_is_given_by_file_by_stdin_and_inline_and_taken_away(batuta: Run, bob: SigningKey) -> None:
    pem, inline = bob.verifying_key.to_pem().decode(), bob.verifying_key.inline
    for key, fed in (("bob.pub", None), ("-", pem), (inline, None)):
        batuta("pacha", "verify", "model", code=4)
        done = batuta("pacha", "trust", "add", "bob", key, input=fed, code=0)
        assert bob.verifying_key.key_id in done.stdout
        batuta("pacha", "verify", "model", code=0)
        assert "is no longer trusted" in batuta("pacha", "trust", "remove", "bob", code=0).stdout
    batuta("pacha", "verify", "model", code=4)
    assert batuta("pacha", "trust", "list", code=0).stdout == ""


@pytest.mark.parametrize("way", ["name", "id", "start of the id", "inline", "file"])
def test_a_trusted_key_can_be_meant_in_every_way(batuta: Run, home: Path, bob: SigningKey, way: str) -> None:
    trust_key(home, bob, "bob")
    public = bob.verifying_key
    meant = {"name": "bob", "id": public.key_id, "start of the id": public.key_id[:8].upper(), "inline": public.inline}
    batuta("pacha", "trust", "remove", meant.get(way, "bob.pub"), code=0)
    batuta("pacha", "verify", "model", code=4)


def test_a_name_that_means_several_keys_or_none_changes_nothing(batuta: Run, home: Path, bob: SigningKey) -> None:
    second = SigningKey.generate()
    trust_key(home, bob, "bob")
    trust_key(home, second, "bob")
    before = trust_file(home).read_bytes()
    for command in (["remove", "bob"], ["revoke", "bob"], ["retire", "bob", "--from", "2020-01-01"]):
        done = batuta("pacha", "trust", *command, code=2)
        assert bob.verifying_key.key_id in done.stderr and second.verifying_key.key_id in done.stderr
    for command in (["remove", "eve"], ["revoke", "eve"], ["retire", "eve", "--from", "2020-01-01"]):
        done = batuta("pacha", "trust", *command, code=1)
        assert "eve" in done.stderr and "batuta pacha trust list" in done.stderr
    assert trust_file(home).read_bytes() == before


def test_a_revoked_key_verifies_nothing_and_stays_revoked_after_it_is_removed(
    batuta: Run, home: Path, work: Path, bob: SigningKey
) -> None:
    trust_key(home, bob, "bob")
    done = batuta("pacha", "trust", "revoke", "bob", "--reason", "laptop stolen", code=0)
    assert bob.verifying_key.key_id in done.stdout
    for after in (None, ["remove", "bob"]):
        if after:
            batuta("pacha", "trust", *after, code=0)
        failed = batuta("pacha", "verify", "model", "--json", code=4)
        assert answer(failed)["error"]["kind"] == "revoked_signer"
        assert "laptop stolen" in answer(failed)["error"]["message"]
        batuta("pacha", "verify", "model", "--key", "bob.pub", code=4)
        done = batuta("pacha", "trust", "add", "bob", "bob.pub", code=2)
        assert "stays revoked" in done.stderr
    (work / "model.sig").write_bytes(
        bundle(work / "model", bob, identity="bob", created=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    )
    batuta("pacha", "verify", "model", code=4)
    listed = batuta("pacha", "trust", "list", code=0).stdout
    assert "REVOKED" in listed and "laptop stolen" in listed


def test_a_key_that_was_never_trusted_can_be_revoked_by_file_inline_or_stdin(
    batuta: Run, home: Path, bob: SigningKey
) -> None:
    pem = bob.verifying_key.to_pem().decode()
    for meant, fed in ((bob.verifying_key.inline, None), ("bob.pub", None), ("-", pem)):
        forget_trust(home)
        batuta("pacha", "trust", "revoke", meant, input=fed, code=0)
        batuta("pacha", "verify", "model", "--key", "bob.pub", code=4)


def test_revoking_again_keeps_the_first_date_and_reason_and_says_so(batuta: Run, home: Path, bob: SigningKey) -> None:
    batuta("pacha", "trust", "revoke", "bob.pub", "--reason", "stolen", code=0)
    before = trust_file(home).read_bytes()
    told = batuta("pacha", "trust", "revoke", "bob.pub", "--reason", "other", code=0).stdout
    assert f"the key {bob.verifying_key.key_id} was already revoked on {trust.now():%Y-%m-%d}: stolen" in told
    again = result(batuta("pacha", "trust", "revoke", "bob.pub", "--reason", "other", "--json", code=0))
    assert again["reason"] == "stolen"
    assert again["at"].endswith("Z")
    assert trust_file(home).read_bytes() == before


def test_a_retired_key_keeps_what_it_signed_before_and_the_command_says_what_it_assumes(
    batuta: Run, home: Path, work: Path, bob: SigningKey
) -> None:
    trust_key(home, bob, "bob")
    today = trust.now()
    done = batuta("pacha", "trust", "retire", "bob", "--from", f"{today - dt.timedelta(days=30):%Y-%m-%d}", code=0)
    assert "never stolen" in done.stderr
    assert f"batuta pacha trust revoke {bob.verifying_key.key_id}" in done.stderr
    assert done.stdout.rstrip().endswith("T00:00:00Z")
    failed = batuta("pacha", "verify", "model", "--json", code=4)
    assert answer(failed)["error"]["kind"] == "not_valid_now"
    old = bundle(work / "model", bob, identity="bob", created=today - dt.timedelta(days=60))
    (work / "model.sig").write_bytes(old)
    batuta("pacha", "verify", "model", code=0)
    assert "until" in batuta("pacha", "trust", "list").stdout


def test_a_key_can_count_for_a_time_only(batuta: Run, work: Path, bob: SigningKey) -> None:
    batuta("pacha", "trust", "add", "bob", "bob.pub", "--valid-from", "2999-01-01", code=0)
    assert "2999-01-01T00:00:00Z" in batuta("pacha", "verify", "model", code=4).stderr
    batuta("pacha", "trust", "add", "bob", "bob.pub", "--valid-until", "2020-06-01T12:00:00+02:00", code=0)
    assert "2020-06-01T10:00:00Z" in batuta("pacha", "verify", "model", code=4).stderr
    assert "until 2020" in batuta("pacha", "trust", "add", "bob", "bob.pub", code=0).stdout  # widens nothing
    batuta("pacha", "verify", "model", code=4)
    batuta("pacha", "trust", "remove", "bob", code=0)
    batuta("pacha", "trust", "add", "bob", "bob.pub", code=0)
    batuta("pacha", "verify", "model", code=0)
    limits = ["--valid-from", "2021-01-01", "--valid-until", "2020-01-01"]
    assert "ends before it begins" in batuta("pacha", "trust", "add", "bob", "bob.pub", *limits, code=2).stderr


@pytest.mark.parametrize(
    "date", ["yesterday", "2026-13-01", "", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-10:00", "1\x1b[2J"]
)
def test_a_date_that_is_none_is_wrong_usage_and_says_what_one_looks_like(
    batuta: Run, home: Path, bob: SigningKey, date: str
) -> None:
    trust_key(home, bob, "bob")
    before = trust_file(home).read_bytes()
    for arguments in (["retire", "bob", "--from", date], ["add", "bob", "bob.pub", "--valid-from", date]):
        done = batuta("pacha", "trust", *arguments, code=2)
        assert "is not a date" in done.stderr
        assert "2026-11-23" in done.stderr
        assert "\x1b" not in done.stderr
    assert trust_file(home).read_bytes() == before


def test_one_key_is_one_signer(batuta: Run, home: Path, bob: SigningKey) -> None:
    batuta("pacha", "trust", "add", "bob", "bob.pub", code=0)
    done = batuta("pacha", "trust", "add", "eve", "bob.pub", code=2)
    assert "already trusted as bob" in done.stderr
    assert f"batuta pacha trust remove {bob.verifying_key.key_id}" in done.stderr


def test_what_is_no_public_key_is_not_trusted(batuta: Run, home: Path, work: Path, bob: SigningKey) -> None:
    (work / "private").write_bytes(bob.to_pem())
    (work / "binary").write_bytes(bytes(range(256)))
    (work / "empty").write_bytes(b"")
    (work / "large").write_bytes(b"x" * 100_000)
    rsa = subprocess.run(["openssl", "genrsa", "1024"], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=rsa, capture_output=True, check=True).stdout
    (work / "rsa").write_bytes(public)
    small = "ed25519:" + "A" * 10 + "=="
    for key in ("private", "binary", "empty", "large", "rsa", small, "ed25519:!", "."):
        done = batuta("pacha", "trust", "add", "x", key, code=2)
        shows_no(bob.to_pem().decode().splitlines()[1], done)
    assert "a public key is needed here" in batuta("pacha", "trust", "add", "x", "private").stderr
    assert "missing" in batuta("pacha", "trust", "add", "x", "missing", code=1).stderr
    assert not trust_file(home).exists()


def test_a_reason_may_hold_anything_and_never_drives_the_terminal(batuta: Run, home: Path, bob: SigningKey) -> None:
    undecodable = b"\xff".decode(errors="surrogateescape")
    batuta("pacha", "trust", "revoke", "bob.pub", "--reason", undecodable, code=2)
    assert not trust_file(home).exists()
    reason = 'ünder "quotes"\n[[key]]\x1b[31m'
    batuta("pacha", "trust", "revoke", "bob.pub", "--reason", reason, code=0)
    assert tomllib.loads(trust_file(home).read_text())["revoked"][0]["reason"] == reason
    for done in (batuta("pacha", "trust", "list", code=0), batuta("pacha", "verify", "model", code=4)):
        assert "ünder" in done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        "[[key]]\nname = 3\n",
        "not toml",
        "[[key]]\n",
        "[[keys]]\n",
        'key = "x"\n',
        "[[revoked]]\npublic_key = 'AAAA'\nat = 2020-01-01T00:00:00Z\nreason = ''\n",
        b"\xff",
        b"\x00",
    ],
)
def test_a_damaged_trust_store_is_never_taken_for_an_empty_one(
    batuta: Run, home: Path, bob: SigningKey, damage: str | bytes
) -> None:
    trust_key(home, bob, "bob")
    data = damage.encode() if isinstance(damage, str) else damage
    trust_file(home).write_bytes(data)
    for arguments in (["verify", "model"], ["trust", "list"], ["trust", "add", "bob", "bob.pub"]):
        failed = batuta("pacha", *arguments, "--json", code=1)
        assert answer(failed)["error"]["kind"] == "damaged_state"
        assert str(trust_file(home)) in answer(failed)["error"]["message"]
    assert trust_file(home).read_bytes() == data


def test_a_missing_trust_store_stops_every_command_that_reads_it_and_says_how_to_repair_it(
    batuta: Run, environment: dict[str, str], home: Path, work: Path, bob: SigningKey
) -> None:
    own = own_key(home, "alice@example.com")
    (work / "own.key").write_bytes(own.to_pem())
    (work / "own.key").chmod(0o600)
    trust_key(home, bob, "bob")
    batuta("pacha", "trust", "revoke", "bob", code=0)
    backup = trust_file(home).read_bytes()
    trust_file(home).unlink()
    before = names_in(work), names_in(keys_dir(home))
    for arguments in (
        ["verify", "model"],
        ["verify", "model", "--key", "bob.pub"],
        ["verify", "model", "--digest", f"blake3:{blake3(b'weights').hexdigest()}", "--identity", "bob"],
        ["trust", "list"],
        ["trust", "add", "bob", "bob.pub"],
        ["trust", "remove", "bob"],
        ["trust", "revoke", "bob.pub"],
        ["trust", "retire", "bob", "--from", "2020-01-01"],
        ["sign", "model", "--force"],
        ["sign", "model", "--force", "--key", "own.key"],
        ["keygen", "--identity", "new"],
        ["keygen", "--output", "new.key"],
        ["keys", "import", "own.key", "--identity", "new"],
    ):
        done = batuta("pacha", *arguments, code=1)
        assert f"{trust_file(home)}: the trust store is missing" in done.stderr
        assert "from a backup" in done.stderr
    assert (names_in(work), names_in(keys_dir(home))) == before
    trust_file(home).write_bytes(backup)
    trust_file(home).chmod(0o600)
    batuta("pacha", "verify", "model", "--key", "bob.pub", code=4)
    trust_file(home).unlink()
    in_a_shell(hints(batuta("pacha", "trust", "list", code=1))[-1], environment, work)
    batuta("pacha", "verify", "model", "--key", "bob.pub", code=0)
    batuta("pacha", "trust", "add", "bob", "bob.pub", code=0)


def test_two_commands_at_once_lose_no_entry(environment: dict[str, str], work: Path, batuta: Run) -> None:
    inlines = [SigningKey.generate().verifying_key.inline for _ in range(6)]
    running = [
        subprocess.Popen(
            [BATUTA, "pacha", "trust", "add", f"signer-{i}", inline], env=environment, cwd=work, stdout=subprocess.PIPE
        )
        for i, inline in enumerate(inlines)
    ]
    assert [child.communicate() and child.returncode for child in running] == [0] * 6
    assert len(result(batuta("pacha", "trust", "list", "--json"))["keys"]) == 6


def test_own_keys_are_told_apart_from_trust(batuta: Run, home: Path, work: Path) -> None:
    """A key pair alone is not trust: after `trust remove` the owner's own signature is that of a stranger."""
    key = own_key(home)
    signed_model(work, key)
    batuta("pacha", "verify", "model", code=0)
    batuta("pacha", "trust", "remove", "alice@example.com", code=0)
    batuta("pacha", "verify", "model", code=4)
