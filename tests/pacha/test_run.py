"""Finding a program, and giving it a model; what it is as a process is in tests/cli/test_run_process.py."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from batuta_cli.errors import OperationError, ProgramNotFoundError, ProgramNotStartedError, UsageError
from batuta_cli.pacha import run
from batuta_cli.pacha.run import FORWARDED, find_program, run_program
from batuta_cli.pacha.sealed.memfd import MemoryFile


def test_a_program_is_found_in_the_path_or_by_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(["tool", "{}"]).path == str(tmp_path / "tool")
    monkeypatch.chdir(tmp_path)
    assert find_program(["./tool", "{}"]).path == str(tmp_path / "tool")
    (tmp_path / "tool").chmod(0o644)
    with pytest.raises(ProgramNotFoundError):
        find_program(["tool", "{}"])
    with pytest.raises(ProgramNotStartedError):
        find_program(["./tool", "{}"])


def test_each_placeholder_becomes_the_path_and_the_name_of_the_program_stays() -> None:
    program = find_program(["sh", "{}", "--model={}", "{}/a:{}", "plain"])
    assert program.with_model("/m") == ["sh", "/m", "--model=/m", "/m/a:/m", "plain"]


@pytest.mark.parametrize("arguments", [[], ["sh"], ["sh", "-c", "{ }"], ["{}"]])
def test_a_program_that_would_not_get_the_model_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        find_program(arguments)


def test_without_a_folder_for_the_links_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(**options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    monkeypatch.setattr(run, "libc", _NoCalls)
    with MemoryFile(0) as file, pytest.raises(OperationError, match="no folder for the links"):
        file.fill(bytes)
        run_program(find_program(["touch", f"{tmp_path}/started", "{}"]), "model", {".": file}, os.environ)
    assert not (tmp_path / "started").exists()


class _NoCalls:
    def prctl(self, *arguments: int) -> int:
        return 0


def test_signals_that_mean_a_fault_or_the_end_of_a_child_are_not_passed_on() -> None:
    names = ("CHLD", "SEGV", "BUS", "KILL", "STOP", "PIPE", "TSTP")
    assert not {getattr(signal, f"SIG{name}") for name in names} & FORWARDED
