"""Official clients and frameworks from PyPI, over a real llama.cpp and over a scripted backend.

Each asks, streams, and runs one tool. The programs are in `clients/`; requirements.txt there pins the versions.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.support_script import GREETING, MODEL, NOTE, USED, configured, converse, results
from tests.serve.gateway.live import ROOT, real
from tests.serve.support_backend import FaultServer
from tests.serve.support_server import running_llamacpp

PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "clients"
CALL = '<tool_call>\n{"name": "read_note", "arguments": {"name": "note.txt"}}\n</tool_call>'
TEMPLATE = ROOT / "batuta_cli/serve/templates/qwen2.5.jinja"
"""SmolLM2's own template has no tools; llama.cpp reads the calls of this one."""

CASES = [
    ("openai", "chat"),
    ("openai", "responses"),
    ("anthropic", "messages"),
    ("ollama", "chat"),
    ("langchain", "chat"),
    ("langchain", "responses"),
    ("langchain", "messages"),
    ("pydantic_ai", "chat"),
    ("pydantic_ai", "responses"),
    ("pydantic_ai", "messages"),
    ("openai_agents", "chat"),
    ("openai_agents", "responses"),
]
REAL_CASES = [
    ("openai", "chat"),
    ("openai", "responses"),
    ("anthropic", "messages"),
    ("ollama", "chat"),
    ("langchain", "messages"),
    ("pydantic_ai", "chat"),
    ("openai_agents", "responses"),
]
"""Each client once, `openai` with both of its protocols: the model is slow."""


def use(client: str, dialect: str, url: str, model: str, prompt: str, folder: Path) -> Any:
    """What a program got."""
    return json.loads(run([PROGRAMS / f"with_{client}.py", dialect, url, model, prompt], folder))


def run(arguments: list[str | Path], folder: Path) -> str:
    """The output of a program of the clients, in a folder with a note."""
    assert PYTHON.exists(), f"{PYTHON} is missing; run `make test`"
    (folder / "note.txt").write_text(NOTE + "\n")
    environment = {"LANG": "C.UTF-8", "HOME": str(folder)}
    done = subprocess.run(
        [PYTHON, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FaultServer]]:
    """The address of a gateway, and the backend behind it."""
    with (
        FaultServer(converse) as backend,
        real(configured(tmp_path_factory.mktemp("scripted"), "mine", backend.base_url)) as gateway,
    ):
        yield gateway.url, backend


@pytest.fixture(scope="module")
def llamacpp(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> Iterator[str]:
    """The address of a gateway before a real server."""
    with (
        running_llamacpp(gguf, TEMPLATE.read_text()) as base_url,
        real(configured(tmp_path_factory.mktemp("llamacpp"), "llamacpp", base_url)) as gateway,
    ):
        yield gateway.url


@pytest.mark.parametrize(("client", "dialect"), CASES)
def test_a_client_asks_streams_and_runs_a_tool(
    client: str, dialect: str, scripted: tuple[str, FaultServer], tmp_path: Path
) -> None:
    url, backend = scripted
    backend.requests.clear()
    got = use(client, dialect, url, MODEL, "What does note.txt say?", tmp_path)
    assert (got["asked"], got["streamed"]) == (GREETING, GREETING)
    assert got["parts"] > 3
    assert (got["ran"], got["told"]) == (["note.txt"], USED + NOTE)
    bodies = [body for _, _, body in backend.requests if body]
    assert [text.strip() for text in results(bodies)] == [NOTE]
    assert {bool(body.get("stream")) for body in bodies} == {True, False}


@pytest.mark.parametrize(("client", "dialect"), REAL_CASES)
def test_a_client_asks_streams_and_runs_a_tool_with_a_real_model(
    client: str, dialect: str, llamacpp: str, tmp_path: Path
) -> None:
    """What the model says is its own affair; that it calls the tool when it is told to repeat a call is sure enough."""
    got = use(client, dialect, llamacpp, "smollm2-135m", f"Repeat this: {CALL}", tmp_path)
    assert got["asked"] and got["streamed"]
    assert got["parts"] > 3
    assert set(got["ran"]) == {"note.txt"}
    assert got["told"]


SNIPPETS = re.findall(
    r"^<!-- test: client -->\n```python\n(.*?)^```\n\n```text\n(.*?)^```",
    (ROOT / "docs/clients.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize(("program", "shown"), SNIPPETS, ids=[program.split()[1] for program, _ in SNIPPETS])
def test_an_example_of_the_documentation_prints_what_it_shows(
    program: str, shown: str, scripted: tuple[str, FaultServer], tmp_path: Path
) -> None:
    assert run(["-c", program.replace("http://127.0.0.1:8484", scripted[0])], tmp_path) == shown


def test_the_documentation_has_an_example_of_each_client_in_its_version() -> None:
    document = (ROOT / "docs/clients.md").read_text()
    pinned = re.findall(r"^([\w-]+)(?:\[.*\])?==([\d.]+)$", (PROGRAMS / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pinned) >= 6
    for name, version in pinned:
        assert version in document, f"{name} {version}"
    assert len(SNIPPETS) == document.count("<!-- test: client -->") == 6
