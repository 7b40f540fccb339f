"""Safe files: what is opened, and that an output appears whole or not at all."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli import files
from batuta_cli.errors import (
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UsageError,
)


@pytest.fixture
def umask() -> Iterator[None]:
    previous = os.umask(0o027)
    yield
    os.umask(previous)


@pytest.fixture
def no_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without O_TMPFILE."""
    monkeypatch.setattr(files.AtomicOutput, "_open_unnamed", lambda self: False)


def test_an_output_has_no_name_until_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with files.atomic_output(target) as output:
        output.write(b"half")
        assert list(tmp_path.iterdir()) == []
        output.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, force: bool) -> None:
    with pytest.raises(ZeroDivisionError), files.atomic_output(tmp_path / "out", force=force) as output:
        output.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_file_that_was_to_be_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.atomic_output(target, force=True) as output:
        output.write(b"new")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_output_is_kept_without_force(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(OutputExistsError) as caught:
        files.write_file(target, b"new")
    assert "--force" in str(caught.value.hint)
    assert target.read_bytes() == b"old"


def test_an_output_that_comes_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputExistsError), files.atomic_output(target) as output:
        output.write(b"ours")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"


def test_force_replaces_a_file_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    files.write_file(target, b"new", force=True)
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path, umask: None) -> None:
    files.write_file(tmp_path / "out", b"")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_private_file_is_private(tmp_path: Path) -> None:
    files.write_file(tmp_path / "key", b"", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_links_are_followed_to_the_file_they_name(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "out")
    files.write_file(link, b"content")
    assert link.is_symlink()
    assert (tmp_path / "there" / "out").read_bytes() == b"content"


@pytest.mark.parametrize("force", [False, True])
def test_an_output_that_is_the_input_is_refused_even_by_another_name(tmp_path: Path, force: bool) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"content")
    os.link(source, tmp_path / "same")
    descriptor = os.open(source, os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match="the output is the input"):
            files.atomic_output(tmp_path / "same", force=force, inputs=[descriptor])
    finally:
        os.close(descriptor)
    assert source.read_bytes() == b"content"


def test_a_directory_as_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        files.write_file(tmp_path, b"", force=True)


def test_a_device_is_written_through_and_stays(tmp_path: Path) -> None:
    files.write_file("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        files.write_file(fifo, b"through")
        assert reader.stdout is not None
        assert reader.stdout.read() == b"through"
    assert stat.S_ISFIFO(os.stat(fifo).st_mode)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere/out: no such file or directory"):
        files.write_file(tmp_path / "nowhere" / "out", b"")


@pytest.mark.usefixtures("no_unnamed_files")
class TestWithoutUnnamedFiles:
    """The same promises where the file system cannot keep a file unnamed."""

    def test_the_content_waits_in_a_hidden_private_file(self, tmp_path: Path) -> None:
        with files.atomic_output(tmp_path / "out") as output:
            output.write(b"half")
            (hidden,) = tmp_path.iterdir()
            assert hidden.name == f".out.batuta-{os.getpid()}"
            assert stat.S_IMODE(hidden.stat().st_mode) == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_the_mode_is_that_of_any_new_file(self, tmp_path: Path, umask: None) -> None:
        files.write_file(tmp_path / "out", b"")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640

    def test_a_failure_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), files.atomic_output(tmp_path / "out") as output:
            output.write(b"half")
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    def test_an_output_that_comes_into_being_meanwhile_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        with pytest.raises(OutputExistsError), files.atomic_output(target) as output:
            output.write(b"ours")
            target.write_bytes(b"theirs")
        assert target.read_bytes() == b"theirs"
        assert list(tmp_path.iterdir()) == [target]

    def test_a_hidden_file_of_a_dead_process_is_cleared(self, tmp_path: Path) -> None:
        with subprocess.Popen(["true"]) as gone:
            pass
        left = tmp_path / f".out.batuta-{gone.pid}"
        left.write_bytes(b"half")
        files.write_file(tmp_path / "out", b"whole")
        assert not left.exists()

    def test_a_hidden_file_of_a_living_process_is_kept(self, tmp_path: Path) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as alive:
            kept = tmp_path / f".out.batuta-{alive.pid}"
            kept.write_bytes(b"half")
            files.write_file(tmp_path / "out", b"whole")
            assert kept.read_bytes() == b"half"

    def test_a_hidden_file_that_our_process_number_left_before_a_restart_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / f".out.batuta-{os.getpid()}").write_bytes(b"half")
        files.write_file(tmp_path / "out", b"whole", force=True)
        assert [p.name for p in tmp_path.iterdir()] == ["out"]


_CHILD = """
import os, sys
from batuta_cli import files
if {hidden}:
    files.AtomicOutput._open_unnamed = lambda self: False
with files.atomic_output(sys.argv[1], force=True) as output:
    output.write(b"half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("existing", [None, b"old"])
def test_kill_9_in_the_middle_leaves_the_target_untouched_and_nothing_else(
    tmp_path: Path, existing: bytes | None
) -> None:
    target = tmp_path / "out"
    if existing is not None:
        target.write_bytes(existing)
    _kill_in_the_middle(target, hidden=False)
    assert [p.name for p in tmp_path.iterdir()] == ([] if existing is None else ["out"])
    assert existing is None or target.read_bytes() == existing


def test_kill_9_without_unnamed_files_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    _kill_in_the_middle(tmp_path / "out", hidden=True)
    assert [p.name for p in tmp_path.iterdir()] != []
    files.write_file(tmp_path / "out", b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def _kill_in_the_middle(target: Path, *, hidden: bool) -> None:
    command = [sys.executable, "-c", _CHILD.format(hidden=hidden), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)


def test_a_full_disk_is_an_error_that_names_the_output_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from batuta_cli import errors, files\n"
        "try: files.write_file(sys.argv[1], bytes(8192))\n"
        "except errors.OperationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], capture_output=True, text=True, check=True)
    assert "out: file too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_opening_a_fifo_as_a_regular_file_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidInputError, match="is a FIFO, not a file"):
        files.open_regular(tmp_path / "fifo")


@pytest.mark.parametrize(
    ("path", "words"), [("/dev/null", "a character device"), ("/", "a directory")], ids=["device", "directory"]
)
def test_only_regular_files_are_opened_as_such(path: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"is {words}, not a file"):
        files.open_regular(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such file or directory"):
        files.open_regular("nowhere")


def test_a_nul_in_a_path_is_an_error_of_the_input() -> None:
    with pytest.raises(InvalidInputError):
        files.open_regular("a\0b")


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert files.read_limited(path, 10) == bytes(10)
    with pytest.raises(InvalidInputError, match="larger than 9 bytes"):
        files.read_limited(path, 9)


def test_a_lock_keeps_another_process_out_until_it_is_released(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    attempt = [sys.executable, "-c", code, str(lock)]
    with files.locked(lock):
        assert subprocess.run(attempt, capture_output=True).returncode != 0
    assert subprocess.run(attempt, capture_output=True).returncode == 0
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_display_shows_what_a_terminal_would_obey() -> None:
    assert files.display("a\nb\x1b[31m\x7f\u202ec") == "a\\nb\\x1b[31m\\x7f\\u202ec"
    assert files.display(b"caf\xe9") == "caf\\xe9"
    assert files.display("Grüße, 世界") == "Grüße, 世界"


def test_display_shows_what_is_invisible() -> None:
    assert files.display("a\u200bb\u00adc\ufeff\ufe0f") == "a\\u200bb\\u00adc\\ufeff\\ufe0f"
    assert files.display("a\U000e0061b\U000e0100") == "a\\U000e0061b\\U000e0100"
    assert files.display("e\u0301 नी 🙂") == "e\u0301 नी 🙂"  # accents and vowel signs can be seen


@given(st.binary(max_size=40))
def test_display_never_lets_a_control_character_through(name: bytes) -> None:
    shown = files.display(os.fsdecode(name))
    shown.encode()  # printable in any case
    assert not any(files.is_control(c) for c in shown)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.ELOOP])
def test_a_system_error_becomes_an_error_that_names_the_file_and_the_reason(number: int) -> None:
    with (
        pytest.raises(OperationError, match=f"model.gguf: {os.strerror(number).lower()}"),
        files.errors_named("model.gguf"),
    ):
        raise OSError(number, os.strerror(number))


def test_a_broken_pipe_is_nobody_s_fault_and_passes() -> None:
    with pytest.raises(BrokenPipeError), files.errors_named("stdout"):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@pytest.mark.parametrize("length", [243, 255])
def test_the_longest_names_can_be_replaced_too(tmp_path: Path, length: int) -> None:
    target = tmp_path / ("n" * length)
    files.write_file(target, b"old")
    files.write_file(target, b"new", force=True)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("n" * length, b"new")]
