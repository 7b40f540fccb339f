"""The metrics: what is counted, by which labels, and how many series there may be."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batuta_cli.serve.gateway import keys
from batuta_cli.serve.gateway.metrics import Metrics
from tests.serve.gateway.support import CHAT, MESSAGES, Asking, chat, message, run


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def series(text: str, name: str, label: str) -> dict[str, float]:
    """The samples of a metric by one of its labels."""
    return {dict(labels)[label]: value for (found, labels), value in samples(text).items() if found == name}


def test_metrics_count_requests_tokens_cost_failovers_queue_and_budget(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for _ in range(2):
            await asking.ask(CHAT, chat())
        await asking.ask(MESSAGES, message("break", stream=True))
        await asking.ask(CHAT, chat("over-budget"))
        await asking.ask("/a/secret/path")
        done = await asking.ask("/metrics")
        assert done.headers["content-type"].startswith("text/plain; version=")
        values = samples(done.body.decode())

        def value(name: str, **labels: str) -> float:
            return values[name, frozenset(labels.items())]

        assert value("batuta_requests_total", route=CHAT, status="200") == 2
        assert value("batuta_requests_total", route=CHAT, status="402") == 1
        assert value("batuta_requests_total", route="other", status="404") == 1
        assert value("batuta_tokens_total", backend="scripted", direction="input") == 6
        assert value("batuta_tokens_total", backend="scripted", direction="output") == 6
        assert value("batuta_cost_usd_total", backend="scripted") == pytest.approx(0.002468)
        assert value("batuta_failovers_total", backend="first") == 2
        assert value("batuta_broken_streams_total") == 1
        assert value("batuta_queue_depth", backend="scripted") == 7
        assert value("batuta_in_flight", backend="scripted") == 0
        assert [value("batuta_budget_usd", part=p) for p in ("limit", "spent", "reserved")] == [10, 2.5, 0.5]
        assert value("batuta_request_seconds_count", route=CHAT) == 3
        assert value("batuta_first_token_seconds_count", model="break") == 1
        assert value("batuta_model_requests_total", model="echo", key="", status="200") == 2
        assert value("batuta_model_requests_total", model="other", key="", status="402") == 1
        assert value("batuta_model_tokens_total", model="echo", key="", direction="input") == 6
        assert value("batuta_model_cost_usd_total", model="echo", key="") == pytest.approx(0.002468)
        assert value("process_resident_memory_bytes") > 10_000_000
        assert value("process_open_fds") > 3
        assert "secret" not in done.body.decode()

    run(tmp_path, scenario)


def test_metrics_have_the_name_of_the_client_key_and_never_the_key(tmp_path: Path) -> None:
    key, _ = keys.create("laptop", tmp_path / "keys.toml")

    async def scenario(asking: Asking) -> None:
        bearer = {"authorization": f"Bearer {key}"}
        await asking.ask(CHAT, chat(), headers=bearer)
        text = (await asking.ask("/metrics", headers=bearer)).body.decode()
        assert series(text, "batuta_model_requests_total", "key") == {"laptop": 1}
        assert key not in text

    run(tmp_path, scenario)


def test_names_of_models_that_clients_make_up_do_not_add_series(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        for number in range(50):
            assert (await asking.ask(CHAT, chat(f"made-up-{number}"))).status == 404
        text = (await asking.ask("/metrics")).body.decode()
        assert series(text, "batuta_model_requests_total", "model") == {"other": 50}
        assert "made-up" not in text

    run(tmp_path, scenario)


def test_series_by_model_and_key_are_bounded(tmp_path: Path) -> None:
    metrics = Metrics()
    for number in range(2000):
        metrics.model_request(f"model-{number}", "", 200)
        metrics.first_token(f"model-{number}", 0.1)
    requests = series(metrics.text().decode(), "batuta_model_requests_total", "model")
    assert (len(requests), requests["model-0"], requests["other"]) == (501, 1, 1500)
    streams = series(metrics.text().decode(), "batuta_first_token_seconds_count", "model")
    assert (len(streams), streams["other"]) == (101, 1900)
