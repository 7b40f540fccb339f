"""Many requests on one connection: a bound on what waits, and no answer that another one is written into."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.live import PATIENCE, Control, Live, everything, live
from tests.serve.gateway.support import CHAT, chat

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
MEGABYTES = 64
"""By which the gateway may grow: some connections' buffers, and far less than the requests take."""


def post(model: str, **more: Any) -> bytes:
    body = json.dumps(chat(model, **more)).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def control() -> Iterator[Control]:
    with Control() as line:
        yield line


@pytest.fixture
def gateway(environment: dict[str, str], control: Control) -> Iterator[Live]:
    with live(environment, control=control) as running:
        yield running


def peak(gateway: Live) -> int:
    """The most memory that the gateway ever had, in megabytes."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


def flood(connection: socket.socket, request: bytes, count: int) -> None:
    """Send a request `count` times without reading, until the connection is closed."""
    block = request * max(1, 1_000_000 // len(request))
    with contextlib.suppress(OSError):  # closed by the gateway
        for _ in range(count * len(request) // len(block) + 1):
            connection.sendall(block)


FIELDS = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 20_000 + b"\r\n"
SOME_TOO_MANY_FIELDS = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 300 + b"\r\n"
FLOODS = {
    "short requests": (HEALTH, 200_000),
    "requests with bodies": (HEAD + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000, 50_000),
    "heads of many fields": (FIELDS, 1000),
    "large heads": (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 50_000 + b"\r\n\r\n", 2000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_requests_without_end_on_one_connection_do_not_fill_the_memory(gateway: Live, name: str) -> None:
    before = peak(gateway)
    request, count = FLOODS[name]
    connections = [gateway.raw() for _ in range(4)]
    for connection in connections:
        flood(connection, request, count)
        assert gateway.ask("/health")[0] == 200
    assert peak(gateway) - before < MEGABYTES


def test_a_connection_with_too_many_waiting_requests_is_closed(gateway: Live, control: Control) -> None:
    connection = gateway.raw(post("gated", stream=True))
    with control.answer() as line:
        assert line.hear() == "waiting gated"
        connection.sendall(HEALTH * 1000)
        assert line.hear().startswith("freed gated")
    assert b"begun" in (seen := everything(connection))
    assert seen.count(b"HTTP/1.1 ") == 1  # no error in the middle of the answer
    assert b'batuta_connections_closed_total{limit="waiting_requests"} 1.0' in gateway.ask("/metrics")[2]


def test_some_waiting_requests_are_answered_in_their_order(gateway: Live, control: Control) -> None:
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    connection = gateway.raw(post("gated"))
    with control.answer() as line:
        assert line.hear() == "waiting gated"
        connection.sendall(HEALTH * 9 + last)
        line.go_on()
        seen = everything(connection)
    assert seen.count(b"HTTP/1.1 200 OK") == 11
    assert seen.index(b"ended") < seen.index(b'{"status":"ok"}')


@pytest.mark.parametrize("bad", [b"this is no HTTP\r\n\r\n", SOME_TOO_MANY_FIELDS], ids=["no HTTP", "too many fields"])
def test_an_error_of_the_next_request_is_not_written_into_an_answer(
    gateway: Live, control: Control, bad: bytes
) -> None:
    connection = gateway.raw(post("gated", stream=True))
    with control.answer() as line:
        assert line.hear() == "waiting gated"
        connection.sendall(bad)
        assert line.hear().startswith("freed gated")
    seen = everything(connection)
    assert b"begun" in seen
    assert seen.count(b"HTTP/1.1 ") == 1


def test_a_head_of_too_many_fields_is_refused(gateway: Live) -> None:
    with gateway.raw(SOME_TOO_MANY_FIELDS) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("how", ["leaves", "half-closes"])
def test_a_client_that_goes_while_requests_wait_frees_its_backend(gateway: Live, control: Control, how: str) -> None:
    connection = gateway.raw(post("gated", stream=True) + HEALTH * 3)
    with control.answer() as line:
        assert line.hear() == "waiting gated"
        if how == "leaves":
            connection.close()
        else:
            connection.shutdown(socket.SHUT_WR)
        assert line.hear().startswith("freed gated")
    assert gateway.ask("/health")[0] == 200


def test_a_client_that_reads_nothing_does_not_hold_a_connection_that_was_given_up(
    environment: dict[str, str], control: Control
) -> None:
    env = {"BATUTA_GATEWAY_CLIENT_SECONDS": "1"}
    with live(environment, control=control, env=env) as gateway:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(30)
        reader.connect(gateway.address)
        reader.sendall(post("long", stream=True))
        reader.recv(1, socket.MSG_PEEK)  # the answer has begun
        with contextlib.suppress(OSError):
            reader.sendall(HEALTH * 1000)
        with control.answer() as line:
            assert line.hear().startswith("freed long")
        # A connection that is only closed, not aborted, is never reset while its reader stalls.
        mine = reader.getsockname()[1]
        until = time.monotonic() + PATIENCE
        while _has_connection(mine, gateway.address[1]):
            assert time.monotonic() < until
            gateway.ask("/health")
        reader.close()


def _has_connection(client: int, server: int) -> bool:
    """Whether the server's end of a connection is still open (its state in /proc/net/tcp is ESTABLISHED)."""
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = row.split()
        if int(local.split(":")[1], 16) == server and int(remote.split(":")[1], 16) == client:
            return state == "01"
    return False


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, trailers: bytes = b"") -> bytes:
    return CHUNKED + b"%x\r\n" % len(body) + body + b"\r\n0\r\n" + trailers + b"\r\n"


def test_trailers_without_an_end_do_not_fill_the_memory(gateway: Live) -> None:
    before = peak(gateway)
    for start in (b"0\r\nX: ", b"2\r\n{}\r\n0\r\nX: ", b"0\r\n"):
        connection = gateway.raw(CHUNKED + start)
        flood(connection, b"x" * 10_000 if start.endswith(b" ") else b"a: b\r\n" * 2000, 20_000)
    assert peak(gateway) - before < MEGABYTES
    assert gateway.ask("/health")[0] == 200


def test_a_body_of_many_small_chunks_is_read(gateway: Live) -> None:
    body = json.dumps(chat(text="x" * 20_000)).encode()
    close = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    with gateway.raw(close + chunks + b"0\r\n\r\n") as connection:
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_trailers_are_no_headers(gateway: Live, control: Control) -> None:
    """A proxy that takes a header out does not look at trailers (RFC 9110, section 6.5.1)."""
    body = json.dumps(chat(text="after")).encode()
    second = chunked(body, b"X-Batuta-Privacy: sovereign\r\n")
    connection = gateway.raw(post("gated"))
    with control.answer() as line:
        assert line.hear() == "waiting gated"
        connection.sendall(second + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        line.go_on()
        seen = everything(connection)
    assert seen.count(b"HTTP/1.1 200 OK") == 3
    assert seen.count(b"x-batuta-tier: standard") == 2
