"""Places and moments that the tests of the commands need: a small disk, a model that is being read."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Child = subprocess.Popen[str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def without_capabilities() -> Callable[[], None]:
    """A `preexec_fn` that takes away what root may do to other processes, their memory and files: only modes count."""
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        if os.getuid() == 0:
            # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON
            for capability in (1, 2, 14, 19, 21, 38):
                if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP; takes effect with exec
                    raise OSError(ctypes.get_errno(), "prctl")

    return drop


@pytest.fixture
def endless(work: Path) -> Path:
    """A model that takes minutes to read and no disk: whatever happens after it was opened happens while it is read."""
    path = work / "model"
    with open(path, "wb") as file:
        file.truncate(1 << 38)
    return path


@pytest.fixture
def until_read() -> Callable[[Path, Child], None]:
    """Wait until a command is in the middle of a file: has mapped it, or has read from it."""

    def wait(path: Path, child: Child) -> None:
        wanted = os.path.realpath(path)
        while child.poll() is None:
            with contextlib.suppress(OSError):  # a descriptor that was closed again, a process that ended
                if f" {wanted}\n" in Path(f"/proc/{child.pid}/maps").read_text():
                    return
                for name in os.listdir(f"/proc/{child.pid}/fd"):
                    position = Path(f"/proc/{child.pid}/fdinfo/{name}").read_text().split()[1]
                    if os.readlink(f"/proc/{child.pid}/fd/{name}") == wanted and position != "0":
                        return
        raise AssertionError(f"the command ended before it read {path}: {child.returncode}")

    return wait
