"""A gateway over the scripted pipeline, asked without a socket; and one JSON request with one thing changed."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from batuta_cli.serve.gateway.app import Gateway
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.gateway.logs import Log
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.pipeline.pipeline import Pipeline as RealPipeline
from tests.serve.gateway.scripted import Pipeline

LOCAL = ("127.0.0.1", 50000)
REMOTE = ("203.0.113.7", 50000)
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
OLLAMA_CHAT = "/api/chat"
OLLAMA_GENERATE = "/api/generate"
RESPONSES = "/v1/responses"


@dataclass
class Response:
    """What came back. `complete` is False when the response was cut off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def lines(self) -> list[Any]:
        """The objects of a stream of JSON lines."""
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events; `[DONE]` as text."""
        found = []
        for block in self.body.decode().split("\n\n"):
            for line in block.split("\n"):
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    found.append(data if data == "[DONE]" else json.loads(data))
        return found


class Asking:
    """A running gateway, and the way to ask it."""

    def __init__(self, gateway: Gateway, pipeline: Pipeline, log: Log, written: io.BytesIO) -> None:
        self.gateway = gateway
        self.pipeline = pipeline
        self._log = log
        self._written = written

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text.splitlines()]

    @property
    def log_text(self) -> str:
        self._log.flush()
        return self._written.getvalue().decode()

    async def ask(
        self,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = MappingProxyType({}),
        client: tuple[str, int] | None = LOCAL,
        leaves: asyncio.Event | None = None,
    ) -> Response:
        """One request. Headers that are a mapping are added to the usual ones; a list of them is sent as it is.

        The client leaves when `leaves` is set.
        """
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if isinstance(headers, Mapping):
            usual = {"host": "127.0.0.1:8484"} | ({} if body is None else {"content-type": "application/json"})
            headers = list((usual | dict(headers)).items())
        scope = {
            "type": "http",
            "method": method or ("GET" if body is None else "POST"),
            "path": path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "client": client,
        }
        response, given, left = Response(), False, leaves or asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal given
            if given:
                await left.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                response.status = message["status"]
                response.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                response.body += message["body"]
                response.complete = not message["more_body"]

        await self.gateway(scope, receive, send)
        return response


@asynccontextmanager
async def running(
    tmp_path: Path, settings: GatewaySettings | None = None, pipeline: Any = None
) -> AsyncIterator[Asking]:
    """A gateway whose keys are in `tmp_path`, started as a server would start it; without a pipeline, over a script."""
    pipeline, written = pipeline or Pipeline(), io.BytesIO()
    log = Log(written)
    gateway = Gateway(lambda: cast(Any, pipeline), settings, keys=ClientKeys(tmp_path / "keys.toml"), log=log)
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(gateway({"type": "lifespan"}, to_app.get, from_app.put))
    to_app.put_nowait({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    yield Asking(gateway, pipeline, log, written)
    to_app.put_nowait({"type": "lifespan.shutdown"})
    assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
    await life
    if isinstance(pipeline, RealPipeline):
        pipeline.audit.close()  # hundreds of tests share one process


def run(
    tmp_path: Path,
    scenario: Callable[[Asking], Awaitable[Any]],
    settings: GatewaySettings | None = None,
    pipeline: Any = None,
) -> Any:
    """Run a scenario against a gateway of its own."""

    async def main() -> Any:
        async with running(tmp_path, settings, pipeline) as asking:
            return await scenario(asking)

    return asyncio.run(main())


def ask(
    tmp_path: Path,
    path: str,
    body: Any = None,
    *,
    settings: GatewaySettings | None = None,
    pipeline: Any = None,
    **more: Any,
) -> Response:
    """One request to a gateway of its own."""
    answer = run(tmp_path, lambda asking: asking.ask(path, body, **more), settings, pipeline)
    assert isinstance(answer, Response)
    return answer


def chat(model: str = "echo", text: str = "one two three", **more: Any) -> dict[str, Any]:
    """A chat completion's request."""
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def message(model: str = "echo", text: str = "one two three", **more: Any) -> dict[str, Any]:
    """A request of Anthropic's."""
    return chat(model, text) | {"max_tokens": 100} | more


def text_of(events: list[Any]) -> str:
    """The text of a stream of chat completion chunks."""
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if event != "[DONE]"
        for choice in event["choices"]
        if choice["index"] == 0
    )
