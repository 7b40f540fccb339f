"""Where a request may be sent, and the prompt of a raw completion, which has the whole input of its template."""

import asyncio
import logging
import socket
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection, Privacy
from batuta_cli.errors import InvalidInputError, PrivacyError
from batuta_cli.serve.messages import ChatMessage, parse_messages
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_pipeline import MODEL, backends, pipeline, request

TOOL = {"type": "function", "function": {"name": "weather"}}


def rendered(tmp_path: Path, format: str, options: dict[str, Any]) -> str:
    models = {MODEL: ModelSection(template=format)}
    made = pipeline(tmp_path, backends((MODEL,), one=("llamacpp", "http://127.0.0.1:9/v1")), models=models)
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "", "reasoning_content": "So."}]
    request = ChatRequest(
        model=MODEL,
        messages=parse_messages(messages, complete=True),
        privacy=PrivacyTier.SOVEREIGN,
        options=options,
    )

    async def run() -> str:
        async with made:
            return await made.planner.render(request)

    return asyncio.run(run())


def test_tools_thoughts_and_variables_reach_the_template(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"tools": [TOOL], "chat_template_kwargs": {"enable_thinking": False}, "temperature": 1}
    prompt = rendered(tmp_path, "qwen3", options)
    assert '"weather"' in prompt and "<think>\nSo.\n</think>" in prompt
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert caplog.messages == []


def test_what_the_template_does_not_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rendered(tmp_path, "chatml", {"tools": [TOOL], "reasoning_effort": "low"})
    assert caplog.messages == [
        f"raw completion of {MODEL}: the template does not read {what}"
        for what in ("tools", "reasoning_effort", "reasoning_content (first in message 2)")
    ]


def test_malformed_template_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="chat_template_kwargs must be an object"):
        rendered(tmp_path, "chatml", {"chat_template_kwargs": [1]})


@pytest.mark.parametrize("text", ["Say it.", "word " * 100_000], ids=["short", "long, so that the server would count"])
def test_what_is_free_because_it_should_be_near_is_not_sent_anywhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    near = Privacy(tier="standard", local_networks=(ip_network("10.0.0.0/8"),))
    made = pipeline(tmp_path, backends(gpu=("vllm", "http://gpu.example:9/v1")), privacy=near)

    async def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 9))]

    async def run() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        async with made:
            with pytest.raises(PrivacyError, match=r"private does not admit 192\.0\.2\.1:9"):
                await made.start(request(privacy=PrivacyTier.STANDARD, messages=(ChatMessage.user(text),)))

    asyncio.run(run())
    decisions = [line for file in tmp_path.rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert decisions and all('"decision":"refused"' in line for line in decisions)
