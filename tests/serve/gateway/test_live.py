"""The gateway on a real socket: clients that are slow, leave, send nonsense or too much; draining; cut streams."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.gateway.live import Control, Live, everything, live
from tests.serve.gateway.support import CHAT, MESSAGES, chat, message

HEAD = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def control() -> Iterator[Control]:
    with Control() as line:
        yield line


@pytest.fixture
def impatient(environment: dict[str, str]) -> Iterator[Live]:
    """A gateway whose clients have one second for anything."""
    with live(environment, env={"BATUTA_GATEWAY_CLIENT_SECONDS": "1"}) as gateway:
        yield gateway


def test_requests_on_one_connection_are_answered_one_after_the_other(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        connection = gateway.connect()
        for text in ("first", "second"):
            connection.request("POST", CHAT, json.dumps(chat(text=text)), {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            assert answer["choices"][0]["message"]["content"] == text
        body = json.dumps(chat(text="piped")).encode()
        piped = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        with gateway.raw(piped * 2 + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as raw:
            data = everything(raw)
        assert data.count(b"HTTP/1.1 200 OK") == 3
        assert data.count(b'"content":"piped"') == 2
        connection.request("HEAD", "/v1/models")
        head = connection.getresponse()
        assert (head.status, head.read()) == (200, b"")


@pytest.mark.parametrize(("model", "stream"), [("gated", True), ("gated", False), ("hang", True), ("hang", False)])
def test_a_client_that_leaves_frees_its_backend(
    environment: dict[str, str], control: Control, model: str, stream: bool
) -> None:
    with live(environment, control=control) as gateway:
        body = json.dumps(chat(model, stream=stream)).encode()
        connection = gateway.raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with control.answer() as line:
            assert line.hear() == f"waiting {model}"
            connection.close()
            assert line.hear().startswith(f"freed {model}")
        log = gateway.await_request()
        assert (log["status"], log["left"]) == (499, "left")
        assert b"batuta_clients_left_total 1.0" in gateway.ask("/metrics")[2]


def test_a_client_that_leaves_while_it_sends_is_no_error(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        gateway.raw(HEAD + b"Content-Length: 100\r\n\r\n{").close()
        assert gateway.await_request()["left"] == "left while sending"
        assert gateway.ask("/health")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD, HEAD + b"X-Slow: "])
def test_a_client_that_does_not_finish_its_head_is_told_and_dropped(impatient: Live, sent: bytes) -> None:
    with impatient.raw(sent) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 408 ")


def test_the_time_for_a_head_holds_for_every_request_of_a_connection(impatient: Live) -> None:
    with impatient.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health HTT")
        assert b"HTTP/1.1 408 " in everything(connection)


def test_a_client_that_does_not_finish_its_body_is_told_and_dropped(impatient: Live) -> None:
    with impatient.raw(HEAD + b"Content-Length: 100\r\n\r\n{") as connection:
        data = everything(connection)
    assert data.startswith(b"HTTP/1.1 408 ")
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["code"] == "timeout"


def test_a_client_that_goes_on_sending_after_its_answer_is_dropped(impatient: Live) -> None:
    with impatient.raw(HEAD.replace(b"json", b"text") + b"Content-Length: 100\r\n\r\n{") as connection:
        assert everything(connection).startswith(b"HTTP/1.1 415 ")


def test_a_head_without_an_end_is_refused(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        connection = gateway.raw(HEAD)
        try:
            for _ in range(100):
                connection.sendall(b"X-Filler: " + b"x" * 8000 + b"\r\n")
        except OSError:  # it has closed the connection already
            pass
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
        connection.close()
        assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
        assert gateway.ask("/health")[0] == 200
        long = HEAD + b"X-Filler: " + b"x" * 8000 + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        with gateway.raw(long) as good:
            assert everything(good).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused(environment: dict[str, str], data: bytes) -> None:
    with live(environment) as gateway:
        with gateway.raw(data) as connection:
            assert everything(connection).startswith(b"HTTP/1.1 400 ")
        assert gateway.ask("/health")[0] == 200


def test_a_body_of_100_megabytes_is_refused_however_it_is_sent(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        status, _, body = gateway.ask(CHAT, b" " * 100_000_000)
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
        connection = gateway.connect()
        parts = (b" " * 1_000_000 for _ in range(100))
        connection.request("POST", CHAT, parts, {"content-type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_reader_that_stops_reading_holds_back_its_backend_and_is_dropped(
    environment: dict[str, str], control: Control
) -> None:
    env = {"BATUTA_GATEWAY_CLIENT_SECONDS": "1"}
    with live(environment, control=control, env=env) as gateway:
        body = json.dumps(chat("long", stream=True)).encode()
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(gateway.address)
        reader.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with control.answer() as line:
            freed, model, taken = line.hear().split()
        assert (freed, model) == ("freed", "long")
        assert int(taken) < 12_000  # of 20,000 pieces; the rest of what was taken is in the kernel's buffers
        assert gateway.await_request()["left"] == "reads too slowly"
        reader.close()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_broken_stream_is_no_good_end_to_any_http_client(environment: dict[str, str], path: str) -> None:
    with live(environment) as gateway:
        response = gateway.stream(path, message("break", stream=True))
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert b"half of" in caught.value.partial
        assert b"error" in caught.value.partial.rpartition(b"data: ")[2]


def test_keys_hold_on_a_running_gateway(environment: dict[str, str], home: Path) -> None:
    from batuta_cli.serve.gateway import keys

    file = home / "data" / "batuta" / "gateway" / "keys.toml"
    with live(environment) as gateway:
        assert gateway.ask("/v1/models")[0] == 200
        key, _ = keys.create("alice", file)
        assert gateway.ask("/v1/models")[0] == 401
        assert gateway.ask("/v1/models", headers={"Authorization": f"Bearer {key}"})[0] == 200
        keys.revoke("alice", file)
        assert gateway.ask("/v1/models", headers={"Authorization": f"Bearer {key}"})[0] == 401
