"""Ollama's `/api/generate`, by the examples of its documentation
(https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-completion).
"""

import json
from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.providers.formats.ollama_generate import OllamaReader, outgoing
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, Piece
from batuta_cli.serve.usage import Usage

CALL = Call(model="llama3.2", messages=(), max_tokens=7, stream=True, options={"seed": 1}, prompt="<Hi>", prefix="Hel")
PART = {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00", "response": "The", "done": False}
LAST = {
    "model": "llama3.2",
    "response": "",
    "done": True,
    "total_duration": 10706818083,
    "prompt_eval_count": 26,
    "eval_count": 259,
}


def streamed(*documents: Any) -> tuple[list[Piece], OllamaReader]:
    reader = OllamaReader()
    events = [Event("", json.dumps(document).encode()) for document in documents]
    return [piece for event in events for piece in reader.event(event)], reader


def test_the_prompt_is_sent_without_a_template_of_ollamas_and_with_its_names_of_options() -> None:
    sent = outgoing(CALL, ServingBackend.OLLAMA.profile)
    assert sent.path == "/api/generate"  # from the root, not below /v1
    assert sent.body == {
        "model": "llama3.2",
        "prompt": "<Hi>Hel",
        "stream": True,
        "options": {"seed": 1, "num_predict": 7},
        "raw": True,
    }


def test_no_limit_is_sent_where_none_is_set() -> None:
    call = Call(model="m", messages=(), max_tokens=None, stream=True, prompt="Hi")
    assert outgoing(call, ServingBackend.OLLAMA.profile).body["options"] == {}


def test_a_stream_is_read_to_its_text_its_end_and_its_usage() -> None:
    pieces, reader = streamed(PART, PART | {"response": " sky"}, LAST)
    assert "".join(piece.text for piece in pieces) == "The sky"
    assert (pieces[-1].finish_reason, pieces[-1].usage) == ("stop", Usage(26, 259))
    assert reader.complete and reader.ended


def test_a_stream_that_stops_before_its_end_is_not_complete() -> None:
    assert not streamed(PART)[1].complete


def test_what_follows_the_end_is_not_read() -> None:
    assert len(streamed(LAST, PART)[0]) == 1


def test_a_response_that_the_limit_cut_says_so() -> None:
    assert streamed(LAST | {"done_reason": "length"})[0][0].finish_reason == "length"


def test_a_whole_response_is_read() -> None:
    reader = OllamaReader()
    assert list(reader.whole(LAST | {"response": "The sky"})) == [
        Piece("The sky", finish_reason="stop", usage=Usage(26, 259))
    ]
    assert reader.complete


@pytest.mark.parametrize(
    "document",
    [[], {}, {"response": 7}, {"response": "The", "done": False}, {"error": "model 'x' not found"}],
)
def test_what_is_no_whole_response_is_the_backends_error(document: Any) -> None:
    with pytest.raises(BackendError):
        list(OllamaReader().whole(document))


@pytest.mark.parametrize("document", [{"error": "out of memory"}, {"response": ["The"], "done": False}])
def test_an_error_or_another_type_within_a_stream_is_the_backends_error(document: Any) -> None:
    with pytest.raises(BackendError):
        streamed(PART, document)
