"""Starts a program on a model in sealed memory, and stays as its parent.

The program gets the memory as open descriptors, and their paths as symbolic links in a private folder: one link with
the model's own name, or a folder of that name whose links have the layout of the model directory. The links lead to
`/proc/PID/fd/N` of the program, so they work for its child processes too. Only links are on the file system.

The parent forwards signals, returns the program's exit status and removes the folder. When the parent is killed, the
kernel kills the program (PR_SET_PDEATHSIG, prctl(2)), and the next run removes the folder.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from batuta_cli.errors import OperationError, ProgramNotFoundError, ProgramNotStartedError, UsageError
from batuta_cli.files import display
from batuta_cli.pacha.hashing import start_hashing_threads
from batuta_cli.pacha.sealed.memfd import MemoryFile, libc

PLACEHOLDER = "{}"
"""Stands for the model's path in the arguments of the program."""

FORWARDED = frozenset(
    getattr(signal, f"SIG{name}")
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "CONT", "WINCH", "PWR")
    if hasattr(signal, f"SIG{name}")
) | frozenset(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
"""Signals that are passed on to the program. A stop of the program stops the parent too, so that Ctrl-Z works."""

_WAITED_FOR = FORWARDED | {signal.SIGCHLD}
_FROM_KERNEL = 0x80  # SI_KERNEL of sigaction(2): a signal of the terminal, which its whole process group receives
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE of linux/prctl.h
_SET_DUMPABLE = 4
_PREFIX = "batuta-run-"
_ABANDONED_AFTER = 60.0  # seconds; a younger folder may not be locked yet


@dataclass(frozen=True)
class Program:
    """A program that was found, and its arguments with `{}` for the model's path."""

    path: str
    arguments: tuple[str, ...]
    """The first one is the program's name as it was given."""

    def with_model(self, path: str) -> list[str]:
        """The arguments with the path of the model in place of each `{}`."""
        name, *others = self.arguments
        return [name, *(argument.replace(PLACEHOLDER, path) for argument in others)]


def find_program(arguments: Sequence[str]) -> Program:
    """Find a program as a shell does, before anything is read.

    Raises:
        UsageError: there is no program, or no argument has `{}` in it.
        ProgramNotFoundError, ProgramNotStartedError: there is no such program, or it is not executable.
    """
    if not arguments:
        raise UsageError("the program to start is missing", hint="batuta pacha run MODEL -- PROGRAM --model {}")
    name, *others = arguments
    if not any(PLACEHOLDER in argument for argument in others):
        raise UsageError(
            "no argument of the program is {}, which stands for the model's path",
            hint="batuta pacha run MODEL -- PROGRAM --model {}",
        )
    path = shutil.which(name)
    if path is not None:
        return Program(os.path.abspath(path), tuple(arguments))
    if "/" in name and os.path.isdir(name):
        raise ProgramNotStartedError(f"{display(name)}: is a directory")
    if "/" in name and os.path.lexists(name):
        raise ProgramNotStartedError(f"{display(name)}: cannot be executed", hint=f"chmod +x {display(name)}")
    where = "no such file" if "/" in name else "no such program in PATH"
    raise ProgramNotFoundError(f"{display(name)}: {where}")


def keep_signals_from_threads() -> None:
    """Start the threads that hash large files with the signals of the program and about it blocked.

    A signal is delivered to any thread that does not block it, and a thread of a native library would lose it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        start_hashing_threads()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_program(program: Program, name: str, files: Mapping[str, MemoryFile], environment: Mapping[str, str]) -> int:
    """Run a program on a model in sealed memory, and return its exit status, or 128 + the signal that ended it.

    Args:
        name: the model's base name.
        files: the model's files by their names inside the model; a single file is named `"."`.

    Raises:
        ProgramNotStartedError, ProgramNotFoundError: the program could not be executed.
        OperationError: there is no folder for the links, or no process can be started.
    """
    libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0)  # /proc/PID/environ of this process may have the password
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would lose the status of the program
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        with _private_folder() as folder:
            arguments = program.with_model(os.path.join(folder, name))
            with _Child(program, arguments, environment, [file.descriptor for file in files.values()], before) as child:
                _link(folder, name, files, child.pid)
                child.start()
                return _wait(child.pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# The folder of links.


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """A folder that only this user can enter, and that is removed after the block."""
    folder, lock = _new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_folder() -> tuple[str, int]:
    places = [place for place in (os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR")) if place]
    for place in [*places, "/dev/shm", "/tmp", "/var/tmp"]:  # noqa: S108 - the folder is private
        with contextlib.suppress(OSError):
            _remove_abandoned(place)
            folder = tempfile.mkdtemp(prefix=_PREFIX, dir=os.path.abspath(place))
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # says that this process is alive, in other containers too
                fcntl.flock(lock, fcntl.LOCK_EX)
            return folder, lock
    raise OperationError(
        "there is no folder for the links to the model", hint="name one that can be written: TMPDIR=/folder"
    )


def _remove_abandoned(place: str) -> None:
    """Remove the folders of runs that were killed."""
    for entry in os.scandir(place):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            mine = entry.name.startswith(_PREFIX) and status.st_uid == os.geteuid()
            if not mine or not entry.is_dir(follow_symlinks=False) or time.time() - status.st_mtime < _ABANDONED_AFTER:
                continue
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path)
            finally:
                os.close(descriptor)


def _link(folder: str, name: str, files: Mapping[str, MemoryFile], pid: int) -> None:
    for inner, file in files.items():
        place = Path(folder, name) if inner == "." else Path(folder, name, inner)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.symlink_to(f"/proc/{pid}/fd/{file.descriptor}")


# The program.


class _Child:
    """A child process that waits to become the program; `start` lets it. The block kills it when it fails."""

    def __init__(
        self,
        program: Program,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        signals: set[int | signal.Signals],
    ) -> None:
        self._program = program
        self._go, go = os.pipe()
        failed, self._failed = os.pipe()
        libc()  # loaded before the fork
        parent = os.getpid()
        with warnings.catch_warnings():
            # Python warns of a fork beside other threads. The child only makes system calls until it is the program.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(go)
            _become(program.path, arguments, environment, descriptors, signals, parent, self._go, self._failed)
        os.close(self._go)
        os.close(self._failed)
        self._go, self._failed = go, failed

    def start(self) -> None:
        """Let the child become the program. Raises `ProgramNotStartedError`, `ProgramNotFoundError`."""
        os.write(self._go, b"!")
        answer = os.read(self._failed, 16)
        if not answer:
            return
        number = int(answer)
        kind = ProgramNotFoundError if number == errno.ENOENT else ProgramNotStartedError
        raise kind(f"{display(self._program.path)}: cannot be executed: {os.strerror(number).lower()}")

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._go)
        os.close(self._failed)
        if kind is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


def _become(
    path: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[int],
    signals: set[int | signal.Signals],
    parent: int,
    go: int,
    failed: int,
) -> NoReturn:
    """In the child: become the program as soon as the parent has made the links; never return."""
    try:
        libc().prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent and os.read(go, 1):  # the parent may have been killed before the call above
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program inherits that
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            os.execve(path, list(arguments), environment)  # noqa: S606 - the program that the user named
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    finally:
        os._exit(127)


def _wait(pid: int) -> int:
    """Pass signals on to the program until it has ended; return its status."""
    while True:
        received = signal.sigwaitinfo(_WAITED_FOR)
        if received.si_signo == signal.SIGCHLD:
            if (status := _status_of(pid)) is not None:
                return status
        elif received.si_code != _FROM_KERNEL or not _shares_terminal_signals(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, received.si_signo)


def _shares_terminal_signals(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid) == os.getpgrp()
    return True


def _status_of(pid: int) -> int | None:
    """The status of the program if it has ended. Reaps other children too, which process 1 of a container inherits."""
    while True:
        try:
            found, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return None
        if found == 0:
            return None
        if found != pid:
            continue
        if not os.WIFSTOPPED(status):
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.kill(os.getpid(), signal.SIGSTOP)
