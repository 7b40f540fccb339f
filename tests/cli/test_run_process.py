"""`batuta pacha run` as a parent: signals, a terminal, its own end; and what it writes to file systems."""

import contextlib
import fcntl
import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha.encryption import encrypt_path
from batuta_cli.pacha.keys import SigningKey
from tests.cli.support import names_in, own_key, signed_model
from tests.conftest import BATUTA

PASSWORD = "correct horse battery staple"
CONTENT = b"the weights of this model\n" * 1000

TELLING = """
import os, signal, sys
def tell(number, frame):
    os.write(1, b"got %d\\n" % number)
    if number == signal.SIGUSR2:
        os._exit(9)
for number in (int(sys.argv[2]), signal.SIGUSR2):
    signal.signal(number, tell)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
"""A program that prints each signal that it gets, and ends at SIGUSR2."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed; `make test` brings it where there is apt"
)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def key(home: Path) -> SigningKey:
    return own_key(home)


@pytest.fixture
def model(work: Path, key: SigningKey) -> Path:
    return signed_model(work, key, "model.gguf", CONTENT)


@pytest.fixture
def start(environment: dict[str, str], work: Path, model: Path, tmp_path: Path) -> Iterator[Start]:
    """Start `batuta pacha run` on the model; the links are in the folder `links`."""
    (tmp_path / "links").mkdir()
    children = []

    def starting(*program: str, **options: object) -> subprocess.Popen[str]:
        defaults: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        child: subprocess.Popen[str] = subprocess.Popen(
            [BATUTA, "pacha", "run", str(model), "--quiet", "--", *program],
            env=environment | {"TMPDIR": str(tmp_path / "links"), "MODEL_KEY": PASSWORD},
            cwd=work,
            text=True,
            **(defaults | options),
        )
        children.append(child)
        return child

    yield starting
    for child in children:
        child.kill()
        child.communicate()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def ended(descriptor: int) -> bool:
    """Whether the process of a pidfd ends within half a minute."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(30_000))


# The model changes on disk.


def test_the_program_reads_the_verified_bytes_after_the_file_was_written_to_replaced_and_removed(
    start: Start, model: Path
) -> None:
    child = start("sh", "-c", 'echo ready; read go; cat "$0"; read go; cat "$0"; read go; cat "$0"', "{}")
    assert line(child) == "ready\n"
    assert child.stdin is not None
    shown = []
    for change in (lambda: model.write_bytes(b"x" * len(CONTENT)), lambda: replace(model), model.unlink):
        change()
        child.stdin.write("go\n")
        child.stdin.flush()
        shown.append("".join(line(child) for _ in range(1000)))
    assert shown == [CONTENT.decode()] * 3


def replace(model: Path) -> None:
    other = model.with_name("other")
    other.write_bytes(b"y" * len(CONTENT))
    other.rename(model)


# Signals.


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "ALRM", "WINCH", "CONT", "PWR", "RTMIN"])
def test_a_signal_is_passed_on_to_the_program_once(start: Start, name: str) -> None:
    number = int(getattr(signal, f"SIG{name}"))
    child = start(sys.executable, "-c", TELLING, "{}", str(number))
    assert line(child) == "ready\n"
    child.send_signal(number)
    assert line(child) == f"got {number}\n"
    child.send_signal(signal.SIGUSR2)
    assert line(child) == f"got {int(signal.SIGUSR2)}\n"
    assert child.wait(30) == 9


def test_the_program_is_ended_by_a_signal_and_the_folder_is_removed(start: Start, tmp_path: Path) -> None:
    child = start("sh", "-c", "echo ready; exec sleep 1000", "{}")
    assert line(child) == "ready\n"
    assert len(names_in(tmp_path / "links")) == 1
    child.terminate()
    assert child.wait(30) == 128 + signal.SIGTERM
    assert names_in(tmp_path / "links") == []


def test_a_program_that_ignores_a_signal_goes_on(start: Start) -> None:
    child = start("sh", "-c", "trap '' TERM; echo ready; read go; echo went; exit 5", "{}")
    assert line(child) == "ready\n"
    child.terminate()
    assert child.communicate("go\n")[0] == "went\n"
    assert child.returncode == 5


@needs_strace
def test_ctrl_c_on_a_terminal_is_not_sent_to_the_program_again(start: Start, work: Path) -> None:
    leader, follower = pty.openpty()
    child = start(
        *(sys.executable, "-c", TELLING, "{}", str(int(signal.SIGINT))),
        stdin=follower,
        stdout=follower,
        preexec_fn=take_terminal,
        start_new_session=False,
    )
    os.close(follower)
    shown = until(leader, b"ready")
    trace = ["strace", "-e", "trace=kill", "-o", str(work / "trace"), "-p", str(child.pid)]
    with subprocess.Popen(trace, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        os.write(leader, b"\x03")
        shown = until(leader, b"got 2\r\n", shown)
        child.send_signal(signal.SIGUSR2)  # a second SIGINT would be passed on before it
        until(leader, b"got 12\r\n", shown)
        assert child.wait(30) == 9
    sent = [text for text in (work / "trace").read_text().splitlines() if text.startswith("kill(")]
    assert [text.partition(", ")[2][:7] for text in sent] == ["SIGUSR2"]
    os.close(leader)


def take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def until(terminal: int, text: bytes, shown: bytes = b"") -> bytes:
    """What a terminal shows until `text` is there."""
    while text not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        with contextlib.suppress(OSError):
            shown += os.read(terminal, 4096)
    return shown


def test_a_stopped_program_stops_its_parent_and_both_go_on(start: Start) -> None:
    child = start("sh", "-c", "echo ready $$; kill -STOP $$; echo continued", "{}")
    assert line(child).startswith("ready")
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    child.send_signal(signal.SIGCONT)
    assert line(child) == "continued\n"
    assert child.wait(30) == 0


def test_no_thread_takes_the_signals_that_are_for_the_program(
    start: Start, work: Path, model: Path, key: SigningKey
) -> None:
    (work / "model.gguf.sig").unlink()
    signed_model(work, key, "model.gguf", os.urandom(1 << 20) * 16)  # hashed by several threads
    child = start("sh", "-c", "cat /proc/$PPID/task/*/status", "{}")
    out, _ = child.communicate()
    blocked = [int(text.split()[1], 16) for text in out.splitlines() if text.startswith("SigBlk")]
    assert len(blocked) > 1
    others = blocked[1:]  # the first is the one that waits, which the kernel shows with an empty mask
    assert all(mask >> (signal.SIGTERM - 1) & 1 and mask >> (signal.SIGCHLD - 1) & 1 for mask in others)


def test_the_status_is_known_although_batuta_was_started_with_ended_children_ignored(start: Start) -> None:
    child = start("sh", "-c", "exit 7", "{}", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert child.wait(30) == 7


def test_a_program_keeps_the_signals_that_its_user_ignores(start: Start) -> None:
    ignored = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731 - as nohup does
    child = start("sh", "-c", "echo ready; read go; exit 5", "{}", preexec_fn=ignored)
    assert line(child) == "ready\n"
    child.send_signal(signal.SIGHUP)
    child.communicate("go\n")
    assert child.returncode == 5


# The end of the parent.


def test_kill_9_of_the_parent_kills_the_program(start: Start) -> None:
    child = start("sh", "-c", "echo $$; exec sleep 1000", "{}")
    program = os.pidfd_open(int(line(child)))
    child.kill()
    assert ended(program)
    os.close(program)


def test_the_memory_is_gone_with_the_program(start: Start) -> None:
    child = start("sh", "-c", 'echo $$ "$0"; exec sleep 1000', "{}")
    pid, path = line(child).split()
    assert os.path.exists(path)
    program = os.pidfd_open(int(pid))
    child.kill()
    assert ended(program)
    assert not os.path.exists(path)
    os.close(program)


# Swap, memory and file systems.


@pytest.fixture
def on_a_machine_with_swap(tmp_path: Path, without_capabilities: Callable[[], None]) -> Callable[..., object]:
    """Run a command where /proc/meminfo tells of swap, and no memory may be locked."""
    info = tmp_path / "meminfo"
    info.write_text(Path("/proc/meminfo").read_text().replace("SwapTotal:             0 kB", "SwapTotal:      1000 kB"))
    if "SwapTotal:             0 kB" in info.read_text() or "SwapTotal:" not in info.read_text():
        pytest.skip("this machine does not say how much swap it has")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    script = f'mount --bind {info} /proc/meminfo && ulimit -l 0 && exec setpriv --bounding-set -ipc_lock "$@"'

    def run(*command: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        words = ["unshare", "-m", "sh", "-c", script, "sh", *map(str, command)]
        return subprocess.run(words, capture_output=True, text=True, **options)

    return run


def test_memory_that_could_be_swapped_out_is_refused_unless_it_is_allowed(
    on_a_machine_with_swap: Callable[..., "subprocess.CompletedProcess[str]"],
    environment: dict[str, str],
    work: Path,
    model: Path,
) -> None:
    command = (BATUTA, "pacha", "run", model)
    refused = on_a_machine_with_swap(*command, "--", "cat", "{}", env=environment, cwd=work)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "this machine may swap them to a disk" in refused.stderr
    assert "--allow-swap" in refused.stderr
    allowed = on_a_machine_with_swap(*command, "--allow-swap", "--", "cat", "{}", env=environment, cwd=work)
    assert (allowed.returncode, allowed.stdout) == (0, CONTENT.decode())


def test_memory_that_cannot_be_locked_is_accepted_without_swap(
    environment: dict[str, str], work: Path, model: Path, without_capabilities: Callable[[], None]
) -> None:
    if "SwapTotal:             0 kB" not in Path("/proc/meminfo").read_text():
        pytest.skip("this machine has swap")

    def nothing_locked() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        without_capabilities()

    command = [BATUTA, "pacha", "run", str(model), "--", "cat", "{}"]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, preexec_fn=nothing_locked)
    assert (done.returncode, done.stdout) == (0, CONTENT)


def written_files(folder: Path) -> set[str]:
    """The files of file systems that traced processes opened for writing, made, or mapped to write to them."""
    found = set()
    for log in folder.glob("trace.*"):
        for text in log.read_text(errors="replace").splitlines():
            call, _, rest = text.partition("(")
            if " = -1 " in text:
                continue
            if call in ("open", "openat") and any(flag in rest for flag in ("O_WRONLY", "O_RDWR", "O_CREAT")):
                found.add(rest.partition('"')[2].partition('"')[0])
            elif call == "mmap" and "PROT_WRITE" in rest and "MAP_SHARED" in rest and "memfd:" not in rest:
                found.add(rest)
            elif call in ("write", "pwrite64", "writev", "pwritev", "pwritev2") and rest.partition("<")[2][:1] == "/":
                found.add(rest.partition("<")[2].partition(">")[0])
            elif call in ("creat", "sendfile", "copy_file_range", "splice", "io_uring_setup", "rename", "link"):
                found.add(rest)
    return {name for name in found if not name.startswith(("/dev/null", "/memfd:", "/dev/pts/"))}


def traced(work: Path, environment: dict[str, str], *command: str | Path) -> set[str]:
    folder = work.with_name("traces")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    calls = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,mmap,sendfile,copy_file_range,splice"
    strace = ["strace", "-ff", "-y", "-s", "16", "-o", str(folder / "trace")]
    strace += ["-e", f"trace={calls},io_uring_setup,rename,link"]
    settings = environment | {"MODEL_KEY": PASSWORD, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*strace, *command], env=settings, cwd=work, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    if "run" in command:
        assert done.stdout == CONTENT
    return written_files(folder)


@needs_strace
@pytest.mark.parametrize("version", [1, 2])
def test_nothing_is_written_to_a_file_system_while_a_model_is_decrypted_and_run(
    work: Path, environment: dict[str, str], model: Path, version: int
) -> None:
    encrypt_path(model, work / "model.gguf.enc", PASSWORD, format=version)
    model.unlink()
    assert traced(work, environment, BATUTA, "pacha", "run", "model.gguf.enc", "--", "cat", "{}") == set()
    assert traced(work, environment, BATUTA, "pacha", "decrypt", "model.gguf.enc") != set()  # the trace would show it
