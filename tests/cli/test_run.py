"""`batuta pacha run`: what the program gets, and what keeps it from being started."""

import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha.encryption import encrypt_path
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from tests.cli.support import answer, forget_trust, names_in, on_a_terminal, own_key, shows_no, signed_model
from tests.conftest import BATUTA, Run

PASSWORD = "correct horse battery staple"


@pytest.fixture
def key(home: Path) -> SigningKey:
    return own_key(home)


@pytest.fixture
def model(work: Path, key: SigningKey) -> Path:
    return signed_model(work, key, "model.gguf", b"weights\n" * 1000)


def encrypted(work: Path, model: Path, version: int) -> Path:
    """The model, of which only the ciphertext is left."""
    encrypt_path(model, work / f"{model.name}.enc", PASSWORD, format=version)
    model.unlink()
    return work / f"{model.name}.enc"


def directory(work: Path, key: SigningKey, files: dict[str, bytes], **options: Any) -> Path:
    model = work / "nemo"
    for name, content in files.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)
    sign_path(model, key, **options).save(work / "nemo.sig")
    return model


def starts_nothing(batuta: Run, work: Path, *arguments: str | Path, code: int, **options: Any) -> str:
    """The error of a run whose program would have left a file."""
    done = batuta("pacha", "run", *arguments, "--", "touch", "started", "{}", code=code, **options)
    assert not (work / "started").exists()
    assert done.stdout == ""
    return done.stderr


# What the program gets.


def test_the_program_reads_the_model_under_its_own_name(batuta: Run, model: Path) -> None:
    done = batuta("pacha", "run", "model.gguf", "--", "sh", "-c", 'echo "$0"; cat "$0"', "{}", code=0)
    path, content = done.stdout.split("\n", 1)
    assert os.path.basename(path) == "model.gguf"
    assert content == "weights\n" * 1000
    assert "verified, signed by alice@example.com" in done.stderr


def test_every_placeholder_is_replaced_also_inside_an_argument(batuta: Run, model: Path) -> None:
    done = batuta("pacha", "run", "model.gguf", "--", "echo", "--model={}", "{}:1", "{ }", code=0)
    first, second, third = done.stdout.rstrip("\n").split(" ", 2)
    assert first.startswith("--model=/") and first.endswith("/model.gguf")
    assert second == first.removeprefix("--model=") + ":1"
    assert third == "{ }"


@pytest.mark.parametrize("version", [1, 2])
def test_an_encrypted_model_is_decrypted_for_the_program_and_has_the_plaintexts_signature_and_name(
    batuta: Run, work: Path, model: Path, version: int
) -> None:
    file = encrypted(work, model, version)
    before = names_in(work)
    done = batuta(
        "pacha", "run", file, "--", "sh", "-c", 'echo "$0"; cat "$0"', "{}", env={"MODEL_KEY": PASSWORD}, code=0
    )
    path, content = done.stdout.split("\n", 1)
    assert os.path.basename(path) == "model.gguf"
    assert content == "weights\n" * 1000
    assert names_in(work) == before


def test_an_encrypted_model_that_is_empty_still_needs_its_password(batuta: Run, work: Path, key: SigningKey) -> None:
    file = encrypted(work, signed_model(work, key, "empty", b""), 2)
    batuta("pacha", "run", file, "--", "cat", "{}", env={"MODEL_KEY": PASSWORD}, code=0)
    assert "wrong password" in starts_nothing(batuta, work, file, code=3, env={"MODEL_KEY": "wrong"})


def test_the_program_does_not_get_the_variables_of_passwords(batuta: Run, work: Path, model: Path) -> None:
    file = encrypted(work, model, 1)
    variables = {"MODEL_KEY": "another secret", "OTHER": PASSWORD, "KEPT": "yes"}
    done = batuta("pacha", "run", file, "--password-env", "OTHER", "--", "env", "X={}", "env", env=variables, code=0)
    assert "KEPT=yes" in done.stdout.splitlines()
    shows_no(PASSWORD, done)
    shows_no("another secret", done)


def test_the_program_cannot_read_the_password_from_the_environment_of_its_parent(
    environment: dict[str, str], work: Path, model: Path, without_capabilities: Callable[[], None]
) -> None:
    file = encrypted(work, model, 1)
    program = ["sh", "-c", "cat /proc/$PPID/environ || echo refused", "{}"]
    done = subprocess.run(
        [BATUTA, "pacha", "run", str(file), "--", *program],
        env=environment | {"MODEL_KEY": PASSWORD},
        cwd=work,
        capture_output=True,
        text=True,
        preexec_fn=without_capabilities,
    )
    assert done.stdout == "refused\n", done.stderr
    shows_no(PASSWORD, done)


def test_a_directory_keeps_its_layout_and_its_name(batuta: Run, work: Path, key: SigningKey) -> None:
    directory(work, key, {"config.json": b"{}", "weights/one.bin": b"1", "weights/deep/two.bin": b"22", "empty": b""})
    script = (
        'cd "$0" && basename "$PWD" && find . -type l | sort && cat config.json weights/one.bin weights/deep/two.bin'
    )
    done = batuta("pacha", "run", "nemo/", "--", "sh", "-c", script, "{}", code=0)
    assert done.stdout == "nemo\n./config.json\n./empty\n./weights/deep/two.bin\n./weights/one.bin\n{}122"


def test_files_that_no_signature_covers_are_named_and_not_handed_on(batuta: Run, work: Path, key: SigningKey) -> None:
    model = directory(work, key, {"weights": b"1", "run.log": b"2"}, ignore=["run.log"])
    (model / ".gitattributes").write_text("x")
    program = ("--", "sh", "-c", 'ls -A "$0"', "{}")
    done = batuta("pacha", "run", "nemo", "--allow-unsigned", "git", *program, code=0)
    assert done.stdout == "weights\n"
    assert "not covered by the signature: run.log" in done.stderr
    assert "not signed, and tolerated: .gitattributes" in done.stderr
    assert ".gitattributes" in starts_nothing(batuta, work, "nemo", code=3)


def test_links_are_read_only_where_they_were_signed(batuta: Run, work: Path, key: SigningKey) -> None:
    (work / "blob").write_bytes(b"weights")
    (work / "nemo").mkdir()
    (work / "nemo" / "model.bin").symlink_to(work / "blob")
    sign_path(work / "nemo", key, follow_symlinks=True).save(work / "nemo.sig")
    assert batuta("pacha", "run", "nemo", "--", "cat", "{}/model.bin", code=0).stdout == "weights"
    (work / "other").mkdir()
    (work / "other" / "model.bin").write_bytes(b"weights")
    sign_path(work / "other", key).save(work / "other.sig")
    (work / "other" / "model.bin").unlink()
    (work / "other" / "model.bin").symlink_to(work / "blob")
    assert "changed: model.bin" in starts_nothing(batuta, work, "other", code=3)


def test_an_object_of_the_store_has_the_name_that_it_was_added_under(batuta: Run, model: Path) -> None:
    batuta("pacha", "store", "add", "model.gguf", "--name", "nemo", code=0)
    done = batuta("pacha", "run", "nemo", "--", "sh", "-c", 'basename "$0"; wc -c <"$0"', "{}", code=0)
    assert done.stdout == "model.gguf\n8000\n"


def test_an_object_of_the_store_must_have_its_address_besides_a_trusted_signature(
    batuta: Run, home: Path, work: Path, key: SigningKey
) -> None:
    for name, content in (("one", b"content 1"), ("two", b"content 2")):
        signed_model(work, key, name, content)
        batuta("pacha", "store", "add", name, "--name", name, code=0)
        (work / name).unlink()
    place = home / "data" / "batuta" / "store"
    (one,) = [path for path in place.rglob("*") if path.is_file() and path.read_bytes() == b"content 1"]
    (two,) = [path for path in place.rglob("*") if path.is_file() and path.read_bytes() == b"content 2"]
    signature_of = {each: place / "signatures" / f"{each.parent.name}{each.name}.sig" for each in (one, two)}
    for old, new in ((one, two), (signature_of[one], signature_of[two])):
        content = new.read_bytes()
        old.unlink()
        old.write_bytes(content)
        old.chmod(new.stat().st_mode)
    assert "the content is blake3:" in starts_nothing(batuta, work, "one", code=3)


def test_the_exit_status_is_that_of_the_program_or_128_and_its_signal(batuta: Run, model: Path) -> None:
    for script, status in (("exit 0", 0), ("exit 7", 7), ("exit 130", 130), ("kill -KILL $$", 137)):
        done = batuta("pacha", "run", "model.gguf", "--quiet", "--", "sh", "-c", script, "{}", code=status)
        assert (done.stdout, done.stderr) == ("", "")


def test_stdin_stdout_and_stderr_are_those_of_the_program_also_under_json(batuta: Run, model: Path) -> None:
    program = ("--", "sh", "-c", "cat; echo error >&2", "{}")
    done = batuta("pacha", "run", "model.gguf", "--json", *program, input="typed", code=0)
    assert (done.stdout, done.stderr) == ("typed", "error\n")


def test_on_a_terminal_the_password_is_asked_for_before_the_program_starts(
    environment: dict[str, str], work: Path, model: Path
) -> None:
    file = encrypted(work, model, 2)
    command = ("pacha", "run", file, "--", "wc", "-c", "{}")
    status, shown = on_a_terminal(command, environment, work, [("Password:", PASSWORD)])
    assert status == 0
    assert shown.index("verified, signed by") < shown.index("8000 /")


def test_the_memory_cannot_be_written_to(batuta: Run, model: Path) -> None:
    script = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
for change in ((os.pwrite, b"x", 0), (os.ftruncate, 1), (os.ftruncate, 1 << 20)):
    try:
        change[0](descriptor, *change[1:])
        print("changed")
    except PermissionError:
        print("refused")
"""
    done = batuta("pacha", "run", "model.gguf", "--", sys.executable, "-c", script, "{}", code=0)
    assert done.stdout.split() == ["refused"] * 3


def test_the_memory_is_locked_while_the_program_runs(batuta: Run, model: Path) -> None:
    script = "grep VmLck /proc/$PPID/status"
    done = batuta("pacha", "run", "model.gguf", "--", "sh", "-c", script, "{}", code=0)
    assert done.stdout.split()[1:] == ["8", "kB"]  # 8,000 bytes are two pages


def test_a_program_gets_the_default_action_of_a_broken_pipe(batuta: Run, model: Path) -> None:
    script = "trap - PIPE; grep SigIgn /proc/self/status"
    done = batuta("pacha", "run", "model.gguf", "--", "sh", "-c", script, "{}", code=0)
    assert int(done.stdout.split()[1], 16) & (1 << 12) == 0  # bit 12 is signal 13, SIGPIPE


# The folder of links.


def test_the_folder_of_links_is_private_and_gone_afterwards(
    batuta: Run, work: Path, model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "links"
    place.mkdir()
    script = 'stat -c %a "$(dirname "$0")"; readlink "$0"; echo $$'
    done = batuta("pacha", "run", "model.gguf", "--", "sh", "-c", script, "{}", env={"TMPDIR": str(place)}, code=0)
    mode, target, pid = done.stdout.split()
    assert mode == "700"
    assert target.startswith(f"/proc/{pid}/fd/")
    assert names_in(place) == []


def test_folders_of_runs_that_were_killed_are_removed_and_those_of_others_are_not(
    batuta: Run, model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "links"
    for name in ("batuta-run-dead", "batuta-run-alive", "batuta-run-young", "other"):
        (place / name).mkdir(parents=True)
        (place / name / "model").symlink_to("/proc/1/fd/1")
        if "young" not in name:
            os.utime(place / name, (0, 0))
    alive = os.open(place / "batuta-run-alive", os.O_RDONLY)
    fcntl.flock(alive, fcntl.LOCK_EX)
    batuta("pacha", "run", "model.gguf", "--", "true", "{}", env={"TMPDIR": str(place)}, code=0)
    os.close(alive)
    assert names_in(place) == ["batuta-run-alive", "batuta-run-young", "other"]


# What keeps it from being started.


def test_a_changed_model_starts_nothing(batuta: Run, work: Path, model: Path) -> None:
    model.write_bytes(model.read_bytes().replace(b"w", b"W", 1))
    assert "the content is not what was signed" in starts_nothing(batuta, work, model, code=3)


def test_an_unknown_signer_starts_nothing(batuta: Run, work: Path, home: Path, model: Path) -> None:
    forget_trust(home)
    error = starts_nothing(batuta, work, model, code=4)
    assert f"error: {model}: signed by the unknown key" in error
    assert "batuta pacha trust add" in error


def test_a_missing_signature_starts_nothing(batuta: Run, work: Path, model: Path) -> None:
    (work / "model.gguf.sig").unlink()
    error = starts_nothing(batuta, work, model, code=3)
    assert "there is no signature" in error
    assert error.endswith(f"\n  batuta pacha sign {model}\n")


def test_without_a_signature_the_hint_for_an_encrypted_model_is_to_sign_its_plaintext(
    batuta: Run, work: Path, model: Path
) -> None:
    (work / "model.gguf.sig").unlink()
    error = starts_nothing(batuta, work, encrypted(work, model, 1), code=3)
    assert "model.gguf.sig does not exist" in error
    assert error.endswith(f"\n  batuta pacha sign {model}\n")  # not its ciphertext, which `run` would refuse


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20] + b"x" + data[-19:], lambda data: data[:-100], lambda data: data[:120]]
)
def test_a_damaged_ciphertext_and_a_wrong_password_start_nothing(
    batuta: Run, work: Path, model: Path, version: int, damage: Callable[[bytes], bytes]
) -> None:
    file = encrypted(work, model, version)
    wrong = starts_nothing(batuta, work, file, code=3, env={"MODEL_KEY": "wrong"})
    assert "wrong password, or the file is damaged" in wrong
    file.write_bytes(damage(file.read_bytes()))
    assert starts_nothing(batuta, work, file, code=3, env={"MODEL_KEY": PASSWORD}) == wrong


def test_the_signature_of_a_ciphertext_is_not_that_of_the_model(
    batuta: Run, work: Path, model: Path, key: SigningKey
) -> None:
    file = encrypted(work, model, 1)
    (work / "model.gguf.sig").unlink()
    sign_path(file, key).save(work / "model.gguf.enc.sig")
    error = starts_nothing(batuta, work, file, code=3, env={"MODEL_KEY": PASSWORD})
    assert "of an encrypted model are those of the plaintext" in error


def test_a_signed_name_counts_without_the_ending_of_encrypted_files(batuta: Run, work: Path, model: Path) -> None:
    file = encrypted(work, model, 1)
    done = batuta("pacha", "run", file, "--name", "model.gguf", "--", "true", "{}", env={"MODEL_KEY": PASSWORD}, code=0)
    assert "another name" not in done.stderr
    assert "not as other" in starts_nothing(batuta, work, file, "--name", "other", code=3, env={"MODEL_KEY": PASSWORD})


def test_a_digest_is_compared_with_the_bytes_in_memory(batuta: Run, work: Path, model: Path) -> None:
    for algorithm in ("blake3", "sha256"):
        digest = batuta("pacha", "hash", model, "--algorithm", algorithm, code=0).stdout.split()[0]
        if algorithm == "sha256":
            digest = "sha256:" + digest
        wrong = digest[:-4] + ("0000" if digest[-4:] != "0000" else "1111")
        done = batuta("pacha", "run", model, "--digest", digest, "--", "wc", "-c", "{}", code=0)
        assert done.stdout.split()[0] == "8000"
        assert "no signature was checked" in done.stderr
        assert digest in starts_nothing(batuta, work, model, "--digest", wrong, code=3)
        assert digest in starts_nothing(
            batuta, work, model, "--digest", wrong, "--identity", "alice@example.com", code=3
        )


def test_the_digest_of_a_directory_covers_the_files_that_its_signature_leaves_out(
    batuta: Run, work: Path, key: SigningKey
) -> None:
    model = directory(work, key, {"weights": b"1", "run.log": b"2"}, ignore=["run.log"])
    digest = batuta("pacha", "hash", model, code=0).stdout.split()[0]
    program = ("--", "sh", "-c", 'ls -A "$0"', "{}")
    both = ("--digest", digest, "--identity", "alice@example.com")
    assert batuta("pacha", "run", model, *both, *program, code=0).stdout == "weights\n"
    assert batuta("pacha", "run", model, "--digest", digest, *program, code=0).stdout == "run.log\nweights\n"
    (model / "run.log").write_bytes(b"3")
    starts_nothing(batuta, work, model, *both, code=3)
    starts_nothing(batuta, work, model, "--digest", "sha256:" + "0" * 64, code=2)


def test_more_memory_than_allowed_starts_nothing(batuta: Run, work: Path, model: Path, key: SigningKey) -> None:
    error = starts_nothing(batuta, work, model, "--max-memory", "7999", code=1)
    assert "needs 8,000 bytes of memory, more than --max-memory (7,999 bytes)" in error
    assert error.endswith("hint: raise --max-memory\n")  # nothing else would help
    batuta("pacha", "run", model, "--max-memory", "8000", "--", "true", "{}", code=0)
    file = encrypted(work, model, 2)
    key_in = {"MODEL_KEY": PASSWORD}
    starts_nothing(batuta, work, file, "--max-memory", "7999", code=1, env=key_in)
    batuta("pacha", "run", file, "--max-memory", "8000", "--", "true", "{}", env=key_in, code=0)
    nemo = directory(work, key, {"a": b"12345", "b": b"67890"})
    starts_nothing(batuta, work, nemo, "--max-memory", "9", code=1)
    batuta("pacha", "run", nemo, "--max-memory", "10", "--", "true", "{}", code=0)


def test_a_size_that_is_not_one_is_refused(batuta: Run, work: Path, model: Path) -> None:
    for size in ("", "8X", "-1", "1.5G", "G"):
        assert "not a size" in starts_nothing(batuta, work, model, f"--max-memory={size}", code=2)
    for size in ("1M", "1MiB", "1g", "1073741824"):
        batuta("pacha", "run", model, f"--max-memory={size}", "--", "true", "{}", code=0)


def open_files(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_start_nothing_and_a_soft_limit_is_raised(batuta: Run, work: Path, key: SigningKey) -> None:
    nemo = directory(work, key, {f"{number:03}": b"1" for number in range(150)})
    error = starts_nothing(batuta, work, nemo, code=1, preexec_fn=open_files(100, 200))
    assert "too few open files are allowed for the model's 150 files" in error
    program = ("--", "sh", "-c", 'cat "$0"/*', "{}")
    done = batuta("pacha", "run", nemo, *program, preexec_fn=open_files(100, 1000), code=0)
    assert done.stdout == "1" * 150


def test_a_program_that_does_not_exist_is_127_and_one_that_cannot_be_executed_126(
    batuta: Run, work: Path, home: Path
) -> None:
    (work / "text").write_text("not a program")
    (work / "text").chmod(0o755)
    (work / "plain").write_text("not executable")
    own = signed_model(work, own_key(home))
    for program, status, words in (
        ("no-such-program", 127, "no-such-program: no such program in PATH"),
        ("./no-such-program", 127, "no such file"),
        ("./plain", 126, "cannot be executed"),
        ("./text", 126, "exec format error"),
        ("/tmp", 126, "error: /tmp: is a directory\n"),
    ):
        done = batuta("pacha", "run", own, "--", program, "{}", code=status)
        assert words in done.stderr
        assert done.stdout == ""
    nothing = batuta("pacha", "run", "no-such-model", "--json", "--", "no-such-program", "{}", code=127)
    assert answer(nothing)["error"]["kind"] == "program_not_found"  # said before anything is read


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.gguf", "cat", "{}"], "must follow --"),
        (["model.gguf", "--"], "missing"),
        (["model.gguf", "--", "cat", "model.gguf"], "no argument of the program is {}"),
        (["model.gguf", "--", "{}"], "no argument of the program is {}"),
        (["-", "--", "cat", "{}"], "stdin belongs to the program"),
        (["model.gguf", "--no-such-option", "--", "cat", "{}"], "no-such-option"),
    ],
)
def test_wrong_usage_is_exit_2(batuta: Run, model: Path, arguments: list[str], words: str) -> None:
    done = batuta("pacha", "run", *arguments, code=2)
    assert words in done.stderr
    assert done.stdout == ""


def test_a_failure_before_the_start_is_one_json_document(batuta: Run, model: Path) -> None:
    model.write_bytes(b"changed")
    document = answer(batuta("pacha", "run", model, "--json", "--", "cat", "{}", code=3))
    assert document["command"] == "pacha run"
    assert document["result"]["changed"] == ["."]
    assert document["error"]["kind"] == "verification_failed"


def test_one_shard_of_several_gets_a_warning(batuta: Run, work: Path, key: SigningKey) -> None:
    shard = signed_model(work, key, "model-00001-of-00003.gguf")
    done = batuta("pacha", "run", shard, "--", "true", "{}", code=0)
    assert "one of 3 shards" in done.stderr
    whole = signed_model(work, key, "model-00001-of-00001.gguf")
    assert "shards" not in batuta("pacha", "run", whole, "--", "true", "{}", code=0).stderr


def test_json_and_quiet_after_the_separator_belong_to_the_program(batuta: Run, model: Path) -> None:
    done = batuta("pacha", "run", "model.gguf", "--", "echo", "{}", "--json", "--quiet", "-h", code=0)
    assert done.stdout.split()[1:] == ["--json", "--quiet", "-h"]
    assert "verified" in done.stderr
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)
