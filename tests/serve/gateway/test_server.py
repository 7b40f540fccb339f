"""The server: it ends in an orderly way, and binds where it is told."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from batuta_cli.errors import OperationError, UsageError
from batuta_cli.serve.gateway.server import bind, is_loopback, url_of
from tests.serve.gateway.live import PATIENCE, ROOT, Control, live
from tests.serve.gateway.support import CHAT, chat

WITH_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "tests.serve.gateway.scripted", "serve", "gateway", "--port", "0"])
"""


STREAM = chat("gated", stream=True)


@pytest.fixture
def control() -> Iterator[Control]:
    with Control() as line:
        yield line


def test_sigterm_lets_what_is_under_way_finish_and_takes_nothing_new(
    environment: dict[str, str], control: Control
) -> None:
    with live(environment, control=control) as gateway:
        response = gateway.stream(CHAT, STREAM)
        with control.answer() as line:
            assert line.hear() == "waiting gated"
            gateway.send(signal.SIGTERM)
            gateway.await_line("draining")
            status, _, ready = gateway.ask("/ready")
            assert (status, json.loads(ready)["reason"]) == (503, "shutting down")
            assert gateway.ask("/health")[0] == 200
            status, headers, refused = gateway.ask(CHAT, chat())
            assert (status, json.loads(refused)["error"]["code"]) == (503, "shutting_down")
            assert (headers["retry-after"], headers["connection"]) == ("1", "close")
            line.go_on()
            text = response.read().decode()
        assert "ended" in text
        assert "data: [DONE]" in text
        assert gateway.end() == 0


@pytest.mark.parametrize("how", ["limit", "second signal"])
def test_what_does_not_finish_in_time_ends_with_an_error_event(
    environment: dict[str, str], control: Control, how: str
) -> None:
    env = {"BATUTA_GATEWAY_DRAIN_SECONDS": "0" if how == "limit" else "3600"}
    with live(environment, control=control, env=env) as gateway:
        response = gateway.stream(CHAT, STREAM)
        with control.answer() as line:
            assert line.hear() == "waiting gated"
            gateway.send(signal.SIGTERM)
            gateway.await_line("draining")
            if how == "second signal":
                gateway.send(signal.SIGTERM)
            with pytest.raises(http.client.IncompleteRead) as caught:
                response.read()
            assert line.hear().startswith("freed gated")
        last = json.loads(caught.value.partial.rpartition(b"data: ")[2])
        assert last["error"]["code"] == "shutting_down"
        assert gateway.end() == 0


def test_an_answer_that_had_not_begun_is_refused_when_the_time_is_up(
    environment: dict[str, str], control: Control
) -> None:
    with live(environment, control=control, env={"BATUTA_GATEWAY_DRAIN_SECONDS": "0"}) as gateway:
        connection = gateway.connect()
        connection.request("POST", CHAT, json.dumps(chat("hang")), {"content-type": "application/json"})
        with control.answer() as line:
            assert line.hear() == "waiting hang"
            gateway.send(signal.SIGTERM)
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["error"]["code"]) == (503, "shutting_down")
        assert gateway.end() == 0


def test_a_closed_terminal_ends_the_gateway(environment: dict[str, str]) -> None:
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_TERMINAL],
        cwd=ROOT,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        with open(master, "rb", buffering=0) as output:
            text = b""
            while b"listening" not in text:
                text += output.read(65536)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("192.0.2.1", False), ("::", False)],
)
def test_only_loopback_addresses_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_an_address_that_is_none_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="has no address"):
        is_loopback("256.1.1.1")


def test_a_free_port_is_taken_and_told_and_a_used_one_is_an_error() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(OperationError, match=f"port {port} of 127.0.0.1 is in use"):
            bind("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass
