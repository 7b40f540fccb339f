"""Where `encrypt` and `decrypt` take their password from, which place comes first, and that it is shown nowhere."""

import os
import subprocess
from pathlib import Path

import pytest

from batuta_cli.errors import DecryptionError
from batuta_cli.pacha.encryption import decrypt_model, encrypt_model
from tests.cli.support import answer, hints, names_in, on_a_terminal, shows_no
from tests.conftest import BATUTA, Run

SECRET = "correct horse battery staple"


@pytest.fixture
def model(work: Path) -> Path:
    path = work / "model"
    path.write_bytes(b"weights")
    return path


def opens(path: Path, *passwords: str | bytes) -> list[bool]:
    """Which of the passwords open an encrypted file."""

    def fits(password: str | bytes) -> bool:
        try:
            return decrypt_model(path.read_bytes(), password) == b"weights"
        except DecryptionError:
            return False

    return [fits(password) for password in passwords]


def test_the_file_comes_before_the_variable_named_and_that_before_model_key(
    batuta: Run, work: Path, model: Path
) -> None:
    (work / "pw").write_text("from the file")
    env = {"MODEL_KEY": "from MODEL_KEY", "OTHER": "from the variable"}
    places = [
        (["--password-file", "pw", "--password-env", "OTHER"], "from the file"),
        (["--password-env", "OTHER"], "from the variable"),
        ([], "from MODEL_KEY"),
    ]
    for flags, password in places:
        done = batuta("pacha", "encrypt", "model", "--force", *flags, env=env, code=0)
        assert opens(work / "model.enc", password) == [True]
        back = batuta("pacha", "decrypt", "model.enc", "--force", *flags, env=env, code=0)
        shows_no(password, done, back)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"secret\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"secret\r\n", b"secret"),
        (b"secret\r\r\n", b"secret\r"),
        (b" secret ", b" secret "),
        ("pässwörd\n".encode(), "pässwörd".encode()),
        (b"x" * 65_536 + b"\n", b"x" * 65_536),
        (b"a\0b", b"a\0b"),
    ],
)
def test_exactly_one_newline_at_the_end_of_a_file_is_dropped(
    batuta: Run, work: Path, model: Path, content: bytes, password: bytes
) -> None:
    (work / "pw").write_bytes(content)
    batuta("pacha", "encrypt", "model", "--password-file", "pw", code=0)
    assert opens(work / "model.enc", password) == [True]


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 70_000, b"x" * 65_537, b"top\xffsecret"])
def test_a_password_that_is_empty_too_long_or_not_text_is_refused(
    batuta: Run, work: Path, model: Path, content: bytes
) -> None:
    (work / "pw").write_bytes(content)
    (work / "x.enc").write_bytes(encrypt_model(b"x", SECRET))
    for arguments in (["encrypt", "model"], ["decrypt", "x.enc"]):
        done = batuta("pacha", *arguments, "--password-file", "pw", "--json", code=2)
        assert answer(done)["error"]["message"].startswith("the password in pw is ")
        shows_no("topsecret", done)
        shows_no("x" * 100, done)
        debug = batuta("pacha", *arguments, "--password-file", "pw", env={"BATUTA_DEBUG": "1"}, code=2)
        assert "xff" not in debug.stderr and "x" * 100 not in debug.stderr
    assert names_in(work) == ["model", "pw", "x.enc"]


def test_a_variable_that_is_unset_or_empty_is_wrong_usage_and_named(batuta: Run, work: Path, model: Path) -> None:
    for env, state in (({}, "is not set"), ({"PW": ""}, "is empty")):
        done = batuta("pacha", "encrypt", "model", "--password-env", "PW", env={"MODEL_KEY": "x"} | env, code=2)
        assert f"PW {state}" in done.stderr and "--password-file FILE" in done.stderr
    done = batuta("pacha", "encrypt", "model", env={"MODEL_KEY": ""}, code=2)
    assert "MODEL_KEY is empty" in done.stderr
    long = batuta("pacha", "encrypt", "model", env={"MODEL_KEY": "x" * 70_000}, code=2)
    assert "longer than 65,536 bytes" in long.stderr
    undecodable = b"top\xff".decode(errors="surrogateescape")
    done = batuta("pacha", "encrypt", "model", "--password-env", "PW", env={"PW": undecodable}, code=2)
    assert "not valid UTF-8" in done.stderr and "top" not in done.stderr
    assert names_in(work) == ["model"]


def test_a_password_file_may_be_a_pipe_and_must_be_readable(batuta: Run, work: Path, model: Path) -> None:
    line = f"{BATUTA} pacha encrypt model --password-file <(echo {SECRET!r})"
    subprocess.run(["bash", "-c", line], cwd=work, check=True, capture_output=True)
    assert opens(work / "model.enc", SECRET) == [True]
    batuta("pacha", "decrypt", "model.enc", "-o", "by-stdin", "--password-file", "-", input=SECRET + "\n", code=0)
    missing = batuta("pacha", "encrypt", "model", "-f", "--password-file", "./missing", code=1).stderr
    assert "./missing: no such file" in missing
    assert "is a directory" in batuta("pacha", "encrypt", "model", "-f", "--password-file", ".", code=2).stderr
    done = batuta("pacha", "encrypt", "-", "-o", "x", "--password-file", "-", input="secret", code=2)
    assert "stdin can be read once only" in done.stderr
    assert names_in(work) == ["by-stdin", "model", "model.enc"]


def test_without_a_terminal_nothing_is_asked_and_the_ways_are_listed(batuta: Run, work: Path, model: Path) -> None:
    (work / "x.enc").write_bytes(encrypt_model(b"x", SECRET))
    for arguments in (["encrypt", "model"], ["decrypt", "x.enc"], ["encrypt", "-", "-o", "y"]):
        done = batuta("pacha", *arguments, input=SECRET + "\n", code=2)
        assert "there is no terminal to ask on" in done.stderr
        assert hints(done) == ["--password-file FILE, --password-env VAR or MODEL_KEY"]
        document = answer(batuta("pacha", *arguments, "--json", code=2))
        assert document["error"]["kind"] == "usage"
    assert names_in(work) == ["model", "x.enc"]


def test_a_terminal_is_asked_unseen_twice_to_encrypt_and_once_to_decrypt(
    environment: dict[str, str], work: Path, model: Path
) -> None:
    twice = [("Password: ", SECRET), ("again: ", SECRET)]
    status, shown = on_a_terminal(["pacha", "encrypt", "model"], environment, work, twice)
    assert status == 0, shown
    assert SECRET not in shown
    assert opens(work / "model.enc", SECRET) == [True]
    model.unlink()
    status, shown = on_a_terminal(["pacha", "decrypt", "model.enc"], environment, work, [("Password: ", SECRET)])
    assert status == 0 and SECRET not in shown and "again" not in shown
    assert model.read_bytes() == b"weights"
    model.unlink()
    status, shown = on_a_terminal(["pacha", "decrypt", "model.enc"], environment, work, [("Password: ", "guess")])
    assert status == 3 and "guess" not in shown
    assert names_in(work) == ["model.enc"]


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ([("Password: ", SECRET), ("again: ", "other")], 2, "the two inputs differ"),
        ([("Password: ", ""), ("again: ", "")], 2, "is empty"),
        ([("Password: ", b"top\xff".decode(errors="surrogateescape"))], 2, "not valid UTF-8"),
        ([("Password: ", "\x03")], 130, "interrupted"),
        ([("Password: ", "\x04")], 130, "interrupted"),
    ],
)
def test_an_answer_that_will_not_do_writes_nothing(
    environment: dict[str, str],
    work: Path,
    model: Path,
    answers: list[tuple[str, str]],
    status: int,
    words: str,
) -> None:
    found, shown = on_a_terminal(["pacha", "encrypt", "model"], environment, work, answers)
    assert (found, words in shown) == (status, True), shown
    assert SECRET not in shown and "Traceback" not in shown and "top" not in shown
    assert names_in(work) == ["model"]


def test_a_pipe_on_stdin_does_not_hinder_the_question(environment: dict[str, str], work: Path) -> None:
    """`tar c model | batuta pacha encrypt -` asks on the terminal and reads the model from the pipe."""
    line = f"printf weights | {BATUTA} pacha encrypt - --format 2 -o out"
    script = work.parent / "script"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)
    answers = [("Password: ", SECRET), ("again: ", SECRET)]
    status, shown = on_a_terminal([], environment, work, answers, program=str(script))
    assert status == 0, shown
    assert opens(work / "out", SECRET) == [True]


def test_the_passphrase_of_a_key_is_asked_for_only_when_it_has_one(
    batuta: Run, environment: dict[str, str], work: Path, model: Path
) -> None:
    batuta("pacha", "keygen", "--passphrase-env", "P", env={"P": SECRET}, code=0)
    status, shown = on_a_terminal(["pacha", "sign", "model"], environment, work, [("Passphrase of ", SECRET)])
    assert status == 0 and SECRET not in shown
    batuta("pacha", "verify", "model", code=0)
    status, shown = on_a_terminal(["pacha", "sign", "model", "-f"], environment, work, [("Passphrase of ", "guess")])
    assert status == 3 and "guess" not in shown and "wrong passphrase" in shown
    batuta("pacha", "keygen", "--force", code=0)
    status, shown = on_a_terminal(["pacha", "sign", "model", "-f"], environment, work)
    assert status == 0 and "Passphrase" not in shown


def test_no_secret_reaches_the_arguments_or_the_environment_of_a_child(environment: dict[str, str], work: Path) -> None:
    """What `ps` shows of a running command."""
    os.mkfifo(work / "in")
    with subprocess.Popen(
        [BATUTA, "pacha", "encrypt", "in"], env=environment | {"MODEL_KEY": SECRET}, cwd=work, stdout=subprocess.PIPE
    ) as child:
        with open(work / "in", "wb") as feed:
            assert SECRET.encode() not in Path(f"/proc/{child.pid}/cmdline").read_bytes()
            feed.write(b"weights")
        child.communicate()
    assert child.returncode == 0
