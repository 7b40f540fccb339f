"""The log: one JSON object a line whoever wrote it, never in the way of a request, complete when it is read."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, BinaryIO

import pytest

from batuta_cli.serve.gateway.logs import LARGEST_LINE, Log
from tests.serve.gateway.live import PATIENCE, ROOT, Live, live


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


def test_nothing_is_lost_when_the_gateway_ends_and_its_log_is_read(environment: dict[str, str]) -> None:
    with live(environment, "--workers", "2") as gateway:
        for _ in range(8):
            connection = gateway.connect()
            for _ in range(250):
                connection.request("GET", "/v1/models")
                connection.getresponse().read()
        lines = ended(gateway)
    assert sum(line["event"] == "request" for line in lines) == 2000


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reader_of_the_log_that_stalls_stops_no_request_and_no_shutdown(
    environment: dict[str, str], workers: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serve.gateway.scripted", "serve", "gateway", "--port", "0", "--workers", workers],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        assert process.stderr is not None
        url = json.loads(process.stderr.readline())["url"]
        host, _, port = url.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        for _ in range(3000):  # a pipe holds some 370 lines
            connection.request("GET", "/v1/models")
            response = connection.getresponse()
            assert (response.status, response.read()[:1]) == (200, b"{")
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def pipe() -> tuple[BinaryIO, BinaryIO]:
    read, write = os.pipe()
    return open(read, "rb"), open(write, "wb", buffering=0)


def test_lines_that_do_not_fit_are_counted_and_the_count_is_logged_once_the_reader_goes_on() -> None:
    reader, writer = pipe()
    with reader, writer:
        log = Log(writer, buffer_limit=200_000)
        for number in range(10_000):
            log.write("info", "line", number=number)
        assert not log.flush(0.0)
        assert log.dropped > 0
        found: list[dict[str, Any]] = []

        def read() -> None:
            while not found or found[-1]["event"] != "end":
                found.append(json.loads(reader.readline()))

        thread = threading.Thread(target=read)
        thread.start()
        assert log.flush(PATIENCE)
        log.write("info", "end")
        thread.join(PATIENCE)
    missing = sum(line["lines"] for line in found if line["event"] == "log_dropped")
    numbers = [line["number"] for line in found if line["event"] == "line"]
    assert missing == log.dropped
    assert len(numbers) + missing == 10_000
    assert numbers == sorted(numbers)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = pipe()
    with writer:
        reader.close()
        log = Log(writer)
        for _ in range(1000):
            log.write("info", "line")
            assert log.flush(PATIENCE)


def test_a_stream_that_another_process_made_non_blocking_loses_nothing() -> None:
    reader, writer = pipe()
    os.set_blocking(writer.fileno(), False)
    with reader, writer:
        log = Log(writer)
        for number in range(5000):
            log.write("info", "line", number=number)
        assert [json.loads(reader.readline())["number"] for _ in range(5000)] == list(range(5000))


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "é" * 100_000},
        {"reason": "x" * 100_000, "at": ["y" * 100_000] * 1000},
        {f"field{number}": "x" * 199 for number in range(1000)},
        {"text": "half of a \ud800 character"},
        {"text": "\x00\x1b[31m\n\u2028"},
        {"object": object()},
        {"number": 10**40},
    ],
    ids=["long", "long lists", "many", "surrogate", "control", "object", "huge"],
)
def test_any_fields_make_one_line_of_a_bounded_length(fields: dict[str, Any]) -> None:
    written = io.BytesIO()
    log = Log(written)
    log.write("error", "event", **fields)
    assert log.flush(PATIENCE)
    data = written.getvalue()
    assert len(data) <= LARGEST_LINE
    assert data.count(b"\n") == 1
    assert parsed([data.decode()])[0]["event"] == "event"
