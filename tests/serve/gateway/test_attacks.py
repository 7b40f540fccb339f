"""Clients that open too many connections, send too many bodies together, or ask to upgrade to another protocol."""

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.live import PATIENCE, Control, Live, everything, live, real
from tests.serve.gateway.support import CHAT, chat
from tests.serve.support_backend import STALL, FaultServer, Script, response, stream_head

HEAD = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
IDLE = 2000


@pytest.fixture
def control() -> Iterator[Control]:
    with Control() as line:
        yield line


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], IDLE + 500)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def post(model: str, text: str = "hello", extra: bytes = b"") -> bytes:
    body = json.dumps(chat(model, text)).encode()
    return HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def until_served(gateway: Live, path: str = "/health", request: Any = None) -> None:
    """Ask until the answer is 200. Only a refusal for too many connections may come before it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            status, headers, body = gateway.ask(path, request)
        except (ConnectionResetError, http.client.RemoteDisconnected):
            continue
        if status == 200:
            return
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
    raise AssertionError("no request was served")


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"], ids=["no byte", "half a head"])
def test_2000_idle_connections_do_not_keep_others_out(
    environment: dict[str, str], many_descriptors: None, sent: bytes
) -> None:
    with live(environment) as gateway:
        for _ in range(IDLE):
            with contextlib.suppress(OSError):  # reset by the gateway
                gateway.raw(sent)
        # Idle connections that the kernel has queued may still be accepted after the first answer.
        until_served(gateway)
        until_served(gateway, CHAT, chat())


def test_a_connection_over_the_limit_is_answered_429_while_all_others_are_busy(
    environment: dict[str, str], control: Control
) -> None:
    env = {"BATUTA_GATEWAY_MAX_CONNECTIONS": "1"}
    with live(environment, control=control, env=env) as gateway:
        busy = gateway.raw(post("gated", extra=b"Connection: close\r\n"))
        with control.answer() as line:
            assert line.hear() == "waiting gated"
            status, headers, body = gateway.ask(CHAT, chat())
            assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
            assert json.loads(body)["error"]["code"] == "too_many_connections"
            line.go_on()
            assert b"ended" in everything(busy)
        until_served(gateway)
        assert b'batuta_connections_closed_total{limit="connections"}' in gateway.ask("/metrics")[2]


def test_bodies_together_are_bounded_and_free_their_share_when_their_request_ends(environment: dict[str, str]) -> None:
    env = {"BATUTA_GATEWAY_MAX_BODY_BYTES": "60000", "BATUTA_GATEWAY_MAX_BODIES_BYTES": "100000"}
    with live(environment, env=env) as gateway:
        text = "x" * 50_000
        slow = [gateway.raw(HEAD + b"Content-Length: 50000\r\n\r\n" + b" " * 49_000) for _ in range(2)]
        while (done := gateway.ask(CHAT, chat(text=text)))[0] == 200:  # until both bodies have been read
            pass
        status, headers, body = done
        assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (429, "1", "busy")
        for connection in slow:
            connection.close()
            gateway.await_line('"left":"left while sending"')
        for _ in range(5):
            assert gateway.ask(CHAT, chat(text=text))[0] == 200


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_a_request_to_upgrade_is_answered_over_http_1_1_with_its_body_read(
    environment: dict[str, str], upgrade: bytes, pieces: int
) -> None:
    """https://github.com/encode/uvicorn/discussions/2722: the body was dropped."""
    body = json.dumps(chat(text="in chunks")).encode()
    chunked = HEAD + upgrade + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    last = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    sent = post("echo", "with a length", upgrade) + chunked + post("echo", "as usual") + last
    size = -(-len(sent) // pieces)
    with live(environment) as gateway, gateway.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        seen = everything(connection)
    assert seen.count(b"HTTP/1.1 200 OK") == 4
    positions = [seen.index(text) for text in (b"with a length", b"in chunks", b"as usual", b'{"status":"ok"}')]
    assert positions == sorted(positions)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_http2_is_answered(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        arguments = ["-s", "--http2", "-H", "Content-Type: application/json", "-d", json.dumps(chat(text="by curl"))]
        done = subprocess.run(["curl", *arguments, gateway.url + CHAT], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "by curl"


def test_a_head_that_asks_to_upgrade_counts_towards_the_limit_of_waiting_requests(
    environment: dict[str, str], control: Control
) -> None:
    with live(environment, control=control) as gateway:
        connection = gateway.raw(post("gated"))
        with control.answer() as line:
            assert line.hear() == "waiting gated"
            with contextlib.suppress(OSError):
                connection.sendall(post("echo", "x", H2C) * 100)
            assert line.hear().startswith("freed gated")
        assert b'batuta_connections_closed_total{limit="waiting_requests"} 1.0' in gateway.ask("/metrics")[2]


MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("part", [b": comment\n" * 6000, b"x" * 60_000], ids=["comments", "no line feed"])
def test_a_backend_that_sends_without_an_event_fails_and_keeps_nobody_else_waiting(
    environment: dict[str, str], home: Path, part: bytes
) -> None:
    def endless(path: str, _: dict[str, str], body: Any) -> Script:
        if body is None:
            models = json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode()
            known = {"/health": b"", "/v1/models": models, "/version": b'{"version": "1"}'}
            return [response(known[path]) if path in known else response(b"", status="404 Not Found")]
        return [stream_head(), *[part] * (24 * MEBIBYTE // len(part)), STALL]

    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    with FaultServer(endless) as backend:
        file.write_text(f'[backends.vllm]\nbase_url = "{backend.base_url}"\nmodels = ["m"]\n')
        with real(environment) as gateway, ThreadPoolExecutor(1) as pool:
            asked = pool.submit(gateway.ask, CHAT, chat("m", stream=True, max_tokens=9))
            answered = 0
            while not asked.done():
                assert gateway.ask("/health")[0] == 200
                answered += 1
            status, _, text = asked.result()
            used = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()[11]
    assert status == 502 or b'"code":"backend_error"' in text
    assert int(used) / os.sysconf("SC_CLK_TCK") < 20  # seconds of processor time
    assert answered > 0


@pytest.mark.parametrize("target", [b"example.com:443", b"/health", b"http://127.0.0.1/health"])
def test_a_connect_request_opens_no_tunnel(environment: dict[str, str], target: bytes) -> None:
    with live(environment) as gateway:
        with gateway.raw(b"CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % target) as raw:
            assert re.match(rb"HTTP/1\.1 4\d\d ", everything(raw))
        assert gateway.ask("/health")[0] == 200
