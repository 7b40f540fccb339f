"""The official `ollama` client over the installed gateway and a real llama.cpp, which does not speak Ollama's API."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.support_llamacpp import llama_cpp
from tests.serve.gateway.live import real

CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def got(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("home")
    folder = home / "config" / "batuta"
    folder.mkdir(parents=True)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home)}
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        environment[f"XDG_{name}_HOME"] = str(home / name.lower())
    with llama_cpp(gguf) as server:
        (folder / "config.toml").write_text(
            f'[privacy]\ntier = "sovereign"\n[backends.llamacpp]\nbase_url = "http://127.0.0.1:{server.port}/v1"\n'
            'models = ["smollm2-135m"]\n'
        )
        with real(environment) as gateway:
            run = [str(CLIENTS), str(Path(__file__).with_name("with_ollama.py")), gateway.url]
            done = subprocess.run(run, capture_output=True, text=True, timeout=240, env={"LANG": "C.UTF-8"})
            assert done.returncode == 0, done.stderr + "\n".join(gateway.lines)
    yield json.loads(done.stdout)


def test_a_stream_is_the_models_answer_with_counts_and_durations(got: Any) -> None:
    assert got["stream"] == ANSWER
    assert got["pieces"] > 5
    prompt, output, longer = got["counts"]
    assert 30 < prompt < 60
    assert 7 <= output <= 9
    assert longer > prompt + 50
    total, first, rest = got["durations"]
    assert total >= first + rest > 0


def test_limit_stop_schema_and_logprobs_reach_the_model(got: Any) -> None:
    assert got["cut"] == ["length", 4]
    assert list(got["shaped"]) == ["capital"]
    assert got["stopped"].strip() == ANSWER.removesuffix(" Paris.")
    assert [token for token, _, _ in got["logprobs"]] == ["The", " capital", " of"]
    assert all(logprob <= 0 and alternatives == 2 for _, logprob, alternatives in got["logprobs"])


def test_the_window_is_the_one_that_the_server_reports(got: Any) -> None:
    assert got["window"] == [512]
