"""What only a process of its own can show: its memory, its end by a signal, a disk that is full."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import OperationError
from batuta_cli.pacha.encryption.transfer import decrypt_path, encrypt_path

from .helpers import PASSWORD, names_in, noise, sealed

MIB = 1024 * 1024
ROOT = Path(__file__).parents[3]

LIMITED = """
import resource, sys
from batuta_cli.pacha.encryption import decrypt_path, encrypt_path, open_encrypted
limit = 200 * 1024 * 1024  # RLIMIT_DATA counts private writable memory, stacks of threads included
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
source, version = sys.argv[1], int(sys.argv[2])
encrypt_path(source, source + ".enc", "contraseña", format=version)
decrypt_path(source + ".enc", source + ".out", "contraseña")
with open_encrypted(source + ".enc", "contraseña") as file:
    file.seek(-5, 2)
    assert file.read() == bytes(5)
with open("/proc/self/status") as status:  # not getrusage, whose peak begins with that of the parent
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
assert peak < limit // 1024, f"{peak} KiB"
"""

SLOW = """
import signal, sys
from batuta_cli.pacha.encryption import decrypt_path, encrypt_path
def stop(number, frame):
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
work, source, output, version, until = sys.argv[1:]
left = int(until)
def progress(count):
    global left
    if left > 0 and left - count <= 0:
        print("running", flush=True)
    left -= count
if work == "encrypt":
    encrypt_path(source, output, "contraseña", format=int(version), progress=progress)
else:
    decrypt_path(source, output, "contraseña", progress=progress)
"""


def python(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_larger_than_the_memory_allowed_is_encrypted_decrypted_and_read(tmp_path: Path, version: int) -> None:
    source = tmp_path / "model"
    source.touch()
    os.truncate(source, 250 * MIB)
    process = python(LIMITED, source, version)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert (tmp_path / "model.out").stat().st_size == 250 * MIB
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_in_the_middle_leaves_nothing_and_ends_the_process(
    tmp_path: Path, version: int, number: signal.Signals
) -> None:
    source = tmp_path / "model"
    source.touch()
    os.truncate(source, 100_000 * MIB)  # sparse: what it would take minutes to encrypt
    process = python(SLOW, "encrypt", source, tmp_path / "model.enc", version, 64 * MIB)  # all threads are at work
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == {signal.SIGTERM: 143}.get(number, -number)
    assert names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_signal_while_a_pipe_is_silent_ends_the_process(tmp_path: Path, version: int) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = python(SLOW, "decrypt", fifo, tmp_path / "model", version, 1)
    with fifo.open("wb", buffering=0) as file:
        file.write(sealed(version, noise(100_000))[:60_000])
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 143
    assert names_in(tmp_path) == ["fifo"]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file can grow beyond 6 MiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.usefixtures("cheap")
def test_a_limit_on_the_size_of_files_is_an_error_and_leaves_nothing(
    tmp_path: Path, version: int, request: pytest.FixtureRequest
) -> None:
    source, sealed_file = tmp_path / "model", tmp_path / "model.enc"
    source.write_bytes(bytes(20 * MIB))
    sealed_file.write_bytes(sealed(version, bytes(20 * MIB)))
    request.getfixturevalue("small_files")
    with pytest.raises(OperationError, match="out: file too large"):
        encrypt_path(source, tmp_path / "out", PASSWORD, format=version)
    with pytest.raises(OperationError, match="out: file too large"):
        decrypt_path(sealed_file, tmp_path / "out", PASSWORD)
    assert names_in(tmp_path) == ["model", "model.enc"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.usefixtures("cheap")
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, version: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("not allowed to mount a small disk")
    try:
        source = tmp_path / "model"
        source.write_bytes(bytes(20 * MIB))
        with pytest.raises(OperationError, match="out: no space left on device"):
            encrypt_path(source, disk / "out", PASSWORD, format=version)
        source.write_bytes(sealed(version, bytes(20 * MIB)))
        with pytest.raises(OperationError, match="out: no space left on device"):
            decrypt_path(source, disk / "out", PASSWORD)
        assert names_in(disk) == []
        assert os.statvfs(disk).f_bfree == os.statvfs(disk).f_blocks
    finally:
        subprocess.run(["umount", disk], check=True)
