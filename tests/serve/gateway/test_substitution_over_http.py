"""Aliases, fallbacks and suggestions as a client sees them."""

import json
from collections.abc import Iterator

import pytest

from tests.serve.gateway.support import CHAT, MESSAGES, chat, message
from tests.serve.gateway.support_upstream import MODEL, Upstream
from tests.serve.support_backend import Script, chat_answer, chat_stream, response, stream_head


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    tables = {"aliases": {"gpt-4o-mini": MODEL}, "fallbacks": {"other-model": (MODEL,)}}
    with Upstream(folder, more_models=("other-model",), tables=tables) as running:
        yield running


def by_model(body: dict[str, object]) -> Script:
    if body["model"] == "other-model":
        return [response(b"busy", status="503 Busy")]
    if body.get("stream"):
        return [stream_head(), chat_stream(["Hello"])]
    document: dict[str, object] = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "of-the-server",
        "beside": 1,
    }
    document["usage"] = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return [response(json.dumps(json.loads(chat_answer("Hello")) | document).encode())]


def test_an_alias_answers_under_its_own_name(server: Upstream) -> None:
    done = server.ask(CHAT, chat("gpt-4o-mini"), by_model)
    assert (done.status, done.json["model"], server.sent[-1][2]["model"]) == (200, "gpt-4o-mini", MODEL)
    assert "x-batuta-fallback" not in done.headers
    done = server.ask(CHAT, chat(MODEL), by_model)
    assert (done.json["model"], done.json["beside"]) == ("of-the-server", 1)  # relayed as it came


def test_a_fallback_is_told_in_a_header_in_the_log_and_at_the_end_of_a_stream(server: Upstream) -> None:
    for path, body in ((CHAT, chat("other-model")), (MESSAGES, message("other-model"))):
        done = server.ask(path, body, by_model)
        assert (done.status, done.headers["x-batuta-fallback"]) == (200, MODEL)
        assert server.log[-1]["fallback"] == MODEL
        done = server.ask(path, body | {"stream": True}, by_model)
        assert done.headers["x-batuta-fallback"] == MODEL
        assert f'"fallback":"{MODEL}"' in done.body.decode().rpartition(": batuta")[2]


def test_the_list_of_models_has_the_aliases(server: Upstream) -> None:
    done = server.ask("/v1/models", None)
    assert [model["id"] for model in done.json["data"]] == ["gpt-4o-mini", "other-model", MODEL]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_an_unknown_model_is_404_with_the_nearest_name(server: Upstream, path: str) -> None:
    done = server.ask(path, message("test-modell"))
    wanted = f"no backend has this model, did you mean {MODEL}? GET /v1/models lists them"
    assert (done.status, done.error["message"]) == (404, wanted)
    done = server.ask(path, message("xyz"))
    assert (done.status, done.error["message"]) == (404, "no backend has this model; GET /v1/models lists them")
