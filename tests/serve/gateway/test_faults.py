"""Native panics, missing memory and too deep a recursion: an answer, a line of the log and a metric, never silence."""

import asyncio
import io
import json
import signal
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from batuta_cli.config import Config
from batuta_cli.serve.backends import ServingBackend, default_backend
from batuta_cli.serve.gateway.app import Gateway
from batuta_cli.serve.gateway.logs import Log
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.routing.monitor import BackendMonitor
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.live import live, real
from tests.serve.gateway.scripted import SECRET, PanicException, Pipeline
from tests.serve.gateway.support import CHAT, COMPLETIONS, MESSAGES, Asking, chat, message, run

KINDS = {
    "panic": "native_panic",
    "panic-in-thread": "native_panic",
    "memory": "out_of_memory",
    "recursion": "nested_too_deeply",
    "deep": "nested_too_deeply",
    "internal": "internal",
}
LATE = {"panic-late": "native_panic", "memory-late": "out_of_memory"}


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_before_the_answer_is_an_error_in_the_clients_shape(
    tmp_path: Path, model: str, path: str, stream: bool
) -> None:
    async def scenario(asking: Asking) -> None:
        body = message(model, stream=stream) | {"prompt": "one"}
        done = await asking.ask(path, body)
        assert (done.status, done.complete) == (500, True)
        assert (done.error["type"], done.error["message"]) == ("api_error", "internal error")
        assert (done.json.get("type") == "error") is (path == MESSAGES)
        [line] = asking.log
        assert (line["level"], line["status"], line["code"]) == ("error", 500, "internal_error")
        assert line["at"]
        metrics = (await asking.ask("/metrics")).body.decode()
        assert f'batuta_faults_total{{kind="{KINDS[model]}"}} 1.0' in metrics
        assert SECRET not in asking.log_text + done.body.decode()

    run(tmp_path, scenario)


@pytest.mark.parametrize("model", LATE)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_fault_in_mid_stream_is_an_error_event_and_no_good_end(tmp_path: Path, model: str, path: str) -> None:
    async def scenario(asking: Asking) -> None:
        done = await asking.ask(path, message(model, stream=True))
        assert (done.status, done.complete) == (200, False)
        assert "half of" in done.body.decode()
        assert done.events[-1]["error"]["message"] == "internal error"
        [line] = asking.log
        assert (line["level"], line["broken"], line["error"]) == ("error", True, LATE[model])
        metrics = (await asking.ask("/metrics")).body.decode()
        assert f'batuta_faults_total{{kind="{LATE[model]}"}} 1.0' in metrics
        assert asking.pipeline.answers[0].closed
        assert SECRET not in asking.log_text + done.body.decode()

    run(tmp_path, scenario)


def test_a_real_server_answers_a_panic_and_goes_on(environment: dict[str, str]) -> None:
    with live(environment) as gateway:
        for _ in range(2):
            status, headers, body = gateway.ask(CHAT, chat("panic"))
            assert (status, headers["content-type"]) == (500, "application/json")
            assert json.loads(body)["error"]["code"] == "internal_error"
            assert gateway.await_request()["error"] == "native_panic"
        assert gateway.ask(CHAT, chat())[0] == 200


def test_a_panic_at_the_start_is_a_start_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def panics(self: Pipeline) -> None:
        raise PanicException(SECRET)

    monkeypatch.setattr(Pipeline, "__aenter__", panics)
    gateway, sent = Gateway(cast(Any, Pipeline), log=Log(io.BytesIO())), []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(said: object) -> None:
        sent.append(said)

    asyncio.run(gateway({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "lifespan.startup.failed", "message": "internal error"}]
    assert "native library" in str(gateway.startup_error)


def test_the_backends_are_looked_at_again_after_a_panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    seen = asyncio.Event()

    async def probe_all(*_: object, **__: object) -> list[object]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise PanicException(SECRET)
        seen.set()
        return []

    monkeypatch.setattr("batuta_cli.serve.routing.monitor.UNHEALTHY", 0.0)
    monkeypatch.setattr("batuta_cli.serve.routing.monitor.REFRESH", 0.0)
    monkeypatch.setattr("batuta_cli.serve.routing.monitor.probe_all", probe_all)

    async def main() -> None:
        monitor = BackendMonitor(Config(), AuditLog(tmp_path / "audit"), [default_backend(ServingBackend.LLAMA_CPP)])
        monitor.watch(PrivacyTier.SOVEREIGN)
        async with asyncio.timeout(30):
            await seen.wait()
        await monitor.close()

    asyncio.run(main())
    assert looks >= 2


CONFIG = """
[budget]
daily_budget_usd = "1000000"
max_request_cost_usd = "1000"
[backends.groq]
base_url = "http://127.0.0.1:9/v1"
models = ["m"]
api_key_env = "TEST_KEY"
[models.m]
context_window = 100000000
output_reserve = 1000
input_usd_per_million = "1"
output_usd_per_million = "2"
tokenizer = "{tokenizer}"
"""

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits a text (its tokenizer.json, `pre_tokenizer`)."""


def test_eleven_megabytes_of_spaces_are_an_error_of_the_request(
    environment: dict[str, str], tmp_path: Path, home: Path
) -> None:
    """The tokenizer's regular expressions fail on such a run, and the package tokenizers panics."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    file = home / "config" / "batuta" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(CONFIG.format(tokenizer=tmp_path / "tokenizer.json"))
    with real(environment | {"TEST_KEY": "x"}) as gateway:
        status, headers, body = gateway.ask(CHAT, chat("m", " " * 11_000_000, max_tokens=10))
        assert (status, headers["content-type"]) == (400, "application/json")
        assert "a run of 11,000,000 white-space characters" in json.loads(body)["error"]["message"]
        line = gateway.await_request()
        assert (line["status"], line["error"]) == (400, "cannot_tokenize")
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0
        assert all(json.loads(line)["event"] for line in gateway.all_lines())
