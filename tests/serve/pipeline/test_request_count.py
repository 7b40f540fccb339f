"""The tokens of a request that is only counted."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import PrivacyError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.tokens.tokenizer import TokenCount
from tests.serve.support_backend import FaultServer, Script, response
from tests.serve.support_pipeline import MODEL, backends, pipeline, request

UNREACHABLE = "http://192.0.2.1:8000/v1"


def counter(status: str = "200 OK") -> FaultServer:
    """A vLLM that counts 7 tokens in every prompt."""

    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        if path == "/tokenize":
            return [response(json.dumps({"count": 7}).encode(), "application/json", status)]
        return [response(b"{}", "application/json", "404 Not Found")]

    return FaultServer(script)


def count(tmp_path: Path, tables: Any, asked: ChatRequest, **more: Any) -> TokenCount:
    made = pipeline(tmp_path, tables, **more)

    async def run() -> TokenCount:
        async with made:
            return await made.count(asked)

    return asyncio.run(run())


def paths(server: FaultServer) -> list[str]:
    return [path for path, _, _ in server.requests]


def test_a_server_that_has_the_model_counts_where_its_tokenizer_is_not_known(tmp_path: Path) -> None:
    with counter() as server:
        found = count(tmp_path, backends(one=("vllm", server.base_url)), request())
        assert (found.tokens, found.exact) == (7, True)
        assert paths(server).count("/tokenize") == 1
        assert "/v1/chat/completions" not in paths(server)


def test_the_models_own_tokenizer_counts_where_no_server_does(tmp_path: Path, gguf: Path) -> None:
    models = {MODEL: ModelSection(tokenizer=str(gguf))}
    with counter("404 Not Found") as server:
        short = count(tmp_path, backends(one=("vllm", server.base_url)), request(), models=models)
        long = request(messages=(ChatMessage.user("Say it. Say it."),))
        assert count(tmp_path, backends(one=("vllm", server.base_url)), long, models=models).tokens == short.tokens + 3
        assert short.exact


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found"])
def test_without_a_server_that_counts_the_count_is_an_estimate_from_above(tmp_path: Path, status: str) -> None:
    with counter(status) as server:
        found = count(tmp_path, backends(one=("vllm", server.base_url)), request())
    assert not found.exact
    assert found.tokens >= 2


def test_a_server_outside_the_tier_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(PrivacyError):
        count(tmp_path, backends(far=("vllm", UNREACHABLE)), request())
    assert '"allowed"' not in "".join(path.read_text() for path in (tmp_path / "audit").glob("*"))
