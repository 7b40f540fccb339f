"""Own key pairs on disk: names that cannot escape, modes that cannot leak, errors that name what there is."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batuta_cli.errors import (
    BatutaError,
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UnsafeFileError,
    UsageError,
)
from batuta_cli.files import open_stream, write_file
from batuta_cli.pacha import keyring
from batuta_cli.pacha.keyring import choose_own, file_stem, find_own, identity_of, list_own, read_private_file, save_own
from batuta_cli.pacha.keys import SigningKey
from tests.pacha.forge import ALICE, BOB


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("identity", "stem"),
    [
        ("alice@example.com", "alice@example.com"),
        ("release+2026_v1.0", "release+2026_v1.0"),
        ("../../etc/passwd", "%2E./../etc/passwd".replace("/", "%2F")),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("-rf", "%2Drf"),
        ("Ana María", "Ana%20Mar%C3%ADa"),
        ("100%", "100%25"),
        ("a\\b:c*", "a%5Cb%3Ac%2A"),
    ],
)
def test_an_identity_becomes_a_file_name_that_stays_in_the_directory(identity: str, stem: str) -> None:
    assert file_stem(identity) == stem
    assert identity_of(stem) == identity


@given(st.text(min_size=1, max_size=60))
def test_every_identity_has_a_file_name_of_its_own_that_gives_it_back(identity: str) -> None:
    try:
        stem = file_stem(identity)
    except InvalidInputError:
        assume(False)
    assert identity_of(stem) == identity
    assert set(stem) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@._+-%")
    assert stem[0] not in ".-"


def test_an_identity_that_no_file_name_can_hold_is_refused_before_anything_is_written(data_home: Path) -> None:
    identity = "é" * 100  # 200 bytes are allowed, but 600 when escaped
    with pytest.raises(InvalidInputError, match="too long for a file name") as caught:
        save_own(ALICE.signing, identity)
    assert caught.value.hint and "--output" in caught.value.hint
    assert list(data_home.rglob("*.key")) == []


def test_the_longest_plain_identity_can_be_saved_and_found() -> None:
    save_own(ALICE.signing, "x" * 200)
    assert find_own("x" * 200).public == ALICE.verifying


def test_a_pair_is_written_private_and_openssl_opens_both_halves(data_home: Path) -> None:
    path = save_own(ALICE.signing, "alice@example.com")
    public = path.with_suffix(".pub")
    assert path == data_home / "batuta/keys/alice@example.com.key"
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    shown = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, check=True).stdout
    assert shown == public.read_bytes() == ALICE.pem


def test_an_existing_half_of_a_pair_is_never_overwritten_without_force(tmp_path: Path) -> None:
    for existing in ("ci.key", "ci.pub"):
        (tmp_path / existing).write_bytes(b"precious")
        with pytest.raises(OutputExistsError, match=f"{existing}: already exists") as caught:
            keyring.save_pair(ALICE.signing, tmp_path / "ci.key")
        assert caught.value.hint and "--force deletes it permanently" in caught.value.hint
        assert [p.name for p in tmp_path.iterdir()] == [existing]
        (tmp_path / existing).unlink()


def test_force_replaces_a_pair_and_closes_a_private_key_that_was_open(tmp_path: Path) -> None:
    private, public = keyring.save_pair(ALICE.signing, tmp_path / "ci.key")
    private.chmod(0o644)
    keyring.save_pair(BOB.signing, private, force=True)
    assert SigningKey.parse(private.read_bytes()).verifying_key == BOB.verifying
    assert (public.read_bytes(), mode_of(private)) == (BOB.pem, 0o600)


def test_no_private_key_is_left_behind_when_its_public_half_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def disk_full(path: Path, *arguments: object, **options: object) -> None:
        if path.suffix == ".pub":
            raise OperationError("no space left on device")
        write_file(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(keyring, "write_file", disk_full)
    with pytest.raises(OperationError, match="no space"):
        keyring.save_pair(ALICE.signing, tmp_path / "ci.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o777])
def test_a_private_key_that_others_can_reach_is_refused_with_the_command_that_closes_it(
    mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "my key"
    path.write_bytes(ALICE.signing.to_pem())
    path.chmod(mode)
    with pytest.raises(UnsafeFileError, match=f"{mode:04o}") as caught:
        read_private_file(path)
    assert caught.value.hint is not None
    assert caught.value.hint.splitlines()[0] == f"chmod 600 '{path}'"
    path.chmod(0o400)
    assert read_private_file(path) == ALICE.signing.to_pem()


def test_the_mode_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "open.key", tmp_path / "link.key"
    path.write_bytes(ALICE.signing.to_pem())
    path.chmod(0o644)
    link.symlink_to(path)
    with pytest.raises(UnsafeFileError):
        read_private_file(link)


def test_the_mode_is_judged_on_the_file_that_was_opened_not_on_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, safe = tmp_path / "open.key", tmp_path / "safe.key"
    for file, mode in ((path, 0o644), (safe, 0o600)):
        file.write_bytes(ALICE.signing.to_pem())
        file.chmod(mode)

    def exchange_after_opening(name: Path) -> int:
        descriptor = open_stream(name)
        safe.replace(path)
        return descriptor

    monkeypatch.setattr(keyring, "open_stream", exchange_after_opening)
    with pytest.raises(UnsafeFileError):
        read_private_file(path)


def test_a_private_key_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, ALICE.signing.to_pem())
    os.close(writing)
    assert read_private_file(f"/dev/fd/{reading}") == ALICE.signing.to_pem()
    os.close(reading)


def test_what_is_too_large_to_be_a_key_is_not_read_to_the_end() -> None:
    with pytest.raises(InvalidInputError, match="/dev/zero: not a private key"):
        read_private_file("/dev/zero")


def test_a_directory_or_a_missing_file_is_no_private_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a directory"):
        read_private_file(tmp_path)
    with pytest.raises(NotFoundError):
        read_private_file(tmp_path / "none")


def test_own_keys_are_listed_by_identity_with_whether_they_are_encrypted() -> None:
    assert list_own() == []
    save_own(BOB.signing, "bob", passphrase=b"secret")
    save_own(ALICE.signing, "Ana María")
    assert [(k.identity, k.public, k.encrypted) for k in list_own()] == [
        ("Ana María", ALICE.verifying, False),
        ("bob", BOB.verifying, True),
    ]


def test_a_key_file_whose_name_is_not_utf8_does_not_break_the_list() -> None:
    path = save_own(ALICE.signing, "x")
    for suffix in (".key", ".pub"):
        path.with_suffix(suffix).rename(os.fsdecode(os.fsencode(path.with_suffix("")) + b"\xff" + suffix.encode()))
    assert [key.identity for key in list_own()] == ["x\ufffd"]


def test_a_keys_directory_that_cannot_be_listed_is_not_an_empty_one(data_home: Path) -> None:
    (data_home / "batuta").mkdir()
    (data_home / "batuta" / "keys").write_text("not a directory")
    for look in (list_own, lambda: find_own("alice"), lambda: choose_own(None)):
        with pytest.raises(OperationError) as caught:
            look()
        assert not isinstance(caught.value, NotFoundError)
        assert "keys: not a directory" in caught.value.message


def test_an_unknown_identity_lists_the_ones_there_are_even_when_one_of_them_is_damaged() -> None:
    save_own(ALICE.signing, "alice").write_bytes(b"garbage")
    save_own(BOB.signing, "bob")
    with pytest.raises(NotFoundError, match="no key of carol") as caught:
        find_own("carol")
    assert caught.value.hint == "there are: alice, bob"


def test_without_any_key_the_hint_is_the_command_that_makes_the_one_asked_for() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_own("Ana María")
    assert caught.value.hint == "batuta pacha keygen --identity 'Ana María'"


def test_the_only_key_is_chosen_several_are_a_question_and_the_configured_one_answers_it() -> None:
    with pytest.raises(NotFoundError, match="no key to sign with"):
        choose_own(None)
    save_own(ALICE.signing, "alice")
    assert choose_own(None).identity == "alice"
    save_own(BOB.signing, "bob")
    with pytest.raises(UsageError, match="several keys: alice, bob") as caught:
        choose_own(None)
    assert caught.value.exit_code == 2
    assert choose_own("bob").public == BOB.verifying


def test_an_identity_that_climbs_finds_nothing_outside(data_home: Path) -> None:
    outside = data_home / "batuta" / "evil.key"
    keyring.save_own(ALICE.signing, "alice")
    outside.write_bytes(BOB.signing.to_pem())
    with pytest.raises(BatutaError, match="no key of"):
        find_own("../evil")


@pytest.mark.parametrize(
    ("owner", "read_only", "told"),
    [
        (1000, False, "chmod 600 "),
        (1001, False, "the mode cannot be changed here"),
        (1000, True, "the mode cannot be changed here"),
    ],
    ids=["own file", "the file of another user", "a read-only file system, as of a mounted secret"],
)
def test_the_hint_on_a_key_that_others_can_read_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, read_only: bool, told: str
) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(ALICE.signing.to_pem())
    path.chmod(0o440)
    stat, statvfs = os.fstat, os.fstatvfs

    class OfOwner:
        def __init__(self, found: os.stat_result) -> None:
            self._found = found
            self.st_uid = owner

        def __getattr__(self, name: str) -> object:
            return getattr(self._found, name)

    class Mounted:
        f_flag = os.ST_RDONLY if read_only else statvfs(0).f_flag & ~os.ST_RDONLY

    monkeypatch.setattr("batuta_cli.pacha.keyring.os.geteuid", lambda: 1000)
    monkeypatch.setattr("batuta_cli.pacha.keyring.os.fstat", lambda descriptor: OfOwner(stat(descriptor)))
    monkeypatch.setattr("batuta_cli.pacha.keyring.os.fstatvfs", lambda _: Mounted())
    with pytest.raises(UnsafeFileError) as caught:
        read_private_file(path)
    hint = str(caught.value.hint)
    assert told in hint
    assert "--key -" in hint
