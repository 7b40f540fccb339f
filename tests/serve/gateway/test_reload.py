"""SIGHUP: a new configuration for the next requests, none lost, and the old one when the new one is wrong."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli import config as configuration
from batuta_cli.errors import DailyBudgetExceeded
from batuta_cli.serve.gateway.reload import reconfigure
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.routing.health import AttemptOutcome
from tests.conftest import Run
from tests.serve.gateway.live import Control, Live, live, real
from tests.serve.gateway.support import CHAT, chat
from tests.serve.support_backend import FaultServer, Script, chat_answer, response


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "config" / "batuta" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def reloaded(gateway: Live) -> dict[str, Any]:
    gateway.send(signal.SIGHUP)
    line: dict[str, Any] = json.loads(gateway.await_line('"event":"reload'))
    return line


def tier(gateway: Live) -> str:
    return gateway.ask(CHAT, chat())[1]["x-batuta-tier"]


def test_sighup_applies_the_new_configuration_and_a_wrong_one_changes_nothing(
    environment: dict[str, str], file: Path
) -> None:
    page = {"Origin": "http://localhost:3000"}
    with live(environment) as gateway:
        assert tier(gateway) == "standard"
        assert gateway.ask("/v1/models", headers=page)[0] == 403
        file.write_text(
            '[privacy]\ntier = "private"\n[gateway]\norigins = ["http://localhost:3000"]\nmax_body_bytes = 2000\n'
        )
        assert "need_restart" not in reloaded(gateway)
        assert tier(gateway) == "private"
        assert gateway.ask("/v1/models", headers=page)[0] == 200
        assert gateway.ask(CHAT, chat(text="x" * 2000))[0] == 413
        file.write_text('[privacy]\ntier = "public"\n')
        line = reloaded(gateway)
        assert (line["event"], line["level"]) == ("reload_failed", "error")
        assert f"{file}:2" in line["reason"]
        assert tier(gateway) == "private"
        assert gateway.ask(CHAT, chat(text="x" * 2000))[0] == 413


def test_keys_that_need_a_restart_keep_their_values_and_are_named(environment: dict[str, str], file: Path) -> None:
    with live(environment) as gateway:
        file.write_text(
            '[budget]\ntimezone = "Europe/Lisbon"\ndaily_budget_usd = "5"\n[gateway]\nport = 1\nmax_connections = 7\n'
        )
        line = reloaded(gateway)
        assert line["event"] == "reloaded"
        assert line["need_restart"] == ["budget.timezone", "gateway.port", "gateway.max_connections"]
        assert gateway.ask("/health")[0] == 200


def test_a_stream_goes_on_through_a_reload(environment: dict[str, str], file: Path) -> None:
    with Control() as control, live(environment, control=control) as gateway:
        stream = gateway.stream(CHAT, chat("gated", stream=True))
        with control.answer() as line:
            assert line.hear() == "waiting gated"
            file.write_text('[privacy]\ntier = "private"\n')
            assert reloaded(gateway)["event"] == "reloaded"
            assert tier(gateway) == "private"
            line.go_on()
            text = stream.read().decode()
        assert "ended" in text
        assert "data: [DONE]" in text
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0


def test_all_workers_reload_and_so_does_one_that_is_started_later(environment: dict[str, str], file: Path) -> None:
    with live(environment, "--workers", "2") as gateway:
        file.write_text('[privacy]\ntier = "private"\n')
        gateway.send(signal.SIGHUP)
        for _ in range(2):
            gateway.await_line('"event":"reloaded"')
        assert {tier(gateway) for _ in range(20)} == {"private"}
        children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
        gateway.await_line('"event":"reloaded"')
        assert {tier(gateway) for _ in range(20)} == {"private"}
        gateway.send(signal.SIGTERM)
        assert gateway.end() == 0


def models_of(*names: str) -> Any:
    def answer(path: str, _: dict[str, str], body: Any) -> Script:
        if body is None:
            models = json.dumps({"data": [{"id": model, "owned_by": "vllm"} for model in names]})
            known = {"/health": b"", "/v1/models": models.encode(), "/version": b'{"version": "1"}'}
            return [response(known[path]) if path in known else response(b"", status="404 Not Found")]
        return [response(chat_answer("Hi"))]

    return answer


def test_backends_are_reloaded(environment: dict[str, str], file: Path) -> None:
    backend_table = '[backends.vllm]\nbase_url = "{}"\nmodels = ["{}"]\n'
    with FaultServer(models_of("one", "two")) as backend:
        file.write_text(backend_table.format(backend.base_url, "one"))
        with real(environment, "--ledger", "memory:", "--set", "privacy.tier=private") as gateway:

            def ask(model: str) -> int:
                return gateway.ask(CHAT, chat(model, max_tokens=9))[0]

            assert (ask("one"), ask("two")) == (200, 404)
            file.write_text(backend_table.format(backend.base_url, "two"))
            assert reloaded(gateway)["event"] == "reloaded"
            assert (ask("one"), ask("two")) == (404, 200)
            assert gateway.ask(CHAT, chat("two"))[1]["x-batuta-tier"] == "private"  # --set holds for the new one too
            gateway.send(signal.SIGTERM)
            assert gateway.end() == 0


def test_what_was_spent_counts_after_a_reload_under_the_new_limits_and_the_old_ledger(home: Path) -> None:
    """The ledger is memory:, so that another ledger would know of nothing spent."""
    file = home / "config.toml"
    file.write_text('[budget]\nledger = "memory:"\ndaily_budget_usd = "10"\nmax_request_cost_usd = "9"\n')
    before = Pipeline(configuration.load(file, {}))
    before.breaker.record("4")
    file.write_text('[budget]\nledger = "sqlite"\ndaily_budget_usd = "5"\nmax_request_cost_usd = "5"\n')
    changed = reconfigure(lambda: configuration.load(file, {}), before)
    assert changed.need_restart == ("budget.ledger",)
    assert changed.pipeline.config.budget.ledger == "memory:"
    changed.pipeline.breaker.check("1")
    with pytest.raises(DailyBudgetExceeded):
        changed.pipeline.breaker.check("1.01")
    before.breaker.check("6")


def test_the_cooldowns_of_a_reload_are_those_of_the_new_configuration(home: Path) -> None:
    """The failures are kept: the second one in a row is waited for twice as long."""
    file = home / "config.toml"
    file.write_text("[failover]\ncooldown = 100\nmax_cooldown = 1000\n")
    before = Pipeline(configuration.load(file, {}))

    def fail(pipeline: Pipeline) -> float:
        health = pipeline.monitor.health
        health.finish(health.start("one", 0.0), AttemptOutcome.FAILED, 0.0)
        found = health.cooling("one", 0.0)
        assert found is not None
        return found.seconds

    assert fail(before) == 100
    file.write_text("[failover]\ncooldown = 3\nmax_cooldown = 1000\n")
    after = reconfigure(lambda: configuration.load(file, {}), before).pipeline
    assert fail(after) == 6
    file.write_text("[failover]\ncooldown = 3\nmax_cooldown = 4\n")
    assert fail(reconfigure(lambda: configuration.load(file, {}), after).pipeline) == 4


def test_the_queue_of_a_key_is_reloaded(environment: dict[str, str], file: Path, batuta: Run) -> None:
    key = batuta("serve", "keys", "create", "ci", "--requests-per-minute", "30", code=0).stdout.strip()
    with live(environment) as gateway:

        def burst() -> list[int]:
            return [gateway.ask(CHAT, chat(), {"x-api-key": key})[0] for _ in range(33)]

        assert burst().count(429) >= 2
        file.write_text("[gateway]\nkey_queue = 5\nkey_queue_wait = 60\n")
        assert reloaded(gateway)["event"] == "reloaded"
        assert gateway.ask(CHAT, chat(), {"x-api-key": key})[0] == 200  # after up to two seconds
