"""At most the choices that were asked for reach the client, whatever a backend sends."""

import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.providers.formats.completions import CompletionReader
from batuta_cli.serve.providers.formats.openai_chat import ChatReader
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Piece
from tests.serve.support_backend import chat_answer, chat_stream, response, stream_head
from tests.serve.support_pipeline import ask, backends, pipeline, request, servers, text_of

FOREIGN: list[Any] = [7, 1, -1, 10**30, 1.0, 0.5, "0", True, [0], {}]


def choice(index: Any, text: str, part: str, finish: str | None = "stop") -> dict[str, Any]:
    return {"index": index, part: {"content": text}, "finish_reason": finish}


def document(*choices: dict[str, Any]) -> bytes:
    return json.dumps({"choices": choices}).encode()


def whole(*choices: dict[str, Any], n: int = 1) -> list[Piece]:
    return list(ChatReader(n).whole(json.loads(document(*choices))))


def streamed(*documents: bytes, n: int = 1) -> tuple[list[Piece], ChatReader]:
    reader = ChatReader(n)
    return [piece for data in documents for piece in reader.event(Event("", data))], reader


@pytest.mark.parametrize("index", FOREIGN, ids=repr)
def test_a_choice_that_was_not_asked_for_is_left_out(index: Any) -> None:
    pieces = whole(choice(0, "mine", "message"), choice(index, "foreign", "message"))
    assert [(p.text, p.index) for p in pieces] == [("mine", 0)]
    pieces, reader = streamed(
        document(choice(0, "mi", "delta", None), choice(index, "foreign", "delta", None)),
        document(choice(index, "foreign", "delta")),
        document(choice(0, "ne", "delta", None)),
    )
    assert [(p.text, p.index) for p in pieces] == [("mi", 0), ("ne", 0)]
    assert not reader.complete  # the end of a foreign choice is not the end of the answer


@pytest.mark.parametrize("index", FOREIGN, ids=repr)
def test_an_answer_of_foreign_choices_alone_is_an_error_and_not_an_empty_answer(index: Any) -> None:
    with pytest.raises(BackendError, match="not requested"):
        whole(choice(index, "foreign", "message"))
    with pytest.raises(BackendError, match="not requested"):
        streamed(document(choice(index, "foreign", "delta")), b"[DONE]")


def test_a_whole_answer_with_the_same_index_twice_has_the_first_of_them() -> None:
    assert [p.text for p in whole(choice(0, "first", "message"), choice(0, "second", "message"))] == ["first"]


def test_choices_without_an_index_have_that_of_their_place() -> None:
    assert [(p.text, p.index) for p in whole(choice(None, "a", "message"), choice(None, "b", "message"), n=2)] == [
        ("a", 0),
        ("b", 1),
    ]
    assert [p.text for p in whole(choice(None, "a", "message"), choice(None, "b", "message"))] == ["a"]


def test_all_choices_that_were_asked_for_are_relayed() -> None:
    pieces, reader = streamed(*(document(choice(index, str(index), "delta")) for index in (2, 0, 1, 3)), n=3)
    assert [(p.text, p.index) for p in pieces] == [("2", 2), ("0", 0), ("1", 1)]
    assert reader.complete


def test_a_completion_has_one_choice() -> None:
    reader = CompletionReader()
    data = {"choices": [{"index": 7, "text": "foreign"}, {"index": 0, "text": "mine", "finish_reason": "stop"}]}
    assert [(p.text, p.index) for p in reader.whole(data)] == [("mine", 0)]
    with pytest.raises(BackendError):
        list(CompletionReader().whole({"choices": [{"index": 7, "text": "foreign"}]}))


@pytest.mark.parametrize("stream", [True, False])
def test_another_backend_answers_in_the_place_of_one_that_sends_foreign_choices(tmp_path: Path, stream: bool) -> None:
    foreign = choice(7, "foreign", "delta" if stream else "message")
    bad = b"data: " + document(foreign) + b"\n\ndata: [DONE]\n\n" if stream else document(foreign)

    def script(body: bytes) -> Any:
        return lambda *_: [stream_head(), body] if stream else [response(body)]

    good = chat_stream(["mine"]) if stream else chat_answer("mine")
    with servers(script(bad), script(good)) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=("vllm", two.base_url))
        answer, pieces = ask(pipeline(tmp_path, tables), request(stream))
    assert text_of(pieces) == "mine"
    assert answer.backend == "two"
    assert {piece.index for piece in pieces} == {0}
