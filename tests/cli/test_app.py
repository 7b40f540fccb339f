"""The frame of the command line: what holds for every command."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import batuta_cli
from batuta_cli.cli import app
from tests.conftest import BATUTA, Run

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_that_of_the_package(batuta: Run) -> None:
    from importlib.metadata import version

    assert batuta("--version", code=0).stdout == f"batuta {version('batuta-cli')}\n"


def test_python_m_is_the_same_command(environment: dict[str, str], work: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "batuta_cli", "--version"], env=environment, cwd=work, capture_output=True, text=True
    )
    assert done.stdout.startswith("batuta ")


@pytest.mark.parametrize("arguments", [[], ["pacha"], ["pacha", "keys"], ["config"]])
def test_a_group_without_a_command_shows_its_help_and_is_wrong_usage(batuta: Run, arguments: list[str]) -> None:
    done = batuta(*arguments, code=2)
    assert "Usage: batuta" in done.stdout
    assert "Commands" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (["pacha", "sgin"], "'sign'", "batuta pacha --help"),
        (["pahca"], "'pacha'", "batuta --help"),
        (["pacha", "sign", "--identty", "x", "model"], "--identity", "batuta pacha sign --help"),
        (["pacha", "sign"], "PATH...", "batuta pacha sign --help"),
        (["pacha", "encrypt", "model", "--format", "three"], "three", "batuta pacha encrypt --help"),
    ],
)
def test_wrong_usage_names_what_was_meant_and_what_to_type(
    batuta: Run, arguments: list[str], words: str, hint: str
) -> None:
    done = batuta(*arguments, code=2)
    assert done.stdout == ""
    assert words in done.stderr
    assert f"hint: {hint}\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "command"),
    [
        (["--json"], 2, None),
        (["--json", "pacha", "sgin"], 2, "pacha"),
        (["pacha", "verify", "--json"], 2, "pacha verify"),
        (["pacha", "verify", "missing", "--json"], 1, "pacha verify"),
        (["pacha", "keys", "list", "--json"], 0, "pacha keys list"),
    ],
)
def test_json_is_exactly_one_document_on_failure_and_wrong_usage_too(
    batuta: Run, arguments: list[str], code: int, command: str | None
) -> None:
    done = batuta(*arguments, code=code)
    document = json.loads(done.stdout)
    assert list(document) == ["ok", "command", "result", "error"]
    assert document["ok"] is (code == 0)
    assert document["command"] == command
    assert done.stderr == ""
    if code:
        assert set(document["error"]) == {"kind", "message", "hint", "exit_code"}
        assert document["error"]["exit_code"] == code


def test_json_after_the_separator_is_a_path(batuta: Run) -> None:
    done = batuta("pacha", "hash", "--", "--json", code=1)
    assert done.stderr == "error: --json: no such file or directory\n"


def test_quiet_prints_errors_only(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"content")
    done = batuta("pacha", "hash", "model", "--quiet", code=0)
    assert (done.stdout, done.stderr) == ("", "")
    done = batuta("-q", "pacha", "hash", "missing", code=1)
    assert done.stdout == ""
    assert "missing: no such file" in done.stderr


def test_a_pipe_that_closes_early_ends_the_command_silently(environment: dict[str, str], work: Path) -> None:
    for i in range(3000):  # more than a pipe holds
        (work / f"{i:0200}").touch()
    command = ["bash", "-c", f"{BATUTA} pacha hash * | head -1"]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    assert done.stdout.startswith("blake3:")
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_command_says_so_and_leaves_nothing(
    environment: dict[str, str], work: Path, number: signal.Signals, status: int
) -> None:
    os.mkfifo(work / "fifo")
    with (
        subprocess.Popen(
            [BATUTA, "pacha", "encrypt", "fifo", "--output", "out"],
            env=environment | {"MODEL_KEY": "secret"},
            cwd=work,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
        open(work / "fifo", "wb") as feed,
    ):  # opens when the command has opened its end
        feed.write(b"x" * 100_000)
        feed.flush()
        child.send_signal(number)
        _, stderr = child.communicate()
    assert child.returncode == status
    assert "Traceback" not in stderr
    assert [p.name for p in work.iterdir()] == ["fifo"]


def test_no_traceback_reaches_a_user_unless_asked_for(batuta: Run) -> None:
    assert "Traceback" not in batuta("pacha", "hash", "missing", code=1).stderr
    assert "Traceback" in batuta("pacha", "hash", "missing", env={"BATUTA_DEBUG": "1"}, code=1).stderr


def test_control_characters_in_a_name_do_not_reach_the_terminal(batuta: Run) -> None:
    done = batuta("pacha", "hash", "a\x1b[31mb\tc", code=1)
    assert done.stderr == "error: a\\x1b[31mb\\tc: no such file or directory\n"
    done = batuta("pacha", "hash", "a\x1b[31mb\nc", code=1)
    assert done.stderr == "error: (value not shown): no such file or directory\n"


def _on_a_terminal(command: list[str], env: dict[str, str], cwd: Path) -> str:
    """What a command shows on a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(command, env=env, cwd=cwd, stdin=follower, stdout=follower, stderr=follower):
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:  # EIO: the other side is closed
            pass
    os.close(leader)
    return shown.decode()


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colours_follow_the_terminal_and_the_variables(
    environment: dict[str, str], work: Path, variables: dict[str, str], coloured: bool
) -> None:
    shown = _on_a_terminal([BATUTA, "pacha", "hash", "missing"], environment | variables, work)
    assert "no such file" in shown
    assert ("\x1b[" in shown) is coloured


def test_there_is_no_colour_in_a_pipe_unless_forced(batuta: Run) -> None:
    assert "\x1b" not in batuta("pacha", "hash", "missing").stderr
    assert "\x1b" in batuta("pacha", "hash", "missing", env={"FORCE_COLOR": "1"}).stderr


def test_work_on_more_than_64_mib_shows_progress_on_a_terminal_only(
    environment: dict[str, str], work: Path, gguf: Path, batuta: Run
) -> None:
    (work / "model.gguf").symlink_to(gguf)
    command = [BATUTA, "pacha", "hash", "model.gguf"]
    shown = _on_a_terminal(command, environment | {"TERM": "xterm", "COLUMNS": "120"}, work)
    assert re.search(r"hashing model.gguf .*\d/93\.8 MiB", shown.replace("\r", "\n"))
    assert batuta(*command[1:], code=0).stderr == ""


def _modules_after(arguments: list[str], environment: dict[str, str], work: Path) -> set[str]:
    code = (
        "import json, os, sys\n"
        "from batuta_cli.cli.app import run\n"
        f"status = run({arguments!r})\n"
        "sys.stdout.flush(); os.write(2, json.dumps([status, *sys.modules]).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=work, capture_output=True, check=True)
    status, *modules = json.loads(done.stderr)
    assert status == 0, done.stdout
    return set(modules)


HEAVY = {"rich", "pydantic", "asyncio", "concurrent.futures", "tomli_w", "importlib.metadata", "ssl", "http", "email"}


def test_the_version_imports_no_library_but_typer(environment: dict[str, str], work: Path) -> None:
    modules = _modules_after(["--version"], environment, work)
    assert "typer" in modules
    assert not modules & (HEAVY | {"cryptography", "blake3", "tomllib", "platformdirs", "batuta_cli.pacha"})


def test_hash_imports_no_cryptography(environment: dict[str, str], work: Path) -> None:
    (work / "model").write_bytes(b"content")
    modules = _modules_after(["pacha", "hash", "model"], environment, work)
    assert "blake3" in modules
    assert not modules & (HEAVY | {"cryptography", "tomllib"})


def test_verify_imports_only_what_it_uses(batuta: Run, environment: dict[str, str], work: Path) -> None:
    (work / "model").write_bytes(b"content")
    batuta("pacha", "keygen", code=0)
    batuta("pacha", "sign", "model", code=0)
    modules = _modules_after(["pacha", "verify", "model"], environment, work)
    assert {"cryptography", "blake3"} <= modules
    keys_in_files = "cryptography.hazmat.primitives.serialization"  # the trust store has them raw
    assert not modules & (HEAVY | {"batuta_cli.pacha.encryption", "batuta_cli.config", keys_in_files})


def test_pydantic_is_in_no_runtime_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ \[;]", d)[0] for d in project["dependencies"]}
    assert names == {"typer", "rich", "cryptography", "blake3", "tomli-w", "platformdirs", "tiktoken", "jinja2"}
    assert any(d.startswith("typer") and "<0.29" in d for d in project["dependencies"])  # 0.29 requires pydantic


def test_an_error_that_cannot_be_reported_shows_its_type_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: list[str]) -> int:
        raise ValueError("hunter2")

    monkeypatch.setattr(app, "run", fails)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    assert capfd.readouterr().err == "error: the error could not be reported: ValueError\n"


def test_the_root_s_help_describes_each_group_as_the_group_does(batuta: Run) -> None:
    """The descriptions are written a second time, so that `batuta --help` imports no group."""
    from batuta_cli.cli import help

    context = typer.main.get_command(app.app).make_context("batuta", [], resilient_parsing=True)
    root: Any = context.command
    assert {name: child.summary for name, child in root.children.items()} == {
        name: help.summary_of(child) for name, child in help.children_of(root, context)
    }


@pytest.mark.parametrize("arguments", [("--version",), ("-V",)])
def test_the_version_alone_is_printed_without_importing_the_parser(
    batuta: Run, environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = batuta(*arguments, code=0, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.stdout == f"batuta {batuta_cli.__version__}\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "batuta_cli.cli.start" in imported
    assert {"typer", "batuta_cli.cli.app", "dataclasses"}.isdisjoint(imported)
    full = batuta(*arguments, "--quiet", code=0)
    assert full.stdout == ""


def test_a_version_that_cannot_be_printed_is_an_error(batuta: Run, environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [BATUTA, "--version"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, "no space left" in done.stderr) == (1, True)


def test_one_command_imports_no_other_command_and_no_rich(environment: dict[str, str], work: Path) -> None:
    (work / "small").write_bytes(b"weights")
    script = "import sys; from batuta_cli.cli import app; app.run(sys.argv[1:]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "pacha", "hash", "small"],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.splitlines()[-1].split())
    commands = {name for name in imported if name.startswith(("batuta_cli.cli.pacha_", "batuta_cli.cli.serve"))}
    assert commands == {"batuta_cli.cli.pacha_hash"}
    assert {"rich", "cryptography", "batuta_cli.pacha.signer"}.isdisjoint(imported)
