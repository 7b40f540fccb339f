"""Failures of native libraries and of the machine are told apart from all other exceptions, and quote nothing."""

import asyncio
import errno
import json

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.faults import NativePanicError, NestingError, NoThreadError, OutOfMemoryError, as_typed

PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
"""Made as pyo3 makes it; each native library has one of its own, which cannot be imported."""

RAYON = (
    "The global thread pool has not been initialized.: ThreadPoolBuildError { kind: IOError(Os { code: 11, "
    'kind: WouldBlock, message: "Resource temporarily unavailable" }) }'
)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            PanicException("byte index 3 is not a char boundary of `hunter2`"),
            NativePanicError,
            "native library panicked",
        ),
        (PanicException(RAYON), NoThreadError, "cannot start a thread"),
        (PanicException("memory allocation of 8 bytes failed"), OutOfMemoryError, "not enough memory"),
        (MemoryError("hunter2"), OutOfMemoryError, "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemoryError, "not enough memory"),
        (RuntimeError("can't start new thread"), NoThreadError, "cannot start a thread"),
        (RecursionError("maximum recursion depth exceeded"), NestingError, "nested too deeply"),
        (BaseExceptionGroup("g", [ValueError("x"), PanicException("y")]), NativePanicError, "native library panicked"),
    ],
)
def test_a_failure_of_the_machine_has_a_type_and_its_cause_in_words(
    error: BaseException, kind: type[Exception], words: str
) -> None:
    typed = as_typed(error)
    assert type(typed) is kind
    assert typed.exit_code == 1
    assert words in typed.message
    assert "hunter2" not in f"{typed.message}{typed.hint}"


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        ValueError("can't start new thread"),
        RuntimeError("another"),
        OSError(errno.ENOSPC, "No space left on device"),
        InvalidInputError("already typed"),
        BaseExceptionGroup("g", [PanicException("y"), KeyboardInterrupt()]),
        BaseExceptionGroup("g", [PanicException("y"), asyncio.CancelledError()]),
    ],
)
def test_all_else_is_left_to_the_caller(error: BaseException) -> None:
    assert as_typed(error) is None


def test_a_panic_names_the_module_whose_call_failed() -> None:
    try:
        raise PanicException("the text of a prompt")
    except BaseException as error:
        typed = as_typed(error)
    assert typed is not None
    assert typed.message == f"a native library panicked; it was called by {__name__}"


def test_the_command_line_reports_a_panic_as_an_error_and_one_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from batuta_cli.cli import app

    for error, words in (
        (PanicException("of `hunter2`"), "a native library panicked"),
        (RecursionError("hunter2"), "nested too deeply"),
        (MemoryError("hunter2"), "not enough memory"),
        (RuntimeError("can't start new thread"), "cannot start a thread"),
        (asyncio.CancelledError("hunter2"), "internal error: CancelledError"),
        (ValueError("hunter2"), "internal error: ValueError"),
    ):

        def fails(*_: object, raised: BaseException = error, **__: object) -> None:
            raise raised

        monkeypatch.setattr(app, "app", fails)
        assert app.run(["--json"]) == 1
        document = json.loads(capfd.readouterr().out)
        assert words in document["error"]["message"]
        assert document["error"]["exit_code"] == 1
        assert app.run([]) == 1
        shown = capfd.readouterr().err
        assert shown.startswith(f"error: {document['error']['message']}\n")
        assert "hunter2" not in shown and "Traceback" not in shown
        assert ("bug in batuta" in shown) is words.startswith("internal error")
