"""The limits of requests a minute and at a time: 429 with the time to wait, or a wait in the queue of the key."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.key_throttle import KeyQueueSettings, duration_text
from batuta_cli.serve.gateway.state import GatewaySettings
from tests.serve.gateway.support import CHAT, MESSAGES, Asking, ask, chat, message, run
from tests.serve.gateway.test_key_limits import made

QUEUE = GatewaySettings(key_queue=KeyQueueSettings(length=2, wait=30.0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360, "6m0s")],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_requests_above_the_rate_get_429_with_the_time_to_wait(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, other = made(tmp_path, requests_per_minute=2), made(tmp_path, "other")
        remaining = []
        for path in (CHAT, MESSAGES):
            done = await asking.ask(path, message(), headers=header)
            assert (done.status, done.headers["x-ratelimit-limit-requests"]) == (200, "2")
            remaining.append(done.headers["x-ratelimit-remaining-requests"])
        assert remaining == ["1", "0"]
        refused = await asking.ask(CHAT, b"{not json", headers=header | {"content-type": "application/json"})
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")  # before the body is parsed
        assert 28 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 55 <= float(refused.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert (await asking.ask("/v1/models", headers=header)).status == 200
        free = await asking.ask(CHAT, chat(), headers=other)
        assert free.status == 200 and "x-ratelimit-limit-requests" not in free.headers
        assert len(asking.pipeline.requests) == 3

    run(tmp_path, scenario)


def test_a_request_that_fails_counts_and_a_refused_one_does_not(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header = made(tmp_path, requests_per_minute=1)
        assert (await asking.ask(CHAT, chat("backend-500"), headers=header)).status == 502
        waits = [(await asking.ask(CHAT, chat(), headers=header)).headers["retry-after"] for _ in range(5)]
        assert max(map(int, waits)) <= 60

    run(tmp_path, scenario)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def queued(asking: Asking, count: int) -> None:
    """Wait until so many requests wait in the queues of the keys."""
    lines = asking.gateway._state.throttle._lines
    await until(lambda: sum(len(line.waiting) for line in lines.values()) == count)


def test_one_more_at_a_time_gets_429_until_a_client_leaves(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, leaves = made(tmp_path, concurrent=1), asyncio.Event()
        first = asyncio.create_task(asking.ask(CHAT, chat("hang", stream=True), headers=header, leaves=leaves))
        await until(lambda: asking.pipeline.requests)
        refused = await asking.ask(CHAT, chat(), headers=header)
        assert (refused.status, refused.error["code"]) == (429, "too_many_concurrent_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert "1 requests at a time" in refused.error["message"]
        leaves.set()
        await first
        assert (await asking.ask(CHAT, chat(), headers=header)).status == 200

    run(tmp_path, scenario)


def test_a_configured_queue_lets_requests_wait_in_order(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, leaves = made(tmp_path, concurrent=1), asyncio.Event()
        first = asyncio.create_task(asking.ask(CHAT, chat("hang"), headers=header, leaves=leaves))
        await until(lambda: asking.pipeline.requests)
        waiting = [asyncio.create_task(asking.ask(CHAT, chat(text=text), headers=header)) for text in ("a", "b")]
        await queued(asking, 2)
        assert (await asking.ask(CHAT, chat(text="c"), headers=header)).status == 429  # the queue is full
        assert len(asking.pipeline.requests) == 1
        leaves.set()
        await first
        assert [done.status for done in await asyncio.gather(*waiting)] == [200, 200]
        assert [request.messages[-1].content for request in asking.pipeline.requests[1:]] == ["a", "b"]

    run(tmp_path, scenario, QUEUE)


def test_a_client_that_leaves_the_queue_frees_its_place(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, ends, leaves = made(tmp_path, concurrent=1), asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(asking.ask(CHAT, chat("hang"), headers=header, leaves=ends))
        await until(lambda: asking.pipeline.requests)
        gone = asyncio.create_task(asking.ask(CHAT, chat(text="gone"), headers=header, leaves=leaves))
        last = asyncio.create_task(asking.ask(CHAT, chat(text="last"), headers=header))
        await queued(asking, 2)
        leaves.set()
        await gone
        ends.set()
        await first
        assert (await last).status == 200
        assert [request.messages[-1].content for request in asking.pipeline.requests[1:]] == ["last"]
        assert sorted(line["status"] for line in asking.log if line["event"] == "request") == [200, 499, 499]

    run(tmp_path, scenario, QUEUE)


def test_a_request_whose_turn_cannot_come_in_time_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header = made(tmp_path, requests_per_minute=1)
        assert (await asking.ask(CHAT, chat(), headers=header)).status == 200
        async with asyncio.timeout(10):
            assert (await asking.ask(CHAT, chat(), headers=header)).status == 429  # 60 s, and the wait is 30 s

    run(tmp_path, scenario, QUEUE)


def test_the_queue_waits_for_the_rate(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header = made(tmp_path, requests_per_minute=600)
        done = await asyncio.gather(*(asking.ask(CHAT, chat(), headers=header) for _ in range(602)))
        assert {answer.status for answer in done} == {200}

    run(tmp_path, scenario, QUEUE)


def test_a_request_that_waits_too_long_gets_429(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, leaves = made(tmp_path, concurrent=1), asyncio.Event()
        first = asyncio.create_task(asking.ask(CHAT, chat("hang"), headers=header, leaves=leaves))
        await until(lambda: asking.pipeline.requests)
        assert (await asking.ask(CHAT, chat(), headers=header)).status == 429
        leaves.set()
        await first

    run(tmp_path, scenario, GatewaySettings(key_queue=KeyQueueSettings(length=1, wait=0.1)))


def test_a_shutdown_ends_the_wait(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        header, leaves = made(tmp_path, concurrent=1), asyncio.Event()
        first = asyncio.create_task(asking.ask(CHAT, chat("hang"), headers=header, leaves=leaves))
        await until(lambda: asking.pipeline.requests)
        waits = asyncio.create_task(asking.ask(CHAT, chat(), headers=header))
        await queued(asking, 1)
        drained = asyncio.create_task(asking.gateway.drain(30))
        done = await waits
        assert (done.status, done.error["code"]) == (503, "shutting_down")
        leaves.set()
        await first
        await drained

    run(tmp_path, scenario, QUEUE)


def test_without_a_key_nothing_is_limited(tmp_path: Path) -> None:
    done = ask(tmp_path, CHAT, chat())
    assert done.status == 200 and "x-ratelimit-limit-requests" not in done.headers
