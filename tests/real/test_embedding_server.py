"""Embeddings of a real llama.cpp through the installed gateway, asked for by the official clients."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.support_llamacpp import LlamaCpp, llama_cpp
from tests.serve.gateway.live import real

CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
TEXTS = ["The sky is blue.", "Zażółć gęślą jaźń"]


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[LlamaCpp]:
    with llama_cpp(gguf, embeddings=True) as running:
        yield running


def asked(server: LlamaCpp, texts: list[str]) -> Any:
    """What the server itself answers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/v1/embeddings", json.dumps({"input": texts}), {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return answer


def close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and one == pytest.approx(other, abs=1e-4)


def test_the_official_clients_get_the_servers_own_embeddings(
    server: LlamaCpp, home: Path, environment: dict[str, str]
) -> None:
    (home / "config" / "batuta").mkdir(parents=True, exist_ok=True)
    (home / "config" / "batuta" / "config.toml").write_text(
        f'[privacy]\ntier = "sovereign"\n[backends.llamacpp]\nbase_url = "http://127.0.0.1:{server.port}/v1"\n'
        'models = ["smollm2-135m"]\n'
    )
    direct = asked(server, TEXTS)
    wanted = [each["embedding"] for each in direct["data"]]
    script = Path(__file__).with_name("with_embeddings.py")
    with real(environment) as gateway:
        run = [str(CLIENTS), str(script), gateway.url]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, env={"LANG": "C.UTF-8"})
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    for found in (got["openai"], got["ollama"]):
        assert len(found) == 2
        assert all(map(close, found, wanted))
    assert close(got["older"], wanted[0])
    assert got["tokens"][:2] == [direct["usage"]["prompt_tokens"]] * 2
    assert server.tokenize(TEXTS[0], special=True) == [504, 6376, 314, 4461, 30]
    assert close(got["ids"][0], wanted[0])
    assert got["tokens"][2] == 6
    assert got["too_long"] == [400, "context_length_exceeded"]
