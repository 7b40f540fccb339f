"""Native panics, missing memory and too deep a recursion: an answer, a line of the log and a metric, never silence."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from batuta_cli.config import Config
from batuta_cli.serve.audit import AuditLog
from batuta_cli.serve.gateway.app import Gateway
from batuta_cli.serve.gateway.logs import Log
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.world import World
from tests.serve.gateway.live import live
from tests.serve.gateway.scripted import SECRET, PanicException, Pipeline
from tests.serve.gateway.support import CHAT, COMPLETIONS, MESSAGES, Asking, chat, message, run

KINDS = {
    "panic": "native_panic",
    "panic-in-thread": "native_panic",
    "memory": "out_of_memory",
    "recursion": "nested_too_deeply",
    "deep": "nested_too_deeply",
    "internal": "internal",
}
LATE = {"panic-late": "native_panic", "memory-late": "out_of_memory"}


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_before_the_answer_is_an_error_in_the_clients_shape(
    tmp_path: Path, model: str, path: str, stream: bool
) -> None:
    async def scenario(asking: Asking) -> None:
        body = message(model, stream=stream) | {"prompt": "one"}
        done = await asking.ask(path, body)
        assert (done.status, done.complete) == (500, True)
        assert (done.error["type"], done.error["message"]) == ("api_error", "internal error")
        assert (done.json.get("type") == "error") is (path == MESSAGES)
        [line] = asking.log
        assert (line["level"], line["status"], line["code"]) == ("error", 500, "internal_error")
        assert line["at"]
        metrics = (await asking.ask("/metrics")).body.decode()
        assert f'batuta_faults_total{{kind="{KINDS[model]}"}} 1.0' in metrics
        assert SECRET not in asking.log_text + done.body.decode()

    run(tmp_path, scenario)


@pytest.mark.parametrize("model", LATE)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_fault_in_mid_stream_is_an_error_event_and_no_good_end(tmp_path: Path, model: str, path: str) -> None:
    async def scenario(asking: Asking) -> None:
        done = await asking.ask(path, message(model, stream=True))
        assert (done.status, done.complete) == (200, False)
        assert "half of" in done.body.decode()
        assert done.events[-1]["error"]["message"] == "internal error"
        [line] = asking.log
        assert (line["level"], line["broken"], line["error"]) == ("error", True, LATE[model])
        metrics = (await asking.ask("/metrics")).body.decode()
        assert f'batuta_faults_total{{kind="{LATE[model]}"}} 1.0' in metrics
        assert asking.pipeline.answers[0].closed
        assert SECRET not in asking.log_text + done.body.decode()

    run(tmp_path, scenario)


def test_a_real_server_answers_a_panic_and_goes_on(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        for _ in range(2):
            status, headers, body = gateway.ask(CHAT, chat("panic"))
            assert (status, headers["content-type"]) == (500, "application/json")
            assert json.loads(body)["error"]["code"] == "internal_error"
            assert gateway.await_request()["error"] == "native_panic"
        assert gateway.ask(CHAT, chat())[0] == 200


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


def test_a_panic_at_the_start_is_a_start_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def panics(self: Pipeline) -> None:
        raise PanicException(SECRET)

    monkeypatch.setattr(Pipeline, "__aenter__", panics)
    gateway, sent = Gateway(Pipeline, log=Log(io.BytesIO())), []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(said: object) -> None:
        sent.append(said)

    asyncio.run(gateway({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "lifespan.startup.failed", "message": "internal error"}]
    assert "native library" in str(gateway.startup_error)


def test_the_backends_are_looked_at_again_after_a_panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    seen = asyncio.Event()

    async def refresh(self: World, *, tier: PrivacyTier) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise PanicException(SECRET)
        seen.set()

    monkeypatch.setattr("batuta_cli.serve.world.LOAD", 0.0)
    monkeypatch.setattr("batuta_cli.serve.world.REFRESH", 0.0)
    monkeypatch.setattr(World, "refresh", refresh)

    async def main() -> None:
        world = World(Config(), AuditLog(tmp_path / "audit"), [])
        world.watch(PrivacyTier.SOVEREIGN)
        async with asyncio.timeout(30):
            await seen.wait()
        await world.close()

    asyncio.run(main())
    assert looks >= 2


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
