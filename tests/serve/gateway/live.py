"""A gateway in a process of its own, over the scripted pipeline, and the line by which a test decides what happens."""

import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 30.0  # seconds until a test gives up; nothing is measured by it


class Control:
    """Where the scripted pipeline says what happens to it, and is told to go on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]

    @contextmanager
    def answer(self) -> Iterator["Line"]:
        """The next answer that waits."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rw") as file:
            yield Line(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


class Line:
    """The line to one answer."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def hear(self) -> str:
        return str(self._file.readline()).strip()

    def go_on(self) -> None:
        self._file.write("go on\n")
        self._file.flush()


class Live:
    """A running `batuta serve gateway`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.url = ""
        self.lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._open: list[Any] = []

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))
            self._fresh.put(self.lines[-1])
        self._fresh.put(None)

    def await_line(self, pattern: str) -> str:
        """The next line on stderr that has the pattern in it."""
        while (line := self._fresh.get(timeout=PATIENCE)) is not None:
            if re.search(pattern, line):
                return line
        raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.lines))

    def all_lines(self) -> list[str]:
        """All lines on stderr, of a gateway that has ended."""
        self._reader.join(PATIENCE)
        return self.lines

    def await_request(self) -> dict[str, Any]:
        """The next line of the log about a request."""
        line: dict[str, Any] = json.loads(self.await_line('"event":"request"'))
        return line

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self) -> http.client.HTTPConnection:
        self._open.append(connection := http.client.HTTPConnection(*self.address, timeout=PATIENCE))
        return connection

    def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = self.connect()
        usual = {"content-type": "application/json"} if body is not None else {}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, usual | dict(headers or {}))
        response = connection.getresponse()
        answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        connection.close()
        return answer

    def stream(self, path: str, body: Any) -> http.client.HTTPResponse:
        """A request whose response is read by the caller."""
        connection = self.connect()
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        self._open.append(response := connection.getresponse())
        return response

    def raw(self, data: bytes = b"") -> socket.socket:
        """A connection of which nothing is known but its bytes."""
        self._open.append(connection := socket.create_connection(self.address, timeout=PATIENCE))
        connection.sendall(data)
        return connection

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit status."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Close everything, and kill what still runs."""
        for connection in self._open:
            connection.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


@contextmanager
def live(
    environment: Mapping[str, str],
    *arguments: str,
    control: Control | None = None,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Iterator[Live]:
    """`batuta serve gateway --port 0` over the scripted pipeline; killed in the end if it still runs."""
    scripted = (sys.executable, "-m", "tests.serve.gateway.scripted")
    more = {"CONTROL": str(control.port)} if control else {}
    with _running(scripted, dict(environment) | more | dict(env or {}), arguments, folder=ROOT, wait=wait) as gateway:
        yield gateway


@contextmanager
def real(environment: Mapping[str, str], *arguments: str) -> Iterator[Live]:
    """The installed `batuta serve gateway --port 0` over the real pipeline; killed in the end if it still runs."""
    with _running(("batuta",), environment, arguments) as gateway:
        yield gateway


@contextmanager
def _running(
    program: Sequence[str],
    environment: Mapping[str, str],
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    wait: bool = True,
) -> Iterator[Live]:
    process = subprocess.Popen(
        [*program, "serve", "gateway", "--port", "0", *arguments],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    gateway = Live(process)
    try:
        if wait:
            gateway.url = json.loads(gateway.await_line('"event":"listening"'))["url"]
        yield gateway
    finally:
        gateway.close()
