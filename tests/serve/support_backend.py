"""A backend that does what a real one cannot be told to do: it answers with bytes from a script.

`FaultServer` is a TCP server on a free port of the loopback, in a thread with a loop of its own. Each connection
carries one request; a script is a list of steps that are carried out once the request has been read:
bytes are sent, a float is a silence in seconds.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

STALL = object()
"""A step: say nothing more until the client leaves."""

Step = bytes | object
Script = list[Step]


def response(body: bytes, kind: str = "application/json", status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def stream_head(kind: str = "text/event-stream") -> bytes:
    """The beginning of a response that ends when the connection does."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode()


def chunk(text: str = "", finish: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    """An event in OpenAI's shape."""
    choices = [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]
    document: dict[str, Any] = {"id": "u", "object": "chat.completion.chunk", "choices": choices}
    if usage:
        document["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        document["choices"] = choices if text or finish else []
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def chat_stream(texts: Iterable[str], usage: tuple[int, int] | None = (7, 5)) -> bytes:
    """A proper stream of these texts."""
    middle = b"".join(chunk(text) for text in texts)
    return middle + chunk(finish="stop") + (chunk(usage=usage) if usage else b"") + b"data: [DONE]\n\n"


def chat_answer(text: str, usage: tuple[int, int] | None = (7, 5)) -> bytes:
    """A whole answer that is not streamed."""
    message = {"role": "assistant", "content": text}
    document: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    if usage:
        document["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return json.dumps(document).encode()


class FaultServer:
    """The server; a context manager. `script` gets each request's path, headers and JSON body."""

    def __init__(self, script: Callable[[str, dict[str, str], Any], Script]) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left = threading.Event()
        """Set when a client has closed a connection that was stalled or still written to."""
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def stop() -> None:
            self._server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def base_url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path, headers, body = await _request(reader)
            self.requests.append((path, headers, body))
            for step in self._script(path, headers, body):
                if step is STALL:
                    await reader.read()
                    self.left.set()
                    return
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                assert isinstance(step, bytes)
                writer.write(step)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return head[0].split(" ")[1], headers, json.loads(body) if body else None
