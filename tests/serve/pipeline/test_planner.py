"""The prompt of a raw completion has the whole input of the template, and what the template does not read is logged."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.messages import parse_messages
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_pipeline import MODEL, backends, pipeline

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
