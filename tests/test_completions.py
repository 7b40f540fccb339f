"""The shell completions, in the real shells: what they offer, and the command line that a person ends up with."""

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import unpacked

COMPLETIONS = Path(__file__).resolve().parent.parent / "completions"
PATIENCE = 20  # seconds until a shell that says nothing has failed

Offers = Callable[..., list[str]]
Typed = Callable[[str], list[str]]


def needs(shell: str) -> pytest.MarkDecorator:
    """Leave a test out where the shell it is about is not installed."""
    reason = f"{shell} is not installed; `make test` brings it where there is apt"
    return pytest.mark.skipif(shutil.which(shell) is None, reason=reason)


@pytest.fixture
def models(work: Path) -> Path:
    """A directory to complete names in."""
    for name in ("my model.gguf", "other.gguf", "out=1.gguf", "v1:2.gguf"):
        (work / name).touch()
    (work / "directory").mkdir()
    (work / "directory" / "one.gguf").touch()
    return work


def _lines(command: list[str], environment: dict[str, str], folder: Path) -> list[str]:
    """What a shell prints that must not fail, in an environment with a variable to complete."""
    environment = environment | {"SECRET_VARIABLE": "x"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# What the bash function puts into COMPREPLY, with the words cut as readline cuts them.


@pytest.fixture
def bash_offers(models: Path, environment: dict[str, str]) -> Offers:
    """`bash_offers("batuta", "pacha", "si")`: what is offered for the last word; "FILES" where file names are."""
    script = """
        compopt() { [[ "$*" == *default* ]] && echo FILES; }
        source "$COMPLETION"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        set -u
        _batuta batuta "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        ((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}"
    """

    def offers(*words: str) -> list[str]:
        more = {"COMPLETION": str(COMPLETIONS / "batuta.bash")}
        return _lines(["bash", "-c", script, "bash", *words], environment | more, models)

    return offers


def test_bash_offers_the_groups(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "") == ["pacha", "serve", "config"]


def test_bash_offers_the_commands_that_begin_with_what_was_typed(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "pacha", "s") == ["sign", "store"]


def test_bash_offers_the_commands_of_a_nested_group(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "pacha", "keys", "") == ["list", "export", "import", "rotate", "rename", "remove"]
    assert bash_offers("batuta", "pacha", "trust", "re") == ["remove", "revoke", "retire"]


def test_bash_finds_the_command_behind_options_of_the_groups(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "--json", "pacha", "-q", "ver") == ["verify"]


def test_bash_offers_the_options_that_begin_with_what_was_typed(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "pacha", "sign", "model.gguf", "--fo") == ["--follow-symlinks", "--format", "--force"]


def test_bash_offers_long_and_short_options(bash_offers: Offers) -> None:
    assert {"-o", "--output", "-f", "--json", "-h"} <= set(bash_offers("batuta", "pacha", "sign", "-"))


def test_bash_offers_no_option_of_another_command(bash_offers: Offers) -> None:
    assert "--require" not in bash_offers("batuta", "pacha", "sign", "--")
    assert bash_offers("batuta", "pacha", "--for") == []


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("pacha", "sign", "--format", ""), ["bundle", "pacha1"]),
        (("pacha", "sign", "--format", "="), ["bundle", "pacha1"]),
        (("pacha", "sign", "--format", "=", "pa"), ["pacha1"]),
        (("pacha", "encrypt", "model.gguf", "--format", ""), ["1", "2"]),
        (("pacha", "keys", "export", "--format", "o"), ["openssh"]),
        (("pacha", "keys", "export", "--format=o"), ["--format=openssh"]),  # = taken out of COMP_WORDBREAKS
        (("config", "get", "pacha."), ["pacha.allow_pacha1", "pacha.default_key"]),
    ],
)
def test_bash_offers_the_choices_of_a_value(bash_offers: Offers, words: tuple[str, ...], choices: list[str]) -> None:
    assert bash_offers("batuta", *words) == choices


@pytest.mark.parametrize(
    "words",
    [
        ("pacha", "sign", ""),
        ("pacha", "sign", "one", "two", ""),
        ("pacha", "sign", "my\\ mo"),
        ("pacha", "sign", "'my mo"),
        ("pacha", "sign", "my\\ model.gguf", "oth"),
        ("pacha", "sign", "v1", ":", "2"),
        ("pacha", "sign", "--output", ""),
        ("pacha", "sign", "--output", "=", "o"),
        ("pacha", "sign", "-fo", ""),
        ("pacha", "sign", "--identity", "-x", ""),
        ("pacha", "sign", "--", ""),
        ("pacha", "sign", "--", "--follow"),
        ("pacha", "trust", "add", "alice@example.com", ""),
        ("pacha", "trust", "add", "team", ":", "alice", ""),
        ("pacha", "trust", "add", "--valid-from", "2026-01-01", "alice", ""),
        ("pacha", "trust", "add", "--", "-alice", ""),
        ("pacha", "encrypt", "-fo", "out", ""),
        ("pacha", "encrypt", "-oout", ""),
        ("pacha", "keys", "export", ">", ""),
        ("pacha", "keys", "export", "--format", "pem", "2>", ""),
        ("pacha", "run", "mo"),
        ("pacha", "run", "model.gguf", "--", "cat", "mo"),
    ],
)
def test_bash_leaves_file_names_to_readline(bash_offers: Offers, words: tuple[str, ...]) -> None:
    assert bash_offers("batuta", *words) == ["FILES"]


@pytest.mark.parametrize(
    "words",
    [
        ("pacha", "sign", "--identity", ""),
        ("pacha", "sign", "--expires", "="),
        ("pacha", "trust", "add", ""),
        ("pacha", "trust", "add", "alice", "alice.pub", ""),
        ("pacha", "trust", "add", "team", ":", "al"),
        ("pacha", "trust", "list", ""),
        ("pacha", "encrypt", "one", ""),
        ("pacha", "verify", "--digest", "blake3", ":"),
        ("pacha", "no-such-command", ""),
        ("no-such-group", "sign", ""),
    ],
)
def test_bash_offers_nothing_where_nothing_is_known(bash_offers: Offers, words: tuple[str, ...]) -> None:
    assert bash_offers("batuta", *words) == []


def test_bash_offers_the_names_of_variables(bash_offers: Offers) -> None:
    assert bash_offers("batuta", "pacha", "encrypt", "model", "--password-env", "SECRET_") == ["SECRET_VARIABLE"]


# The real shells on a terminal: what is typed, TAB included, and the arguments that come out.


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], cwd: Path) -> None:
        self.seen = ""
        self.screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=inner, stdout=inner, stderr=inner, cwd=cwd, env=environment
        )
        os.close(inner)

    def wait_for(self, text: str) -> None:
        """Read the screen until `text` is on it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.screen], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} was not seen in {self.seen!r}"
            self.seen += os.read(self.screen, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        """Type it, as a person would."""
        os.write(self.screen, text.encode())

    def close(self) -> None:
        """Hang up."""
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


_SHOW_ARGUMENTS = """
PS1='READY> '
batuta() { printf '%s\\n' "$@" >"$ANSWER.part"; mv "$ANSWER.part" "$ANSWER"; echo DONE; }
"""


def _typed_in(command: list[str], environment: dict[str, str], models: Path, answer: Path, line: str) -> list[str]:
    terminal = Terminal(command, environment | {"ANSWER": str(answer), "TERM": "dumb"}, models)
    try:
        terminal.wait_for("READY> ")
        terminal.type(line + "\n")
        terminal.wait_for("DONE\r")
    finally:
        terminal.close()
    return answer.read_text().splitlines()


@pytest.fixture
def typed_in_bash(models: Path, environment: dict[str, str], tmp_path: Path) -> Typed:
    """The arguments that batuta gets when a line is typed into bash."""
    rc = tmp_path / "bashrc"
    rc.write_text(f"source {COMPLETIONS / 'batuta.bash'}\nbind 'set bell-style none'\n{_SHOW_ARGUMENTS}")
    command = ["bash", "--noprofile", "--rcfile", str(rc), "-i"]
    return lambda line: _typed_in(command, environment, models, tmp_path / "answer", line)


@pytest.fixture
def typed_in_zsh(models: Path, environment: dict[str, str], tmp_path: Path) -> Typed:
    """The arguments that batuta gets when a line is typed into zsh."""
    setup = f"fpath=({COMPLETIONS} $fpath)\nautoload -Uz compinit\ncompinit -u -D\nunsetopt beep\n"
    (tmp_path / ".zshrc").write_text(setup + _SHOW_ARGUMENTS)
    (tmp_path / ".zshenv").write_text(unpacked.zshenv())
    zsh_environment = environment | unpacked.libraries("zsh") | {"ZDOTDIR": str(tmp_path)}
    return lambda line: _typed_in(["zsh", "-d", "-i"], zsh_environment, models, tmp_path / "answer", line)


LINES = [
    ("batuta pac\tsig\tmy\t", ["pacha", "sign", "my model.gguf"]),
    ("batuta pacha sign 'my\t", ["pacha", "sign", "my model.gguf"]),
    ("batuta pacha sign my\\ m\toth\t", ["pacha", "sign", "my model.gguf", "other.gguf"]),
    ("batuta pacha sign v1\t", ["pacha", "sign", "v1:2.gguf"]),
    ("batuta pacha sign out\t", ["pacha", "sign", "out=1.gguf"]),
    ("batuta pacha sign dir\tone\t", ["pacha", "sign", "directory/one.gguf"]),
    ("batuta pacha sign oth\t--outp\tmy\t", ["pacha", "sign", "other.gguf", "--output", "my model.gguf"]),
    ("batuta pacha sign --output=my\t", ["pacha", "sign", "--output=my model.gguf"]),
    ("batuta pacha sign -o my\t", ["pacha", "sign", "-o", "my model.gguf"]),
    ("batuta pacha sign --follow\toth\t", ["pacha", "sign", "--follow-symlinks", "other.gguf"]),
    ("batuta pacha keys exp\t--form\topen\t", ["pacha", "keys", "export", "--format", "openssh"]),
    ("batuta pacha keys export --format=open\t", ["pacha", "keys", "export", "--format=openssh"]),
    ("batuta pacha trust add alice oth\t", ["pacha", "trust", "add", "alice", "other.gguf"]),
    ("batuta pacha sign -- oth\t", ["pacha", "sign", "--", "other.gguf"]),
    ("batuta pacha run oth\t-- cat my\t", ["pacha", "run", "other.gguf", "--", "cat", "my model.gguf"]),
    ("batuta pacha sign -- --follow\t", ["pacha", "sign", "--", "--follow"]),
    ("batuta config set pacha.def\tx", ["config", "set", "pacha.default_key", "x"]),
]


def test_bash_offers_programs_after_the_model_that_one_is_run_on(bash_offers: Offers) -> None:
    offered = bash_offers("batuta", "pacha", "run", "model.gguf", "--key", "a.pub", "--", "mktem")
    assert set(offered) == {"FILES", "mktemp"}


@pytest.mark.parametrize(("line", "arguments"), LINES)
def test_a_line_completed_in_bash_is_what_was_meant(typed_in_bash: Typed, line: str, arguments: list[str]) -> None:
    assert typed_in_bash(line) == arguments


@needs("zsh")
@pytest.mark.parametrize(("line", "arguments"), LINES)
def test_a_line_completed_in_zsh_is_what_was_meant(typed_in_zsh: Typed, line: str, arguments: list[str]) -> None:
    written = typed_in_zsh(line)
    # zsh goes on with --format= where bash puts a space; both mean the same
    assert [word for arg in written for word in arg.split("=", 1)] == [w for a in arguments for w in a.split("=", 1)]


# fish says itself what it would offer.


@pytest.fixture
def fish_offers(models: Path, environment: dict[str, str]) -> Offers:
    """`fish_offers("batuta pacha si")`: each word on offer, a tab, and its description."""

    def offers(line: str) -> list[str]:
        script = f"source {COMPLETIONS / 'batuta.fish'}; complete -C $argv[1]"
        more = unpacked.libraries("fish")
        return _lines(["fish", "--no-config", "-c", script, line], environment | more, models)

    return offers


@needs("fish")
def test_fish_offers_commands_with_what_they_do(fish_offers: Offers) -> None:
    assert fish_offers("batuta pacha si") == ["sign\tSign models; the signature is written beside each as PATH.sig."]


@needs("fish")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("batuta ", {"pacha", "serve", "config"}),
        ("batuta --json pacha -q ver", {"verify"}),
        ("batuta pacha keys ", {"list", "export", "import", "rotate", "rename", "remove"}),
        ("batuta pacha trust re", {"remove", "revoke", "retire"}),
        ("batuta pacha sign one --fo", {"--follow-symlinks", "--format", "--force"}),
        ("batuta pacha --for", set()),
        ("batuta pacha sign --format ", {"bundle", "pacha1"}),
        ("batuta pacha sign --format=pa", {"--format=pacha1"}),
        ("batuta pacha keys export --format o", {"openssh"}),
        ("batuta config get pacha.", {"pacha.allow_pacha1", "pacha.default_key"}),
        ("batuta pacha sign my", {"my model.gguf"}),
        ("batuta pacha sign 'my model.gguf' oth", {"other.gguf"}),
        ("batuta pacha sign --output oth", {"other.gguf"}),
        ("batuta pacha sign --output=oth", {"--output=other.gguf"}),
        ("batuta pacha sign -fo oth", {"other.gguf"}),
        ("batuta pacha sign --identity oth", set()),
        ("batuta pacha sign -- oth", {"other.gguf"}),
        ("batuta pacha sign -- --follow", set()),
        ("batuta pacha trust add oth", set()),
        ("batuta pacha trust add alice oth", {"other.gguf"}),
        ("batuta pacha trust add --valid-from 2026-01-01 alice oth", {"other.gguf"}),
        ("batuta pacha trust add -- -alice oth", {"other.gguf"}),
        ("batuta pacha trust add alice alice.pub oth", set()),
        ("batuta pacha encrypt -fo out oth", {"other.gguf"}),
        ("batuta pacha encrypt -oout oth", {"other.gguf"}),
        ("batuta pacha encrypt one oth", set()),
        ("batuta pacha trust list ", set()),
        ("batuta pacha no-such-command oth", set()),
        ("batuta pacha encrypt x --password-env SECRET_", {"SECRET_VARIABLE"}),
        ("batuta pacha run oth", {"other.gguf"}),
        ("batuta pacha run other.gguf -- cat oth", {"other.gguf"}),
    ],
)
def test_fish_offers_what_can_stand_there(fish_offers: Offers, line: str, words: set[str]) -> None:
    assert {offer.split("\t")[0] for offer in fish_offers(line)} == words


# The scripts themselves.


@pytest.mark.parametrize(("shell", "script"), [("bash", "batuta.bash"), ("zsh", "_batuta"), ("fish", "batuta.fish")])
def test_a_completion_is_a_valid_script(shell: str, script: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; `make test` brings it where there is apt")
    command = [shell, "-n", str(COMPLETIONS / script)]
    done = subprocess.run(command, env=os.environ | unpacked.libraries(shell), capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs("shellcheck")
def test_shellcheck_finds_nothing_in_the_bash_completion() -> None:
    done = subprocess.run(["shellcheck", COMPLETIONS / "batuta.bash", "--shell=bash"], capture_output=True, text=True)
    assert done.stdout == ""
