"""What a request is expected to cost at most: all that a service counts, and nobody waits for the counting."""

import asyncio
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import ModelSection
from batuta_cli.errors import UsageError
from batuta_cli.serve.messages import ChatMessage, ToolCall
from batuta_cli.serve.pipeline import input_count
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.tokens import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount
from tests.serve.support_backend import FaultServer, chat_answer, response
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, request, text_of

LONG = "word " * 20_000
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": LONG}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": LONG}}]
CALL = ChatMessage.assistant("", [ToolCall("1", "f", f'{{"a": "{LONG}"}}')])
ASK = ChatMessage.user("Say it.")
CASES: dict[str, dict[str, Any]] = {
    "tools": {"options": {"tools": TOOLS}},
    "a response format": {"options": {"response_format": SCHEMA}},
    "a call of a tool": {"messages": (ASK, CALL)},
    "a tool's result": {"messages": (ASK, CALL, ChatMessage.tool(LONG, "1"))},
    "a name": {"messages": (ChatMessage.user("x", name=LONG),)},
}


@pytest.mark.parametrize("case", CASES)
def test_all_that_a_service_counts_is_expected(case: str) -> None:
    asked = request(**CASES[case])
    counted = input_count.count(asked, {}).tokens
    assert counted >= 20_000
    assert input_count.bound(asked).tokens >= counted


def test_tools_have_a_prompt_of_their_own() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    without = input_count.count(request(), {}).tokens
    assert input_count.count(request(options={"tools": tools}), {}).tokens >= without + 530


def test_a_configured_tokenizer_with_a_template_counts_the_rendered_prompt_exactly(gguf: Path) -> None:
    counted = input_count.count(request(), {MODEL: ModelSection(tokenizer=str(gguf))})
    prompt = ChatTemplateEngine.from_model(str(gguf)).apply(request().messages)
    assert (counted.tokens, counted.exact) == (tokenizer_for(str(gguf)).count(prompt, special=True), True)
    models = {MODEL: ModelSection(tokenizer=str(gguf))}  # a paid host may have a shorter template
    assert input_count.least(request(), counted, models) < tokenizer_for(str(gguf)).count(request().messages[0].content)


def test_tokens_are_not_counted_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def count(*_: Any, **__: Any) -> TokenCount:
        threads.append(threading.current_thread())
        return TokenCount(1, True, "told")

    monkeypatch.setattr(input_count, "count_messages", count)
    made = pipeline(
        tmp_path, backends(one=("openai", "http://127.0.0.1:1/v1")), models={MODEL: ModelSection(100_000, 64)}
    )

    async def explain() -> None:
        async with made:
            await made.explain(request())

    asyncio.run(explain())
    assert threads and threading.main_thread() not in threads


@pytest.mark.parametrize("model", ["x.json", "there-is-none.gguf"])
def test_a_clients_model_is_no_file(tmp_path: Path, model: str) -> None:
    with FaultServer(lambda *_: [response(chat_answer("Yes."))]) as server:
        tables = {"one": Table(profile="openai", base_url=server.base_url, models=(model,))}
        priced = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))
        made = pipeline(tmp_path, tables, models={model: priced})
        assert text_of(ask(made, request(model=model, stream=False))[1]) == "Yes."


def test_a_clients_model_is_no_file_with_a_template(tmp_path: Path) -> None:
    template = tmp_path / "llama-2-7b-chat.jinja"
    template.write_text("{{ 'a secret of this machine' }}")
    made = pipeline(tmp_path, backends(one=("ollama", "http://127.0.0.1:1/v1")))
    with pytest.raises(UsageError, match="not named"):
        asyncio.run(made.planner.render(request(model=str(template))))
