"""Responses of Ollama's own API are read, and each object is kept as it came
(https://github.com/ollama/ollama/blob/main/docs/api.md).
"""

import json
from typing import Any

import pytest

from batuta_cli.serve.providers.ollama_reader import NativeOllamaReader
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Piece
from batuta_cli.serve.usage import Usage

END = {"done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 290}


def said(**message: Any) -> dict[str, Any]:
    return {"model": "llama3.2", "message": {"role": "assistant", "content": "", **message}, "done": False}


def streamed(*documents: Any, inside: str = "message") -> tuple[list[Piece], NativeOllamaReader]:
    reader = NativeOllamaReader(inside)
    events = [Event("", json.dumps(document).encode()) for document in documents]
    return [piece for event in events for piece in reader.event(event)], reader


def test_a_chat_is_read_to_its_text_its_end_and_its_usage() -> None:
    documents = [said(content="The"), said(content=" sky"), said() | END]
    pieces, reader = streamed(*documents)
    assert [piece.text for piece in pieces] == ["The", " sky", ""]
    assert (pieces[-1].finish_reason, pieces[-1].usage) == ("stop", Usage(26, 290))
    assert reader.complete and reader.ended
    kept = [piece.raw for piece in pieces]
    assert [json.loads(event.data) for event in kept if isinstance(event, Event)] == documents


def test_the_text_of_a_generation_stands_in_the_object_itself() -> None:
    pieces, reader = streamed({"response": "The", "done": False}, {"response": "", **END}, inside="")
    assert [piece.text for piece in pieces] == ["The", ""]
    assert reader.complete


def test_thoughts_and_calls_are_read_and_each_call_has_its_own_index() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
    pieces, _ = streamed(said(thinking="Hm"), said(tool_calls=[call]), said(tool_calls=[call]), said() | END)
    assert pieces[0].delta == {"reasoning_content": "Hm"}
    calls = [piece.delta["tool_calls"][0] for piece in pieces[1:3] if piece.delta]
    assert [call["index"] for call in calls] == [0, 1]
    assert calls[0]["function"]["name"] == "get_weather"
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Tokyo"}
    assert pieces[-1].finish_reason == "tool_calls"


def test_a_response_that_the_limit_cut_says_so() -> None:
    assert streamed(said() | END | {"done_reason": "length"})[0][0].finish_reason == "length"


def test_a_field_that_is_not_known_is_content_that_only_the_object_has() -> None:
    pieces, _ = streamed(said(content="a"), said(images=["aGk="]))
    assert [piece.opaque for piece in pieces] == [False, True]


def test_a_whole_response_is_kept_beside_what_is_read_of_it() -> None:
    document = said(content="The sky") | END
    (piece,) = NativeOllamaReader("message").whole(document)
    assert (piece.text, piece.finish_reason, piece.usage, piece.raw) == ("The sky", "stop", Usage(26, 290), document)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"error": "model 'x' not found"},
        said(content="The"),
        said(tool_calls=["get_weather"]) | END,
        said(tool_calls=[{"function": "get_weather"}]) | END,
    ],
)
def test_what_is_no_whole_response_is_the_backends_error(document: Any) -> None:
    with pytest.raises(BackendError):
        list(NativeOllamaReader("message").whole(document))
