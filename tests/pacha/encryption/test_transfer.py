import os
from pathlib import Path

import pytest

from batuta_cli.errors import (
    ChangedWhileReadError,
    DecryptionError,
    InvalidInputError,
    OutputExistsError,
    UsageError,
)
from batuta_cli.files import atomic_output
from batuta_cli.pacha.encryption import kdf, v1
from batuta_cli.pacha.encryption.transfer import (
    EncryptedFile,
    decrypt_path,
    decrypt_stream,
    encrypt_path,
    encrypt_stream,
)

from .helpers import (
    PASSWORD,
    encrypted_file,
    flipped,
    names_in,
    noise,
    once,
    opened,
    pipe_with,
    sealed,
)
from .reference import CHUNK

MIB = 1024 * 1024
SIZES = [0, 1, CHUNK, CHUNK + 1, 3 * MIB + 17]

pytestmark = pytest.mark.usefixtures("cheap")

both = pytest.mark.parametrize("version", [1, 2])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(noise(5 * MIB + 3))
    return path


@both
@pytest.mark.parametrize("size", SIZES)
def test_a_file_becomes_one_that_the_second_implementation_reads(tmp_path: Path, version: int, size: int) -> None:
    source, output = tmp_path / "model", tmp_path / "model.enc"
    source.write_bytes(noise(size))
    done: list[int] = []
    result = encrypt_path(source, output, PASSWORD, format=version, progress=done.append)
    assert opened(output.read_bytes()) == noise(size)
    assert result == EncryptedFile(version, size, output.stat().st_size)
    assert sum(done) == size
    assert names_in(tmp_path) == ["model", "model.enc"]


@both
@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_the_second_implementation_becomes_the_plaintext(tmp_path: Path, version: int, size: int) -> None:
    source, output = encrypted_file(tmp_path, version, noise(size)), tmp_path / "model"
    done: list[int] = []
    result = decrypt_path(source, output, PASSWORD, progress=done.append)
    assert output.read_bytes() == noise(size)
    assert result == EncryptedFile(version, size, source.stat().st_size)
    assert sum(done) == source.stat().st_size
    assert names_in(tmp_path) == ["model", "model.enc"]


@both
@pytest.mark.parametrize("cut", [-1, -16, -17, 200])
def test_a_cut_file_leaves_no_output(tmp_path: Path, version: int, cut: int) -> None:
    source = encrypted_file(tmp_path, version, noise(2 * CHUNK))
    source.write_bytes(source.read_bytes()[:cut])
    with pytest.raises(DecryptionError):
        decrypt_path(source, tmp_path / "model", PASSWORD)
    assert names_in(tmp_path) == ["model.enc"]


@both
def test_damage_late_in_a_large_file_leaves_no_output(tmp_path: Path, version: int) -> None:
    data = sealed(version, noise(9 * MIB))
    source = tmp_path / "model.enc"
    source.write_bytes(flipped(data, len(data) - 20))
    with pytest.raises(DecryptionError) as refused:
        decrypt_path(source, tmp_path / "model", PASSWORD)
    assert str(refused.value) == f"{source}: wrong password, or the file is damaged"
    assert names_in(tmp_path) == ["model.enc"]


@both
def test_a_wrong_password_leaves_no_output_and_an_old_one_alone(tmp_path: Path, version: int) -> None:
    source, output = encrypted_file(tmp_path, version, b"new"), tmp_path / "model"
    output.write_bytes(b"old")
    with pytest.raises(DecryptionError):
        decrypt_path(source, output, "wrong", force=True)
    assert output.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model", "model.enc"]
    decrypt_path(source, output, PASSWORD, force=True)
    assert output.read_bytes() == b"new"


@both
def test_a_file_cut_within_its_header_is_malformed(tmp_path: Path, version: int) -> None:
    source = tmp_path / "model.enc"
    for length in (0, 5, 8, 52):
        source.write_bytes(sealed(version, b"x")[:length])
        with pytest.raises(InvalidInputError, match="truncated"):
            decrypt_path(source, tmp_path / "model", PASSWORD)


@both
def test_an_existing_output_is_kept_and_the_input_never_replaced(model: Path, version: int) -> None:
    output = model.with_suffix(".enc")
    output.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        encrypt_path(model, output, PASSWORD, format=version)
    assert output.read_bytes() == b"mine"
    with pytest.raises(UsageError, match="the output is the input"):
        encrypt_path(model, model, PASSWORD, format=version, force=True)
    encrypt_path(model, output, PASSWORD, format=version, force=True)
    with pytest.raises(UsageError, match="the output is the input"):
        decrypt_path(output, output, PASSWORD, force=True)
    assert opened(output.read_bytes()) == model.read_bytes() == noise(5 * MIB + 3)


def test_a_directory_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a directory"):
        encrypt_path(tmp_path, tmp_path / "out", PASSWORD)


@pytest.mark.parametrize("password", ["", "x" * 70_000, b"\xff"])
def test_an_unusable_password_is_refused_before_anything_is_opened(tmp_path: Path, password: str | bytes) -> None:
    for work in (encrypt_path, decrypt_path):
        with pytest.raises(InvalidInputError, match="the password"):
            work(tmp_path / "missing", tmp_path / "out", password)


def test_more_than_256_gib_is_refused_before_a_key_is_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**parameters: object) -> None:
        raise AssertionError("a key was derived")

    monkeypatch.setattr(kdf, "Argon2id", unreachable)
    source = tmp_path / "model"
    source.touch()
    try:
        os.truncate(source, 256 * 1024**3 - 63)
    except OSError:
        pytest.skip("no sparse files of 256 GiB here")
    with pytest.raises(InvalidInputError, match="larger than 256 GiB"):
        encrypt_path(source, tmp_path / "out", PASSWORD)
    os.truncate(source, 53 + 256 * 1024**3 - 63 + 16)
    with source.open("r+b") as file:
        file.write(sealed(1, b"")[:53])
    with pytest.raises(InvalidInputError, match="larger than 256 GiB"):
        decrypt_path(source, tmp_path / "out", PASSWORD)
    assert names_in(tmp_path) == ["model"]


def test_a_pipe_is_stopped_at_the_limit_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "MAX_PLAINTEXT", MIB)
    for work, data in ((encrypt_stream, noise(MIB + 1)), (decrypt_stream, sealed(1, noise(MIB + 1)))):
        with (
            pipe_with(data) as source,
            pytest.raises(InvalidInputError, match="larger than"),
            atomic_output(tmp_path / "out") as output,
        ):
            work(source, output, PASSWORD)
    assert names_in(tmp_path) == []


# Sources that change


@both
def test_a_source_that_changes_while_it_is_encrypted_leaves_no_output(model: Path, version: int) -> None:
    def act() -> None:
        with model.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ChangedWhileReadError, match=r"model\.gguf: changed"):
        encrypt_path(model, model.with_suffix(".enc"), PASSWORD, format=version, progress=once(MIB, act))
    assert names_in(model.parent) == ["model.gguf"]


@pytest.mark.parametrize("position", [60, 4 * MIB, 9 * MIB + 53])
def test_a_byte_that_changes_between_the_passes_leaves_no_output(tmp_path: Path, position: int) -> None:
    size = 9 * MIB + 100
    source = encrypted_file(tmp_path, 1, noise(size))

    def act() -> None:
        with source.open("r+b") as file:
            file.seek(position)
            file.write(flipped(sealed(1, noise(size)), position)[position : position + 1])

    with pytest.raises(ChangedWhileReadError):
        decrypt_path(source, tmp_path / "model", PASSWORD, progress=once(53 + size // 2, act))
    assert names_in(tmp_path) == ["model.enc"]


def test_a_file_that_shrinks_between_the_passes_leaves_no_output(tmp_path: Path) -> None:
    size = 9 * MIB
    source = encrypted_file(tmp_path, 1, noise(size))
    with pytest.raises(ChangedWhileReadError):
        decrypt_path(
            source,
            tmp_path / "model",
            PASSWORD,
            progress=once(53 + size // 2, lambda: os.truncate(source, 5 * MIB)),
        )
    assert names_in(tmp_path) == ["model.enc"]
