"""A client may leave at any moment: whatever awaits then, the budget is settled and no backend counts as busy."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import BatutaError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.pipeline.pipeline import Pipeline
from tests.serve.support_backend import chat_stream, chunk, stream_head
from tests.serve.support_pipeline import MODEL, backends, pipeline, request, servers

PRICED = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))


class _Stepped:
    """A coroutine whose steps are counted; its task is cancelled at one of them.

    `waiting`: while it waits for what it asked for; otherwise when that is there already, and would be lost.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any], leave: int, *, waiting: bool) -> None:
        self._inner = inner
        self._leave = leave
        self._waiting = waiting
        self.steps = 0

    def __await__(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = partial(self._inner.send, None)
        while True:
            self.steps += 1
            if self.steps == self._leave and not self._waiting:
                step = partial(self._inner.throw, asyncio.CancelledError())
            try:
                waited = step()
            except StopIteration as stop:
                return stop.value
            if self.steps == self._leave and self._waiting:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waited
            except BaseException as error:
                step = partial(self._inner.throw, error)
            else:
                step = partial(self._inner.send, None)


async def use(made: Pipeline) -> None:
    answer = await made.start(request())
    try:
        async for _ in answer:
            pass
    finally:
        await answer.aclose()


def left_at(made: Pipeline, breaker: CostCircuitBreaker, step: int, *, waiting: bool) -> bool:
    """Leave a request at its `step`th await; whether it came to that."""

    async def run() -> bool:
        async with made:
            stepped = _Stepped(use(made), step, waiting=waiting)

            async def client() -> None:
                await stepped

            with contextlib.suppress(asyncio.CancelledError, BatutaError):
                await client()
            for backend in made.monitor.backends:
                assert made.monitor.health.depth(backend.name, 0.0) == 0, step
        return stepped.steps >= step

    came = asyncio.run(run())
    status = breaker.status()  # what was begun in threads is over
    assert status.reserved == 0, step
    assert status.spent < 200_000, step  # what was seen, and not the bound of 10,000,000
    return came


Scripts = tuple[Callable[..., list[Any]], ...]
CASES: dict[str, Scripts] = {
    "an answer": (lambda *_: [stream_head(), chat_stream(["One", " two"])],),
    "a failover": (lambda *_: [stream_head(), chunk("One")], lambda *_: [stream_head(), chat_stream([" two"])]),
    "a failure": (lambda *_: [stream_head(), chunk("One")],),
}


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_leaving_at_any_await_settles_what_was_reserved(tmp_path: Path, case: str, waiting: bool) -> None:
    with servers(*CASES[case]) as running:
        names = ("groq", "groq") if case == "a failover" else ("openai",)
        tables = backends(
            **{f"b{n}": (name, one.base_url) for n, (name, one) in enumerate(zip(names, running, strict=True))}
        )
        step = 0
        more = True
        while more:
            step += 1
            breaker = CostCircuitBreaker(CircuitBreakerConfig())
            made = pipeline(tmp_path, tables, breaker=breaker, models={MODEL: PRICED})
            more = left_at(made, breaker, step, waiting=waiting)
    assert step > 8
