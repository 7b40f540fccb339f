"""What is generated from the commands: help, man pages, docs/cli.md, and the packages that carry the pages."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.docs_tree import Command, Kind, command_tree
from scripts.generate_docs import documents, stale, write
from scripts.roff import escape, paragraphs
from tests.conftest import Run

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path.name for path in (ROOT / "man").iterdir())
TREE = command_tree()
COMMANDS = {" ".join(command.path): command for command in TREE.walk()}
LEAVES = {name: command for name, command in COMMANDS.items() if not command.commands}


# The generator.


def test_the_committed_files_are_what_the_commands_say() -> None:
    assert stale(ROOT, documents()) == [], "run `make docs`"


def test_the_generator_writes_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    script = "import sys; from scripts.generate_docs import documents; sys.stdout.write(repr(documents()))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed, "COLUMNS": columns, "HOME": str(tmp_path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed, columns in (("0", "40"), ("1", "200"))
    }
    assert seen == {repr(documents()).encode()}


def test_files_that_differ_are_missing_or_are_left_over_are_stale(tmp_path: Path) -> None:
    wanted = {"man/a.1": "a\n", "man/b.1": "b\n", "completions/c": "c\n"}
    write(tmp_path, wanted)
    assert stale(tmp_path, wanted) == []

    (tmp_path / "man/a.1").write_text("another\n")
    (tmp_path / "man/b.1").unlink()
    (tmp_path / "man/old.1").touch()
    assert stale(tmp_path, wanted) == ["man/a.1", "man/b.1", "man/old.1"]

    write(tmp_path, wanted)
    assert stale(tmp_path, wanted) == []


def test_check_names_what_is_stale_and_exits_1(tmp_path: Path) -> None:
    for folder in ("scripts", "completions", "man", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    check = [sys.executable, "-m", "scripts.generate_docs", "--check"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, text=True).returncode == 0

    (tmp_path / "man/batuta.1").write_text("edited by hand")
    (tmp_path / "docs/cli.md").unlink()
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)

    stale_ones = ("docs/cli.md", "man/batuta.1")
    assert done.returncode == 1
    assert done.stdout == "".join(f"{name} is stale; run `make docs`\n" for name in stale_ones)
    assert (tmp_path / "man/batuta.1").read_text() == "edited by hand"


# docs/cli.md and docs/configuration.md.


@pytest.mark.parametrize("name", LEAVES)
def test_the_command_reference_has_each_command_with_its_options_and_examples(name: str) -> None:
    section = (ROOT / "docs/cli.md").read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for option in LEAVES[name].options:
        if not option.shared:
            assert f"* `{', '.join(option.names)}" in section
    for line in LEAVES[name].examples:
        assert f"\n{line}\n" in section


def test_the_configuration_reference_has_every_key_of_the_file_that_init_writes(batuta: Run, home: Path) -> None:
    batuta("config", "init", code=0)
    page = (ROOT / "docs/configuration.md").read_text()
    table, keys = "", 0
    for line in (home / "config/batuta/config.toml").read_text().splitlines():
        if header := re.fullmatch(r"(?:# )?\[(\w+).*\]", line):
            table = page.partition(f"\n## {header[1]}\n")[2].partition("\n## ")[0]
        elif key := re.fullmatch(r"# (\w+) = (.*)", line):
            row = next(row for row in table.splitlines() if row.startswith(f"| `{key[1]}` |"))
            assert f"| `{key[2]}` |" in row
            keys += 1
    assert keys > 30


def test_every_exit_status_that_an_error_has_is_explained() -> None:
    source = (ROOT / "batuta_cli/errors.py").read_text()
    codes = set(re.findall(r"\bexit_code(?:: ClassVar\[int\])? = (\d+)", source))
    assert len(codes) > 7
    table = (ROOT / "docs/cli.md").read_text().partition("\n## Exit status\n")[2].partition("\n## ")[0]
    assert codes <= set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE))


@pytest.mark.parametrize("page", ["docs/cli.md", "docs/configuration.md", *(f"man/{name}" for name in PAGES)])
def test_no_page_has_the_name_of_a_class_in_its_text(page: str) -> None:
    """A script that renames classes must not rename words."""
    sources = [path.read_text() for path in (ROOT / "batuta_cli").rglob("*.py")]
    classes = {name for text in sources for name in re.findall(r"^class ([A-Z][a-z]+[A-Z]\w+)", text, re.MULTILINE)}
    assert len(classes) > 100
    assert classes & set(re.findall(r"\w+", (ROOT / page).read_text())) == set()


# Help.


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_every_option_and_argument_what_it_is_for(name: str) -> None:
    command = COMMANDS[name]
    assert command.summary.endswith(".")
    for help in [option.help for option in command.options] + [argument.help for argument in command.arguments]:
        assert help.endswith(".")


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_an_example_of_itself(name: str) -> None:
    assert any(invoked is LEAVES[name] for line in LEAVES[name].examples for invoked, _ in invocations(line))


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_exist(name: str) -> None:
    for line in COMMANDS[name].examples:
        for command, words in invocations(line):
            known = {spelling for option in command.options for spelling in option.names}
            used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known, line


def invocations(line: str) -> Iterator[tuple[Command, list[str]]]:
    """The commands that an example line runs, each with its words."""
    for part in re.split(r"\||&&|\$\(|\)", line):
        words = shlex.split(part.replace('"', ""), comments=True)
        if "batuta" not in words:
            continue
        command, rest = TREE, words[words.index("batuta") + 1 :]
        while command.commands and rest and not rest[0].startswith("-"):
            found = {child.name: child for child in command.commands}
            assert rest[0] in found, line
            command = found[rest.pop(0)]
        yield command, rest[: rest.index("--")] if command.path == ("batuta", "pacha", "run") else rest


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_options_and_examples_and_fits_a_narrow_terminal(batuta: Run, name: str) -> None:
    command = COMMANDS[name]
    prose, examples = help_of(batuta, command, columns=60)
    assert max(map(len, prose.splitlines())) < 60
    assert all(spelling in prose for option in command.options for spelling in option.names)
    assert examples.splitlines() == [
        f"  {line}" if line.startswith("#") else f"  $ {line}" for line in command.examples
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_help_uses_the_width_there_is_up_to_what_can_be_read(batuta: Run, columns: int) -> None:
    prose, _ = help_of(batuta, COMMANDS["batuta pacha encrypt"], columns=columns)
    assert min(columns, 100) * 0.9 < max(map(len, prose.splitlines())) < min(columns, 100)


def help_of(batuta: Run, command: Command, *, columns: int) -> tuple[str, str]:
    """What `--help` prints: all up to the examples, and these."""
    shown = batuta(*command.path[1:], "--help", env={"COLUMNS": str(columns)}, code=0).stdout
    prose, _, examples = shown.partition("\nExamples:\n")
    return prose, examples


def test_help_shows_brackets_as_they_are_written(batuta: Run) -> None:
    assert "blake3:<hex>" in batuta("pacha", "hash", "--help", code=0).stdout
    assert "[OPTIONS] [PATH...]\n" in batuta("pacha", "hash", "--help", code=0).stdout


def test_help_is_in_colour_only_where_colours_are_wanted(batuta: Run) -> None:
    assert "\x1b[1mOptions" in batuta("pacha", "sign", "--help", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in batuta("pacha", "sign", "--help", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


@pytest.mark.parametrize("name", LEAVES)
def test_a_metavar_that_lists_choices_lists_at_least_two(name: str) -> None:
    values = [o.value for o in LEAVES[name].options if o.value] + [a.value for a in LEAVES[name].arguments]
    for value in values:
        assert (len(value.choices) > 1) == (value.kind is Kind.CHOICE)


def test_a_usage_error_names_the_command_it_happened_in(batuta: Run) -> None:
    assert "hint: batuta pacha sign --help" in batuta("pacha", "sign", "--output", code=2).stderr


# Man pages.


def test_there_is_a_page_for_batuta_and_for_each_group() -> None:
    assert sorted(["batuta.1", *(f"batuta-{group.name}.1" for group in TREE.commands)]) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_groff_formats_a_page_without_a_warning(page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-ww", "-z", ROOT / "man" / page], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_man_formats_a_page_without_a_warning(page: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Z", ROOT / "man" / page],
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", LEAVES)
def test_the_page_of_its_group_shows_a_command_as_it_is_typed(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    command = LEAVES[name]
    shown = _formatted(f"batuta-{command.path[1]}.1")
    part = shown.partition(f"\n   {name}\n")[2]
    assert part
    for option in command.options:
        if not option.shared:
            assert f"       {', '.join(option.names)}" in part
    for line in command.examples:
        assert f"           {line}\n" in part


def _formatted(page: str) -> str:
    command = ["groff", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-rLL=200n", str(ROOT / "man" / page)]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout


def test_the_page_of_batuta_lists_statuses_files_and_variables() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    shown = _formatted("batuta.1")
    for heading in ("EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"):
        assert f"\n{heading}\n" in shown
    for status in (0, 1, 2, 3, 4, 130):
        assert re.search(rf"^ +{status} ", shown, re.MULTILINE)


@pytest.mark.parametrize(
    "text", [r"a \backslash", ".PP is a request", "'tis another", "--dry-run", '"quoted" `x` ^ ~', "waiting…"]
)
def test_roff_prints_any_text_as_it_was_written(text: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    page = "\n".join(('.TH X 1 "" "" ""', ".SH TEXT", *paragraphs(text)))
    assert escape(text) in page
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"], input=page, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr == ""
    assert f"       {text}\n" in done.stdout


# The packages.

INSTALLED = {
    "share/bash-completion/completions/batuta": "completions/batuta.bash",
    "share/zsh/site-functions/_batuta": "completions/_batuta",
    "share/fish/vendor_completions.d/batuta.fish": "completions/batuta.fish",
} | {f"share/man/man1/{page}": f"man/{page}" for page in PAGES}


def test_a_wheel_built_from_the_sdist_installs_man_pages_and_completions(tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    sdist = _built(ROOT, "sdist", tmp_path)
    subprocess.run(["tar", "-x", "-f", sdist, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(_built(unpacked, "wheel", tmp_path)) as wheel:
        data = {
            name.partition(".data/data/")[2]: wheel.read(name) for name in wheel.namelist() if ".data/data/" in name
        }
    assert data == {installed: (ROOT / source).read_bytes() for installed, source in INSTALLED.items()}


def _built(source: Path, target: str, folder: Path) -> Path:
    """Build a package with hatchling alone, which needs no network."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder / target],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (folder / target).iterdir()
    return built
