"""A request that a paid backend may have read is sent to it once, and charged once.

A server closes its connections at every step of a request, on a new connection and on one that was used before; what
it saw is compared with what the ledger says.
"""

import asyncio
import contextlib
import json
import select
import socket
import threading
from collections.abc import Sequence
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from batuta_cli.config import Config, ModelSection, Net
from batuta_cli.errors import BatutaError
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers import connector
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_backend import FaultServer, chat_answer, chat_stream, response
from tests.serve.support_pipeline import MODEL, backends, pipeline, request, text_of
from tests.serve.support_server import serving

PRICED = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))
BOUND = 10_000 * 1000
"""Nano-dollars that the longest answer to `request()` costs."""
OTHER = "other-model"
"""It has another name, so that a cooldown of the first does not keep it from being sent."""


class Stage(Enum):
    """Where the server closes the connection."""

    BEFORE_READING = "before reading"
    AFTER_HEAD = "after the head"
    AFTER_BODY = "after the body"
    AFTER_RESPONSE_HEAD = "after the response's head"
    IN_MID_BODY = "in the middle of the response's body"
    AFTER_RESPONSE = "after the whole response"


class ClosingServer:
    """Answers chat requests; after the first `well` of them it closes the connection of each at a stage."""

    def __init__(self, stage: Stage | None = None, *, well: int = 0) -> None:
        self.posts = 0
        """Requests that reached it, read or not."""
        self.connections = 0
        self.closed = threading.Event()
        """Set when it has closed a connection."""
        self._stage = stage
        self._well = well
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._open:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client may leave first
            while self._one(connection):
                pass
        self.closed.set()

    def _one(self, connection: socket.socket) -> bool:
        """Answer one request; False when the connection is to be closed."""
        select.select([connection], [], [])
        if not connection.recv(1, socket.MSG_PEEK):
            return False
        with self._lock:
            self.posts += 1
            stage = self._stage if self.posts > self._well else None
        if stage is Stage.BEFORE_READING:
            return False
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        if stage is Stage.AFTER_HEAD:
            return False
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = b""
        while len(body) < int(length.split(b":")[1]):
            body += connection.recv(65536)
        if stage is Stage.AFTER_BODY:
            return False
        kind, sent = "application/json", chat_answer("Hi you")
        if json.loads(body)["stream"]:
            kind, sent = "text/event-stream", chat_stream(["Hi ", "you"])
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(sent)}\r\n\r\n".encode())
        if stage is Stage.AFTER_RESPONSE_HEAD:
            return False
        half = len(sent) // 2
        connection.sendall(sent[:half])
        if stage is Stage.IN_MID_BODY:
            return False
        connection.sendall(sent[half:])
        return stage is None


class Bill:
    """What a pipeline's requests were charged."""

    def __init__(self) -> None:
        self.breaker = CostCircuitBreaker(CircuitBreakerConfig())

    @property
    def charges(self) -> int:
        """Requests that the ledger has a charge for."""
        assert self.breaker.status().reserved == 0
        found = [entry for entry in self.breaker.history() if entry.requests]
        assert all(entry.cost > 0 for entry in found)
        return sum(entry.requests for entry in found)

    @property
    def spent(self) -> int:
        return self.breaker.status().spent


def run(
    tmp_path: Path, bill: Bill, urls: Sequence[str], models: Sequence[str], *, stream: bool, profile: str = "openai"
) -> list[str | BatutaError]:
    """How requests for these models end, one after the other: with a text, or an error."""

    async def all_of_them(made: Pipeline) -> list[str | BatutaError]:
        found: list[str | BatutaError] = []
        async with made:
            for number, model in enumerate(models):
                try:
                    answer = await made.start(request(stream, request_id=f"r{number}", model=model))
                    found.append(text_of([piece async for piece in answer]))
                except BatutaError as error:
                    found.append(error)
        return found

    tables = backends((MODEL, OTHER), **{f"b{number}": (profile, url) for number, url in enumerate(urls)})
    own = {MODEL: PRICED, OTHER: PRICED} if profile == "openai" else {OTHER: ModelSection(100_000, 64)}
    made = pipeline(tmp_path, tables, breaker=bill.breaker, failover=FailoverConfig(), models=own)
    return asyncio.run(all_of_them(made))


FAILING = [stage for stage in Stage if stage is not Stage.AFTER_RESPONSE]


@pytest.fixture(params=[None, 0.0], ids=["usual age", "any age"])
def youngest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with paid requests that reuse a connection right after its last response."""
    if request.param is not None:
        monkeypatch.setattr(connector, "YOUNGEST", request.param)


EITHER_AGE = pytest.mark.usefixtures("youngest")
EACH_STAGE = pytest.mark.parametrize("stage", FAILING, ids=lambda stage: stage.value)
BOTH_WAYS = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@EACH_STAGE
@BOTH_WAYS
def test_a_paid_request_whose_connection_is_closed_is_sent_once_and_charged_once(
    tmp_path: Path, stage: Stage, stream: bool
) -> None:
    bill = Bill()
    with ClosingServer(stage) as server:
        [found] = run(tmp_path, bill, [server.base_url], [MODEL], stream=stream)
    assert isinstance(found, BackendError)
    assert (server.posts, bill.charges) == (1, 1)
    if not stream:
        assert bill.spent >= BOUND


@EITHER_AGE
@EACH_STAGE
@BOTH_WAYS
def test_after_a_request_that_went_well_the_next_is_sent_once_and_charged_once(
    tmp_path: Path, stage: Stage, stream: bool
) -> None:
    """The server keeps its connection open after the first request."""
    bill = Bill()
    with ClosingServer(stage, well=1) as server:
        first, second = run(tmp_path, bill, [server.base_url], [OTHER, MODEL], stream=stream)
    assert first == "Hi you"
    assert isinstance(second, BackendError)
    assert (server.posts, bill.charges) == (2, 2)
    if not stream:
        assert bill.spent >= BOUND


@EITHER_AGE
@EACH_STAGE
@BOTH_WAYS
@pytest.mark.parametrize("well", [0, 1], ids=["first request", "second request"])
def test_a_failover_charges_both_attempts(tmp_path: Path, stage: Stage, stream: bool, well: int) -> None:
    bill = Bill()
    models = [OTHER, MODEL] if well else [MODEL]
    with ClosingServer(stage, well=well) as one, ClosingServer() as two:
        found = run(tmp_path, bill, [one.base_url, two.base_url], models, stream=stream)
    if not (stream and stage is Stage.IN_MID_BODY):  # a text that was begun cannot be continued by OpenAI's API
        assert found[-1] == "Hi you"
        assert two.posts == 1
    assert one.posts == well + 1
    assert bill.charges == one.posts + two.posts
    if not stream:
        assert bill.spent >= BOUND


@BOTH_WAYS
def test_a_paid_request_never_meets_a_connection_that_its_server_has_closed_meanwhile(
    tmp_path: Path, stream: bool
) -> None:
    """Several servers close each connection after its response, without saying so before."""
    bill = Bill()
    with ClosingServer(Stage.AFTER_RESPONSE) as server:
        found = run(tmp_path, bill, [server.base_url], [MODEL] * 10, stream=stream)
    assert found == ["Hi you"] * 10
    assert (server.posts, bill.charges) == (10, 10)


@pytest.mark.parametrize("profile", ["vllm", "openai"], ids=["free", "paid"])
@pytest.mark.usefixtures("youngest")
def test_requests_reuse_an_open_connection(tmp_path: Path, profile: str) -> None:
    with ClosingServer() as server:
        found = run(tmp_path, Bill(), [server.base_url], [MODEL] * 3, stream=False, profile=profile)
    assert found == ["Hi you"] * 3
    if profile == "vllm" or connector.YOUNGEST == 0.0:
        assert server.connections == 1


def test_a_paid_request_reuses_a_connection_that_is_idle_for_a_while_and_no_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    bill = Bill()

    async def ask(made: Pipeline, server: ClosingServer) -> list[int]:
        connections = []
        async with made:
            for number, pause in enumerate((0.0, 0.02, 0.1, 3.9, 5.0)):
                clock.now += pause
                answer = await made.start(request(False, request_id=f"r{number}"))
                assert await answer.text() == "Hi you"
                connections.append(server.connections)
        return connections

    monkeypatch.setattr(connector, "time", clock)
    monkeypatch.setattr("aiohttp.connector.monotonic", clock.monotonic)
    monkeypatch.setattr("aiohttp.client_proto.monotonic", clock.monotonic, raising=False)
    with ClosingServer() as server:
        tables = backends((MODEL,), one=("openai", server.base_url))
        made = pipeline(tmp_path, tables, breaker=bill.breaker, models={MODEL: PRICED})
        connections = asyncio.run(ask(made, server))
    assert connections == [1, 2, 2, 2, 3]
    assert (server.posts, bill.charges) == (5, 5)


@BOTH_WAYS
def test_a_connection_whose_end_is_pending_is_not_used_for_a_paid_request(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the connection has arrived, and the event loop has not read it yet."""
    bill = Bill()
    monkeypatch.setattr(connector, "YOUNGEST", 0.0)

    async def ask(made: Pipeline, server: ClosingServer) -> None:
        async with made:
            for number in range(3):
                answer = await made.start(request(stream, request_id=f"r{number}"))
                assert await answer.text() == "Hi you"
                # Blocks the event loop until the server has closed its side.
                assert server.closed.wait(10)
                server.closed.clear()

    with ClosingServer(Stage.AFTER_RESPONSE) as server:
        tables = backends((MODEL,), one=("openai", server.base_url))
        made = pipeline(tmp_path, tables, breaker=bill.breaker, models={MODEL: PRICED})
        asyncio.run(ask(made, server))
    assert (server.posts, bill.charges) == (3, 3)


def test_a_server_that_is_gone_since_its_last_response_cannot_be_reached(tmp_path: Path) -> None:
    """A free request meets the old connection first, and is then refused a new one: the backend cools down."""

    async def ask() -> list[str]:
        found = []
        server = ClosingServer()
        with server:
            made = pipeline(tmp_path, backends((MODEL, OTHER), one=("vllm", server.base_url)))
            await made.__aenter__()
            await (await made.start(request(stream=False))).aclose()
        for model in (MODEL, OTHER):
            with pytest.raises(BatutaError) as caught:
                await made.start(request(stream=False, model=model, max_tokens=9))
            found.append(caught.value.message)
        await made.__aexit__()
        return found

    failed, other = asyncio.run(ask())
    assert "cannot be reached" in failed
    assert "one: connection refused" in other


# What was never sent costs nothing


def test_a_client_that_leaves_before_there_is_a_connection_pays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = Bill()

    async def leave() -> None:
        connecting = asyncio.Event()

        async def never(*_: Any) -> None:
            connecting.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
        made = pipeline(
            tmp_path,
            backends(one=("openai", "http://127.0.0.1:9/v1")),
            breaker=bill.breaker,
            models={MODEL: PRICED},
        )
        async with made:
            task = asyncio.create_task(made.start(request(stream=False)))
            await connecting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(leave())
    assert (bill.charges, bill.spent) == (0, 0)


def test_a_proxy_that_does_not_connect_costs_nothing_and_cools_the_backend_down(tmp_path: Path) -> None:
    bill = Bill()
    with serving({}) as proxy:  # it answers CONNECT with 404
        tables = backends((MODEL, OTHER), far=("openai", "https://llm.example/v1"))
        config = Config(
            backends=tables,
            models={MODEL: PRICED, OTHER: PRICED},
            network=Net(proxy=f"http://127.0.0.1:{proxy.port}"),
        )

        async def ask() -> list[str]:
            found = []
            async with Pipeline(config, breaker=bill.breaker, audit=AuditLog(tmp_path / "audit")) as made:
                for model in (MODEL, OTHER):
                    with pytest.raises(BatutaError) as caught:
                        await made.start(request(model=model, privacy=PrivacyTier.STANDARD))
                    found.append(caught.value.message)
            return found

        failed, other = asyncio.run(ask())
    assert "cannot be reached" in failed
    assert "no backend can take the request: far: " in other
    assert (bill.charges, bill.spent) == (0, 0)


# Statuses


@pytest.mark.parametrize(
    ("status", "charges"),
    [
        ("500 Internal Server Error", 0),
        ("503 Service Unavailable", 0),
        ("429 Too Many Requests", 0),
        ("400 Bad Request", 0),
        ("502 Bad Gateway", 1),
        ("504 Gateway Timeout", 1),
        ("520 Web Server Returned an Unknown Error", 1),
        ("524 A Timeout Occurred", 1),
    ],
)
def test_a_gateway_that_lost_the_backend_s_response_does_not_make_it_free(
    tmp_path: Path, status: str, charges: int
) -> None:
    bill = Bill()
    with FaultServer(lambda *_: [response(b"{}", status=status)]) as server:
        [found] = run(tmp_path, bill, [server.base_url], [MODEL], stream=False)
    assert isinstance(found, BackendError)
    assert (len(server.requests), bill.charges) == (1, charges)
    assert (bill.spent >= BOUND) is bool(charges)
