"""The count of a running server: what is sent to it, how its answer is read, and what happens when it fails."""

import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import NoBackendError, PrivacyError, UsageError
from batuta_cli.serve.backends import Backend, ServingBackend, default_backend
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.server_count import ServerCounter
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import STALL, FaultServer, Script, response

SECRET = "hunter" + str(2)
ASK = [ChatMessage.user("Hello")]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def reply(document: Any, status: str = "200 OK", *headers: str) -> Script:
    return [response(json.dumps(document).encode(), "application/json", status, *headers)]


def llamacpp(path: str, headers: dict[str, str], body: Any) -> Script:
    """A server that counts a token for each word of the rendered prompt."""
    if path == "/apply-template":
        return reply({"prompt": "a prompt of five words" + " tool" * len(body.get("tools", []))})
    if path == "/tokenize":
        return reply({"tokens": list(range(len(body["content"].split())))})
    if path == "/props":
        return reply({"default_generation_settings": {"n_ctx": 512}, "total_slots": 1})
    return reply({"status": "ok", "data": []}, "200 OK", "Server: llama.cpp")


def vllm(path: str, headers: dict[str, str], body: Any) -> Script:
    if path == "/tokenize":
        return reply({"count": 7 + len(body.get("tools", [])), "max_model_len": 2048, "tokens": [1] * 7})
    return reply({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 2048}]})


def counter(
    directory: Path, kind: ServingBackend, server: FaultServer, tier: PrivacyTier = PrivacyTier.SOVEREIGN
) -> ServerCounter:
    backend = replace(default_backend(kind), base_urls=(server.base_url,), configured=True)
    return ServerCounter(backend, tier, audit=AuditLog(directory), timeout=1.0)


def test_llama_cpp_renders_and_tokenizes_as_for_a_completion(tmp_path: Path) -> None:
    with FaultServer(llamacpp) as server, counter(tmp_path, ServingBackend.LLAMA_CPP, server) as at:
        assert at.window == 512
        count = at.count(
            "m", ASK, {"tools": TOOLS, "temperature": 1, "chat_template_kwargs": {"enable_thinking": False}}
        )
    assert (count.tokens, count.exact) == (6, True) and server.base_url.removesuffix("/v1") in count.method
    sent = {path: body for path, _, body in server.requests if body}
    assert sent["/apply-template"] == {
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": TOOLS,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert sent["/tokenize"]["add_special"] is True and sent["/tokenize"]["parse_special"] is True


def test_vllm_tokenizes_the_messages(tmp_path: Path) -> None:
    with FaultServer(vllm) as server, counter(tmp_path, ServingBackend.VLLM, server) as at:
        assert at.window == 2048
        assert at.count("m", ASK).tokens == 7
        assert at.count("m", ASK, {"tools": TOOLS}).tokens == 8
    body = server.requests[-1][2]
    assert body["model"] == "m" and body["tools"] == TOOLS and body["add_generation_prompt"] is True


@pytest.mark.parametrize(
    "answer",
    [
        [STALL],
        [b""],
        reply({"error": "no"}, "500 Internal Server Error"),
        reply({"prompt": 5}),
        reply([]),
        [response(b"<html>")],
        reply({"prompt": "x"}, "302 Found", "Location: http://127.0.0.1:1/"),
    ],
)
def test_a_server_that_does_not_count_is_an_error_that_quotes_nothing(tmp_path: Path, answer: Script) -> None:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        return answer if path == "/apply-template" else llamacpp(path, headers, body)

    with (
        FaultServer(script) as server,
        counter(tmp_path, ServingBackend.LLAMA_CPP, server) as at,
        pytest.raises(BackendError) as caught,
    ):
        at.count("m", [ChatMessage.user(SECRET)])
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("tokens", [{"tokens": 5}, {"count": "7"}, {"count": -1}, {"count": True}, {}])
def test_an_answer_without_a_number_of_tokens_is_an_error(tmp_path: Path, tokens: Any) -> None:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        return reply(tokens) if path == "/tokenize" else vllm(path, headers, body)

    with (
        FaultServer(script) as server,
        counter(tmp_path, ServingBackend.VLLM, server) as at,
        pytest.raises(BackendError),
    ):
        at.count("m", ASK)


def test_the_gate_refuses_an_address_that_the_tier_does_not_admit(tmp_path: Path) -> None:
    far = replace(default_backend(ServingBackend.VLLM), base_urls=("http://192.0.2.1:8000/v1",), configured=True)
    with pytest.raises(PrivacyError), ServerCounter(far, PrivacyTier.SOVEREIGN, audit=AuditLog(tmp_path)):
        pass


def test_a_server_that_is_not_there_is_no_backend(tmp_path: Path) -> None:
    gone = replace(default_backend(ServingBackend.VLLM), base_urls=("http://127.0.0.1:1/v1",), configured=True)
    with pytest.raises(NoBackendError), ServerCounter(gone, PrivacyTier.SOVEREIGN, audit=AuditLog(tmp_path)):
        pass


def test_a_service_without_such_a_route_is_wrong_usage(tmp_path: Path) -> None:
    groq: Backend = default_backend(ServingBackend.GROQ)
    with pytest.raises(UsageError) as caught, ServerCounter(groq, PrivacyTier.STANDARD, audit=AuditLog(tmp_path)):
        pass
    assert caught.value.hint == "these servers count: llama.cpp, vLLM"
