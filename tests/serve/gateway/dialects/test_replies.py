"""The pieces of a response are joined into choices and calls, and a request keeps what its own API can use."""

import asyncio
from typing import Any

from batuta_cli.serve.gateway.dialects.anthropic import Messages
from batuta_cli.serve.gateway.dialects.openai import ChatCompletions, Completions
from batuta_cli.serve.gateway.dialects.replies import Calls, EventStreamReply, choices_of, read, receipt_facts
from batuta_cli.serve.pipeline.request import AttemptReport, Summary
from batuta_cli.serve.providers.wire import Piece

BODY = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "metadata": {"user_id": "u"}}'


def summary(**more: Any) -> Summary:
    fields: dict[str, Any] = {"backend": "one", "input_tokens": 1, "output_tokens": 2, "exact": True, "cost": 1_234_000}
    reports = (AttemptReport("two", 0, "backend_error"), AttemptReport("one", 1_234_000))
    return Summary(**(fields | {"budget_left": None, "attempts": reports} | more))


def test_the_parts_of_a_call_are_joined_by_their_index() -> None:
    calls = Calls()
    calls.add([{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}])
    calls.add([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}])
    calls.add([{"index": 0, "function": {"arguments": "1}"}}])
    assert calls.calls == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_part_without_an_index_is_a_call_of_its_own_and_what_is_none_is_passed_over() -> None:
    calls = Calls()
    calls.add([{"id": "a", "function": {"name": "f"}}, "no call", {"id": "b", "function": {"name": "g"}}])
    calls.add(None)
    assert [call["id"] for call in calls.calls] == ["a", "b"]


def test_the_pieces_of_each_choice_are_joined_apart() -> None:
    pieces = [
        Piece("Hel", index=0),
        Piece("other", index=2),
        Piece("lo", index=0, logprobs={"content": [{"token": "lo"}]}),
        Piece(delta={"reasoning_content": "h"}, index=0),
        Piece(delta={"reasoning_content": "m"}, index=0, logprobs={"content": [{"token": "!"}]}),
        Piece(finish_reason="length", index=2),
    ]
    choices = choices_of(pieces)
    assert list(choices) == [0, 2]
    assert [(choice.text, choice.finish_reason) for choice in choices.values()] == [
        ("Hello", "stop"),
        ("other", "length"),
    ]
    assert choices[0].more == {"reasoning_content": "hm"}
    assert choices[0].logprobs == {"content": [{"token": "lo"}, {"token": "!"}]}


def test_the_first_choice_is_there_also_in_a_response_without_one() -> None:
    assert [choice.text for choice in choices_of([]).values()] == [""]


def test_a_stream_ends_with_what_it_cost_in_a_comment_that_clients_ignore() -> None:
    assert receipt_facts(summary()) == {"backend": "one", "cost_usd": "0.001234", "attempts": 2}
    assert receipt_facts(summary(fallback="other"))["fallback"] == "other"
    for event in (EventStreamReply().waiting(), EventStreamReply().receipt(summary())):
        assert event.startswith(b": ") and event.endswith(b"\n\n") and event.count(b"\n") == 2


def test_a_request_is_kept_as_it_came_with_the_headers_of_its_api() -> None:
    headers = {b"anthropic-beta": b"files-api-2025-04-14", b"authorization": b"Bearer PRIVATE", b"cookie": b"PRIVATE"}
    parsed = asyncio.run(read(Messages(), BODY, headers))
    assert parsed.native is not None
    assert parsed.native.document["metadata"] == {"user_id": "u"}
    assert parsed.native.personal == ("metadata",)
    assert dict(parsed.native.headers) == {"anthropic-beta": "files-api-2025-04-14"}


def test_a_header_that_cannot_be_sent_on_is_left_out() -> None:
    for value in (b"", b"a\r\nx-forged: 1", b"x" * 4097, "é".encode()):
        parsed = asyncio.run(read(Messages(), BODY, {b"anthropic-beta": value}))
        assert parsed.native is not None and not parsed.native.headers


def test_an_api_that_no_backend_gets_as_it_came_keeps_no_document() -> None:
    assert asyncio.run(read(Completions(), b'{"model": "m", "prompt": "Hi"}', {})).native is None
    assert asyncio.run(read(ChatCompletions(), BODY, {})).native is not None
