import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import ChangedWhileReadError, DecryptionError, InvalidInputError, NotFoundError
from batuta_cli.pacha.encryption import v1
from batuta_cli.pacha.encryption.reader import open_encrypted

from .helpers import PASSWORD, flipped, noise, sealed
from .reference import CHUNK

PIECE = 4096
SEALED = CHUNK + 16
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7]

pytestmark = pytest.mark.usefixtures("cheap", "small_pieces")


@pytest.fixture(scope="module")
def small_pieces(request: pytest.FixtureRequest) -> None:
    """Version 1 in pieces as small as the chunks of version 2 are here."""
    patch = pytest.MonkeyPatch()
    patch.setattr(v1, "PIECE", PIECE)
    patch.setattr("batuta_cli.pacha.encryption.reader._SingleMessagePieces.piece_size", PIECE)
    request.addfinalizer(patch.undo)


def stored(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.enc"
    path.write_bytes(data)
    return path


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", EDGES)
def test_reading_to_the_end_gives_the_plaintext(tmp_path: Path, version: int, size: int) -> None:
    with open_encrypted(stored(tmp_path, sealed(version, noise(size))), PASSWORD) as file:
        assert file.read() == noise(size)
        assert file.read() == b""
        assert file.seek(0, os.SEEK_END) == size


STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "set", "current", "end"]), st.integers(-4 * CHUNK, 4 * CHUNK)), max_size=20
)


@pytest.mark.parametrize("version", [1, 2])
def test_it_behaves_as_a_file_of_the_plaintext_does(tmp_path: Path, version: int) -> None:
    data = noise(3 * CHUNK + 7)
    path = stored(tmp_path, sealed(version, data))

    @given(steps=STEPS)
    @settings(max_examples=60, deadline=None)
    def behaves(steps: list[tuple[str, int]]) -> None:
        plain = io.BufferedReader(io.BytesIO(data))
        with open_encrypted(path, PASSWORD) as file:
            for step, amount in steps:
                if step == "read":
                    assert file.read(abs(amount)) == plain.read(abs(amount))
                    continue
                whence = {"set": os.SEEK_SET, "current": os.SEEK_CUR, "end": os.SEEK_END}[step]
                base = {"set": 0, "current": plain.tell(), "end": len(data)}[step]
                if base + amount < 0:
                    with pytest.raises(ValueError, match="seek"):
                        file.seek(amount, whence)
                else:
                    assert file.seek(amount, whence) == plain.seek(amount, whence)
            assert file.tell() == plain.tell()

    behaves()


def test_it_reads_and_seeks_and_does_not_write(tmp_path: Path) -> None:
    file = open_encrypted(stored(tmp_path, sealed(2, b"model")), PASSWORD)
    assert file.readable()
    assert file.seekable()
    assert not file.writable()
    with pytest.raises(io.UnsupportedOperation):
        file.write(b"x")
    with pytest.raises(ValueError, match="whence"):
        file.seek(0, 9)
    file.close()
    file.close()
    for use in (file.read, file.tell, lambda: file.seek(0), lambda: file.raw.readinto(memoryview(bytearray(1)))):
        with pytest.raises(ValueError, match="closed"):
            use()


@pytest.mark.parametrize("version", [1, 2])
def test_no_descriptor_is_left_open(tmp_path: Path, version: int) -> None:
    good, bad = sealed(version, b"model"), sealed(version, b"model")[:-1]
    path = stored(tmp_path, good)
    before = os.listdir("/proc/self/fd")
    open_encrypted(path, PASSWORD).close()
    path.write_bytes(bad)
    with pytest.raises(DecryptionError):
        open_encrypted(path, PASSWORD)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_password_does_not_open_it(tmp_path: Path, version: int) -> None:
    with pytest.raises(DecryptionError):
        open_encrypted(stored(tmp_path, sealed(version, noise(100))), "wrong")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", EDGES)
def test_a_cut_or_lengthened_file_does_not_open(tmp_path: Path, version: int, size: int) -> None:
    data = sealed(version, noise(size))
    start = 53 if version == 1 else 99
    cuts = {*(start + n * SEALED + d for n in range(4) for d in (0, 1, 15, 16, 17)), len(data) - 1}
    wrong = [data[:cut] for cut in cuts if start <= cut < len(data)]
    for broken in [*wrong, data + b"\0", data + bytes(16), data + bytes(SEALED)]:
        with pytest.raises(DecryptionError):
            open_encrypted(stored(tmp_path, broken), PASSWORD)


def test_version_2_opens_without_reading_the_middle_and_finds_the_damage_there(tmp_path: Path) -> None:
    data = noise(3 * CHUNK)
    path = stored(tmp_path, flipped(sealed(2, data), 99 + SEALED + 5))
    with open_encrypted(path, PASSWORD) as file:
        assert file.read(CHUNK) == data[:CHUNK]
        with pytest.raises(DecryptionError):
            file.read(1)
        file.seek(2 * CHUNK)
        assert file.read() == data[2 * CHUNK :]


def test_version_1_does_not_open_when_damaged_anywhere(tmp_path: Path) -> None:
    data = sealed(1, noise(3 * CHUNK))
    for position in [53, 53 + CHUNK, 53 + 3 * CHUNK - 1, *range(len(data) - 16, len(data))]:
        with pytest.raises(DecryptionError):
            open_encrypted(stored(tmp_path, flipped(data, position)), PASSWORD)


@pytest.mark.parametrize(("version", "error"), [(1, ChangedWhileReadError), (2, DecryptionError)])
def test_a_change_after_opening_is_never_read(tmp_path: Path, version: int, error: type[Exception]) -> None:
    data = sealed(version, noise(3 * CHUNK))
    path = stored(tmp_path, data)
    with open_encrypted(path, PASSWORD) as file:
        position = len(data) // 2
        overwrite(path, position, flipped(data, position)[position : position + 1])
        assert file.read(CHUNK) == noise(3 * CHUNK)[:CHUNK]
        with pytest.raises(error):
            file.read()
    path.write_bytes(data)
    with open_encrypted(path, PASSWORD) as file:
        os.truncate(path, 99)
        with pytest.raises(error):
            file.read()


@pytest.mark.parametrize("size", [3, 60])
def test_other_files_do_not_open(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidInputError, match="not an encrypted file"):
        open_encrypted(stored(tmp_path, bytes(size)), PASSWORD)


def test_a_fifo_or_a_missing_file_does_not_open_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInputError, match="is a FIFO"):
        open_encrypted(tmp_path / "fifo", PASSWORD)
    with pytest.raises(NotFoundError):
        open_encrypted(tmp_path / "missing", PASSWORD)
