"""What an attempt is charged when its backend does not report its usage at the end."""

import asyncio
import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import ModelSection
from batuta_cli.errors import BatutaError
from batuta_cli.serve.budget.breaker import BudgetStatus, CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.providers.formats import replicate
from batuta_cli.serve.providers.wire import BackendError
from tests.serve.support_backend import STALL, FaultServer, Script, chunk, response, stream_head
from tests.serve.support_pipeline import MODEL, ask, backends, pipeline, request

PRICED = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))
A_TOKEN = 1000
"""Nano-dollars."""
BOUND = 10_000 * A_TOKEN
"""Of the answer to `request()`."""


def charged(tmp_path: Path, script: Script, asked: ChatRequest, *, leave: bool = False) -> BudgetStatus:
    """The budget after one request, which the client leaves as soon as the backend has it."""
    arrived = asyncio.Event()
    breaker = CostCircuitBreaker(CircuitBreakerConfig())

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def answer(*_: Any) -> Script:
            loop.call_soon_threadsafe(arrived.set)
            return script

        with FaultServer(answer) as server:
            made = pipeline(
                tmp_path, backends(openai=("openai", server.base_url)), breaker=breaker, models={MODEL: PRICED}
            )

            async def client() -> None:
                answer = await made.start(asked)
                try:
                    async for _ in answer:
                        pass
                finally:
                    await answer.aclose()

            async with made:
                task = asyncio.create_task(client())
                if leave:
                    await arrived.wait()
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError, BatutaError):
                    await task

    asyncio.run(run())
    status = breaker.status()
    assert status.reserved == 0
    return status


def delta(**fields: Any) -> bytes:
    choices = [{"index": 0, "delta": fields, "finish_reason": None}]
    return b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"


def test_an_answer_in_one_piece_that_nobody_waited_for_is_charged_in_full(tmp_path: Path) -> None:
    assert charged(tmp_path, [STALL], request(stream=False), leave=True).spent >= BOUND


def test_an_answer_in_one_piece_that_never_came_is_charged_in_full(tmp_path: Path) -> None:
    assert charged(tmp_path, [], request(stream=False)).spent >= BOUND


def test_all_choices_of_an_answer_that_never_came_are_charged(tmp_path: Path) -> None:
    assert charged(tmp_path, [], request(stream=False, options={"n": 3})).spent >= 3 * BOUND


def test_a_stream_that_is_cut_off_is_charged_for_what_it_said_beyond_its_count(tmp_path: Path) -> None:
    stream = chunk(usage=(7, 0)) + b"".join(chunk("word ") for _ in range(500))
    assert 500 * A_TOKEN <= charged(tmp_path, [stream_head(), stream], request()).spent < BOUND


def test_a_stream_that_is_cut_off_is_charged_for_what_it_counted_itself(tmp_path: Path) -> None:
    stream = chunk("word ") + chunk(usage=(7, 300))
    assert charged(tmp_path, [stream_head(), stream], request()).spent == 307 * A_TOKEN


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning_content": "thought "},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "thought "}}]},
    ],
)
def test_reasoning_and_calls_of_tools_are_paid_for_as_text_is(tmp_path: Path, said: dict[str, Any]) -> None:
    stream = b"".join(delta(**said) for _ in range(500))
    assert 500 * A_TOKEN <= charged(tmp_path, [stream_head(), stream], request()).spent < BOUND


@pytest.mark.parametrize("then", ["500 Internal Server Error", "429 Too Many Requests", ""])
def test_a_prediction_that_was_made_is_paid_for_though_its_stream_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    model = "meta/test-model"

    def script(path: str, *_: Any) -> Script:
        made = path.endswith("/predictions")
        return [response(b"{}", "application/json", "201 Created" if made else then)]

    with FaultServer(script) as server:
        stream = f"{server.base_url}/stream" if then else "http://127.0.0.1:1/stream"
        monkeypatch.setattr(replicate, "stream_url", lambda _: stream)
        breaker = CostCircuitBreaker(CircuitBreakerConfig())
        tables = {"one": Table(profile="replicate", base_url=server.base_url, models=(model,))}
        with pytest.raises(BackendError):
            ask(pipeline(tmp_path, tables, breaker=breaker, models={model: PRICED}), request(model=model))
    assert breaker.status().spent > 0
