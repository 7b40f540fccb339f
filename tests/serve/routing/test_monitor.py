"""A backend that was down is used again soon after it is up, at a bounded cost; equal servers share the work."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import AuditError, NoBackendError
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.audit_verification import verify_log
from batuta_cli.serve.routing import monitor
from batuta_cli.serve.routing.health import AttemptOutcome
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import chat_answer
from tests.serve.support_pipeline import MODEL, backends, pipeline, request
from tests.serve.support_server import FakeServer, Reply, json_reply, serving

SOVEREIGN = PrivacyTier.SOVEREIGN
DOWN: Reply = (503, {}, b"")
CHAT: Reply = json_reply(chat_answer("Hi").decode())


class Vllm:
    """A fake vLLM whose health can be changed."""

    def __init__(self) -> None:
        self.up = False
        self.metrics = b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"

    def routes(self) -> dict[str, object]:
        return {
            "/health": lambda: (200, {}, b"") if self.up else DOWN,
            "/v1/models": json_reply(f'{{"data": [{{"id": "{MODEL}", "owned_by": "vllm"}}]}}'),
            "/metrics": lambda: (200, {}, self.metrics),
            "/v1/chat/completions": lambda: CHAT if self.up else DOWN,
        }


@contextlib.contextmanager
def vllm() -> Iterator[tuple[Vllm, FakeServer]]:
    fake = Vllm()
    with serving(fake.routes()) as server:  # type: ignore[arg-type]
        yield fake, server


def made_for(tmp_path: Path, url: str, models: tuple[str, ...] = (MODEL,)) -> Pipeline:
    return pipeline(tmp_path, backends(models, one=("vllm", f"{url}/v1")))


def test_a_request_that_would_be_refused_probes_the_backend_and_uses_it_when_it_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "FRESH", 0.0)

    async def run(fake: Vllm, made: Pipeline) -> str:
        async with made:
            await made.monitor.refresh(tier=SOVEREIGN)
            for _ in range(8):  # the cooldown of the model would be a minute by now
                with pytest.raises(NoBackendError, match="loading") as caught:
                    await made.start(request(stream=False))
            assert caught.value.retry_after == 1
            fake.up = True
            return await (await made.start(request(stream=False))).text()

    with vllm() as (fake, server):
        assert asyncio.run(run(fake, made_for(tmp_path, server.url))) == "Hi"


def test_a_backend_that_comes_up_is_healthy_within_a_second_without_a_request(tmp_path: Path) -> None:
    async def run(fake: Vllm, made: Pipeline) -> float:
        await made.monitor.refresh(tier=SOVEREIGN)
        made.monitor.watch(SOVEREIGN)
        async with made:
            began, fake.up = time.monotonic(), True
            async with asyncio.timeout(20):
                while not made.monitor.probes["one"].healthy:
                    await asyncio.sleep(0.01)
            return time.monotonic() - began

    with vllm() as (fake, server):
        assert asyncio.run(run(fake, made_for(tmp_path, server.url))) < 2.0  # a second, and a busy machine


def test_a_successful_probe_ends_the_cooldown_of_a_backend_that_could_not_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "FRESH", 0.0)

    async def run(fake: Vllm, made: Pipeline, server: FakeServer) -> list[str]:
        health = made.monitor.health
        async with made:
            await made.monitor.refresh(tier=SOVEREIGN)
            for _ in range(7):
                ticket = health.start("one", time.monotonic(), MODEL)
                health.finish(ticket, AttemptOutcome.FAILED, time.monotonic())
            waits = made.monitor.retry_after(["one"], MODEL)
            text = await (await made.start(request(stream=False))).text()
            return [str(waits), text]

    with vllm() as (fake, server):
        fake.up = True
        assert asyncio.run(run(fake, made_for(tmp_path, server.url), server)) == ["1", "Hi"]


def test_many_refused_requests_cause_one_probe_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "FRESH", 0.0)
    running, most, gate = 0, 0, threading.Lock()

    def slow() -> Reply:
        nonlocal running, most
        with gate:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with gate:
            running -= 1
        return DOWN

    async def run(made: Pipeline) -> None:
        async with made:
            await made.monitor.refresh(tier=SOVEREIGN)
            asked = [made.start(request(stream=False, request_id=f"r{n}")) for n in range(50)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, NoBackendError) for each in found)

    with serving({"/health": slow}) as server:
        asyncio.run(run(made_for(tmp_path, server.url)))
        assert most == 1
        assert server.paths.count("/health") <= 4  # 50 requests, most of which share a probe


def test_repeated_probes_of_a_backend_add_no_records_to_the_audit_log(tmp_path: Path) -> None:
    async def run(made: Pipeline) -> None:
        async with made:
            for _ in range(20):
                await made.monitor.refresh(tier=SOVEREIGN)

    with vllm() as (_, server):
        asyncio.run(run(made_for(tmp_path, server.url)))
        assert server.paths.count("/health") == 20
    assert 1 <= verify_log([tmp_path / "audit"]).records <= 2


def test_a_log_that_cannot_be_written_refuses_every_probe_and_not_only_the_first(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("not a folder")

    async def run(made: Pipeline) -> None:
        async with made:
            for _ in range(3):
                with pytest.raises(AuditError):
                    await made.monitor.refresh(tier=SOVEREIGN)

    with vllm() as (_, server):
        made = pipeline(tmp_path, backends(one=("vllm", f"{server.url}/v1")))
        made.monitor._audit = AuditLog(tmp_path / "audit")
        asyncio.run(run(made))
        assert server.paths == []


def test_a_backend_that_goes_down_keeps_its_models_listed(tmp_path: Path) -> None:
    async def run(fake: Vllm, made: Pipeline) -> tuple[list[str], list[str], NoBackendError]:
        async with made:
            await made.monitor.refresh(tier=SOVEREIGN)
            before, fake.up = made.models(), False
            await made.monitor.refresh(tier=SOVEREIGN)
            with pytest.raises(NoBackendError) as caught:
                await made.start(request(stream=False))
            with pytest.raises(NoBackendError) as other:
                await made.start(request(stream=False, model="missing-model"))
            assert other.value.retry_after is None
            return before, made.models(), caught.value

    with vllm() as (fake, server):
        fake.up = True
        before, after, error = asyncio.run(run(fake, made_for(tmp_path, server.url, ())))
    assert before == after == [MODEL]
    assert error.retry_after == 1


def test_two_equal_servers_with_two_slots_share_eight_requests(tmp_path: Path) -> None:
    """https://github.com/BerriAI/litellm/issues/1273"""
    arrived = threading.Barrier(8)

    def answer() -> Reply:
        arrived.wait(30)  # until all eight requests are in flight
        return CHAT

    async def run(made: Pipeline) -> None:
        async with made:
            asked = [made.start(request(stream=False, request_id=f"r{n}")) for n in range(8)]
            for response in await asyncio.gather(*asked):
                assert await response.text() == "Hi"

    routes = {"/v1/chat/completions": answer}
    with serving(routes) as one, serving(routes) as two:
        made = pipeline(tmp_path, backends(one=("vllm", f"{one.url}/v1"), two=("vllm", f"{two.url}/v1")))
        asyncio.run(run(made))
        assert len(one.paths) == len(two.paths) == 4
