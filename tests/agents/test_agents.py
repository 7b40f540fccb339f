"""Claude Code, Codex, opencode, llm and the AI SDK behind a gateway: each asks, streams, and runs one tool.

The commands are those of docs/clients.md, run as they stand there.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.support_agents import MODULES, World, world
from tests.real.support_script import CODEX_MODEL, GREETING, MODEL, NOTE, USED, WRITTEN, results
from tests.serve.gateway.live import ROOT

DOCUMENT = (ROOT / "docs/clients.md").read_text()
AGENTS = dict(re.findall(r"^<!-- test: (\w+) -->\n```text\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))
OPENCODE_PLUGIN = "registry.npmjs.org:443"
"""opencode tries at each start to install its plugin package, and goes on without it."""
AI_SDK = Path(__file__).with_name("with_ai_sdk.mjs")


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def commands(block: str) -> str:
    """The commands of a block, which stand after `$ ` and `> `."""
    return "\n".join(line[2:] for line in block.splitlines() if line.startswith(("$ ", "> ")))


def output(block: str) -> str:
    """The output that a block shows."""
    return "".join(line + "\n" for line in block.splitlines() if not line.startswith(("$ ", "> ")))


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_gives_the_output_of_the_documentation_streams_and_runs_a_tool(agent: str, behind: World) -> None:
    done = behind.run(commands(AGENTS[agent]))
    assert (done.returncode, done.stdout) == (0, output(AGENTS[agent])), done.stderr
    assert done.stdout.splitlines()[-1] == USED + NOTE
    assert done.stdout.splitlines()[0] == GREETING or agent.endswith(("_launch", "_env"))
    assert {body["stream"] for body in behind.asked} == {True}
    told = list(results(behind.asked))
    assert len(told) == 1 and NOTE in told[0]
    assert set(behind.outside) <= ({OPENCODE_PLUGIN} if agent.startswith("opencode") else set())


def test_codex_uses_a_free_form_tool(behind: World) -> None:
    """`apply_patch` is a custom tool, which a backend sees as a function with one text."""
    script = commands(AGENTS["codex"]).splitlines()[:3]
    done = behind.run("\n".join([*script, f'codex exec --skip-git-repo-check -m {CODEX_MODEL} "Write answer.txt"']))
    assert done.returncode == 0, done.stderr
    assert (behind.work / "answer.txt").read_text() == WRITTEN + "\n"
    assert "answer.txt" in next(results(behind.asked))


@pytest.mark.parametrize("provider", ["openai", "openai-chat", "openai-compatible", "anthropic"])
def test_the_ai_sdk_asks_streams_and_runs_a_tool(provider: str, behind: World) -> None:
    (behind.work / "node_modules").symlink_to(MODULES)
    (behind.work / AI_SDK.name).write_text(AI_SDK.read_text())
    done = behind.run(f'node {AI_SDK.name} {provider} http://127.0.0.1:8484 {MODEL} "What does note.txt say?"')
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["asked"], got["streamed"], got["told"]) == (GREETING, GREETING, USED + NOTE)
    assert got["parts"] > 3 and got["usage"] == 75
    assert got["ran"] == ["note.txt"]
    assert [text.strip() for text in results(behind.asked)] == [NOTE]
    assert behind.outside == []


def test_the_example_of_the_ai_sdk_prints_what_the_documentation_shows(behind: World) -> None:
    pattern = r"^<!-- test: ai_sdk -->\n```js\n(.*?)^```\n\n```text\n(.*?)^```"
    ((program, shown),) = re.findall(pattern, DOCUMENT, re.MULTILINE | re.DOTALL)
    (behind.work / "node_modules").symlink_to(MODULES)
    (behind.work / "example.mjs").write_text(program.replace("http://127.0.0.1:8484", behind.gateway.url))
    done = behind.run("node example.mjs")
    assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_the_documentation_names_the_versions_that_are_run() -> None:
    pinned = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
    for package in ("@anthropic-ai/claude-code", "@openai/codex", "opencode-ai", "ai"):
        assert f" | {pinned[package]} | " in DOCUMENT, package
        assert json.loads((MODULES / package / "package.json").read_text())["version"] == pinned[package]
