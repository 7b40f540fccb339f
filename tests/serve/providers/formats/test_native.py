"""A client's own request and the backend's own events: what is changed, what is kept, what had to be mended."""

import json
from typing import Any

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.formats import native
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import BackendError, Call, NativeRequest, Piece

CHAT, MESSAGES = ClientApi.OPENAI_CHAT, ClientApi.ANTHROPIC_MESSAGES


def call(api: ClientApi = CHAT, *, limit: int | None = None, stream: bool = False, n: int = 1, **document: Any) -> Call:
    return Call(
        model="m",
        messages=(ChatMessage.user("Hi"),),
        max_tokens=limit,
        stream=stream,
        options={"n": n} if n > 1 else {},
        native=NativeRequest(api=api, document=document, personal=tuple({"user", "metadata"} & document.keys())),
    )


def body(profile: Profile, asked: Call) -> dict[str, Any]:
    return native.outgoing(asked, profile).body


@pytest.mark.parametrize(
    ("kind", "limit", "given", "sent"),
    [
        (ServingBackend.VLLM, None, {}, {}),
        (ServingBackend.VLLM, 9, {}, {"max_tokens": 9}),
        (ServingBackend.VLLM, 9, {"max_tokens": 9}, {"max_tokens": 9}),
        (ServingBackend.VLLM, 9, {"max_completion_tokens": 9}, {"max_tokens": 9}),
        (ServingBackend.OPENAI, 9, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        (ServingBackend.OPENAI, 9, {"max_tokens": 9, "max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        (ServingBackend.OPENAI, 9, {"max_tokens": None}, {"max_completion_tokens": 9}),
    ],
)
def test_the_output_limit_is_the_one_that_was_reserved_for_by_the_name_that_the_backend_knows(
    kind: ServingBackend, limit: int | None, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert body(kind.profile, call(limit=limit, **given)) == {"model": "m", **sent}


def test_the_client_cannot_raise_the_limit_that_money_needs() -> None:
    assert body(ServingBackend.ANTHROPIC.profile, call(MESSAGES, limit=9, max_tokens=10**6)) == {
        "model": "m",
        "max_tokens": 9,
    }


def test_the_model_is_the_one_that_was_planned_for() -> None:
    assert body(ServingBackend.VLLM.profile, call(model="other"))["model"] == "m"


def test_the_documents_of_requests_are_not_changed() -> None:
    asked = call(limit=9, stream=True, max_tokens=8, user="u", stream_options={"x": 1})
    before = json.dumps(asked.native and dict(asked.native.document))
    body(ServingBackend.VLLM.profile, asked)
    assert json.dumps(asked.native and dict(asked.native.document)) == before


def read(reader: Any, document: Any) -> list[Piece]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return list(reader.event(Event("", data)))


def choice(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("document", "opaque"),
    [
        (choice(role="assistant", content=""), False),
        (choice(content="Hi"), False),
        (choice(content=None, reasoning_content="hm"), False),
        (choice(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]), False),
        (choice("stop"), False),
        (choice("tool_calls", content="x"), False),
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, False),
        ({"choices": [], "of_next_year": 1}, False),
        ({"object": "of.next.year"}, False),
        (choice(content="Hi", audio={"id": "a"}), True),
        (choice(of_next_year=[1]), True),
        (choice(of_next_year=[], refusal=None), False),
    ],
)
def test_an_event_of_chat_is_kept_whether_it_is_understood_or_not(document: Any, opaque: bool) -> None:
    (piece,) = read(native.reader(call(stream=True)), document)
    assert isinstance(piece.raw, Event)
    assert json.loads(piece.raw.data) == document
    assert piece.opaque is opaque


@pytest.mark.parametrize(
    "document",
    [
        choice("eos"),
        choice("function_call"),
        {"choices": [{"delta": {"content": "Hi"}, "index": None}]},
        {"choices": [{"index": 0, "delta": {"content": "\ud83d"}}]},
        choice(tool_calls=[{"id": "c", "index": "0", "function": {"name": "f"}}]),
    ],
)
def test_an_event_that_was_mended_is_not_kept(document: Any) -> None:
    assert all(piece.raw is None for piece in read(native.reader(call(stream=True)), document))


def test_choices_that_were_not_requested_are_not_relayed() -> None:
    document = {"choices": [{"index": 1, "delta": {"content": "Hi"}}]}
    assert all(piece.raw is None for piece in read(native.reader(call(stream=True)), document))


def test_the_usage_of_an_event_with_a_choice_is_read() -> None:
    document = choice("stop") | {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    (piece,) = read(native.reader(call(stream=True)), document)
    assert piece.finish_reason == "stop"
    assert piece.usage is not None and piece.usage.output_tokens == 2


@pytest.mark.parametrize("api", [CHAT, MESSAGES])
def test_a_reported_error_is_an_error(api: ClientApi) -> None:
    with pytest.raises(BackendError):
        read(native.reader(call(api, stream=True)), {"type": "error", "error": {"type": "overloaded_error"}})


@pytest.mark.parametrize(
    ("document", "opaque"),
    [
        ({"type": "ping"}, False),
        ({"type": "message_start", "message": {"usage": {"input_tokens": 1}}}, False),
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, False),
        ({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}}, True),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}, False),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta"}}, False),
        ({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta"}}, True),
        ({"type": "content_block_stop", "index": 0}, False),
        ({"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": {"output_tokens": 1}}, False),
        ({"type": "of_next_year"}, True),
        ({}, True),
    ],
)
def test_an_event_of_messages_is_kept_whether_it_is_understood_or_not(document: Any, opaque: bool) -> None:
    (piece,) = read(native.reader(call(MESSAGES, stream=True)), document)
    assert isinstance(piece.raw, Event)
    assert json.loads(piece.raw.data) == document
    assert piece.opaque is opaque


def test_a_whole_response_is_kept_beside_what_is_read_of_it() -> None:
    document: dict[str, Any] = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "x": 1}
    document |= {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    reader = native.reader(call())
    pieces = list(reader.whole(document))
    assert (pieces[0].text, pieces[0].raw) == ("Hi", document)
    assert reader.complete
    mended = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "eos"}]}
    assert all(piece.raw is None for piece in native.reader(call()).whole(mended))
