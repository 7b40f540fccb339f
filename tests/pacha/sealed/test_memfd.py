"""Sealed memory: once written, nothing changes it."""

import errno
import fcntl
import mmap
import os
import sys
from pathlib import Path

import pytest

from batuta_cli.errors import ChangedWhileReadError, OperationError
from batuta_cli.pacha.sealed import capacity, memfd
from batuta_cli.pacha.sealed.memfd import MemoryFile, MemoryFileSink, copy_from


def copied(view: memoryview) -> None:
    view[:] = b"weights"


@pytest.mark.parametrize(
    "change",
    [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 3),
        lambda fd: os.ftruncate(fd, 30),
        lambda fd: mmap.mmap(fd, 7),
        lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x10),  # F_SEAL_FUTURE_WRITE
    ],
    ids=["write", "shrink", "grow", "map to write", "add a seal"],
)
def test_sealed_memory_cannot_be_changed_through_its_own_descriptor(change: "object") -> None:
    with MemoryFile(7) as file:
        file.fill(copied)
        with pytest.raises(PermissionError):
            change(file.descriptor)  # type: ignore[operator]
        assert Path(file.path).read_bytes() == b"weights"


def test_sealed_memory_cannot_be_made_executable() -> None:
    with MemoryFile(7) as file:
        file.fill(copied)
        assert os.fstat(file.descriptor).st_mode & 0o777 == 0o444


def test_memory_of_no_bytes_is_sealed_too() -> None:
    with MemoryFile(0) as file:
        file.fill(copied)
        with pytest.raises(PermissionError):
            os.ftruncate(file.descriptor, 1)


def test_what_is_written_is_already_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked() -> int:
        return int(Path("/proc/self/status").read_text().partition("VmLck:")[2].split()[0])

    before = locked()
    during = []
    with MemoryFile(1 << 20) as file:
        file.fill(lambda view: during.append(locked() - before))
        assert locked() - before == 1024
    assert during == [1024]
    assert locked() == before


def test_memory_that_cannot_be_locked_is_refused_only_where_it_could_be_swapped_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryFile, "_locked", lambda self: False)
    monkeypatch.setattr(capacity, "swap_is_possible", lambda: True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OperationError, match="may swap"):
        MemoryFile(4096)
    assert os.listdir("/proc/self/fd") == before
    MemoryFile(4096, allow_swap=True).close()
    monkeypatch.setattr(capacity, "swap_is_possible", lambda: False)
    MemoryFile(4096).close()


def test_a_kernel_without_the_newest_flag_is_asked_again_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = os.memfd_create, []

    def old_kernel(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    with MemoryFile(7) as file:
        file.fill(copied)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSYS, "memfd_create"), (errno.EPERM, "memfd_create"), (errno.EMFILE, "too few open files")],
)
def test_a_system_that_refuses_sealed_memory_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refused(name: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(OperationError, match=words):
        MemoryFile(7)


def test_a_system_other_than_linux_is_an_error_that_names_the_commands_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OperationError, match="needs Linux") as raised:
        memfd.check_supported()
    assert "batuta pacha verify" in str(raised.value.hint)


def test_a_file_is_copied_from_its_beginning_in_any_number_of_pieces(tmp_path: Path) -> None:
    content = os.urandom((9 << 20) + 5)
    (tmp_path / "model").write_bytes(content)
    steps: list[int] = []
    with open(tmp_path / "model", "rb") as source, MemoryFile(len(content)) as file:
        source.seek(3)
        file.fill(copy_from(source.fileno(), "model", steps.append))
        assert Path(file.path).read_bytes() == content
    assert sum(steps) == len(content)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"short")
    with (
        open(tmp_path / "model", "rb") as source,
        MemoryFile(100) as file,
        pytest.raises(ChangedWhileReadError, match="became shorter"),
    ):
        file.fill(copy_from(source.fileno(), "model"))


def test_more_plaintext_than_was_announced_is_an_error() -> None:
    sink = MemoryFileSink(memoryview(bytearray(10)), "model")
    sink.space(10)[:] = b"0123456789"
    sink.advance(10)
    with pytest.raises(ChangedWhileReadError):
        sink.space(1)
