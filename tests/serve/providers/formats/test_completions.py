"""OpenAI's `/completions`, by the examples of its documentation."""

import json
from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.formats.completions import CompletionReader, outgoing
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, Piece
from batuta_cli.serve.usage import Usage

CALL = Call(
    model="m",
    messages=(ChatMessage.user("Hi"),),
    max_tokens=7,
    stream=False,
    options={"temperature": 0, "seed": None, "tools": []},
    prompt="<user>Hi<assistant>",
    prefix="Hel",
)


def streamed(*data: Any) -> tuple[list[Piece], CompletionReader]:
    reader = CompletionReader()
    events = [Event("", each if isinstance(each, bytes) else json.dumps(each).encode()) for each in data]
    return [piece for event in events for piece in reader.event(event)], reader


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"object": "text_completion", "choices": [{"text": text, "index": 0, "finish_reason": finish}]}


def test_the_rendered_prompt_is_sent_with_the_text_so_far_at_its_end() -> None:
    sent = outgoing(CALL, ServingBackend.VLLM.profile)
    assert sent.path == "completions"
    assert sent.body == {
        "model": "m",
        "prompt": "<user>Hi<assistant>Hel",
        "max_tokens": 7,
        "temperature": 0,
        "stream": False,
    }


def test_a_stream_asks_for_its_usage() -> None:
    call = Call(model="m", messages=(), max_tokens=7, stream=True, prompt="Hi")
    assert outgoing(call, ServingBackend.VLLM.profile).body["stream_options"] == {"include_usage": True}


def test_a_stream_is_read_to_its_text_its_end_and_its_usage() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    pieces, reader = streamed(chunk("Hel"), chunk("lo", "length"), usage, b"[DONE]")
    assert "".join(piece.text for piece in pieces) == "Hello"
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["length"]
    assert [piece.usage for piece in pieces if piece.usage] == [Usage(5, 2)]
    assert reader.complete and reader.ended


def test_a_stream_without_its_end_is_not_complete() -> None:
    assert not streamed(chunk("Hel"))[1].complete


def test_done_is_the_end_where_no_reason_was_given() -> None:
    pieces, reader = streamed(chunk("Hello"), b"[DONE]")
    assert [piece.finish_reason for piece in pieces] == [None, "stop"]
    assert reader.complete


def test_a_whole_response_is_read() -> None:
    """https://platform.openai.com/docs/api-reference/completions/object"""
    reader = CompletionReader()
    pieces = list(
        reader.whole(
            {
                "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
                "object": "text_completion",
                "choices": [{"text": "\n\nThis is a test", "index": 0, "logprobs": None, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
            }
        )
    )
    assert pieces == [Piece("\n\nThis is a test", finish_reason="length", usage=Usage(5, 7))]
    assert reader.complete


@pytest.mark.parametrize(
    "document",
    [[], {}, {"choices": []}, {"choices": [{"index": 0, "text": 7}]}, {"error": {"message": "overloaded"}}],
)
def test_what_is_no_completion_is_the_backends_error(document: Any) -> None:
    with pytest.raises(BackendError):
        list(CompletionReader().whole(document))


def test_a_stream_of_nothing_but_its_end_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(BackendError, match="without choices"):
        streamed(b"[DONE]")


def test_an_error_within_a_stream_is_an_error() -> None:
    with pytest.raises(BackendError) as caught:
        streamed(chunk("Hel"), {"error": {"message": "out of memory", "code": "oom"}})
    assert caught.value.reported is not None and caught.value.reported.code == "oom"
