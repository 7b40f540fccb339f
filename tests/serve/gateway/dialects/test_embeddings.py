"""Embeddings in OpenAI's API and in Ollama's."""

import base64
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.support import Asking, ask, run

EMBEDDINGS, EMBED, OLD = "/v1/embeddings", "/api/embed", "/api/embeddings"


def body(model: Any = "vectors", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": ["one", "two"]} | more


def base64_of(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_the_response_has_what_the_reference_lists(tmp_path: Path) -> None:
    answer = ask(tmp_path, EMBEDDINGS, body())
    assert answer.json == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.5]},
        ],
        "model": "vectors",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert answer.headers["x-batuta-cost"] == "0.001234"
    assert answer.headers["x-batuta-backend"] == "scripted"


def test_the_client_gets_the_encoding_that_it_asks_for_whatever_the_backend_sends(tmp_path: Path) -> None:
    for model in ("vectors", "packed"):
        numbers = ask(tmp_path, EMBEDDINGS, body(model)).json["data"]
        assert [each["embedding"] for each in numbers] == [[0.0, 0.5], [1.0, 0.5]]
        packed = ask(tmp_path, EMBEDDINGS, body(model, encoding_format="base64")).json["data"]
        assert [each["embedding"] for each in packed] == [base64_of(0.0, 0.5), base64_of(1.0, 0.5)]


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("one", ("one",)),
        (["one"], ("one",)),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["one", [3]], ("one", (3,))),
    ],
)
def test_texts_and_token_ids_reach_the_pipeline(tmp_path: Path, value: Any, inputs: Any) -> None:
    async def scenario(asking: Asking) -> None:
        sent = body(input=value, dimensions=8, encoding_format="base64", user="u-1")
        assert (await asking.ask(EMBEDDINGS, sent)).status == 200
        (request,) = asking.pipeline.requests
        assert (request.inputs, request.messages) == (inputs, ())
        assert request.options == {"dimensions": 8, "encoding_format": "base64"}

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"model": "vectors"}, "input"),
        (body(input=[]), "input"),
        (body(input=""), "input"),
        (body(input=["one", ""]), "input"),
        (body(input=["a\0b"]), "input"),
        (body(input=[1, "one"]), "input"),
        (body(input=[[]]), "input"),
        (body(input=[-1]), "input"),
        (body(input=[True]), "input"),
        (body(input={"text": "one"}), "input"),
        (body(input=["x"] * 2049), "input"),
        (body(encoding_format="hex"), "encoding_format"),
        (body(dimensions="8"), "dimensions"),
        ({"input": "one"}, "model"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, sent: Any, param: str) -> None:
    answer = ask(tmp_path, EMBEDDINGS, sent)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_embeddings_that_are_no_numbers_are_the_backends_fault(tmp_path: Path) -> None:
    for path, sent in ((EMBEDDINGS, body("no-vectors")), (EMBED, body("no-vectors"))):
        assert ask(tmp_path, path, sent).status == 502
    assert ask(tmp_path, EMBEDDINGS, body("words", encoding_format="base64")).status == 502


def test_ollama_gets_lists_of_numbers(tmp_path: Path) -> None:
    for model in ("vectors", "packed"):
        answer = ask(tmp_path, EMBED, body(model)).json
        assert answer.pop("total_duration") > 0
        assert answer == {"model": model, "embeddings": [[0.0, 0.5], [1.0, 0.5]], "prompt_eval_count": 2}
        assert ask(tmp_path, OLD, {"model": model, "prompt": "one"}).json == {"embedding": [0.0, 0.5]}


def test_ollamas_fields_become_openais(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        more: dict[str, Any] = {"dimensions": 8.0, "truncate": True, "keep_alive": "5m", "options": {"num_ctx": 512}}
        assert (await asking.ask(EMBED, body(**more))).status == 200
        (request,) = asking.pipeline.requests
        assert request.options == {"encoding_format": "float", "dimensions": 8}
        wrong = await asking.ask(EMBED, body(input=7))
        assert (wrong.status, wrong.json) == (400, {"error": "input must be a string or a list of strings"})
        assert (await asking.ask(OLD, {"model": "vectors"})).json == {"error": "prompt is missing"}

    run(tmp_path, scenario)


def test_a_refusal_has_the_form_of_the_client(tmp_path: Path) -> None:
    refused = ask(tmp_path, EMBEDDINGS, body("over-budget"))
    assert (refused.status, refused.error["code"]) == (402, "budget_exceeded")
    assert ask(tmp_path, EMBED, body("private")).json == {"error": "the tier forbids it"}
