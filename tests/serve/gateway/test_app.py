"""The ASGI application: headers, log, lifespan, long requests."""

import asyncio
import io
import re
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.gateway.app import Gateway
from batuta_cli.serve.gateway.dialects.openai import ChatCompletions
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.gateway.logs import Log
from tests.serve.gateway.scripted import SECRET, Answer, Pipeline
from tests.serve.gateway.support import CHAT, MESSAGES, Asking, ask, chat, message, run


def test_a_well_formed_request_id_is_kept_and_any_other_replaced(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for given, kept in (("my-id:1.2_3", True), ("x" * 129, False), ("a b", False), ("é", False), ("", False)):
            done = await asking.ask(CHAT, chat(), headers={"x-request-id": given})
            assert (done.headers["x-request-id"] == given) is kept
            assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", done.headers["x-request-id"])
            assert asking.log[-1]["request_id"] == done.headers["x-request-id"]
        assert (await asking.ask("/v1/nothing")).headers["x-request-id"]

    run(tmp_path, scenario)


def test_two_requests_with_one_id_are_two_to_the_pipeline(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for _ in range(2):
            await asking.ask(CHAT, chat(), headers={"x-request-id": "same"})
        ids = {request.request_id for request in asking.pipeline.requests}
        assert len(ids) == 2
        assert {line["id"] for line in asking.log} == ids  # so that the audit log can be found

    run(tmp_path, scenario)


def test_the_log_tells_what_happened_and_never_what_was_said(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for model in ("echo", "tools", "break", "bug", "internal", "no-such-" + SECRET):
            for path in (CHAT, MESSAGES):
                for stream in (False, True):
                    body = message(model, SECRET, stream=stream, system=SECRET, user=SECRET)
                    await asking.ask(path, body, headers={"authorization": f"Bearer {SECRET}", "cookie": SECRET})
        await asking.ask("/" + SECRET)
        await asking.ask("/v1/models/" + SECRET)
        assert SECRET not in asking.log_text
        assert all(line["time"].endswith("Z") and line["event"] == "request" for line in asking.log)
        first = asking.log[0]
        assert (first["route"], first["status"], first["backend"], first["cost_usd"]) == (
            CHAT,
            200,
            "scripted",
            "0.001234",
        )
        broken = [line for line in asking.log if line.get("broken")]
        assert {(line["level"], line["status"]) for line in broken} == {("error", 200)}
        assert len(broken) == 4

    run(tmp_path, scenario)


def test_nothing_is_answered_before_the_pipeline_is_open(tmp_path: Path) -> None:
    written = io.BytesIO()
    gateway = Gateway(cast(Any, Pipeline), keys=ClientKeys(tmp_path / "keys.toml"), log=Log(written))
    asking = Asking(gateway, Pipeline(), Log(written), written)
    done = asyncio.run(asking.ask(CHAT, chat()))
    assert (done.status, done.error["code"], done.headers["retry-after"]) == (503, "starting", "1")
    assert asyncio.run(asking.ask("/ready")).json["reason"] == "starting"


def test_a_websocket_is_turned_away(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await asking.gateway({"type": "websocket", "path": CHAT}, receive, send)
        assert [m["type"] for m in sent] == ["websocket.close"]

    run(tmp_path, scenario)


def test_an_answer_that_cannot_be_closed_is_over_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: Any) -> None:
        raise LedgerError("the ledger is locked")

    async def scenario(asking: Asking) -> None:
        monkeypatch.setattr(Answer, "aclose", fails)
        await asking.ask(CHAT, chat())
        monkeypatch.undo()
        metrics = (await asking.ask("/metrics")).body.decode()
        assert 'batuta_in_flight{backend="scripted"} 0.0' in metrics
        await asking.gateway.drain(30)  # waits for nobody
        assert asking.log[-1]["open_requests"] == 0

    run(tmp_path, scenario)


def test_others_are_served_while_a_long_request_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    read = ChatCompletions.read

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return read(*arguments)

    monkeypatch.setattr(ChatCompletions, "read", noted)
    for text in ("short", "long " * 20_000):
        assert ask(tmp_path, CHAT, chat(text=text)).status == 200
    assert threads == [True, False]
