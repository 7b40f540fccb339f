"""`batuta pacha sign`: what is written where, and that nothing is written when something is wrong."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.pacha.hashing import Resource
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import ModelSignature, sign_resources
from tests.cli.support import answer, hints, in_a_shell, keys_dir, names_in, own_key, result, shows_no
from tests.conftest import BATUTA, Run

ALICE = "alice@example.com"


@pytest.fixture
def alice(home: Path, work: Path) -> SigningKey:
    """A key of the user's own, and a file `model` to sign with it."""
    (work / "model").write_bytes(b"weights")
    return own_key(home)


def test_a_signature_stands_beside_the_model_and_says_who_signed(batuta: Run, work: Path, alice: SigningKey) -> None:
    done = batuta("pacha", "sign", "model", code=0, umask=0o027)
    assert done.stdout == f"model: signed by {ALICE} (key {alice.verifying_key.key_id}), signature in model.sig\n"
    assert done.stderr == ""
    assert stat.S_IMODE((work / "model.sig").stat().st_mode) == 0o640
    [found] = result(batuta("pacha", "sign", "model", "--force", "--json", code=0))
    assert (found["identity"], found["signature"], found["format"]) == (ALICE, "model.sig", "bundle")
    assert found["address"] == str(ModelSignature.load(work / "model.sig").address)
    assert names_in(work) == ["model", "model.sig"]


def test_an_existing_signature_is_replaced_only_by_force(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "model.sig").write_text("precious")
    done = batuta("pacha", "sign", "model", code=2)
    assert "model.sig: already exists" in done.stderr and "--force" in done.stderr
    assert answer(batuta("pacha", "sign", "model", "--json"))["error"]["kind"] == "output_exists"
    assert (work / "model.sig").read_text() == "precious"
    batuta("pacha", "sign", "model", "--force", code=0)
    batuta("pacha", "verify", "model", code=0)


@pytest.mark.parametrize("typed", [".", "./", "../m", "../m/", "sub/.."])
def test_a_directory_is_signed_beside_itself_however_it_is_typed(
    batuta: Run, work: Path, alice: SigningKey, typed: str
) -> None:
    (work / "m" / "sub").mkdir(parents=True)
    (work / "m" / "sub" / "f").write_bytes(b"x")
    batuta("pacha", "sign", typed, cwd=work / "m", code=0)
    assert names_in(work) == ["m", "m.sig", "model"]
    batuta("pacha", "verify", typed, "--name", "m", cwd=work / "m", code=0)
    batuta("pacha", "verify", "m/", code=0)


def test_several_models_are_all_tried_and_the_worst_decides(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "empty").mkdir()
    (work / "second").write_bytes(b"")
    done = batuta("pacha", "sign", "missing", "model", "empty", "second", code=2)
    assert names_in(work) == ["empty", "model", "model.sig", "second", "second.sig"]
    for words in ("missing: no such file", "empty: the directory has no file in it", "2 of 4 failed"):
        assert words in done.stderr
    batuta("pacha", "verify", "model", "second", code=0)
    done = batuta("pacha", "sign", "model", "second", "--output", "both.sig", code=2)
    assert "--output takes one PATH" in done.stderr
    rows = result(batuta("pacha", "sign", "missing", "model", "--force", "--json", code=1))
    assert [row["ok"] for row in rows] == [False, True]


@pytest.mark.parametrize(
    "name", ["-rf", "with space", "a\nb", "\x1b[31mred", "it's", "ünïcode", "..model", "x" * 251, "*", "s"]
)
def test_an_odd_file_name_is_signed_and_the_hint_that_says_so_can_be_copied(
    batuta: Run, environment: dict[str, str], work: Path, home: Path, name: str
) -> None:
    own_key(home)
    (work / name).write_bytes(b"x")
    done = batuta("pacha", "verify", "--", name, code=3)
    assert "\x1b" not in done.stderr
    in_a_shell(hints(done)[-1], environment, work)
    assert names_in(work) == sorted([name, f"{name}.sig"])
    [found] = result(batuta("pacha", "verify", "--name", name, "--json", "--", name, code=0))
    assert found["path"] == name


def test_a_name_that_cannot_be_signed_is_an_error_that_shows_it(batuta: Run, work: Path, alice: SigningKey) -> None:
    undecodable = b"bad\xff".decode(errors="surrogateescape")
    (work / undecodable).write_bytes(b"x")
    done = batuta("pacha", "sign", undecodable, code=2)
    assert "bad\\xff: the name is not UTF-8" in done.stderr
    (work / ("x" * 252)).write_bytes(b"x")  # no room for .sig
    done = batuta("pacha", "sign", "x" * 252, code=1)
    assert "name too long" in done.stderr
    assert len(names_in(work)) == 3


def test_the_key_is_chosen_or_the_choices_are_listed(batuta: Run, home: Path, work: Path, alice: SigningKey) -> None:
    own_key(home, "bob")
    done = batuta("pacha", "sign", "model", code=2)
    assert f"{ALICE}, bob" in done.stderr and "--identity" in done.stderr
    assert names_in(work) == ["model"]
    in_config = {"BATUTA_PACHA_DEFAULT_KEY": "bob"}
    assert result(batuta("pacha", "sign", "model", "--json", env=in_config, code=0))[0]["identity"] == "bob"
    batuta("config", "set", "pacha.default_key", "bob", code=0)
    assert result(batuta("pacha", "sign", "model", "-f", "--json", code=0))[0]["identity"] == "bob"
    again = batuta("pacha", "sign", "model", "-f", "--identity", ALICE, "--json", code=0)
    assert result(again)[0]["identity"] == ALICE
    done = batuta("pacha", "sign", "model", "-f", "--identity", "carol", code=1)
    assert "no key of carol" in done.stderr and ALICE in done.stderr


def test_an_encrypted_key_needs_its_passphrase(batuta: Run, home: Path, work: Path) -> None:
    (work / "model").write_bytes(b"x")
    keys_dir(home).mkdir(parents=True, mode=0o700)
    batuta("pacha", "keygen", "--passphrase-env", "P", env={"P": "open sesame"}, code=0)
    none = batuta("pacha", "sign", "model", code=2)
    assert "passphrase" in none.stderr and "--passphrase-env" in none.stderr
    unset = batuta("pacha", "sign", "model", "--passphrase-env", "P", code=2)
    assert "P is not set" in unset.stderr
    wrong = batuta("pacha", "sign", "model", "--passphrase-env", "P", env={"P": "open barley"}, code=3)
    assert "wrong passphrase" in wrong.stderr
    assert names_in(work) == ["model"]
    right = batuta("pacha", "sign", "model", "--passphrase-env", "P", env={"P": "open sesame"}, code=0)
    shows_no("open barley", wrong)
    shows_no("open sesame", right)


def test_a_signature_goes_to_stdout_or_a_named_file(batuta: Run, work: Path, alice: SigningKey) -> None:
    piped = batuta("pacha", "sign", "model", "-o", "-", code=0)
    assert json.loads(piped.stdout)["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert piped.stderr == "" and names_in(work) == ["model"]
    batuta("pacha", "verify", "model", "--signature", "-", input=piped.stdout, code=0)
    [found] = result(batuta("pacha", "sign", "model", "-o", "-", "--json", code=0))
    assert ModelSignature.parse(found["text"].encode())
    batuta("pacha", "sign", "model", "-o", "other.sig", code=0)
    batuta("pacha", "verify", "model", "--signature", "other.sig", code=0)
    done = batuta("pacha", "sign", "-", code=2)
    assert "stdin cannot be signed" in done.stderr


def test_the_output_is_never_the_input_nor_a_directory(batuta: Run, work: Path, alice: SigningKey) -> None:
    os.link(work / "model", work / "hard")
    os.symlink("model", work / "soft")
    for output in ("model", "./model", "hard", "soft"):
        done = batuta("pacha", "sign", "model", "--output", output, "--force", code=2)
        assert "the output is the input" in done.stderr
        batuta("pacha", "sign", "model", "--output", output, code=2)
    assert "is a directory" in batuta("pacha", "sign", "model", "-o", ".", "--force", code=2).stderr
    assert "missing/x.sig" in batuta("pacha", "sign", "model", "-o", "missing/x.sig", code=1).stderr
    assert (work / "model").read_bytes() == b"weights"
    assert names_in(work) == ["hard", "model", "soft"]


def test_a_signature_inside_the_directory_it_signs_is_refused_unless_it_is_left_out(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    (work / "m").mkdir()
    (work / "m" / "f").write_bytes(b"x")
    done = batuta("pacha", "sign", "m", "--output", "m/model.sig", code=2)
    assert "is inside the model" in done.stderr and "--ignore model.sig" in done.stderr
    assert names_in(work / "m") == ["f"]
    for force in ([], ["--force"]):
        batuta("pacha", "sign", "m", "--output", "m/model.sig", "--ignore", "model.sig", *force, code=0)
        done = batuta("pacha", "verify", "m", "--signature", "m/model.sig", code=0)
        assert "not covered by the signature: model.sig" in done.stdout


@pytest.mark.parametrize(
    ("output", "glob"),
    [("model.sig", "*.sig"), ("sigs/a.sig", "sigs"), ("sigs/a.sig", "sigs/*"), ("a[1].sig", "a[[]1].sig")],
)
def test_a_signature_can_lie_wherever_in_the_model_an_ignore_names_it(
    batuta: Run, environment: dict[str, str], work: Path, alice: SigningKey, output: str, glob: str
) -> None:
    (work / "m" / "sigs").mkdir(parents=True)
    (work / "m" / "f").write_bytes(b"x")
    refused = batuta("pacha", "sign", "m", "--output", f"m/{output}", "--ignore", "other", code=2)
    assert "is inside the model" in refused.stderr
    done = batuta("pacha", "sign", "m", "--output", f"m/{output}", "--ignore", glob, code=0)
    assert done.stderr == ""
    batuta("pacha", "verify", "m", "--signature", f"m/{output}", code=0)
    offered = hints(refused)[0].partition("--ignore ")[2]
    in_a_shell(f"batuta pacha sign m --force --output 'm/{output}' --ignore {offered}", environment, work)


def test_a_signature_inside_the_model_does_not_sign_its_own_hidden_file(
    batuta: Run, environment: dict[str, str], work: Path, alice: SigningKey
) -> None:
    (work / "m").mkdir()
    (work / "m" / "f").write_bytes(b"x")
    code = """if True:
        from batuta_cli import files
        from batuta_cli.cli.app import main
        files.AtomicOutput._open_unnamed = lambda self: False  # as on a file system without O_TMPFILE
        main()
    """
    command = [sys.executable, "-c", code, "pacha", "sign", "m", "--output", "m/a.sig", "--ignore", "a.sig"]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    batuta("pacha", "verify", "m", "--signature", "m/a.sig", code=0)
    assert names_in(work / "m") == ["a.sig", "f"]


@pytest.mark.parametrize("glob", ["", ".", "./", "..", "/", "/etc", "sub/../..", "../m/f", "a\nb/.."])
def test_an_ignore_that_names_no_path_inside_the_model_is_wrong_usage(
    batuta: Run, work: Path, alice: SigningKey, glob: str
) -> None:
    (work / "m").mkdir()
    (work / "m" / "f").write_bytes(b"x")
    for command in (["sign", "m"], ["sign", "model"], ["hash", "m"], ["hash", "model"], ["hash", "missing"]):
        done = batuta("pacha", *command, "--ignore", "f", "--ignore", glob, code=2)
        assert "error: --ignore " in done.stderr and "does not name a path inside the model" in done.stderr
    assert names_in(work) == ["m", "model"]


def test_an_ignore_that_leaves_nothing_to_sign_is_wrong_usage(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "m" / "sub").mkdir(parents=True)
    (work / "m" / "sub" / "f").write_bytes(b"x")
    for glob in ("*", "**", "sub", "sub/**", "**/f"):
        done = batuta("pacha", "sign", "m", "--ignore", glob, code=2)
        assert "m: the directory has no file in it besides the ignored ones" in done.stderr
    assert names_in(work) == ["m", "model"]


def test_an_ignored_name_that_is_not_utf8_cannot_be_recorded_and_its_directory_can(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    (work / "m" / "sub").mkdir(parents=True)
    (work / "m" / "f").write_bytes(b"x")
    (work / "m" / "sub" / os.fsdecode(b"a\xff.tmp")).write_bytes(b"x")
    done = batuta("pacha", "sign", "m", "--ignore", "**/*.tmp", code=2)
    assert "m: the ignored paths: sub/a\\xff.tmp is not UTF-8" in done.stderr and "directory" in done.stderr
    assert names_in(work) == ["m", "model"]
    batuta("pacha", "sign", "m", "--ignore", "sub", code=0)
    assert "not covered by the signature: sub/a\\xff.tmp\n" in batuta("pacha", "verify", "m", code=0).stdout
    batuta("pacha", "hash", "m", "--ignore", "**/*.tmp", code=0)


def test_an_ignore_that_names_nothing_is_warned_of(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "m" / "sub").mkdir(parents=True)
    for name in ("f", "sub/run.log", "caf\u0065\u0301"):
        (work / "m" / name).write_bytes(b"x")
    for glob in ("*.log", "run.log", "F", "caf\u00e9", "sub/sub"):
        for command in (["sign", "m", "--force"], ["hash", "m"]):
            done = batuta("pacha", *command, "--ignore", glob, code=0)
            assert f"warning: m: --ignore {glob} matches nothing; " in done.stderr
            assert ("globs are relative to the model's root" in done.stderr) is ("*" in glob)
            assert ("the path is ignored if it appears later" in done.stderr) is ("*" not in glob)
    assert batuta("pacha", "sign", "m", "--force", "--ignore", "sub", "--ignore", "sub/*.log", code=0).stderr == ""
    assert "matches nothing" in batuta("pacha", "hash", "model", "--ignore", "f", code=0).stderr


def test_devices_pipes_and_links_as_output_are_written_through(
    batuta: Run, environment: dict[str, str], work: Path, alice: SigningKey
) -> None:
    batuta("pacha", "sign", "model", "-o", "/dev/null", code=0)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    done = batuta("pacha", "sign", "model", "-o", "/dev/full", code=1)
    assert "/dev/full: no space left on device" in done.stderr
    os.mkfifo(work / "fifo")
    with subprocess.Popen([BATUTA, "pacha", "sign", "model", "-o", "fifo"], env=environment, cwd=work) as child:
        assert ModelSignature.parse((work / "fifo").read_bytes())
    assert child.returncode == 0
    assert stat.S_ISFIFO((work / "fifo").stat().st_mode)
    os.symlink("target.sig", work / "dangling.sig")
    batuta("pacha", "sign", "model", "-o", "dangling.sig", code=0)
    assert (work / "dangling.sig").is_symlink()
    batuta("pacha", "sign", "model", "-o", "dangling.sig", code=2)
    batuta("pacha", "sign", "model", "-o", "dangling.sig", "--force", code=0)
    assert (work / "dangling.sig").is_symlink()
    batuta("pacha", "verify", "model", "--signature", "target.sig", code=0)


def test_what_is_no_model_is_refused_without_waiting(batuta: Run, work: Path, alice: SigningKey) -> None:
    os.mkfifo(work / "fifo")
    for path, words in (("fifo", "is a FIFO"), ("/dev/zero", "is a character device")):
        done = batuta("pacha", "sign", path, "-o", "out", code=2)
        assert f"{path}: {words}" in done.stderr
    assert names_in(work) == ["fifo", "model"]


@pytest.mark.parametrize("days", ["0", "-1", "36501", "soon"])
def test_an_expiry_that_makes_no_sense_is_wrong_usage(batuta: Run, work: Path, alice: SigningKey, days: str) -> None:
    done = batuta("pacha", "sign", "model", f"--expires={days}", code=2)
    assert "--expires" in done.stderr
    assert names_in(work) == ["model"]


def test_the_rust_crate_s_format_takes_single_files_only(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "m").mkdir()
    (work / "m" / "f").write_bytes(b"x")
    for arguments in (["m"], ["model", "--expires", "3"], ["model", "--ignore", "*.log"]):
        assert "single files" in batuta("pacha", "sign", *arguments, "--format", "pacha1", code=2).stderr
    assert "bundle or pacha1" in batuta("pacha", "sign", "model", "--format", "pgp", code=2).stderr
    assert names_in(work) == ["m", "model"]
    batuta("pacha", "sign", "model", "--format", "pacha1", code=0)
    text = (work / "model.sig").read_text()
    fields = ["content_hash", "signature", "signer_key", "signer_id", "timestamp", "algorithm"]
    assert list(json.loads(text)) == fields and text.startswith('{\n  "content_hash": "')


SOURCES = {
    "the only key": [],
    "--identity": ["--identity", ALICE],
    "a file": ["--key", "own.key"],
    "a variable": ["--key", "env:SIGNING_KEY"],
    "stdin": ["--key", "-"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_key_that_is_revoked_or_retired_here_signs_nothing_and_reads_no_model(
    batuta: Run, home: Path, work: Path, endless: Path, source: str
) -> None:
    key = own_key(home)
    pem = key.to_pem().decode()
    (work / "own.key").write_text(pem)
    (work / "own.key").chmod(0o600)
    before = names_in(work)

    def refused(kind: str, *words: str) -> None:
        for form in ([], ["--format", "pacha1"]):
            done = batuta(
                *("pacha", "sign", "model", *SOURCES[source], *form, "--json"),
                input=pem if source == "stdin" else None,
                env={"SIGNING_KEY": pem},
                code=4,
            )
            error = answer(done)["error"]
            assert error["kind"] == kind and key.verifying_key.key_id in error["message"]
            assert all(word in error["message"] for word in words)
            shows_no(pem.splitlines()[1], done)
        assert names_in(work) == before

    batuta("pacha", "trust", "retire", ALICE, "--from", "2020-01-01", code=0)
    refused("not_valid_now", ALICE, "2020-01-01T00:00:00Z")
    batuta("pacha", "trust", "revoke", ALICE, "--reason", "laptop stolen", code=0)
    refused("revoked_signer", "laptop stolen")
    batuta("pacha", "trust", "remove", ALICE, code=0)
    refused("revoked_signer", "laptop stolen")


def test_a_key_that_is_to_be_retired_signs_until_then_and_one_of_the_future_not_yet(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    batuta("pacha", "trust", "retire", ALICE, "--from", "2999-01-01", code=0)
    batuta("pacha", "sign", "model", code=0)
    batuta("pacha", "verify", "model", code=0)
    batuta("pacha", "trust", "add", ALICE, alice.verifying_key.inline, "--valid-from", "2999-01-01", code=0)
    done = batuta("pacha", "sign", "model", "--force", code=4)
    assert "counts from 2999-01-01T00:00:00Z on" in done.stderr


def test_a_revoked_key_is_refused_before_its_passphrase_is_asked_for(batuta: Run, home: Path, work: Path) -> None:
    (work / "model").write_bytes(b"weights")
    batuta("pacha", "keygen", "--passphrase-env", "SECRET", env={"SECRET": "correct horse"}, code=0)
    batuta("pacha", "trust", "revoke", "default", code=0)
    assert "was revoked" in batuta("pacha", "sign", "model", code=4).stderr


def test_an_unreadable_model_or_key_is_an_error_and_nothing_is_written(
    batuta: Run, home: Path, work: Path, alice: SigningKey, unprivileged: Callable[[], None]
) -> None:
    for name in ("secret", "other.key"):
        (work / name).write_bytes(b"x")
        (work / name).chmod(0)
    for command in (["sign", "secret"], ["hash", "secret"], ["sign", "model", "--key", "other.key"]):
        done = batuta("pacha", *command, code=1, preexec_fn=unprivileged)
        assert f"{command[-1]}: permission denied" in done.stderr
    batuta("pacha", "sign", "model", code=0, preexec_fn=unprivileged)
    (work / "model.sig").chmod(0)
    done = batuta("pacha", "verify", "model", code=1, preexec_fn=unprivileged)
    assert "model.sig: permission denied" in done.stderr
    (work / "model.sig").unlink()
    work.chmod(0o555)
    done = batuta("pacha", "sign", "model", code=1, preexec_fn=unprivileged)
    assert "model.sig: permission denied" in done.stderr
    assert names_in(work) == ["model", "other.key", "secret"]


def _file_size_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_file_size_limit_leaves_the_old_signature_and_nothing_else(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    for old in (None, "precious"):
        if old:
            (work / "model.sig").write_text(old)
        done = batuta("pacha", "sign", "model", "--force", code=1, preexec_fn=_file_size_limit)
        assert "model.sig: file too large" in done.stderr
        assert names_in(work) == ["model", "model.sig"] if old else ["model"]
    assert (work / "model.sig").read_text() == "precious"
    batuta("pacha", "keygen", "--output", "new.key", code=1, preexec_fn=_file_size_limit)
    assert names_in(work) == ["model", "model.sig"]


def test_a_full_disk_leaves_the_old_signature_and_nothing_else(
    batuta: Run, small_disk: Path, alice: SigningKey, work: Path
) -> None:
    (small_disk / "model.sig").write_text("precious")
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        with pytest.raises(OSError) as full:
            while True:
                filler.write(bytes(4096))
        assert full.value.errno == errno.ENOSPC
    done = batuta("pacha", "sign", "model", "-o", small_disk / "model.sig", "--force", code=1)
    assert "model.sig: no space left on device" in done.stderr
    assert (small_disk / "model.sig").read_text() == "precious"
    assert names_in(small_disk) == ["filler", "model.sig"]


def test_kill_in_the_middle_leaves_nothing(
    environment: dict[str, str],
    work: Path,
    alice: SigningKey,
    endless: Path,
    until_read: Callable[[Path, "subprocess.Popen[str]"], None],
) -> None:
    (work / "model.sig").write_text("precious")
    command = [BATUTA, "pacha", "sign", "model", "--force"]
    with subprocess.Popen(command, env=environment, cwd=work, text=True) as child:
        until_read(endless, child)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert names_in(work) == ["model", "model.sig"]
    assert (work / "model.sig").read_text() == "precious"


@pytest.mark.parametrize("command", ["sign", "verify", "hash", "encrypt", "encrypt --format 2"])
def test_a_model_that_shrinks_while_it_is_read_is_never_a_success(
    environment: dict[str, str],
    work: Path,
    alice: SigningKey,
    endless: Path,
    until_read: Callable[[Path, "subprocess.Popen[str]"], None],
    command: str,
) -> None:
    before = ["model"]
    if command == "verify":
        stated = sign_resources([Resource(".", 1 << 38, bytes(32))], "model", alice)
        stated.save(work / "model.sig")
        before = ["model", "model.sig"]
    elif command == "encrypt":  # version 1 stops at 256 GiB
        os.truncate(endless, 1 << 37)
    with subprocess.Popen(
        [BATUTA, "pacha", *command.split(), "model"],
        env=environment | {"MODEL_KEY": "secret"},
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        until_read(endless, child)
        os.truncate(endless, 100)
        stdout, stderr = child.communicate()
    if child.returncode != -signal.SIGBUS:  # the system's answer when a page that is being hashed is cut off
        assert child.returncode == 1
        assert "model: changed while it was being" in stderr
    assert stdout == ""
    assert names_in(work) == before
