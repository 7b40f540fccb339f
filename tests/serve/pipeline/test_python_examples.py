"""The Python API: the examples of docs/python.md that need a backend, and the names that they use."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.config import Config
from batuta_cli.errors import UsageError
from batuta_cli.serve import BackendSelector, Pipeline, PrivacyTier
from tests.serve.support_backend import chat_answer, response
from tests.serve.support_pipeline import backends, pipeline, request, servers

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "python.md"
EXAMPLES = re.findall(r"^<!-- test: backend -->\n```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_documentation_prints_the_text_of_a_real_model(
    example: str, llamacpp: str, environment: dict[str, str], tmp_path: Path
) -> None:
    variables = environment | {"BATUTA_BACKENDS_LLAMACPP_BASE_URL": llamacpp}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], env=variables, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\w{2,}", done.stdout)


def test_the_first_example_has_at_most_8_lines() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 8


def test_complete_returns_the_text_why_it_ended_and_what_it_took(tmp_path: Path) -> None:
    with servers(lambda *_: [response(chat_answer("Rayleigh."))]) as (server,):
        made = pipeline(tmp_path, backends(box=("vllm", server.base_url)))
        first, second = made.complete(request(stream=False)), made.complete(request(stream=False))
    assert (first.text, first.finish_reason, first.summary.backend) == ("Rayleigh.", "stop", "box")
    assert (first.summary.input_tokens, first.summary.output_tokens) == (7, 5)
    assert second.text == "Rayleigh."


def test_complete_inside_an_event_loop_says_what_to_use_there(tmp_path: Path) -> None:
    async def run() -> None:
        pipeline(tmp_path, {}).complete(request())

    with pytest.raises(UsageError, match="inside an event loop") as caught:
        asyncio.run(run())
    assert "start" in str(caught.value.hint)


def test_a_pipeline_without_an_argument_reads_the_configuration_of_the_user(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BATUTA_PRIVACY_TIER", "private")
    assert Pipeline().tier is PrivacyTier.PRIVATE
    assert Pipeline(Config()).tier is PrivacyTier.STANDARD


def test_the_with_methods_of_a_selector_change_a_copy() -> None:
    standard = BackendSelector()
    sovereign = standard.with_privacy("sovereign").with_latency("batch").with_throughput("low").with_cost("balanced")
    assert [str(backend) for backend in sovereign.recommend()] == ["Realizar", "Ollama"]
    assert [str(backend) for backend in standard.recommend()] == ["Realizar", "Groq", "Together", "Fireworks"]
    with pytest.raises(UsageError, match="unknown latency tier"):
        standard.with_latency("soon")
