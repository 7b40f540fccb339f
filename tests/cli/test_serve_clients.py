"""`batuta serve env` and `serve launch`: clients pointed at the gateway by variables and options alone."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import unpacked
from tests.conftest import Run
from tests.test_completions import needs

KEY = "btk_0123456789abcdef0123456789abcdef"
CLIENTS = ["claude", "codex", "opencode", "aider", "llm"]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs that have the names of the clients and print their environment and arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in CLIENTS:
        program = folder / name
        program.write_text('#!/bin/sh\nenv -0\nprintf "ARG=%s\\0" "$@"\nexit 7\n')
        program.chmod(0o755)
    return folder


def seen(done: Any) -> tuple[dict[str, str], list[str]]:
    """The environment and the arguments that a program printed."""
    items = [item.partition("=") for item in done.stdout.split("\0") if item]
    variables = {name: value for name, _, value in items if name != "ARG"}
    return variables, [value for name, _, value in items if name == "ARG"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_started_with_its_settings_and_without_keys(
    batuta: Run, programs: Path, environment: dict[str, str], client: str
) -> None:
    keys = {"OPENAI_API_KEY": "sk-one", "ANTHROPIC_API_KEY": "sk-two", "GROQ_API_KEY": "three", "MY_KEY": KEY}
    path = f"{programs}:{environment['PATH']}"
    done = batuta(
        *("serve", "launch", client, "--model", "m", "--key-env", "MY_KEY", "--", "-p", "two words", "--json"),
        code=7,
        env={**keys, "PATH": path, "OTHER": "kept"},
    )
    variables, arguments = seen(done)
    assert arguments[-3:] == ["-p", "two words", "--json"]
    assert variables["OTHER"] == "kept" and variables["MY_KEY"] == KEY
    assert not {"sk-one", "sk-two", "three"} & set(variables.values())
    assert "http://127.0.0.1:8484" in done.stdout or client == "llm"
    assert KEY not in " ".join(arguments)


def test_the_file_of_llm_is_batutas_own(batuta: Run, programs: Path, environment: dict[str, str], home: Path) -> None:
    before = {path for path in home.rglob("*") if "batuta" not in path.parts}
    done = batuta("serve", "launch", "llm", "--model", "m", code=7, env={"PATH": f"{programs}:{environment['PATH']}"})
    folder = Path(seen(done)[0]["LLM_USER_PATH"])
    (model,) = json.loads((folder / "extra-openai-models.yaml").read_text())
    assert (model["model_id"], model["api_base"]) == ("m", "http://127.0.0.1:8484/v1")
    changed = {path for path in home.rglob("*") if "batuta" not in path.parts and path.is_file()} - before
    assert changed == set()


def test_a_client_that_is_not_installed_has_its_install_line(batuta: Run, tmp_path: Path) -> None:
    python = Path(shutil.which("batuta") or "").parent
    done = batuta("serve", "launch", "claude", "--model", "m", code=2, env={"PATH": f"{tmp_path}:{python}"})
    assert done.stderr == "error: claude is not installed\nhint: npm install -g @anthropic-ai/claude-code\n"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shell_that_evaluates_the_commands_has_the_settings(
    batuta: Run, programs: Path, environment: dict[str, str], client: str
) -> None:
    printed = batuta("serve", "env", client, "--model", "m", "--key-env", "MY_KEY", code=0, env={"MY_KEY": KEY})
    assert KEY not in printed.stdout + printed.stderr
    script = f'{printed.stdout}\n{client} -p "two words" || true'
    inherited = {"PATH": f"{programs}:{environment['PATH']}", "MY_KEY": KEY, "CLAUDE_CODE_USE_BEDROCK": "1"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=inherited, check=True)
    launched = batuta(
        *("serve", "launch", client, "--model", "m", "--key-env", "MY_KEY", "--", "-p", "two words"),
        code=7,
        env={"PATH": inherited["PATH"], "MY_KEY": KEY},
    )
    (variables, arguments), (wanted, wanted_arguments) = seen(done), seen(launched)
    assert arguments == wanted_arguments
    document = json.loads(
        batuta("serve", "env", client, "--model", "m", "--key-env", "MY_KEY", "--json", env={"MY_KEY": KEY}).stdout
    )["result"]
    names = [*document["variables"], *document["key_variables"]]
    assert {name: variables[name] for name in names} == {name: wanted[name] for name in names}
    assert not set(document["cleared"]) & set(variables)
    assert document["arguments"] == wanted_arguments[:-2]
    assert KEY not in json.dumps(document)


@needs("fish")
def test_fish_reads_its_own_form(batuta: Run, programs: Path, environment: dict[str, str]) -> None:
    commands = [
        batuta("serve", "env", "codex", "--model", "m", "--shell", name, code=0).stdout
        for name in ("sh", "bash", "zsh")
    ]
    assert commands[0] == commands[1] == commands[2]
    printed = batuta("serve", "env", "codex", "--model", "m", "--shell", "fish", code=0).stdout
    inherited = {**environment, **unpacked.libraries("fish"), "PATH": f"{programs}:{environment['PATH']}"}
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"{printed}\ncodex x"], capture_output=True, text=True, env=inherited
    )
    assert seen(done)[1][:2] == ["-c", 'model="m"']


def test_fish_and_powershell_have_their_own_quoting(batuta: Run) -> None:
    fish = batuta("serve", "env", "opencode", "--model", "m", "--shell", "fish", code=0).stdout
    assert "set -gx OPENCODE_CONFIG_CONTENT '{" in fish and "set -e OPENCODE_API_KEY" in fish
    power = batuta("serve", "env", "claude", "--model", "m", "--shell", "powershell", code=0).stdout
    assert "$env:ANTHROPIC_BASE_URL = 'http://127.0.0.1:8484'" in power


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("env", "codx", "--model", "m"), "unknown client codx, did you mean codex?"),
        (("env", "codex"), "which model the client uses is not known"),
        (("env", "codex", "--model", "m", "--shell", "csh"), "unknown shell csh"),
        (("env", "codex", "--model", 'm"; rm'), "has a character that the settings of clients cannot hold"),
        (("env", "codex", "--model", "m", "--url", "nowhere"), "must be like http://127.0.0.1:8484"),
        (("launch", "codex", "--model", "m", "--key-env", KEY), "--key-env names no variable that is set"),
    ],
)
def test_wrong_usage_is_exit_2_and_repeats_no_key(batuta: Run, arguments: tuple[str, ...], message: str) -> None:
    done = batuta("serve", *arguments, code=2)
    assert message in done.stderr and KEY not in done.stderr
    document = json.loads(batuta("serve", *arguments[:1], "--json", *arguments[1:], code=2).stdout)
    assert document["error"]["exit_code"] == 2 and KEY not in json.dumps(document)


def test_a_signal_reaches_the_client(environment: dict[str, str], programs: Path) -> None:
    """The client takes the place of batuta's process."""
    (programs / "codex").write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    inherited = {**environment, "PATH": f"{programs}:{environment['PATH']}"}
    command = ["batuta", "serve", "launch", "codex", "--model", "m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=inherited) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        os.kill(process.pid, 15)
        assert process.wait(10) == -15
