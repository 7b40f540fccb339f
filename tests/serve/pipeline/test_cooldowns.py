"""What a failure keeps from being used again, and for how long: the model that failed, or the backend."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import ModelSection
from batuta_cli.errors import BatutaError, NoBackendError
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.retry import FailoverConfig
from batuta_cli.serve.routing.gates import GateName
from batuta_cli.serve.routing.planning import Plan
from tests.serve.support_backend import STALL, Script, chat_stream, chunk, response, stream_head
from tests.serve.support_pipeline import MODEL, backends, pipeline, request, servers, text_of
from tests.serve.support_server import free_port

OTHER = "other-model"
BOTH = (MODEL, OTHER)
PRICED = ModelSection(100_000, 64, input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(1))


def failing(status: str, *headers: str) -> Callable[..., Script]:
    """A backend that answers `MODEL` with a status, and serves every other model."""

    def script(path: str, _: dict[str, str], body: Any) -> Script:
        if body["model"] == MODEL:
            return [response(b'{"error": {"message": "no"}}', "application/json", status, *headers)]
        return [stream_head(), chat_stream(["Hi"])]

    return script


def results(made: Pipeline, models: Sequence[str]) -> list[BatutaError | None]:
    """How requests for these models end, one after the other."""

    async def run() -> list[BatutaError | None]:
        found: list[BatutaError | None] = []
        async with made:
            for number, model in enumerate(models):
                try:
                    answer = await made.start(request(request_id=f"r{number}", model=model))
                    async for _ in answer:
                        pass
                    found.append(None)
                except BatutaError as error:
                    found.append(error)
        return found

    return asyncio.run(run())


def wait_of(error: BatutaError | None) -> int | float | None:
    assert isinstance(error, BackendError | NoBackendError)
    return error.retry_after


FAILURES = [
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "503 Service Unavailable",
    "529 Overloaded",
]


@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_of_one_model_leaves_the_backend_to_the_others(tmp_path: Path, status: str) -> None:
    with servers(failing(status)) as [one]:
        made = pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))
        failed, other, again, still = results(made, [MODEL, OTHER, MODEL, OTHER])
    assert isinstance(failed, BackendError)
    assert (other, still) == (None, None)
    assert isinstance(again, NoBackendError)  # refused here: the backend was not asked
    assert [body["model"] for _, _, body in one.requests] == [MODEL, OTHER, OTHER]
    assert f"{MODEL} is cooling down there" in again.message


def test_an_invented_model_of_one_client_does_not_stop_the_other_models(tmp_path: Path) -> None:
    """A backend whose models are not known takes any name, and answers 404."""

    def script(_: str, __: dict[str, str], body: Any) -> Script:
        if body["model"] != MODEL:
            return [response(b"{}", status="404 Not Found")]
        return [stream_head(), chat_stream(["Hi"])]

    with servers(script) as [one]:
        made = pipeline(tmp_path, backends((), one=("vllm", one.base_url)))
        found = results(made, [MODEL, *[f"invented-{number}" for number in range(20)], MODEL])
    assert (found[0], found[-1]) == (None, None)


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "413 Content Too Large", "415 Unsupported Media Type", "422 Unprocessable Content"]
)
def test_a_client_s_own_fault_cools_nothing_down(tmp_path: Path, status: str) -> None:
    with servers(failing(status, "Retry-After: 600")) as [one]:
        made = pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))
        found = results(made, [MODEL, MODEL, OTHER])
    assert [type(error) for error in found] == [BackendError, BackendError, type(None)]
    assert len(one.requests) == 3


@pytest.mark.parametrize(
    "error",
    [
        {"code": 400, "type": "exceed_context_size_error", "message": "too long"},
        {"code": "context_length_exceeded", "type": "invalid_request_error", "message": "too long"},
        {"code": None, "type": "invalid_request_error", "message": "too long"},
        {"code": 400, "type": "BadRequestError", "message": "too long"},
    ],
)
def test_a_context_that_is_exceeded_within_a_stream_cools_nothing_down(tmp_path: Path, error: dict[str, Any]) -> None:
    event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    with servers(lambda *_: [stream_head(), event]) as [one]:
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url)))
        found = results(made, [MODEL, MODEL])
    assert [type(each) for each in found] == [BackendError, BackendError]
    assert len(one.requests) == 2


@pytest.mark.parametrize("script", [[], [stream_head(), chunk("Half")]], ids=["no response", "half a stream"])
def test_an_answer_that_breaks_off_cools_its_model_down(tmp_path: Path, script: Script) -> None:
    def reply(_: str, __: dict[str, str], body: Any) -> Script:
        return script if body["model"] == MODEL else [stream_head(), chat_stream(["Hi"])]

    with servers(reply) as [one]:
        made = pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))
        found = results(made, [MODEL, OTHER, MODEL])
    assert [type(each) for each in found] == [BackendError, type(None), NoBackendError]


def test_a_refused_connection_cools_the_backend_down(tmp_path: Path) -> None:
    made = pipeline(tmp_path, backends(BOTH, one=("vllm", f"http://127.0.0.1:{free_port()}/v1")))
    failed, other = results(made, [MODEL, OTHER])
    assert isinstance(failed, BackendError)
    assert isinstance(other, NoBackendError)
    assert "one: connection refused" in other.message  # the cooldown is over when a probe succeeds
    assert wait_of(other) == 1


# Retry-After

DATE = "Date: Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 30"], 30),
        ([DATE, "Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"], 30),
        ([DATE, "Retry-After: Sunday, 06-Nov-94 08:50:07 GMT"], 30),
        ([DATE, "Retry-After: Sun Nov  6 08:50:07 1994"], 30),
        ([DATE, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"], 3600),
        ([DATE, "Retry-After: Sat, 05 Nov 1994 08:49:37 GMT"], 1),
        (["Retry-After: 99999999999999999999"], 3600),
        (["Retry-After: soon"], 1),
        ([], 1),
    ],
)
def test_the_time_a_backend_asks_for_is_the_time_that_clients_are_told(
    tmp_path: Path, headers: list[str], seconds: int
) -> None:
    with servers(failing("429 Too Many Requests", *headers)) as [one]:
        made = pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))
        failed, again, other = results(made, [MODEL, MODEL, OTHER])
    assert (wait_of(failed), other) == (seconds, None)
    told = wait_of(again)
    assert told is not None
    assert max(1, seconds - 5) <= told <= seconds


def test_the_time_to_wait_is_that_of_the_backend_that_can_be_tried_first(tmp_path: Path) -> None:
    scripts = [failing("429 Too Many Requests", f"Retry-After: {wait}") for wait in (600, 20)]
    with servers(*scripts) as [one, two]:
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url), two=("vllm", two.base_url)))
        failed, again = results(made, [MODEL, MODEL])
    assert wait_of(failed) == 20
    assert wait_of(again) in range(15, 21)


def test_a_backend_that_does_not_have_the_model_does_not_count_for_the_time_to_wait(tmp_path: Path) -> None:
    with servers(failing("429 Too Many Requests", "Retry-After: 600"), failing("500")) as [one, two]:
        tables = backends(one=("vllm", one.base_url)) | backends((OTHER,), two=("vllm", two.base_url))
        failed, again, other = results(pipeline(tmp_path, tables), [MODEL, MODEL, OTHER])
    assert (wait_of(failed), other) == (600, None)
    assert wait_of(again) in range(595, 601)


def test_for_a_model_that_no_backend_has_no_time_to_wait_is_told(tmp_path: Path) -> None:
    with servers(failing("500")) as [one]:
        made = pipeline(tmp_path, backends(one=("vllm", one.base_url)))
        [failed] = results(made, ["missing-model"])
    assert isinstance(failed, NoBackendError)
    assert wait_of(failed) is None


class Clock:
    """The monotonic clock of the pipeline; the event loop keeps its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in ("pipeline.attempt", "pipeline.pipeline", "routing.monitor"):
            monkeypatch.setattr(f"batuta_cli.serve.{module}.time", self)

    def monotonic(self) -> float:
        return self.now


# What is told of it


def test_the_plan_tells_what_cools_down(tmp_path: Path) -> None:
    async def run(made: Pipeline) -> list[Plan]:
        async with made:
            with pytest.raises(BackendError):
                await made.start(request())
            return [await made.explain(request(model=model)) for model in BOTH]

    with servers(failing("429 Too Many Requests", "Retry-After: 30")) as [one]:
        made = pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))
        plans = asyncio.run(run(made))
    found = [gate for plan in plans for gate in plan.candidates[0].gates if gate.name is GateName.COOLDOWN]
    assert [gate.passed for gate in found] == [False, True]
    assert found[0].detail.startswith(f"{MODEL} is cooling down there, for ")
    assert found[0].number is not None
    assert 25 < found[0].number <= 30
    assert found[1].detail == "healthy"


@pytest.mark.parametrize(("models", "ready"), [(BOTH, True), ((MODEL,), False), ((), True)])
def test_a_process_is_ready_while_one_model_can_be_asked_for(
    tmp_path: Path, models: tuple[str, ...], ready: bool
) -> None:
    with servers(failing("429 Too Many Requests", "Retry-After: 30")) as [one]:
        made = pipeline(tmp_path, backends(models, one=("vllm", one.base_url)))
        results(made, [MODEL])
        assert made.ready().ok is ready


def test_one_request_tries_a_cooled_down_model_while_the_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    arrived = threading.Event()
    failed = threading.Event()

    def script(_: str, __: dict[str, str], body: Any) -> Script:
        if body["model"] == OTHER:
            return [stream_head(), chat_stream(["Hi"])]
        if failed.is_set():
            arrived.set()
            return [STALL]
        failed.set()
        return [response(b"{}", status="503 Service Unavailable")]

    async def run(made: Pipeline) -> str:
        async with made:
            with pytest.raises(BackendError):
                await made.start(request())
            clock.now += FailoverConfig().max_cooldown
            trial = asyncio.create_task(made.start(request(request_id="trial")))
            assert await asyncio.to_thread(arrived.wait, 30)
            with pytest.raises(NoBackendError) as refused:
                await made.start(request(request_id="same"))
            other = await made.start(request(request_id="other", model=OTHER))
            assert text_of([piece async for piece in other]) == "Hi"
            trial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trial
            return refused.value.message

    with servers(script) as [one]:
        told = asyncio.run(run(pipeline(tmp_path, backends(BOTH, one=("vllm", one.base_url)))))
    assert "one trial request in flight" in told


def test_the_wait_for_an_unhealthy_backend_is_the_time_until_its_next_probe(tmp_path: Path) -> None:
    tables = backends(one=("vllm", f"http://127.0.0.1:{free_port()}/v1"))

    async def run() -> BatutaError:
        config = pipeline(tmp_path, tables).config
        async with Pipeline(config, audit=AuditLog(tmp_path / "audit"), watch=True) as made:
            with pytest.raises(NoBackendError) as caught:
                await made.start(request())
            return caught.value

    assert wait_of(asyncio.run(run())) == 1


def test_a_long_answer_to_the_trial_does_not_keep_the_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    scripts: Iterator[Script] = iter(
        [
            [response(b"{}", status="503 Service Unavailable")],
            [stream_head(), chunk("The beginning of a long answer"), STALL],
            [stream_head(), chat_stream(["Hi"])],
        ]
    )

    async def run(made: Pipeline) -> str:
        async with made:
            with pytest.raises(BackendError):
                await made.start(request())
            clock.now += FailoverConfig().max_cooldown
            trial = await made.start(request(request_id="trial"))
            other = await made.start(request(request_id="other"))
            said = text_of([piece async for piece in other])
            await trial.aclose()
            return said

    with servers(lambda *_: next(scripts)) as [one]:
        assert asyncio.run(run(pipeline(tmp_path, backends(one=("vllm", one.base_url))))) == "Hi"


@pytest.mark.parametrize("profile", ["vllm", "openai"], ids=["free", "paid"])
def test_of_many_requests_at_the_end_of_a_cooldown_one_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    clock = Clock(monkeypatch)
    tried = threading.Event()
    failed = threading.Event()

    def script(*_: Any) -> Script:
        if failed.is_set():
            tried.set()
            return [STALL]
        failed.set()
        return [response(b"{}", status="503 Service Unavailable")]

    async def run(made: Pipeline) -> list[Any]:
        async with made:
            with pytest.raises(BackendError):
                await made.start(request())
            clock.now += FailoverConfig().max_cooldown
            tasks = [asyncio.create_task(made.start(request(request_id=f"r{number}"))) for number in range(8)]
            waiting: set[asyncio.Task[Any]] = set(tasks)
            async with asyncio.timeout(30):
                while len(waiting) > 1:
                    _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert await asyncio.to_thread(tried.wait, 30)
            for task in waiting:
                task.cancel()
            await asyncio.wait(tasks)
            return [None if task.cancelled() else task.exception() for task in tasks]

    with servers(script) as [one]:
        tables = backends(one=(profile, one.base_url))
        refused = asyncio.run(run(pipeline(tmp_path, tables, models={MODEL: PRICED})))
        assert len(one.requests) == 2
    assert sum(isinstance(error, NoBackendError) for error in refused) == 7
