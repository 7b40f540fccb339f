"""Ollama's routes that generate no text."""

from pathlib import Path

import pytest

from batuta_cli import __version__
from batuta_cli.serve.gateway import keys
from tests.serve.gateway.support import Asking, ask, run


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_answers_the_text_that_clients_compare(tmp_path: Path, method: str) -> None:
    answer = ask(tmp_path, "/", method=method)
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-batuta-version"] == __version__


def test_tags_list_the_models_and_invent_no_sizes_or_digests(tmp_path: Path) -> None:
    models = ask(tmp_path, "/api/tags").json["models"]
    assert [(m["name"], m["model"]) for m in models] == [(n, n) for n in ("echo", "tools", "org/model:q4")]
    for model in (models[0], models[2]):
        assert set(model) == {"details", "digest", "model", "name"}
        assert not model["digest"]
        assert not any(model["details"].values())


def test_tags_and_show_have_what_an_ollama_server_tells(tmp_path: Path) -> None:
    told = {"size": 98_362_432, "digest": "00" * 32, "details": {"family": "llama"}}
    assert ask(tmp_path, "/api/tags").json["models"][1] == {"name": "tools", "model": "tools", **told}
    assert ask(tmp_path, "/api/show", {"model": "tools"}).json["details"] == {"family": "llama"}


def test_the_lists_need_the_client_key(tmp_path: Path) -> None:
    key, _ = keys.create("alice", tmp_path / "keys.toml")

    async def scenario(asking: Asking) -> None:
        for path in ("/api/tags", "/api/ps", "/api/version", "/"):
            assert (await asking.ask(path)).status == 401
            assert (await asking.ask(path, headers={"authorization": f"Bearer {key}"})).status == 200
        assert (await asking.ask("/api/tags")).json == {"error": "a client key is required"}

    run(tmp_path, scenario)


def test_show_tells_the_window_and_whether_tools_can_be_sent(tmp_path: Path) -> None:
    known = ask(tmp_path, "/api/show", {"model": "echo"}).json
    assert known["model_info"] == {"general.context_length": 8192}
    assert known["capabilities"] == ["completion", "tools"]
    unknown = ask(tmp_path, "/api/show", {"name": "tools"}).json
    assert (unknown["model_info"], unknown["capabilities"]) == ({}, ["completion"])


def test_show_names_an_unknown_model_and_a_missing_one(tmp_path: Path) -> None:
    answer = ask(tmp_path, "/api/show", {"model": "gpt-9"})
    assert (answer.status, answer.json) == (404, {"error": "no backend has this model; GET /v1/models lists them"})
    assert ask(tmp_path, "/api/show", {}).json == {"error": "model is missing"}
    assert ask(tmp_path, "/api/show", {"model": "echo"}, headers={"content-type": "text/plain"}).status == 415


def test_no_model_is_said_to_be_in_memory_and_the_version_is_that_of_the_api(tmp_path: Path) -> None:
    assert ask(tmp_path, "/api/ps").json == {"models": []}
    version = ask(tmp_path, "/api/version").json
    assert version["batuta"] == __version__
    assert tuple(map(int, version["version"].split("."))) >= (0, 12)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("HEAD", "/api/blobs/sha256:00"),
        ("POST", "/api/blobs/sha256:00"),
    ],
)
def test_what_changes_models_is_refused_and_reaches_no_backend(tmp_path: Path, method: str, path: str) -> None:
    async def scenario(asking: Asking) -> None:
        answer = await asking.ask(path, {"model": "echo"}, method=method)
        assert answer.status == 403
        assert answer.json["error"].startswith("batuta does not change a server's models")
        assert asking.pipeline.requests == []

    run(tmp_path, scenario)
