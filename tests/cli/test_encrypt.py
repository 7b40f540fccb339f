"""`batuta pacha encrypt` and `decrypt`: the original or nothing, to files, pipes, devices and full disks."""

import errno
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.pacha.encryption import decrypt_model, encrypt_model
from tests.cli.support import answer, names_in, on_a_terminal, result, shows_no
from tests.conftest import BATUTA, Run

SECRET = "correct horse battery staple"
FORMATS = (1, 2)
Child = subprocess.Popen[str]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """With the password in MODEL_KEY."""
    return environment | {"MODEL_KEY": SECRET}


@pytest.fixture
def model(work: Path) -> Path:
    path = work / "model"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_encrypted_beside_itself_and_comes_back(batuta: Run, work: Path, model: Path, format: int) -> None:
    done = batuta("pacha", "encrypt", "model", "--format", str(format), code=0, umask=0o027)
    assert done.stdout == "model: encrypted to model.enc\n" and done.stderr == ""
    assert stat.S_IMODE((work / "model.enc").stat().st_mode) == 0o640
    assert decrypt_model((work / "model.enc").read_bytes(), SECRET) == b"weights"
    model.unlink()
    back = batuta("pacha", "decrypt", "model.enc", "--json", code=0)
    found = result(back)
    assert (found["output"], found["version"], found["plaintext_size"]) == ("model", format, 7)
    assert model.read_bytes() == b"weights"
    shows_no(SECRET, done, back)
    assert names_in(work) == ["model", "model.enc"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [0, 3_000_000])
def test_pipes_carry_both_formats_both_ways(
    batuta: Run, environment: dict[str, str], work: Path, format: int, size: int
) -> None:
    content = os.urandom(size)
    line = f"{BATUTA} pacha encrypt - --format {format} -o - | cat | {BATUTA} pacha decrypt - -o -"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], input=content, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == content
    assert names_in(work) == []
    encrypted = encrypt_model(content, SECRET, format=format)
    batuta("pacha", "decrypt", "-", "-o", "out", input=encrypted, text=False, code=0)
    assert (work / "out").read_bytes() == content
    (work / "x.enc").write_bytes(encrypted)
    shown = batuta("pacha", "decrypt", "x.enc", "-o", "-", text=False, code=0).stdout
    assert shown == content  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("format", FORMATS)
def test_a_wrong_password_and_a_damaged_file_are_one_message_and_leave_nothing(
    batuta: Run, work: Path, format: int
) -> None:
    good = encrypt_model(b"x" * 100, SECRET, format=format)
    damaged = good[:-20] + bytes([good[-20] ^ 1]) + good[-19:]
    for name, data in (("good", good), ("damaged", damaged), ("long", good + b"\n"), ("cut", good[:-1])):
        (work / f"{name}.enc").write_bytes(data)
    before = names_in(work)
    wrong = batuta("pacha", "decrypt", "good.enc", env={"MODEL_KEY": "guess"}, code=3)
    shows_no("guess", wrong)
    messages = {wrong.stderr.replace("good.enc", "FILE")}
    for name in ("damaged", "long", "cut"):
        messages.add(batuta("pacha", "decrypt", f"{name}.enc", code=3).stderr.replace(f"{name}.enc", "FILE"))
    piped = batuta("pacha", "decrypt", "damaged.enc", "-o", "-", text=False, code=3)
    assert piped.stdout == b""  # type: ignore[comparison-overlap]
    (work / "old").write_bytes(b"precious")
    batuta("pacha", "decrypt", "damaged.enc", "-o", "old", "--force", code=3)
    assert (work / "old").read_bytes() == b"precious"
    (work / "old").unlink()
    assert len(messages) == 1
    assert "wrong password, or the file is damaged" in messages.pop()
    assert names_in(work) == before
    failed = answer(batuta("pacha", "decrypt", "cut.enc", "--json", code=3))
    assert failed["error"]["kind"] == "decryption_failed"


@pytest.mark.parametrize("format", FORMATS)
def test_a_header_that_is_damaged_or_cut_is_refused_and_leaves_nothing(batuta: Run, work: Path, format: int) -> None:
    """Some places of many, by the command; `tests/pacha/encryption` takes every byte."""
    good = encrypt_model(b"x", SECRET, format=format)
    header = {1: 53, 2: 99}[format]
    cases = [(bytes([good[0] ^ 1]) + good[1:], 2)]
    cases += [(good[:8] + bytes([version]) + good[9:], 2) for version in (0, 3, 255)]
    cases += [(good[:size], 2) for size in (0, 8, 9, 41, header - 1)]
    cases += [(good[:40] + bytes([good[40] ^ 1]) + good[41:], 3), (good[:header], 3), (good[: header + 15], 3)]
    if format == 2:
        cases += [(good[:53] + b"\2" + good[54:], 2), (good[:98] + bytes([good[98] ^ 1]) + good[99:], 3)]
        cases += [(good[:66] + bytes([log2]) + good[67:], 2) for log2 in (0, 11, 25, 255)]
    for data, code in cases:
        (work / "x.enc").write_bytes(data)
        done = batuta("pacha", "decrypt", "x.enc", code=code)
        assert done.stderr.startswith("error: x.enc: ") and "Traceback" not in done.stderr
        assert names_in(work) == ["x.enc"]


def _kdf(memory_kib: int, passes: int = 3, lanes: int = 4) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in (memory_kib, passes, lanes))


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def test_a_header_that_asks_for_monstrous_work_is_refused_before_any_is_done(batuta: Run, work: Path) -> None:
    good = encrypt_model(b"x", SECRET, format=2)
    gib = 1024 * 1024
    hostile = [
        _kdf(100 * gib), _kdf(0), _kdf(2**32 - 1), _kdf(31), _kdf(65_536, 0), _kdf(65_536, 2**32 - 1),
        _kdf(65_536, 3, 0), _kdf(65_536, 3, 17), _kdf(gib + 1), _kdf(256 * 1024 + 1),
    ]  # fmt: skip
    for costs in hostile:
        (work / "x.enc").write_bytes(good[:54] + costs + good[66:])
        done = batuta("pacha", "decrypt", "x.enc", code=2, preexec_fn=_little_memory)
        assert "key derivation" in done.stderr
        assert names_in(work) == ["x.enc"]
    limit = done.stderr.rpartition("--allow-kdf-memory")[2].split()[0]  # the hint can be typed as it stands
    allowed = batuta(
        "pacha", "decrypt", "x.enc", "--allow-kdf-memory", limit, code=3
    )  # the header is not the signed one
    assert "wrong password, or the file is damaged" in allowed.stderr
    for value in ("0", "1025", "lots"):
        batuta("pacha", "decrypt", "x.enc", "--allow-kdf-memory", value, code=2)


def test_what_is_not_encrypted_is_exit_2(batuta: Run, work: Path, model: Path) -> None:
    (work / "plain.enc").write_bytes(b"GGUF" + bytes(100))
    assert "not an encrypted file" in batuta("pacha", "decrypt", "plain.enc", code=2).stderr
    done = batuta("pacha", "decrypt", "model", code=2)
    assert "does not end in .enc" in done.stderr and "--output" in done.stderr
    (work / ".enc").write_bytes(b"")
    batuta("pacha", "decrypt", ".enc", code=2)
    assert names_in(work) == [".enc", "model", "plain.enc"]


def test_inputs_that_cannot_be_read_are_named(
    batuta: Run, work: Path, model: Path, unprivileged: Callable[[], None]
) -> None:
    (work / "d").mkdir()
    for command in ("encrypt", "decrypt"):
        assert "missing: no such file" in batuta("pacha", command, "missing", "-o", "out", code=1).stderr
        done = batuta("pacha", command, "d", "-o", "out", code=2)
        assert "d: is a directory" in done.stderr
    assert "tar c" in batuta("pacha", "encrypt", "d", code=2).stderr
    model.chmod(0)
    done = batuta("pacha", "encrypt", "model", code=1, preexec_fn=unprivileged)
    assert "model: permission denied" in done.stderr
    assert names_in(work) == ["d", "model"]


@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_an_output_that_exists_is_replaced_only_by_force_and_asked_about_first(
    batuta: Run, environment: dict[str, str], work: Path, command: str
) -> None:
    source, target = ("model", "model.enc") if command == "encrypt" else ("model.enc", "model")
    (work / source).write_bytes(b"x" if command == "encrypt" else encrypt_model(b"x", SECRET))
    (work / target).write_bytes(b"precious")
    done = batuta("pacha", command, source, code=2)
    assert f"{target}: already exists" in done.stderr and "--force" in done.stderr
    assert (work / target).read_bytes() == b"precious"
    del environment["MODEL_KEY"]  # it is found before a password is asked for
    status, shown = on_a_terminal(["pacha", command, source], environment, work)
    assert status == 2 and "assword" not in shown.replace("--password", "")
    batuta("pacha", command, source, "--force", env={"MODEL_KEY": SECRET}, code=0)
    assert (work / target).read_bytes() != b"precious"
    assert names_in(work) == ["model", "model.enc"]


def test_the_output_is_never_the_input(batuta: Run, environment: dict[str, str], work: Path, model: Path) -> None:
    os.link(model, work / "hard")
    os.symlink("model", work / "soft")
    for output in ("model", "hard", "soft", "../work/model"):
        done = batuta("pacha", "encrypt", "model", "-o", output, "--force", code=2)
        assert "the output is the input" in done.stderr
    with open(model, "rb") as file:
        done = batuta(
            "pacha", "encrypt", f"/dev/fd/{file.fileno()}", "-o", "model", "--force", code=2, pass_fds=[file.fileno()]
        )
        assert "the output is the input" in done.stderr
        command = [BATUTA, "pacha", "encrypt", "-", "-o", "model", "--force"]
        done = subprocess.run(command, env=environment, cwd=work, stdin=file, capture_output=True, text=True)
    assert done.returncode == 2 and "the output is the input" in done.stderr
    assert model.read_bytes() == b"weights"
    assert names_in(work) == ["hard", "model", "soft"]


def test_odd_outputs_are_refused_or_written_through(
    batuta: Run, environment: dict[str, str], work: Path, model: Path
) -> None:
    assert "is a directory" in batuta("pacha", "encrypt", "model", "-o", ".", code=2).stderr
    assert (
        "missing/x: no such file or directory" in batuta("pacha", "encrypt", "model", "-o", "missing/x", code=1).stderr
    )
    for format in ("1", "2"):
        batuta("pacha", "encrypt", "model", "-o", "/dev/null", "--format", format, code=0)
        done = batuta("pacha", "encrypt", "model", "-o", "/dev/full", "--format", format, code=1)
        assert "/dev/full: no space left on device" in done.stderr
        done = batuta("pacha", "encrypt", "model", "-o", "-", "--json", code=2)
        assert answer(done)["error"]["hint"] == "give --output FILE"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(work / "fifo")
    with subprocess.Popen([BATUTA, "pacha", "encrypt", "model", "-o", "fifo"], env=environment, cwd=work) as child:
        assert decrypt_model((work / "fifo").read_bytes(), SECRET) == b"weights"
    assert child.returncode == 0
    os.symlink("target", work / "dangling")
    batuta("pacha", "encrypt", "model", "-o", "dangling", code=0)
    assert (work / "dangling").is_symlink() and (work / "target").is_file()
    assert names_in(work) == ["dangling", "fifo", "model", "target"]


def test_a_fifo_is_encrypted_as_the_stream_it_is(environment: dict[str, str], work: Path) -> None:
    os.mkfifo(work / "fifo")
    with subprocess.Popen(
        [BATUTA, "pacha", "encrypt", "fifo"], env=environment, cwd=work, stdout=subprocess.PIPE
    ) as child:
        (work / "fifo").write_bytes(b"weights")
        child.communicate()
    assert decrypt_model((work / "fifo.enc").read_bytes(), SECRET) == b"weights"


def test_binary_is_never_written_to_a_terminal(environment: dict[str, str], work: Path, model: Path) -> None:
    (work / "model.enc").write_bytes(encrypt_model(b"\x1b[2J", SECRET))
    for arguments in (["encrypt", "model", "-o", "-"], ["decrypt", "model.enc", "-o", "-"]):
        status, shown = on_a_terminal(["pacha", *arguments], environment | {"NO_COLOR": "1"}, work)
        assert status == 2
        assert "refusing to write binary output to the terminal" in shown
        assert "PACHAENC" not in shown and "\x1b[2J" not in shown


@pytest.mark.parametrize("command", ["encrypt --format 1", "encrypt --format 2", "decrypt"])
def test_no_room_leaves_the_old_output_and_nothing_else(
    batuta: Run, work: Path, small_disk: Path, command: str
) -> None:
    content = os.urandom(200_000)
    (work / "in").write_bytes(encrypt_model(content, SECRET) if command == "decrypt" else content)
    (small_disk / "out").write_bytes(b"precious")
    done = batuta("pacha", *command.split(), "in", "-o", small_disk / "out", "--force", code=1)
    assert f"{small_disk / 'out'}: {os.strerror(errno.ENOSPC).lower()}" in done.stderr
    assert (small_disk / "out").read_bytes() == b"precious"
    assert names_in(small_disk) == ["out"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = batuta("pacha", *command.split(), "in", "-o", "out", code=1, preexec_fn=limit)
    assert f"out: {os.strerror(errno.EFBIG).lower()}" in done.stderr
    assert names_in(work) == ["in"]


@pytest.mark.parametrize("command", ["encrypt --format 1", "encrypt --format 2", "decrypt"])
@pytest.mark.parametrize("old", [None, b"precious"])
def test_kill_in_the_middle_leaves_the_old_output_and_nothing_else(
    environment: dict[str, str], work: Path, command: str, old: bytes | None
) -> None:
    os.mkfifo(work / "in")
    if old:
        (work / "out").write_bytes(old)
    piece = encrypt_model(bytes(3_000_000), SECRET, format=2)[:2_500_000]
    arguments = [BATUTA, "pacha", *command.split(), "in", "-o", "out", "--force"]
    with (
        subprocess.Popen(arguments, env=environment, cwd=work) as child,
        open(work / "in", "wb", buffering=0) as feed,
    ):
        feed.write(piece)  # more than the pipe holds: when it returns, most has been read
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert names_in(work) == (["in", "out"] if old else ["in"])
    assert not old or (work / "out").read_bytes() == old


def test_a_reader_that_leaves_early_ends_the_command_silently(environment: dict[str, str], work: Path) -> None:
    (work / "big").write_bytes(bytes(3_000_000))
    line = f"{BATUTA} pacha encrypt big --format 2 -o - | head -c 1 > /dev/null"
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=work, capture_output=True, text=True)
    assert done.stderr == ""


def test_wrong_use_says_what_to_type(batuta: Run, work: Path, model: Path) -> None:
    for format in ("0", "3", "-1"):
        done = batuta("pacha", "encrypt", "model", f"--format={format}", code=2)
        assert "1 or 2" in done.stderr or "1 to 2" in done.stderr
    for name in ("-rf", "a\nb\x1b[31m", b"\xff".decode(errors="surrogateescape")):
        (work / name).write_bytes(b"x")
        done = batuta("pacha", "encrypt", "--", name, code=0)
        assert "\x1b" not in done.stdout
        batuta("pacha", "decrypt", "--force", "--", f"{name}.enc", code=0)
        assert (work / name).read_bytes() == b"x"
