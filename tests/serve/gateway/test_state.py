"""What all routes share: the pipeline, the open requests, the storage check, and the errors that are faults."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from batuta_cli.errors import BatutaError, LedgerError
from batuta_cli.serve.gateway.connection import Connection
from batuta_cli.serve.gateway.http_errors import HttpError
from tests.serve.gateway.scripted import SECRET, PanicException, Pipeline
from tests.serve.gateway.support import CHAT, Asking, chat, run

"""How Llama 3 splits a text (its tokenizer.json, `pre_tokenizer`)."""


def test_a_panic_while_the_gauges_are_read_hides_no_other_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def panics(self: Pipeline) -> None:
        raise PanicException(SECRET)

    monkeypatch.setattr(Pipeline, "gauges", panics)

    async def scenario(asking: Asking) -> None:
        done = await asking.ask("/metrics")
        assert (done.status, b'batuta_faults_total{kind="native_panic"} 1.0' in done.body) == (200, True)
        assert asking.log[0]["event"] == "gauges"

    run(tmp_path, scenario)


def test_a_cancelled_request_is_no_fault(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        asked = asyncio.create_task(asking.ask(CHAT, chat("hang")))
        while not asking.pipeline.requests:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert b"batuta_faults_total{" not in (await asking.ask("/metrics")).body

    run(tmp_path, scenario)


def test_what_is_expected_is_no_fault_and_what_is_not_is_counted_by_its_kind(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        state = asking.gateway._state
        for expected in (HttpError(404, "not_found", "no"), LedgerError("locked")):
            assert state.handled(expected) is expected
        bug = ValueError("bug")
        assert state.handled(bug) is bug
        assert isinstance(state.handled(MemoryError()), BatutaError)
        with pytest.raises(asyncio.CancelledError):
            state.handled(asyncio.CancelledError())
        metrics = (await asking.ask("/metrics")).body.decode()
        counted = [line for line in metrics.splitlines() if line.startswith("batuta_faults_total{")]
        assert counted == ['batuta_faults_total{kind="internal"} 1.0', 'batuta_faults_total{kind="out_of_memory"} 1.0']

    run(tmp_path, scenario)


def test_other_settings_hold_for_access_and_bodies_at_once(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        origin = {"origin": "https://app.example"}
        assert (await asking.ask("/v1/models", headers=origin)).status == 403
        settings = asking.gateway._state.settings
        limits = replace(settings.limits, all_bodies_bytes=10**9)
        asking.gateway._state.apply(replace(settings, origins=("https://app.example",), limits=limits))
        assert (await asking.ask("/v1/models", headers=origin)).status == 200
        assert asking.gateway._state.bodies.limit == 10**9

    run(tmp_path, scenario)


def test_a_pipeline_is_unused_when_the_last_request_that_uses_it_has_ended(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        state = asking.gateway._state
        first, second = cast(Connection, object()), cast(Connection, object())
        pipeline = state.require_pipeline()
        with state.open_request(first):
            with state.open_request(second):
                unused = asyncio.create_task(state.wait_until_unused(pipeline))
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not unused.done()
        async with asyncio.timeout(30):
            await unused
        assert state.idle.is_set()

    run(tmp_path, scenario)
