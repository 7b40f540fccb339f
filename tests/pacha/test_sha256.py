"""SHA-256 digests of files are those of `sha256sum`."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.sha256 import Sha256Digest, parse_digest, sha256_of, sha256_of_stream


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 3_000_001], ids=["empty", "abc", "3 MB"])
def test_a_file_has_the_digest_that_sha256sum_prints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    printed = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert str(sha256_of(path)) == f"sha256:{printed}"


def test_progress_is_told_of_every_byte(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_001)
    done: list[int] = []
    sha256_of(tmp_path / "f", done.append)
    assert sum(done) == 3_000_001


def test_a_pipe_has_the_digest_of_its_bytes() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"weights")
    os.close(writing)
    try:
        assert str(sha256_of_stream(reading, "stdin")) == "sha256:" + hashlib.sha256(b"weights").hexdigest()
    finally:
        os.close(reading)


def test_a_directory_has_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a directory has no SHA-256 digest"):
        sha256_of(tmp_path)


def test_a_digest_is_read_with_its_algorithm() -> None:
    hexadecimal = hashlib.sha256(b"").hexdigest()
    assert parse_digest(f"sha256:{hexadecimal}") == Sha256Digest(hashlib.sha256(b"").digest())
    assert isinstance(parse_digest(f"blake3:{hexadecimal}"), ContentAddress)
    assert parse_digest(f"sha256:{hexadecimal}") != parse_digest(f"blake3:{hexadecimal}")
    for wrong in ("sha256:", f"sha256:{hexadecimal[1:]}", f"sha256:{hexadecimal}0", f"md5:{hexadecimal}", hexadecimal):
        with pytest.raises(InvalidInputError):
            parse_digest(wrong)
