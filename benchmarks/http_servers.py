"""The servers that `bench_gateway` needs beside batuta: a backend that costs next to nothing, and a bare relay.

    python -m benchmarks.http_servers backend [--events 200]
    python -m benchmarks.http_servers relay http://127.0.0.1:PORT

Each prints the port it listens on. The backend answers chat completions from bytes that were made beforehand; the relay
is what any gateway must at least do: an ASGI application on uvicorn that passes bytes on with aiohttp.
"""

import argparse
import asyncio
import json
import socket
from typing import Any

TEXT = "The sky is blue because air scatters short waves of light more than long ones. "
USAGE = {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40}


def whole() -> bytes:
    """The response to a request that is not streamed."""
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE})
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def stream(events: int) -> list[bytes]:
    """The response to one that is: its head, and then each event as it is written."""
    parts = [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for number in range(events + 1):
        delta = {"content": "word "} if number < events else {}
        choice = {"index": 0, "delta": delta, "finish_reason": None if number < events else "stop"}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        parts.append(_chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n"))
    usage = {"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    parts.append(_chunk(b"data: " + json.dumps(usage).encode() + b"\n\n"))
    parts.append(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return parts


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Backend(asyncio.Protocol):
    """Reads requests by their length and answers each; events are written one by one."""

    def __init__(self, events: int) -> None:
        self._whole, self._stream = whole(), stream(events)
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            if not head.startswith(b"post"):
                self._data = self._data[end + 4 :]
                body = b'{"object":"list","data":[{"id":"m"}]}'
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                continue
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._data) < end + 4 + length:
                return
            body = self._data[end + 4 : end + 4 + length]
            self._data = self._data[end + 4 + length :]
            if b'"stream":true' in body.replace(b" ", b""):
                asyncio.get_running_loop().create_task(self._write())
            else:
                self._transport.write(self._whole)

    async def _write(self) -> None:
        for part in self._stream:
            self._transport.write(part)
            await asyncio.sleep(0)


async def backend(events: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Backend(events), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def relay(upstream: str) -> None:
    """Serve until killed."""
    import aiohttp
    import uvicorn

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await sessions[0].close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = (await receive())["body"]
        headers = {"content-type": "application/json"}
        async with sessions[0].post(upstream + scope["path"], data=body, headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            await send({"type": "http.response.start", "status": answer.status, "headers": [(b"content-type", kind)]})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, log_level="critical", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Run one of them."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("what", choices=["backend", "relay"])
    made.add_argument("upstream", nargs="?", default="")
    made.add_argument("--events", type=int, default=200)
    options = made.parse_args()
    if options.what == "relay":
        relay(options.upstream)
    else:
        asyncio.run(backend(options.events))


if __name__ == "__main__":
    main()
