"""Pipes with something at the other end, broken copies, and headers that cost nothing."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batuta_cli.pacha.encryption.header import ChunkedHeader, Header, SingleMessageHeader
from batuta_cli.pacha.encryption.kdf import KdfParameters

from . import reference

PASSWORD = "contraseña"
SECRET = PASSWORD.encode()
SALT = bytes(range(32))
NONCE = bytes(range(100, 112))
CHEAP = KdfParameters(*reference.CHEAP)


def cheap_header(version: int) -> Header:
    return SingleMessageHeader.new() if version == 1 else ChunkedHeader.new(CHEAP, reference.CHUNK_LOG2)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311  (the same in every run)


def sealed(version: int, data: bytes) -> bytes:
    """A cheap encrypted file, made without the code under test."""
    if version == 1:
        return reference.seal_1(data, SECRET, SALT, NONCE, reference.CHEAP)
    return reference.seal_2(data, SECRET, SALT, NONCE)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]


@contextmanager
def pipe_with(data: bytes, piece: int = 70_001) -> Iterator[int]:
    """The reading end of a pipe that gives `data` in uneven pieces, then ends."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb", buffering=0) as file:
            for start in range(0, len(data), piece):
                try:
                    file.write(data[start : start + piece])
                except BrokenPipeError:
                    return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield read
    finally:
        os.close(read)
        thread.join()


def received(work: Callable[[int], object], error: type[BaseException] | None = None) -> bytes:
    """What `work` writes to the pipe it is given, up to its end or to the `error` it must raise."""
    read, write = os.pipe()
    pieces: list[bytes] = []

    def drain() -> None:
        while piece := os.read(read, 1 << 16):
            pieces.append(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        if error is None:
            work(write)
        else:
            with pytest.raises(error):
                work(write)
    finally:
        os.close(write)
        thread.join()
        os.close(read)
    return b"".join(pieces)


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def opened(data: bytes) -> bytes:
    """Decrypted by the second implementation."""
    if data[8] == 1:
        return reference.open_1(data, SECRET, reference.CHEAP)
    return reference.open_2(data, SECRET)


def encrypted_file(tmp_path: Path, version: int, data: bytes) -> Path:
    path = tmp_path / "model.enc"
    path.write_bytes(sealed(version, data))
    return path


def once(total: int, act: Callable[[], None]) -> Callable[[int], None]:
    """A progress callback that acts when `total` bytes are done."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if before < total <= done:
            act()

    return advance
