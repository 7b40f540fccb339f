"""The tokens of a request: bounds, the count by its tokenizer, and the count by its server."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.config import ModelSection
from batuta_cli.errors import PrivacyError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.pipeline import input_count
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.providers.server_count import ServerCount
from batuta_cli.serve.providers.wire import NativeRequest
from batuta_cli.serve.routing.gates import BackendState
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.tokenizer import TokenCount
from tests.serve.support_backend import FaultServer, Script, response
from tests.serve.support_pipeline import MODEL, backends, pipeline, request

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}


def of(*parts: Any, **more: Any) -> Any:
    return request(messages=[ChatMessage(Role.USER, "Hi", parts=({"type": "text", "text": "Hi"}, *parts))], **more)


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


def test_the_data_of_an_image_is_not_counted_as_text() -> None:
    assert input_count.bound(of(IMAGE)).tokens == input_count.bound(of()).tokens
    assert not input_count.count(of(IMAGE), {}).exact


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [ChatMessage(Role.ASSISTANT, "Hi", fields={"reasoning_content": "word " * 500})]},
        {"messages": [ChatMessage(Role.USER, "Hi", parts=({"type": "of_next_year", "x": "word " * 500},))]},
        {"options": {"chat_template_kwargs": {"x": "word " * 500}}},
        {"options": {"prediction": {"content": "word " * 500}}},
        {"options": {"of_next_year": "word " * 500}, "unknown_fields": ("of_next_year",)},
        {
            "native": NativeRequest(api=ClientApi.OLLAMA_GENERATE, document={"context": list(range(600))}),
            "native_only": ("context",),
        },
    ],
)
def test_what_may_become_part_of_the_prompt_counts(more: dict[str, Any]) -> None:
    for found in (input_count.bound(request(**more)), input_count.count(request(**more), {})):
        assert found.tokens > 500
        assert not found.exact


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_the_bound_is_never_below_the_bytes_of_the_text(text: str) -> None:
    """No tokenizer makes more than one token a byte."""
    bytes_of = len(text.encode())
    assert input_count.bound(request(messages=(ChatMessage.user(text),))).tokens >= bytes_of
    _, longest = input_count.bound_inputs(request(messages=(), stream=False, inputs=(text, "a")))
    assert longest.tokens >= bytes_of


def test_openais_embeddings_are_counted_exactly_and_those_of_others_with_two_tokens_more_a_text() -> None:
    texts = ("tiktoken is great!", [1, 2, 3])  # six tokens in cl100k_base (OpenAI's cookbook)
    asked = request(messages=(), stream=False, inputs=texts, model="text-embedding-3-small")
    total, longest = input_count.count_inputs(asked, {})
    assert (total.tokens, longest.tokens, total.exact) == (9, 6, True)
    other, _ = input_count.count_inputs(replace(asked, model="nomic-embed-text"), {})
    assert not other.exact
    assert other.tokens >= 9 + 2 * 2


def test_an_exact_count_is_the_least_and_an_estimate_is_not() -> None:
    asked = request(messages=(ChatMessage.user("word " * 50), ChatMessage.user("")))
    assert input_count.least(asked, TokenCount(400, True, "by hand"), {}) == 400
    estimated = input_count.least(asked, TokenCount(400, False, "by hand"), {})
    assert 1 < estimated <= 52  # fifty words, and each message has a token
    templated = {MODEL: ModelSection(tokenizer="tokenizer.json")}
    assert input_count.least(asked, TokenCount(400, True, "by hand"), templated) == estimated


@pytest.mark.parametrize("model", ["{here}", "model.gguf", "~", "tokenizer.json"])
def test_a_clients_model_is_never_read_as_a_file_of_this_machine(tmp_path: Path, model: str) -> None:
    asked = model.replace("{here}", str(tmp_path))
    assert input_count.model_name(asked) != asked
    assert input_count.tokenizer_name(asked, {asked: ModelSection(tokenizer="own.gguf")}) == "own.gguf"
    assert input_count.model_name("gpt-4o") == "gpt-4o"


def test_the_smaller_of_two_windows_counts() -> None:
    state = BackendState(name="one", kind=ServingBackend.VLLM, tier=PrivacyTier.SOVEREIGN, window=4096)
    tokens = TokenCount(7, True, "by the server")
    assert input_count.with_count(state, None) == state
    for window, smaller in ((None, 4096), (2048, 2048), (8192, 4096)):
        found = input_count.with_count(state, ServerCount(tokens, window))
        assert (found.counted, found.window) == (tokens, smaller)
