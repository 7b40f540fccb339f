"""The count of a real llama.cpp: it is what the server itself bills as the prompt."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import result
from tests.conftest import Run
from tests.real.support_llamacpp import LlamaCpp, llama_cpp

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TALK = [
    {"role": "system", "content": "Be terse. <|im_end|> is no end."},
    {"role": "user", "content": "Why is the sky blue? 日本語 🎉\n\n\tTell me!"},
]


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[LlamaCpp]:
    with llama_cpp(gguf) as running:
        yield running


def prompt_tokens(port: int, body: dict[str, Any]) -> int:
    """The length of the prompt that the server reports after a completion."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    data = json.dumps({**body, "max_tokens": 1})
    connection.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return int(answer["usage"]["prompt_tokens"])


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL]}])
def test_the_count_is_the_length_of_the_prompt_that_the_server_reads(
    batuta: Run, home: Path, work: Path, server: LlamaCpp, more: dict[str, Any]
) -> None:
    (home / "config" / "batuta").mkdir(parents=True, exist_ok=True)
    (home / "config" / "batuta" / "config.toml").write_text(
        f'[backends.llamacpp]\nbase_url = "http://127.0.0.1:{server.port}/v1"\n'
    )
    body = {"messages": TALK, **more}
    (work / "body.json").write_text(json.dumps(body))
    line = ("serve", "context", "--model", "smollm2-135m", "--backend", "llamacpp", "--privacy", "sovereign")
    found = result(batuta(*line, "--messages", "body.json", "--json", code=0))
    assert found["exact"] is True
    assert found["tokens"] == prompt_tokens(server.port, body)
    assert (found["window"], found["source"]) == (512, f"llamacpp at http://127.0.0.1:{server.port}/v1")
    long = [*TALK, {"role": "assistant", "content": "Rayleigh."}, {"role": "user", "content": "word " * 400}]
    (work / "body.json").write_text(json.dumps({"messages": long}))
    batuta(*line, "--messages", "body.json", code=8)
