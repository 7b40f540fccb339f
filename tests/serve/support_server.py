"""Servers that tests talk to: one of ours that says what it is told to, and the real llama.cpp."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Reply = tuple[int, Mapping[str, str], bytes]


@dataclass
class Seen:
    """A request that reached the server."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""


@dataclass
class FakeServer:
    """Answers each path as told; a path it was not told of with 404."""

    routes: Mapping[str, Reply | Callable[[], Reply]]
    url: str = ""
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


@contextlib.contextmanager
def serving(
    routes: Mapping[str, Reply | Callable[[], Reply]] | None = None, host: str = "127.0.0.1"
) -> Iterator[FakeServer]:
    """Run a `FakeServer` on a free port."""
    fake = FakeServer({} if routes is None else routes)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            fake.connections += 1

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.seen.append(Seen(self.command, self.path, headers))
            reply = fake.routes.get(self.path, (404, {}, b"not here"))
            status, extra, body = reply() if callable(reply) else reply
            self.send_response_only(status)  # without a Server header
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET
        do_CONNECT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    fake.port = server.server_address[1]
    fake.url = f"http://{host}:{fake.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def json_reply(text: str, status: int = 200, **headers: str) -> Reply:
    return status, {"Content-Type": "application/json"} | headers, text.encode()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Its own HTTP server, in a process of its own: SIGTERM and SIGKILL end it at once.
_LLAMACPP = """
import sys, threading, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
p.n_ctx, p.n_parallel, p.cpuparams.n_threads = 4096, 2, 1
p.endpoint_metrics = p.endpoint_slots = p.use_jinja = True
p.warmup, p.model_alias, p.chat_template = False, {"smollm2-135m"}, sys.argv[3]
server = x.Server(p)
print(server.listening_address, flush=True)
threading.Event().wait()
"""


@contextlib.contextmanager
def running_llamacpp(model: Path, template: str = "") -> Iterator[str]:
    """The real llama.cpp with a model, `smollm2-135m`, two slots of 2,048 tokens; yields its base URL.

    `template` is used in the place of the model's own.
    """
    with llamacpp_process(model, template) as (_, base_url):
        yield base_url


@contextlib.contextmanager
def llamacpp_process(model: Path, template: str = "") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """As `running_llamacpp`, with the process, for those who want to kill it."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", _LLAMACPP, str(model), str(port), template],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            address = child.stdout.readline().strip()  # written when it listens
            assert address, "llama.cpp did not start; is xllamacpp installed? run `make test`"
            yield child, f"{address}/v1"
        finally:
            child.terminate()
