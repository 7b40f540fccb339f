import os
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from batuta_cli.errors import (
    BatutaError,
    DecryptionError,
    OperationError,
)
from batuta_cli.files import atomic_output
from batuta_cli.pacha.encryption.transfer import (
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
    received,
    sealed,
)
from .reference import CHUNK

MIB = 1024 * 1024
SEALED = CHUNK + 16
SIZES = [0, 1, CHUNK, CHUNK + 1, 3 * MIB + 17]

pytestmark = pytest.mark.usefixtures("cheap")

both = pytest.mark.parametrize("version", [1, 2])


@both
@pytest.mark.parametrize("size", SIZES)
def test_a_pipe_is_encrypted_into_a_pipe(version: int, size: int) -> None:
    with pipe_with(noise(size)) as source:
        data = received(lambda output: encrypt_stream(source, output, PASSWORD, format=version))
    assert opened(data) == noise(size)


@both
@pytest.mark.parametrize("size", SIZES)
def test_a_pipe_is_decrypted_into_a_pipe(version: int, size: int) -> None:
    done: list[int] = []
    data = sealed(version, noise(size))
    with pipe_with(data) as source:
        received_data = received(lambda output: decrypt_stream(source, output, PASSWORD, progress=done.append))
    assert received_data == noise(size)
    assert sum(done) == len(data)


@both
def test_a_pipe_becomes_a_file_and_a_file_goes_into_a_pipe(tmp_path: Path, version: int) -> None:
    path = tmp_path / "model.enc"
    with pipe_with(noise(MIB)) as source, atomic_output(path) as output:
        encrypt_stream(source, output, PASSWORD, format=version)
    with path.open("rb") as file:
        assert received(lambda pipe: decrypt_stream(file.fileno(), pipe, PASSWORD)) == noise(MIB)
    with pipe_with(path.read_bytes()) as source, atomic_output(tmp_path / "model") as output:
        decrypt_stream(source, output, PASSWORD)
    assert (tmp_path / "model").read_bytes() == noise(MIB)


@both
def test_a_redirected_file_is_read_from_where_it_stands(tmp_path: Path, version: int) -> None:
    path = tmp_path / "both"
    path.write_bytes(b"a line first\n" + sealed(version, noise(CHUNK)))
    with path.open("rb", buffering=0) as file:
        file.seek(len(b"a line first\n"))
        assert received(lambda pipe: decrypt_stream(file.fileno(), pipe, PASSWORD)) == noise(CHUNK)


@pytest.mark.parametrize("position", [60, 5000, -1])
def test_version_1_releases_nothing_to_a_pipe_before_the_tag_is_checked(tmp_path: Path, position: int) -> None:
    data = sealed(1, noise(3 * MIB))
    damaged = flipped(data, position % len(data))
    with pipe_with(damaged) as source:
        assert received(lambda pipe: decrypt_stream(source, pipe, PASSWORD), DecryptionError) == b""
    path = tmp_path / "model.enc"
    path.write_bytes(damaged)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(fifo.read_bytes()))
    reader.start()
    with pytest.raises(DecryptionError):
        decrypt_path(path, fifo, PASSWORD)
    reader.join()
    assert seen == [b""]


def test_version_1_sends_what_was_checked_when_the_file_changes_after_the_check(tmp_path: Path) -> None:
    size = 3 * MIB
    source = encrypted_file(tmp_path, 1, noise(size))

    def act() -> None:
        with source.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(bytes(100))

    with source.open("rb") as file:
        data = received(lambda pipe: decrypt_stream(file.fileno(), pipe, PASSWORD, progress=once(53 + size // 2, act)))
    assert data == noise(size)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_version_2_releases_exactly_the_chunks_before_the_damage(index: int) -> None:
    plaintext = noise(3 * CHUNK + 10)
    damaged = flipped(sealed(2, plaintext), 99 + index * SEALED + 3)
    with pipe_with(damaged) as source:
        released = received(lambda pipe: decrypt_stream(source, pipe, PASSWORD), DecryptionError)
    assert released == plaintext[: index * CHUNK]


def test_version_2_cut_at_a_chunk_is_an_error_to_a_pipe(tmp_path: Path) -> None:
    with pipe_with(sealed(2, noise(3 * CHUNK))[: 99 + 2 * SEALED]) as source:
        assert (
            received(lambda pipe: decrypt_stream(source, pipe, PASSWORD), DecryptionError) == noise(3 * CHUNK)[:CHUNK]
        )


def test_version_2_hands_on_a_chunk_while_its_source_still_runs() -> None:
    data = sealed(2, noise(3 * CHUNK))
    (source, feed), (output, sink) = os.pipe(), os.pipe()
    os.write(feed, data[: 99 + SEALED + 1])
    work = threading.Thread(target=decrypt_stream, args=(source, sink, PASSWORD))
    work.start()
    assert os.read(output, CHUNK) == noise(3 * CHUNK)[:CHUNK]
    os.write(feed, data[99 + SEALED + 1 :])
    os.close(feed)
    work.join()
    assert os.read(output, 3 * CHUNK) == noise(3 * CHUNK)[CHUNK:]
    for descriptor in (source, output, sink):
        os.close(descriptor)


@both
def test_a_fifo_and_a_device_are_read_and_written_through(tmp_path: Path, version: int) -> None:
    fifo, data = tmp_path / "fifo", sealed(version, noise(MIB))
    os.mkfifo(fifo)
    feed = threading.Thread(target=fifo.write_bytes, args=(data,))
    feed.start()
    decrypt_path(fifo, tmp_path / "model", PASSWORD)
    feed.join()
    assert (tmp_path / "model").read_bytes() == noise(MIB)
    encrypt_path(tmp_path / "model", "/dev/null", PASSWORD, format=version)
    with pytest.raises(OperationError, match="/dev/full: no space left"):
        encrypt_path(tmp_path / "model", "/dev/full", PASSWORD, format=version)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@both
@pytest.mark.parametrize("work", [encrypt_stream, decrypt_stream])
def test_a_reader_who_leaves_is_a_broken_pipe(version: int, work: Callable[..., object]) -> None:
    read, write = os.pipe()
    os.close(read)
    data = noise(MIB) if work is encrypt_stream else sealed(version, noise(MIB))
    options = {"format": version} if work is encrypt_stream else {}
    with pipe_with(data) as source, pytest.raises(BrokenPipeError):
        work(source, write, PASSWORD, **options)
    os.close(write)


# Where ciphertext waits


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The directories that spools were made in."""
    made: list[object] = []
    real = tempfile.TemporaryFile

    def note(*, dir: str, buffering: int) -> object:
        made.append(dir)
        return real(dir=dir, buffering=buffering)

    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    return made


def test_version_1_waits_beside_a_file(tmp_path: Path, spools: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    target = tmp_path / "there"
    target.mkdir()
    (tmp_path / "link").symlink_to(target / "model")
    with pipe_with(sealed(1, b"model")) as source, atomic_output(tmp_path / "link") as output:
        decrypt_stream(source, output, PASSWORD)
    assert spools == [str(target)]
    assert names_in(target) == ["model"]


@pytest.mark.parametrize("value", [None, "", "given"])
def test_version_1_waits_in_tmpdir_or_var_tmp_on_its_way_to_a_stream(
    tmp_path: Path, spools: list[object], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    if value is not None:
        monkeypatch.setenv("TMPDIR", value and str(tmp_path))
    expected = str(tmp_path) if value else "/var/tmp"
    with pipe_with(sealed(1, b"model")) as source:
        assert received(lambda pipe: decrypt_stream(source, pipe, PASSWORD)) == b"model"
    decrypt_path(encrypted_file(tmp_path, 1, b"model"), "/dev/null", PASSWORD)
    assert spools == [expected, expected]
    assert names_in(tmp_path) == ["model.enc"]


def test_a_file_decrypted_into_a_file_and_version_2_need_no_spool(tmp_path: Path, spools: list[object]) -> None:
    decrypt_path(encrypted_file(tmp_path, 1, b"model"), tmp_path / "model", PASSWORD)
    with pipe_with(sealed(2, b"model")) as source:
        received(lambda pipe: decrypt_stream(source, pipe, PASSWORD))
    assert spools == []


def test_a_spool_that_cannot_be_made_is_an_error_that_names_the_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    with pipe_with(sealed(1, b"model")) as source, pytest.raises(BatutaError, match="/nowhere/at/all"):
        received(lambda pipe: decrypt_stream(source, pipe, PASSWORD))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    source = encrypted_file(tmp_path, 1, b"model")
    before = os.listdir("/proc/self/fd")
    decrypt_path(source, tmp_path / "model", PASSWORD)
    for password, output in ((PASSWORD, "model"), ("wrong", "new")):
        with suppress(BatutaError):
            decrypt_path(source, tmp_path / output, password)
    assert os.listdir("/proc/self/fd") == before
