import os
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.pacha.encryption import kdf
from batuta_cli.pacha.encryption.describe import Description, describe, describe_stream

from . import reference
from .helpers import NONCE, SALT, SECRET, noise, pipe_with, sealed


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**parameters: object) -> None:
        raise AssertionError("a key was derived")

    monkeypatch.setattr(kdf, "Argon2id", unreachable)


VERSION_1 = sealed(1, noise(1000))
VERSION_2 = reference.seal_2(noise(10_000), SECRET, SALT, NONCE, (64, 2, 3))


def test_version_1_says_its_fixed_costs_and_its_size(tmp_path: Path) -> None:
    path = tmp_path / "model.enc"
    path.write_bytes(VERSION_1)
    assert describe(path) == Description(
        version=1,
        cipher="ChaCha20-Poly1305",
        kdf="Argon2id",
        kdf_memory_kib=65_536,
        kdf_passes=3,
        kdf_lanes=4,
        key_commitment=False,
        chunk_size=None,
        encrypted_size=1069,
        plaintext_size=1000,
    )


def test_version_2_says_what_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "model.enc"
    path.write_bytes(VERSION_2)
    description = describe(path)
    assert (description.version, description.chunk_size, description.key_commitment) == (2, 4096, True)
    assert (description.kdf_memory_kib, description.kdf_passes, description.kdf_lanes) == (64, 2, 3)
    assert (description.plaintext_size, description.encrypted_size) == (10_000, 99 + 10_000 + 3 * 16)


@pytest.mark.parametrize("data", [VERSION_1[:60], VERSION_2[: 99 + 10], VERSION_2[: 99 + 4112 + 16]])
def test_a_cut_file_has_no_plaintext_size(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.enc"
    path.write_bytes(data)
    assert describe(path).plaintext_size is None
    assert describe(path).encrypted_size == len(data)


def test_a_pipe_has_a_header_but_no_size() -> None:
    with pipe_with(VERSION_2) as pipe:
        description = describe_stream(pipe)
    assert (description.version, description.encrypted_size, description.plaintext_size) == (2, None, None)


def test_a_header_that_only_an_option_allows_is_described_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.enc"
    path.write_bytes(VERSION_2[:54] + (1024 * 1024).to_bytes(4, "big") + VERSION_2[58:])
    assert describe(path).kdf_memory_kib == 1024 * 1024


def test_other_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InvalidInputError, match=r"model\.gguf: not an encrypted file"):
        describe(path)
    with pytest.raises(NotFoundError):
        describe(tmp_path / "missing")
    assert os.listdir(tmp_path) == ["model.gguf"]
