"""What a Python program gets: file objects over the verified bytes."""

import mmap
import os
from pathlib import Path

import pytest

from batuta_cli.errors import (
    DecryptionError,
    InvalidInputError,
    NotFoundError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.pacha import Policy, SigningKey, encrypt_path, open_verified, sign_path, verified_directory

KEY = SigningKey.generate("alice@example.com")
POLICY = Policy(key=KEY.verifying_key)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"the weights")
    sign_path(path, KEY).save(tmp_path / "model.gguf.sig")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "nemo"
    (path / "deep").mkdir(parents=True)
    (path / "config.json").write_bytes(b"{}")
    (path / "deep" / "weights").write_bytes(b"12345")
    (path / "log").write_bytes(b"log")
    sign_path(path, KEY, ignore=["log"]).save(tmp_path / "nemo.sig")
    return path


def test_a_file_is_read_at_any_position_and_does_not_change_with_the_one_on_disk(model: Path) -> None:
    with open_verified(model, POLICY) as file:
        model.write_bytes(b"other bytes")
        file.seek(4)
        assert file.read() == b"weights"
        assert file.verification is not None
        assert file.verification.signers[0].key == KEY.verifying_key
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[:3] == b"the"
        assert Path(file.path).read_bytes() == b"the weights"
        assert not file.writable()


def test_closing_a_file_frees_its_memory(model: Path) -> None:
    before = os.listdir("/proc/self/fd")
    open_verified(model, POLICY).close()
    with pytest.raises(VerificationError):
        model.write_bytes(b"other bytes")
        open_verified(model, POLICY)
    assert os.listdir("/proc/self/fd") == before
    assert "memfd:batuta" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("version", [1, 2])
def test_an_encrypted_file_is_opened_with_its_password_and_the_plaintexts_signature(model: Path, version: int) -> None:
    encrypt_path(model, f"{model}.enc", "password", format=version)
    model.unlink()
    with open_verified(f"{model}.enc", POLICY, password="password") as file:
        assert file.read() == b"the weights"
    with pytest.raises(DecryptionError):
        open_verified(f"{model}.enc", POLICY, password="wrong")


def test_a_signature_that_is_missing_or_by_another_key_opens_nothing(model: Path) -> None:
    other = SigningKey.generate("mallory")
    with pytest.raises(WrongSignerError):
        open_verified(model, Policy(key=other.verifying_key))
    with open_verified(model, Policy(key=other.verifying_key), sign_path(model, other)) as file:
        assert file.read() == b"the weights"
    Path(f"{model}.sig").unlink()
    with pytest.raises(VerificationError, match="there is no signature"):
        open_verified(model, POLICY)
    with pytest.raises(NotFoundError):
        open_verified(f"{model}.nothing", POLICY)


def test_a_directory_gives_a_new_file_object_for_each_access_by_name(directory: Path) -> None:
    with verified_directory(directory, POLICY) as files:
        (directory / "deep" / "weights").write_bytes(b"xxxxx")
        assert sorted(files) == ["config.json", "deep/weights"]
        assert len(files) == 2
        with files["deep/weights"] as one, files["deep/weights"] as two:
            assert (one.read(2), two.read()) == (b"12", b"12345")
        with pytest.raises(KeyError):
            files["log"]
        assert files.verification is not None
        assert files.verification.ignored == ("log",)


def test_unsigned_files_that_are_tolerated_are_not_in_the_mapping(directory: Path) -> None:
    (directory / "README.md").write_text("new")
    with pytest.raises(VerificationError):
        verified_directory(directory, POLICY)
    with verified_directory(directory, POLICY, allow_unsigned=["*.md"]) as files:
        assert "README.md" not in files
        assert files.verification is not None
        assert files.verification.unsigned == ("README.md",)


def test_a_file_stays_open_after_its_directory_was_closed(directory: Path) -> None:
    with verified_directory(directory, POLICY) as files:
        file = files["deep/weights"]
    with file:
        assert file.read() == b"12345"


def test_a_signature_inside_the_directory_is_found(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "nemo.sig").unlink()
    sign_path(directory, KEY, ignore=["model.sig"]).save(directory / "model.sig")
    with verified_directory(directory, POLICY) as files:
        assert "model.sig" not in files


def test_each_function_names_the_other_for_what_it_does_not_open(model: Path, directory: Path) -> None:
    with pytest.raises(InvalidInputError) as of_directory:
        open_verified(directory, POLICY)
    with pytest.raises(InvalidInputError) as of_file:
        verified_directory(model, POLICY)
    assert "verified_directory" in str(of_directory.value.hint)
    assert "open_verified" in str(of_file.value.hint)
