"""Replicate's predictions, by its documentation (https://replicate.com/docs/reference/http)."""

from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.formats.replicate import PredictionReader, outgoing, stream_url
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, Outgoing, Piece
from batuta_cli.serve.usage import Usage

STREAM = "https://stream.replicate.com/v1/predictions/gm3qorzdhgbfurvjtvhg6dckhu"


def sent(*messages: ChatMessage, model: str = "meta/meta-llama-3-8b-instruct", stream: bool = False) -> Outgoing:
    call = Call(model=model, messages=messages, max_tokens=9, stream=stream, options={"top_p": 0.5, "stop": ["x"]})
    return outgoing(call, ServingBackend.REPLICATE.profile)


def test_one_turn_is_the_prompt_and_the_system_message_has_its_own_input() -> None:
    found = sent(ChatMessage.system("Be brief."), ChatMessage.user("Hi"))
    assert found.path == "models/meta/meta-llama-3-8b-instruct/predictions"
    assert found.body == {
        "input": {"prompt": "Hi", "system_prompt": "Be brief.", "max_tokens": 9, "top_p": 0.5},
        "stream": False,
    }
    assert found.headers == {"Prefer": "wait"}
    assert found.events_url is None


def test_several_turns_are_lines_that_begin_with_their_roles() -> None:
    found = sent(ChatMessage.user("Hi"), ChatMessage.assistant("Hello"), ChatMessage.user("Why?"))
    assert found.body["input"]["prompt"] == "User: Hi\nAssistant: Hello\nUser: Why?\nAssistant:"


def test_a_stream_is_two_requests_of_which_the_first_does_not_wait() -> None:
    found = sent(ChatMessage.user("Hi"), stream=True)
    assert found.headers == {"Prefer": "respond-async"}
    assert found.events_url is not None and found.events_url({"urls": {"stream": STREAM}}) == STREAM


@pytest.mark.parametrize("model", ["llama", "/llama", "meta/", "meta/llama/predictions", "meta/llama?x", "meta/a#b"])
def test_a_model_whose_name_would_change_the_path_is_not_sent(model: str) -> None:
    with pytest.raises(BackendError, match="owner/name") as caught:
        sent(ChatMessage.user("Hi"), model=model)
    assert not caught.value.sent


@pytest.mark.parametrize(
    "document",
    [
        {"urls": {"stream": "https://replicate.com.example/v1"}},
        {"urls": {"stream": "https://evil.example/?.replicate.com"}},
        {"urls": {"stream": "https://stream.replicate.com@evil.example/"}},
        {"urls": {"stream": "http://stream.replicate.com/v1"}},
        {"urls": {"stream": 7}},
        {"urls": []},
        {},
        [],
    ],
)
def test_a_stream_elsewhere_than_at_replicate_is_never_asked_for(document: Any) -> None:
    with pytest.raises(BackendError):
        stream_url(document)


def test_the_events_of_a_stream_are_text_until_it_is_done() -> None:
    reader = PredictionReader()
    events = [Event("output", b"Once "), Event("output", b"upon"), Event("done", b"{}"), Event("output", b" more")]
    pieces = [piece for event in events for piece in reader.event(event)]
    assert pieces == [Piece("Once "), Piece("upon"), Piece(finish_reason="stop")]
    assert reader.complete and reader.ended


@pytest.mark.parametrize("event", [Event("done", b'{"reason": "canceled"}'), Event("error", b'{"detail": "crash"}')])
def test_a_stream_that_was_aborted_is_an_error(event: Event) -> None:
    reader = PredictionReader()
    with pytest.raises(BackendError):
        list(reader.event(event))
    assert not reader.complete


@pytest.mark.parametrize("output", ["Once upon", ["Once ", "upon"], [None, "Once upon"]])
def test_a_whole_prediction_has_its_text_in_one_piece_or_in_several(output: Any) -> None:
    metrics = {"input_token_count": 3, "output_token_count": 2}
    document = {"status": "succeeded", "output": output, "metrics": metrics}
    assert list(PredictionReader().whole(document)) == [Piece("Once upon", finish_reason="stop", usage=Usage(3, 2))]


@pytest.mark.parametrize(
    "document",
    [[], {}, {"status": "failed", "error": "crash"}, {"status": "processing"}, {"status": "succeeded", "output": [{}]}],
)
def test_a_prediction_that_failed_or_has_no_text_is_an_error(document: Any) -> None:
    with pytest.raises(BackendError):
        list(PredictionReader().whole(document))
