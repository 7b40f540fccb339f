"""The README is true: its console examples give the output it shows, its snippets work as they stand."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.tour import README, Shell, Step, normalise, steps
from tests.conftest import BATUTA, Run

TEXT = README.read_text()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    running = Shell(tmp_path)
    yield running
    running.close()


def test_every_command_of_the_readme_gives_the_output_it_shows(shell: Shell) -> None:
    commands = [item for item in steps(TEXT) if isinstance(item, Step)]
    assert len(commands) > 30
    for step in commands:
        assert normalise(shell.run(step.command)) == normalise(step.shown), f"README.md:{step.line}: {step.command}"


def test_every_command_of_the_readme_s_tour_is_one_that_is_run() -> None:
    """A `batuta` line outside of console blocks would be an example that no test runs."""
    fences = re.findall(r"(<!-- test: (\w+) -->\n)?```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    untested = [
        line
        for _, marker, language, body in fences
        if language != "console" and not marker
        for line in body.splitlines()
        if line.startswith("batuta ")
    ]
    assert [line.split("#")[0].split()[1:3] for line in untested] == [["pacha", "verify"], ["serve", "chat"]]


def _snippet(marker: str) -> str:
    match = re.search(rf"<!-- test: {marker} -->\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def _path(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"PATH": f"{Path(BATUTA).parent}:{environment['PATH']}"}


def _model_by(batuta: Run, work: Path, identity: str) -> Path:
    (work / "model.gguf").write_bytes(b"a model")
    batuta("pacha", "keygen", "--identity", identity, code=0)
    batuta("pacha", "sign", "model.gguf", code=0)
    return work / "model.gguf"


def test_the_shell_script_serves_alice_s_model_and_no_other(
    batuta: Run, environment: dict[str, str], work: Path
) -> None:
    script = work / "serve.sh"
    script.write_text(_snippet("script"))
    script.chmod(0o755)
    model = _model_by(batuta, work, "alice@example.com")

    def serve() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([script, model], env=_path(environment), cwd=work, capture_output=True, text=True)

    assert serve().stdout == f"serving {model}\n"
    model.write_bytes(b"another model")
    refused = serve()
    assert (refused.returncode, refused.stdout) == (3, "")


def test_the_actions_jobs_sign_and_verify(batuta: Run, environment: dict[str, str], work: Path) -> None:
    commands = [c for c in re.findall(r"- run: (.*)", _snippet("actions")) if not c.startswith("pip ")]
    assert len(commands) == 2
    (work / "model.gguf").write_bytes(b"a model")
    batuta("pacha", "keygen", "--output", "release.key", "--identity", "release@example.com", code=0)
    for home, command in enumerate(commands):  # each job starts on a machine that knows nothing
        fresh = {name: value for name, value in _path(environment).items() if not name.startswith("XDG_")}
        fresh |= {"HOME": str(work / str(home)), "SIGNING_KEY": (work / "release.key").read_text()}
        done = subprocess.run(["bash", "-ec", command], env=fresh, cwd=work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "verified, signed by the key" in done.stdout
    assert "which calls itself release@example.com" in done.stdout  # a key file has no name


def test_the_git_hook_lets_no_unverified_model_in(batuta: Run, environment: dict[str, str], work: Path) -> None:
    git_environment = _path(environment) | {
        f"GIT_{who}_{what}": "alice@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def git(*arguments: str) -> int:
        return subprocess.run(["git", *arguments], env=git_environment, cwd=work, capture_output=True).returncode

    model = _model_by(batuta, work, "alice@example.com")
    assert git("init") == 0
    hook = work / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(_snippet("hook"))
    hook.chmod(0o755)
    assert git("add", ".") == 0
    assert git("commit", "-m", "a signed model") == 0
    model.write_bytes(b"another model")
    assert git("commit", "-am", "a changed model") != 0
    assert git("add", "model.gguf") == 0
    model.write_bytes(b"a model")  # the folder looks right, what is staged does not
    assert git("commit", "-m", "a changed model") != 0
    assert git("add", "model.gguf") == 0
    (work / "model.gguf.sig").write_text("{}")
    assert git("commit", "-am", "another signature") != 0


def test_the_python_example_runs() -> None:
    match = re.search(r"```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert match is not None
    exec(match[1], {})  # noqa: S102 - the README's own text


def test_the_example_that_strings_all_of_serve_together_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(_snippet("integration"), {})  # noqa: S102 - the README's own text
    prompt, _, spent = capsys.readouterr().out.rpartition(" ")
    assert prompt == "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhy is the sky blue? [/INST]"
    assert 0 < float(spent) < 0.001
