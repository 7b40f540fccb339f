"""The file lock: one holder at a time, and no lock is left by a process that died."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.serve.budget.ledger.file_lock import file_lock


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def held(path: str) -> bool:
    """Whether somebody holds the lock, asked as any other program would."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_lock_is_held_for_the_length_of_the_block(path: str) -> None:
    with file_lock(path):
        assert held(path)
    assert not held(path)
    with pytest.raises(KeyError), file_lock(path):
        raise KeyError
    assert not held(path)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_threads_and_processes_hold_it_one_at_a_time(path: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\nfrom batuta_cli.serve.budget.ledger.file_lock import file_lock\n"
        "import threading\n"
        "def count():\n"
        "    for _ in range(50):\n"
        "        with file_lock(sys.argv[1]):\n"
        "            n = int(open(sys.argv[2]).read())\n"
        "            open(sys.argv[2], 'w').write(str(n + 1))\n"
        "threads = [threading.Thread(target=count) for _ in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    root = str(Path(__file__).resolve().parents[4])
    command = [sys.executable, "-c", script, path, str(counter), root]
    children = [subprocess.Popen(command) for _ in range(3)]
    assert [child.wait() for child in children] == [0] * 3
    assert counter.read_text() == "450"


def test_the_lock_of_a_stopped_process_is_free_once_it_is_killed(path: str) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\nfrom batuta_cli.serve.budget.ledger.file_lock import file_lock\n"
        "with file_lock(sys.argv[1]): print('held', flush=True); sys.stdin.read()\n"
    )
    root = str(Path(__file__).resolve().parents[4])
    command = [sys.executable, "-c", script, path, root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        child.send_signal(signal.SIGSTOP)
        assert held(path)
        child.kill()
        with file_lock(path):
            assert held(path)


@pytest.mark.parametrize("dies", [False, True])
def test_a_child_that_is_forked_meanwhile_does_not_keep_its_parents_lock(path: str, dies: bool) -> None:
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[3])\n"
        "from batuta_cli.serve.budget.ledger.file_lock import file_lock\n"
        "with file_lock(sys.argv[1]):\n"
        "    if os.fork() == 0: print('forked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "    if sys.argv[2] == 'True': os.kill(os.getpid(), signal.SIGKILL)\n"
        "os._exit(0)\n"
    )
    root = str(Path(__file__).resolve().parents[4])
    command = [sys.executable, "-c", script, path, str(dies), root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"forked\n"
        assert parent.wait() == (-signal.SIGKILL if dies else 0)
        assert not held(path)  # and the child lives on until its stdin is closed


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), file_lock(str(tmp_path / "missing" / "lock")):
        raise AssertionError
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"), file_lock(str(tmp_path / "link")):
        raise AssertionError
