import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from batuta_cli.errors import BatutaError, InvalidInputError, NotFoundError, UsageError
from batuta_cli.pacha.encryption.passwords import (
    MAX_PASSWORD_BYTES,
    normalise,
    password_from_descriptor,
    password_from_env,
    password_from_file,
)

NOT_UTF8 = b"hunter2\xff"


def test_text_and_its_utf8_are_the_same_password() -> None:
    assert normalise("contraseña") == normalise(b"contrase\xc3\xb1a") == b"contrase\xc3\xb1a"


@pytest.mark.parametrize("password", [" hunter2 ", "hunter2\n", "\r\n", "\0", "n\u0303", "\u00f1"])
def test_nothing_is_trimmed_or_composed(password: str) -> None:
    assert normalise(password) == password.encode()


@pytest.mark.parametrize("password", ["", b""])
def test_an_empty_password_is_refused(password: str | bytes) -> None:
    with pytest.raises(InvalidInputError, match="is empty"):
        normalise(password)


def test_64_kib_is_the_most() -> None:
    assert len(normalise("x" * 65_536)) == MAX_PASSWORD_BYTES == 65_536
    for password in ("x" * 65_537, "x" * 70_000, "ñ" * 32_769):
        with pytest.raises(InvalidInputError, match="longer than 65,536 bytes"):
            normalise(password)


@pytest.mark.parametrize("password", [NOT_UTF8, "hunter2\udcff"])
def test_what_is_not_utf8_is_refused(password: str | bytes) -> None:
    with pytest.raises(InvalidInputError, match="not valid UTF-8"):
        normalise(password)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", b"hunter2"),
        (b"hunter2\n", b"hunter2"),
        (b"hunter2\n\n", b"hunter2\n"),
        (b"hunter2\r\n", b"hunter2"),
        (b"hunter2\n\r\n", b"hunter2\n"),
        (b"x" * 65_536 + b"\r\n", b"x" * 65_536),
        (b" hunter2 \n", b" hunter2 "),
        (b"\nhunter2", b"\nhunter2"),
        (b"x" * 65_536 + b"\n", b"x" * 65_536),
    ],
)
def test_one_trailing_newline_of_a_file_is_dropped_and_nothing_else(
    tmp_path: Path, content: bytes, password: bytes
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    assert password_from_file(path) == password


@pytest.mark.parametrize("content", [b"", b"\n", NOT_UTF8, b"x" * 65_537, b"x" * 65_537 + b"\n", b"x" * 70_000])
def test_a_file_that_holds_no_password_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"the password in {path}"):
        password_from_file(path)


def test_a_huge_file_is_not_read_to_its_end() -> None:
    with pytest.raises(InvalidInputError, match="/dev/zero is longer"):
        password_from_file("/dev/zero")


def test_a_password_comes_through_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"hunter2\n",))
    writer.start()
    assert password_from_file(path) == b"hunter2"
    writer.join()


def test_a_password_comes_in_pieces_through_a_descriptor() -> None:
    read, write = os.pipe()
    os.write(write, b"hun")

    def finish() -> None:
        os.write(write, b"ter2\n")
        os.close(write)

    late = threading.Timer(0.05, finish)
    late.start()
    assert password_from_descriptor(read, "stdin") == b"hunter2"
    late.join()
    os.close(read)


def test_a_missing_password_file_and_a_directory_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        password_from_file(tmp_path / "missing")
    with pytest.raises(InvalidInputError, match="is a directory"):
        password_from_file(tmp_path)


def test_an_environment_variable_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", " contraseña\n")
    assert password_from_env("MODEL_KEY") == " contraseña\n".encode()


@pytest.mark.parametrize(("value", "state"), [(None, "is not set"), ("", "is empty")])
def test_an_unset_or_empty_variable_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, value: str | None, state: str
) -> None:
    monkeypatch.delenv("MODEL_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MODEL_KEY", value)
    with pytest.raises(UsageError, match=f"variable MODEL_KEY {state}") as refused:
        password_from_env("MODEL_KEY")
    assert refused.value.hint == "put the password in MODEL_KEY, or use --password-file FILE"


def from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", os.fsdecode(NOT_UTF8))
    password_from_env("MODEL_KEY")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda patch: normalise(NOT_UTF8),
        lambda patch: normalise("hunter2\udcff"),
        lambda patch: normalise("hunter2" * 10_000),
        from_environment,
    ],
)
def test_no_error_holds_the_password(
    monkeypatch: pytest.MonkeyPatch, attempt: Callable[[pytest.MonkeyPatch], object]
) -> None:
    with pytest.raises(BatutaError) as refused:
        attempt(monkeypatch)
    shown = "".join(traceback.format_exception(refused.value)[-1:]) + repr(vars(refused.value))
    assert "hunter2" not in shown
    assert refused.value.__context__ is None  # a UnicodeError there would hold all of it
