import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import OperationError
from batuta_cli.pacha.encryption.sink import FileSink, MemorySink, Sink, StreamSink, put

from .helpers import noise, received

MIB = 1024 * 1024
Pwrite = Callable[[int, "memoryview[int]", int], int]


def fill(sink: Sink, data: bytes, piece: int) -> None:
    for start in range(0, len(data), piece):
        put(sink, data[start : start + piece])


def open_new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def written(path: Path, data: bytes, piece: int) -> bytes:
    descriptor = open_new(path)
    with FileSink(descriptor, path, piece) as sink:
        fill(sink, data, piece)
    assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
    os.close(descriptor)
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 4095, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 21 * MIB + 4097])
@pytest.mark.parametrize("piece", [MIB, MIB + 16, 16 * MIB + 16])
def test_a_file_has_every_byte_in_its_place(tmp_path: Path, size: int, piece: int) -> None:
    assert written(tmp_path / "out", noise(size), piece) == noise(size)


def test_a_memory_and_a_stream_sink_have_every_byte_in_its_place() -> None:
    data = noise(300_000)
    memory = MemorySink(len(data))
    fill(memory, data, 777)
    assert memory.content() == data
    assert received(lambda pipe: fill(StreamSink(pipe, "stdout"), data, 7777)) == data


def test_direct_writing_is_used_where_the_file_system_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(probe, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        pytest.skip("no direct writing here")
    finally:
        os.close(probe)
    flags: list[int] = []
    pwrite = os.pwrite

    def note(descriptor: int, data: memoryview, offset: int) -> int:
        flags.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", note)
    written(tmp_path / "out", noise(9 * MIB), MIB)
    assert [bool(flag) for flag in flags] == [True, True, False]


def test_a_file_system_that_refuses_direct_writes_gets_ordinary_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def refuse(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    assert written(tmp_path / "out", noise(13 * MIB), MIB) == noise(13 * MIB)


def test_a_descriptor_that_cannot_write_directly_gets_ordinary_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert written(tmp_path / "out", noise(9 * MIB), MIB) == noise(9 * MIB)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1_000_001], offset))
    assert written(tmp_path / "out", noise(9 * MIB), MIB) == noise(9 * MIB)


@pytest.mark.parametrize("size", [1, 9 * MIB, 60 * MIB])
def test_a_full_disk_is_an_error_that_names_the_output_and_stops_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    before = threading.active_count()
    with pytest.raises(OperationError, match="out: no space left on device"):
        written(tmp_path / "out", bytes(size), MIB)
    assert threading.active_count() == before


def test_an_error_of_the_caller_stops_the_threads(tmp_path: Path) -> None:
    descriptor = open_new(tmp_path / "out")
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), FileSink(descriptor, "out", MIB) as sink:
        fill(sink, bytes(9 * MIB), MIB)
        raise KeyboardInterrupt
    assert threading.active_count() == before
    os.close(descriptor)


def test_a_stream_error_names_the_output() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OperationError, match="stdout: no space left on device"):
        put(StreamSink(descriptor, "stdout"), b"x")
    os.close(descriptor)


def test_a_reader_who_left_is_a_broken_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        put(StreamSink(write, "stdout"), b"x")
    os.close(write)
