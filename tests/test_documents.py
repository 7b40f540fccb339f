"""README.md and docs/ are true: console examples give the output they show, snippets work, links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from scripts.tour import README, ROOT, TOURS, Shell, Step, documents, normalise, steps
from tests.conftest import BATUTA, Run

DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("[CS]*.md"))]
FENCE = re.compile(r"^(?:<!-- test: (\w+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = {"cli.md", "configuration.md"}
"""Made from the commands and the schema; test_docs.py checks them."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    running = Shell(tmp_path)
    yield running
    running.close()


@pytest.mark.parametrize("document", documents(), ids=_name)
def test_every_command_of_a_document_gives_the_output_it_shows(document: Path, shell: Shell) -> None:
    for step in steps(document.read_text()):
        if isinstance(step, Step):
            assert normalise(shell.run(step.command)) == normalise(step.shown), (
                f"{_name(document)}:{step.line}: {step.command}"
            )


def test_the_tours_and_the_readme_have_console_examples() -> None:
    assert {README, *TOURS} <= set(documents())
    for tour in TOURS:
        assert len([item for item in steps(tour.read_text()) if isinstance(item, Step)]) > 20


def test_the_page_on_other_tools_signatures_runs_these_tools_as_publisher_and_as_verifier() -> None:
    """What verifies a keyless bundle there is run by tests/real/test_keyless.py."""
    commands = [item.command for item in steps((ROOT / "docs/oms.md").read_text()) if isinstance(item, Step)]
    for wanted in (
        "model_signing sign certificate ",
        "rh_model_signing sign key ",
        "batuta pacha verify nemo --ca ",
        "batuta pacha verify granite --key ",
        "batuta pacha sign model --oms-key ",
        "model_signing verify key ",
        "rh_model_signing verify key ",
    ):
        assert any(command.startswith(wanted) for command in commands), wanted


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name not in GENERATED], ids=_name)
def test_every_batuta_command_of_a_document_is_one_that_is_run(document: Path) -> None:
    """A `batuta` line outside of console blocks, without a test of its own, would be an example that no test runs."""
    untested = [
        line
        for marker, language, body in FENCE.findall(document.read_text())
        if language != "console" and not marker
        for line in body.splitlines()
        if line.startswith("batuta ")
    ]
    assert untested == []


def test_the_readme_has_at_most_150_lines_and_begins_with_what_it_is_how_to_install_it_and_what_to_type() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:40])
    for text in ("signs, verifies, encrypts", "pip install", "batuta pacha verify", "batuta serve gateway"):
        assert text in first_screen


def test_the_readme_links_to_every_document() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", README.read_text()))
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")} == linked


# Links.


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown document, as GitHub makes them from headings, and those of `<a id="…">`."""
    text = FENCE.sub("", text)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    prose = FENCE.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{_name(document)} links to {target}"
        assert not anchor or anchor in anchors(path.read_text()), f"{_name(document)} links to {target}"


def test_every_document_that_code_cites_has_the_anchor_it_names() -> None:
    cited = {
        (file, anchor)
        for folder in ("batuta_cli", "tests", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".toml", ".jinja")
        for file, anchor in re.findall(r"(?<![\w/])(docs/[\w-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8"))
    }
    assert ("docs/formats.md", "content-address") in cited
    for file, anchor in cited:
        text = (ROOT / file).read_text() if (ROOT / file).exists() else None
        assert text is not None, file
        assert not anchor or anchor in anchors(text), f"{file}#{anchor}"


# The snippets that are not console examples.


def _snippet(document: str, marker: str) -> str:
    found = [body for name, _, body in FENCE.findall((ROOT / document).read_text()) if name == marker]
    assert len(found) == 1
    text: str = found[0]
    return text


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
    script.write_text(_snippet("docs/tour-pacha.md", "script"))
    script.chmod(0o755)
    model = _model_by(batuta, work, "alice@example.com")

    def serve() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([script, model], env=_path(environment), cwd=work, capture_output=True, text=True)

    assert serve().stdout == f"serving {model}\n"
    model.write_bytes(b"another model")
    refused = serve()
    assert (refused.returncode, refused.stdout) == (3, "")


def test_the_actions_jobs_sign_and_verify(batuta: Run, environment: dict[str, str], work: Path) -> None:
    commands = [
        c for c in re.findall(r"- run: (.*)", _snippet("docs/tour-pacha.md", "actions")) if not c.startswith("pip ")
    ]
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
    hook.write_text(_snippet("docs/tour-pacha.md", "hook"))
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


PYTHON = [
    (path, number, body)
    for path in DOCUMENTS
    for number, (marker, body) in enumerate(
        (m, b) for m, lang, b in FENCE.findall(path.read_text()) if lang == "python"
    )
    if marker not in ("backend", "client")  # test_python_examples.py and test_real_clients.py run these
]


@pytest.mark.parametrize(
    ("document", "number", "body"), PYTHON, ids=[f"{_name(path)}-{number}" for path, number, _ in PYTHON]
)
def test_every_python_example_runs_in_an_empty_folder(
    document: Path, number: int, body: str, environment: dict[str, str], work: Path
) -> None:
    """Each example asserts what it shows."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", body], env=environment, cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{_name(document)}, example {number}: {done.stderr}"


def test_the_python_documentation_has_examples() -> None:
    assert len([path for path, _, _ in PYTHON if path.name == "python.md"]) >= 5


def test_every_name_that_the_python_documentation_gives_for_a_rust_name_is_there() -> None:
    table = (ROOT / "docs/python.md").read_text().partition("## From the Rust crates")[2]
    names = re.findall(r"`(batuta_cli\.(?:pacha|serve))\.(\w+)`", table)
    assert len(names) > 30
    for package, name in names:
        assert hasattr(import_module(package), name), name


def test_the_table_of_recommended_backends_is_what_the_selector_recommends() -> None:
    from batuta_cli.serve import BackendSelector, LatencyTier, PrivacyTier

    section = (ROOT / "docs/python.md").read_text().partition("### Recommended backends")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) == len(LatencyTier)
    for latency, cells in rows:
        for privacy, cell in zip(("SOVEREIGN", "PRIVATE", "STANDARD"), cells.split(" | "), strict=True):
            found = BackendSelector(privacy=PrivacyTier[privacy], latency=LatencyTier[latency]).recommend()
            assert ", ".join(map(str, found)) == cell


def test_every_row_of_the_benchmarks_names_a_script_that_is_there_and_a_date() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text().partition("## Aims")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| measured")]
    assert len(rows) > 12
    for row in rows:
        scripts = re.findall(r"`(bench_\w+\.py)`", row)
        assert scripts and re.search(r"\| 20\d\d-\d\d-\d\d \|$", row), row
        for script in scripts:
            assert (ROOT / "benchmarks" / script).exists(), script


GATEWAY = (ROOT / "docs/gateway.md").read_text()


def test_the_gateway_document_lists_every_error_with_its_status() -> None:
    sources = [path.read_text() for path in (ROOT / "batuta_cli/serve/gateway").rglob("*.py")]
    raised = {found for text in sources for found in re.findall(r'\b([45]\d\d), "(\w+)"', text)}
    assert len(raised) > 25
    table = GATEWAY.partition("## Errors")[2].partition("## ")[0]
    listed = {
        (status, code)
        for statuses, codes in re.findall(r"^\| (\d[\d, ]*) \| (.*?) \|", table, re.MULTILINE)
        for status in statuses.split(", ")
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert raised - listed == set()


def test_the_gateway_document_lists_the_metrics_that_it_shows() -> None:
    from batuta_cli.serve.gateway.metrics import Metrics

    shown = {family.name for family in Metrics().registry.collect()}
    listed = re.findall(r"^\| `(batuta_\w+)` \|", GATEWAY, re.MULTILINE)
    assert {name.removesuffix("_total") for name in listed} == shown


def test_code_cites_no_document_that_is_not_in_the_repository() -> None:
    outside = re.compile(r"\bDESIGN\b|(?<![\w/-])(?:shared|reference)/[\w-]+\.(?:md|json)")
    for folder in ("batuta_cli", "scripts", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".jinja") and path != Path(__file__):
                assert not outside.search(path.read_text(encoding="utf-8")), path
