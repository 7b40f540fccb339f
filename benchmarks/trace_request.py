"""The modules that one chat request crosses in the gateway, and the calls between them (its hops).

    python -m benchmarks.trace_request            # a free request, not streamed
    python -m benchmarks.trace_request --stream --calls

One request is sent through the gateway's ASGI application to a server on the loopback that answers at once. A request
before it fills the caches and opens the connection. `sys.setprofile` counts the calls from a function of one module of
`batuta_cli` to a function of another, on the thread of the event loop; calls through a library count from the last
function of batuta. Comprehensions, properties and dataclass methods are functions, too.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = "batuta_cli"


class Hops:
    """A profiler that counts calls between modules."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.calls: collections.Counter[tuple[str, str]] = collections.Counter()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Count a call; see `sys.setprofile`."""
        if event != "call" or not (callee := _module(frame)):
            return
        self.modules.add(callee)
        before = frame.f_back
        while before is not None and not _module(before):
            before = before.f_back
        caller = _module(before) if before is not None else ""
        if caller and caller != callee:
            self.calls[caller, callee] += 1

    @property
    def hops(self) -> int:
        """Calls from one module to another."""
        return sum(self.calls.values())


def _module(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", ""))
    return name if name.startswith(ROOT) else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        usage = {"prompt_tokens": 9, "completion_tokens": 2}
        if body["stream"]:
            kind = "text/event-stream"
            delta = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}
            last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
            data = "".join(f"data: {json.dumps(event)}\n\n" for event in (delta, last)) + "data: [DONE]\n\n"
        else:
            kind = "application/json"
            message = {"role": "assistant", "content": "Hello"}
            data = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _backend() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()


async def _send_chat(gateway: Any, stream: bool) -> int:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    headers.append((b"content-length", str(len(body)).encode()))
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions"}
    scope |= {"query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "scheme": "http"}
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])
    status = 0

    async def receive() -> dict[str, Any]:
        if (message := next(incoming, None)) is not None:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await gateway(scope, receive, send)
    return status


@contextlib.asynccontextmanager
async def _running(gateway: Any) -> AsyncIterator[None]:
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    started, ended = asyncio.Event(), asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        (started if message["type"].startswith("lifespan.startup") else ended).set()

    messages.put_nowait({"type": "lifespan.startup"})
    task = asyncio.create_task(gateway({"type": "lifespan"}, messages.get, send))
    await started.wait()
    yield
    messages.put_nowait({"type": "lifespan.shutdown"})
    await ended.wait()
    await task


async def trace(url: str, folder: Path, *, stream: bool) -> Hops:
    """The hops of the second of two equal requests."""
    from batuta_cli.config import BackendSection, Config, ModelSection, Privacy
    from batuta_cli.serve.gateway.app import Gateway
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.privacy.audit import AuditLog

    config = Config(
        backends={"one": BackendSection(profile="vllm", base_url=url, models=("m",))},
        models={"m": ModelSection(context_window=100_000, output_reserve=64)},
        privacy=Privacy(tier="sovereign"),
    )
    gateway = Gateway(lambda: Pipeline(config, audit=AuditLog(folder / "audit")))
    hops = Hops()
    async with _running(gateway):
        assert await _send_chat(gateway, stream) == 200
        sys.setprofile(hops)
        status = await _send_chat(gateway, stream)
        sys.setprofile(None)
        assert status == 200
    return hops


def main() -> None:
    """Print the modules and hops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", action="store_true", help="stream the response")
    parser.add_argument("--calls", action="store_true", help="list the calls between modules")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _backend() as url:
        os.environ |= {f"XDG_{kind}_HOME": folder for kind in ("CONFIG", "DATA", "STATE", "CACHE")}
        hops = asyncio.run(trace(url, Path(folder), stream=options.stream))
    print(f"{len(hops.modules)} modules, {hops.hops} hops")
    if options.calls:
        for (caller, callee), count in hops.calls.most_common():
            print(f"{count:4}  {caller.removeprefix(ROOT + '.')} -> {callee.removeprefix(ROOT + '.')}")


if __name__ == "__main__":
    main()
