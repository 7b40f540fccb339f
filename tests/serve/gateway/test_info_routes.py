"""Models and probes."""

from pathlib import Path

from batuta_cli.serve.gateway import keys
from tests.serve.gateway.scripted import not_ready
from tests.serve.gateway.support import REMOTE, Asking, ask, run


def test_models_are_listed_for_both_clients(tmp_path: Path) -> None:
    body = ask(tmp_path, "/v1/models").json
    assert [m["id"] for m in body["data"]] == ["echo", "tools", "org/model:q4"]
    assert (body["object"], body["has_more"], body["first_id"], body["last_id"]) == (
        "list",
        False,
        "echo",
        "org/model:q4",
    )
    for wanted in ("echo", "org/model:q4"):
        one = ask(tmp_path, f"/v1/models/{wanted}").json
        assert (one["id"], one["object"], one["type"]) == (wanted, "model", "model")
    missing = ask(tmp_path, "/v1/models/gpt-9")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    anthropic = ask(tmp_path, "/v1/models/gpt-9", headers={"anthropic-version": "2023-06-01"})
    assert anthropic.json["type"] == "error"


def test_without_models_the_list_is_empty(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        asking.pipeline.known = ()  # type: ignore[assignment]
        body = (await asking.ask("/v1/models")).json
        assert (body["data"], body["first_id"], body["last_id"]) == ([], None, None)

    run(tmp_path, scenario)


def test_health_and_readiness_are_open_and_tell_a_stranger_one_word(tmp_path: Path) -> None:
    keys.create("alice", tmp_path / "keys.toml")

    async def scenario(asking: Asking) -> None:
        asking.pipeline.state = not_ready("llamacpp at 10.0.0.5 does not answer")
        for headers in ({}, {"host": "10.1.2.3:8484"}):
            health = await asking.ask("/health", client=REMOTE, headers=headers)
            assert (health.status, health.json) == (200, {"status": "ok"})
            ready = await asking.ask("/ready", client=REMOTE, headers=headers)
            assert (ready.status, ready.json) == (503, {"status": "not ready"})

    run(tmp_path, scenario)


def test_readiness_tells_the_owner_why_not(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        assert (await asking.ask("/ready")).json == {"status": "ready"}
        asking.pipeline.state = not_ready("llamacpp does not answer")
        assert (await asking.ask("/ready")).json == {"status": "not ready", "reason": "llamacpp does not answer"}
        await asking.gateway.drain(0)
        asking.pipeline.state = not_ready("")
        assert (await asking.ask("/ready")).json["reason"] == "shutting down"

    run(tmp_path, scenario)
