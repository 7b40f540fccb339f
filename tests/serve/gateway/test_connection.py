"""A stream whose backend is slow: the client gets the status and comments, then the events or an error event."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway import connection
from tests.serve.gateway.support import CHAT, LOCAL, OLLAMA_CHAT, Asking, chat, run


class SlowStream:
    """A streamed request in process, whose messages the test reads one by one."""

    def __init__(self, asking: Asking, body: Any, path: str = CHAT) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "client": LOCAL,
        }
        self.task = asyncio.create_task(asking.gateway(scope, self._received.get, self._sent.put))

    async def message(self) -> Any:
        return await asyncio.wait_for(self._sent.get(), 30)

    def leave(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "COMMENT_SECONDS", 0.01)


def test_a_client_that_waits_for_the_first_event_gets_the_status_and_comments(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        stream = SlowStream(asking, chat("hang", stream=True))
        start = await stream.message()
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        headers = dict(start["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"x-batuta-tier"] == b"standard"
        for _ in range(3):
            comment = await stream.message()
            assert comment["more_body"]
            assert comment["body"].startswith(b": ") and comment["body"].endswith(b"\n\n")
        stream.leave()
        await stream.task
        assert asking.log[-1]["status"] == 499

    run(tmp_path, scenario)


def test_a_client_of_ollamas_gets_objects_without_text_and_an_error_line(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        stream = SlowStream(asking, chat("hang"), OLLAMA_CHAT)
        assert dict((await stream.message())["headers"])[b"content-type"] == b"application/x-ndjson"
        for _ in range(2):
            line = (await stream.message())["body"]
            waiting = json.loads(line)
            assert line.endswith(b"\n")
            assert (waiting["message"], waiting["done"]) == ({"role": "assistant", "content": ""}, False)
        await asking.gateway.drain(0)
        await stream.task
        while "error" not in (last := json.loads((await stream.message())["body"])):
            pass
        assert last == {"error": "the gateway is shutting down"}

    run(tmp_path, scenario)


def test_comments_come_between_events_too_and_an_error_is_an_event(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        stream = SlowStream(asking, chat("gated", stream=True))
        assert dict((await stream.message())["headers"])[b"x-batuta-backend"] == b"scripted"
        body = b""
        while body.count(b": waiting") < 2:
            body += (await stream.message())["body"]
        assert body.index(b"begun") < body.index(b": waiting")
        await asking.gateway.drain(0)
        await stream.task
        while b"shutting_down" not in body:
            body += (await stream.message())["body"]

    run(tmp_path, scenario)


def test_an_error_after_the_status_was_sent_is_an_event_of_a_stream_without_an_end(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        stream = SlowStream(asking, chat("hang", stream=True))
        assert (await stream.message())["status"] == 200
        assert (await stream.message())["body"].startswith(b": ")
        await asking.gateway.drain(0)
        await stream.task
        message: dict[str, Any] = {"body": b""}
        while b"data: " not in message["body"]:
            message = await stream.message()
        assert json.loads(message["body"].removeprefix(b"data: "))["error"]["code"] == "shutting_down"
        assert message["more_body"]

    run(tmp_path, scenario)


def test_a_quick_stream_has_no_comment_before_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "COMMENT_SECONDS", 15.0)

    async def scenario(asking: Asking) -> None:
        assert b": waiting" not in (await asking.ask(CHAT, chat(stream=True))).body

    run(tmp_path, scenario)
