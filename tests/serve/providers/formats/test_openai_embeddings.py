"""OpenAI's embeddings: the request that is sent, and the lists that are read."""

from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.providers.formats import openai_embeddings
from batuta_cli.serve.providers.wire import BackendError, Call, Usage

CALL = Call(
    model="m", messages=(), max_tokens=None, stream=False, options={"dimensions": 2}, inputs=("one", (15496, 11))
)
USAGE = {"prompt_tokens": 4, "total_tokens": 4}


def read(data: Any, **more: Any) -> Any:
    reader = openai_embeddings.reader(CALL)
    pieces = list(reader.whole({"data": data, **more}))
    assert reader.complete
    return pieces[0]


def test_the_request_has_the_inputs_and_the_options() -> None:
    outgoing = openai_embeddings.outgoing(CALL, ServingBackend.OPENAI.profile)
    assert outgoing.path == "embeddings"
    assert outgoing.body == {"model": "m", "input": ["one", (15496, 11)], "dimensions": 2}


def test_embeddings_are_in_the_order_of_the_inputs() -> None:
    piece = read([{"index": 1, "embedding": "AACAPw=="}, {"index": 0, "embedding": [0.5]}], usage=USAGE)
    assert piece.embeddings == ([0.5], "AACAPw==")
    assert piece.usage == Usage(4, 0)


def test_entries_without_an_index_count_by_their_place_and_the_usage_may_be_missing() -> None:
    piece = read([{"embedding": [0.5]}, {"embedding": [0.25]}])
    assert (piece.embeddings, piece.usage) == (([0.5], [0.25]), None)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"data": []},
        {"data": [{"embedding": [0.5]}]},
        {"data": [{"embedding": [0.5]}] * 3},
        {"data": [{"index": 0, "embedding": [0.5]}] * 2},
        {"data": [{"embedding": [0.5]}, {"embedding": []}]},
        {"data": [{"embedding": [0.5]}, 7]},
        {"error": {"message": "no"}},
    ],
)
def test_anything_but_one_embedding_for_each_input_is_an_error(document: Any) -> None:
    reader = openai_embeddings.reader(CALL)
    with pytest.raises(BackendError):
        list(reader.whole(document))
    assert not reader.complete
