"""Whatever is written to stderr becomes lines of the log."""

import http.client
import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.serve.gateway.live import PATIENCE, ROOT, Live, live
from tests.serve.gateway.scripted import SECRET
from tests.serve.gateway.support import CHAT, chat
from tests.serve.support_server import free_port


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    """The lines, each of which is one JSON object with a time, a level and an event."""
    objects = [json.loads(line) for line in lines]
    assert all({"time", "level", "event"} <= set(each) for each in objects)
    return objects


def ended(gateway: Live) -> list[dict[str, Any]]:
    """All lines of a gateway that is told to end."""
    gateway.send(signal.SIGTERM)
    assert gateway.end() == 0
    return parsed(gateway.all_lines())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_whatever_is_written_to_stderr_is_one_json_object_a_line(environment: dict[str, str], workers: str) -> None:
    with live(environment, "--workers", workers) as gateway:
        assert gateway.ask(CHAT, chat("noisy"))[0] == 200
        lines = ended(gateway)
    assert lines[0]["event"] == "listening"
    events = [line["event"] for line in lines]
    for event in ("stderr", "python_warning", "library", "thread", "event_loop", "request"):
        assert event in events, event
    texts = [line["text"] for line in lines if line["event"] == "stderr"]
    assert "thread [...] panicked at src/lib.rs:7:5:" in texts
    assert any(text.startswith("half a lineprinted") for text in texts)
    assert [line["text"] for line in lines if line.get("logger") == "some.library"] == ["it failed: %s"]
    assert not any(SECRET in line for line in gateway.lines)


def test_a_gateway_without_a_stderr_serves_all_the_same(environment: dict[str, str]) -> None:
    port = free_port()
    command = f"exec {sys.executable} -m tests.serve.gateway.scripted serve gateway --port {port} 2>&-"
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            try:
                connection.request("POST", CHAT, json.dumps(chat("noisy")), {"content-type": "application/json"})
                assert connection.getresponse().status == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None
            finally:
                connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
