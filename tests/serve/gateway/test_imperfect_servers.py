"""Servers that answer almost right: what they mean reaches the clients of each API, and never an internal error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.gateway.support import CHAT, MESSAGES, Response
from tests.serve.gateway.support_upstream import MODEL, Upstream
from tests.serve.support_backend import STALL, chat_answer, chat_stream, chunk, response, stream_head

TOOLS: list[Any] = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("weather", "time")]
DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


def body(path: str, *, stream: bool) -> dict[str, Any]:
    tools = [{"name": t["function"]["name"], "input_schema": {}} for t in TOOLS] if path == MESSAGES else TOOLS
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Say it."}],
        "max_tokens": 99,
        "stream": stream,
        "tools": tools,
    }


def event(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    document = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def whole(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return response(json.dumps({"choices": [choice], **more}).encode())


def calls_of(done: Response) -> tuple[list[tuple[str, Any]], str, list[str]]:
    """The calls, the reason of the end, and the ids of a response in either API, whole or streamed."""
    assert done.status == 200, done.body
    documents = [e for e in done.events if e != "[DONE]"] if b"data: " in done.body else [done.json]
    found: dict[int, list[str]] = {}
    reason = ""
    for document in documents:
        for choice in document.get("choices", ()):
            reason = choice.get("finish_reason") or reason
            parts = (choice.get("delta") or choice.get("message") or {}).get("tool_calls") or ()
            for number, part in enumerate(parts):
                call = found.setdefault(part.get("index", number), ["", "", ""])
                call[0] += part["function"].get("name") or ""
                call[1] += part["function"].get("arguments") or ""
                call[2] = call[2] or part.get("id") or ""
        for number, block in enumerate(document.get("content") or ()):
            if block["type"] == "tool_use":
                found[number] = [block["name"], json.dumps(block["input"]), block["id"]]
        if document.get("type") == "content_block_start" and document["content_block"]["type"] == "tool_use":
            found[document["index"]] = [document["content_block"]["name"], "", document["content_block"]["id"]]
        if (document.get("delta") or {}).get("type") == "input_json_delta":
            found[document["index"]][1] += document["delta"]["partial_json"]
        reason = (document.get("delta") or document).get("stop_reason") or reason
    return [(name, json.loads(text)) for name, text, _ in found.values()], reason, [i for *_, i in found.values()]


TWO = [("weather", {"city": "Łódź"}), ("time", {"zone": "CET"})]


def call(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {key: value for key, value in (("name", name), ("arguments", arguments)) if value}}


STREAMED_CALLS = {
    "all at index 0 with other ids": [
        event({"tool_calls": [call("weather", '{"city":', index=0, id="a")]}),
        event({"tool_calls": [call(None, ' "Łódź"}', index=0)]}),
        event({"tool_calls": [call("time", '{"zone": "CET"}', index=0, id="b")]}),
    ],
    "all at index 0 without ids": [
        event({"tool_calls": [call("weather", '{"city": "Łódź"}', index=0)]}),
        event({"tool_calls": [call("time", '{"zone": "CET"}', index=0)]}),
    ],
    "without index": [
        event({"tool_calls": [call("weather", '{"city": "Łódź"}', id="a"), call("time", '{"zone": "CET"}', id="b")]}),
    ],
    "without index, id and in pieces": [
        event({"tool_calls": [call("weather", '{"city":')]}),
        event({"tool_calls": [call(None, ' "Łódź"}')]}),
        event({"tool_calls": [call("time", '{"zone": "CET"}')]}),
    ],
    "one id for both": [
        event({"tool_calls": [call("weather", '{"city": "Łódź"}', index=0, id="x")]}),
        event({"tool_calls": [call("time", '{"zone": "CET"}', index=1, id="x")]}),
    ],
    "the name again in every part": [
        event({"tool_calls": [call("weather", '{"city":', index=0, id="a")]}),
        event({"tool_calls": [call("weather", ' "Łódź"}', index=0, id="a")]}),
        event({"tool_calls": [call("time", '{"zone":', index=1, id=7)]}),
        event({"tool_calls": [call("time", ' "CET"}', index=1, id=7)]}),
    ],
    "arguments as an object": [
        event({"tool_calls": [call("weather", {"city": "Łódź"}, index=0, id="a")]}),
        event({"tool_calls": [call("time", {"zone": "CET"}, index=1, id="b")]}),
    ],
    "fields beside the function": [
        event({"tool_calls": [{"index": 0, "id": "a", "name": "weather", "arguments": '{"city": "Łódź"}'}]}),
        event({"tool_calls": [{"index": 1, "id": "b", "name": "time", "arguments": {"zone": "CET"}}]}),
    ],
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", STREAMED_CALLS)
@pytest.mark.parametrize("reason", ["stop", "tool_calls", None])
def test_two_calls_are_two_calls_however_they_are_numbered(
    server: Upstream, name: str, path: str, reason: str | None
) -> None:
    stream = b"".join(STREAMED_CALLS[name]) + (event({}, reason) if reason else b"") + DONE
    calls, finish, ids = calls_of(server.ask(path, body(path, stream=True), stream_head(), stream))
    assert calls == TWO
    assert finish == ("tool_use" if path == MESSAGES else "tool_calls")
    assert len(set(ids)) == 2 and all(ids)


WHOLE_CALLS: dict[str, list[Any]] = {
    "without ids": [call("weather", '{"city": "Łódź"}'), call("time", '{"zone": "CET"}')],
    "all at index 0": [call("weather", {"city": "Łódź"}, index=0), call("time", {"zone": "CET"}, index=0)],
    "two of the same function": [call("weather", '{"city": "Łódź"}', index=0), call("weather", "{}", index=0)],
    "no arguments": [call("weather", None, id="a"), {"id": "b", "function": {"name": "time", "arguments": None}}],
}
WANTED = {
    "two of the same function": [("weather", {"city": "Łódź"}), ("weather", {})],
    "no arguments": [("weather", {}), ("time", {})],
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", WHOLE_CALLS)
@pytest.mark.parametrize("reason", ["stop", None])
def test_whole_calls_are_mended_alike(server: Upstream, name: str, path: str, reason: str | None) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": WHOLE_CALLS[name]}
    calls, finish, ids = calls_of(server.ask(path, body(path, stream=False), whole(message, reason)))
    assert calls == WANTED.get(name, TWO)
    assert finish == ("tool_use" if path == MESSAGES else "tool_calls")
    assert len(set(ids)) == 2 and all(ids)


def test_the_signature_of_a_call_is_kept(server: Upstream) -> None:
    """Gemini wants its `thought_signature` back in the next request."""
    extra = {"google": {"thought_signature": "abc"}}
    message = {"content": None, "tool_calls": [call("weather", "{}", id="a", extra_content=extra)]}
    done = server.ask(CHAT, body(CHAT, stream=False), whole(message))
    assert done.json["choices"][0]["message"]["tool_calls"][0]["extra_content"] == extra


def text_and_reasoning(done: Response) -> tuple[str, str]:
    assert done.status == 200, done.body
    message = done.json["choices"][0]["message"]
    names = ("reasoning_content", "reasoning", "thinking")  # relayed under the server's name where nothing is mended
    reasoning = next((text for name in names if isinstance(text := message.get(name), str)), "")
    return message["content"] or "", reasoning


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}, ("Hello", "")),
        ({"content": {"type": "text", "text": "Hello"}}, ("Hello", "")),
        ({"content": ["Hel", "lo"]}, ("Hello", "")),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "Hello"},
                ]
            },
            ("Hello", "hm"),
        ),
        ({"content": "Hello", "reasoning": "hm"}, ("Hello", "hm")),
        ({"content": "Hello", "thinking": "hm"}, ("Hello", "hm")),
        ({"content": "Hello", "reasoning": "hm", "reasoning_content": "hm"}, ("Hello", "hm")),
        ({"content": "Hello", "reasoning": True, "role": ["assistant"]}, ("Hello", "")),
        ({"content": "Hel\ud83d\ude00\ud83d"}, ("Hel😀\ufffd", "")),
        ({"content": "Hello", "error": "x"}, ("Hello", "")),
    ],
)
@pytest.mark.parametrize("finish", ["stop", None, ""])
def test_content_and_reasoning_are_read_in_their_other_forms(
    server: Upstream, message: Any, wanted: tuple[str, str], finish: Any
) -> None:
    done = server.ask(CHAT, body(CHAT, stream=False), whole(message, finish, error=None))
    assert text_and_reasoning(done) == wanted
    assert done.json["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "7", "completion_tokens": "5"}, {"prompt_tokens": 7.0, "completion_tokens": 5}]
)
def test_counts_as_text_are_counts(server: Upstream, usage: Any) -> None:
    done = server.ask(CHAT, body(CHAT, stream=False), whole({"content": "Hello"}, usage=usage))
    assert (done.json["usage"]["prompt_tokens"], done.json["usage"]["completion_tokens"]) == (7, 5)


@pytest.mark.parametrize("usage", [None, {}, "much", [], {"prompt_tokens": None, "completion_tokens": "x"}])
def test_usage_without_counts_is_counted_here(server: Upstream, usage: Any) -> None:
    done = server.ask(CHAT, body(CHAT, stream=False), whole({"content": "Hello"}, usage=usage))
    assert done.json["usage"]["completion_tokens"] >= 1


STREAMS = {
    "json for a stream": [response(chat_answer("Hello"))],
    "events as json": [stream_head("application/json"), chat_stream(["Hel", "lo"])],
    "events as text": [stream_head("text/plain"), b"\n\n: ping\n\n", chat_stream(["Hel", "lo"])],
    "lines of json": [
        stream_head("application/json"),
        b"\n".join(part.removeprefix(b"data: ") for part in chat_stream(["Hel", "lo"]).split(b"\n\n")[:-2]),
    ],
    "a null delta": [stream_head(), event(None), event({"content": "Hello"}), event(None, "stop"), DONE],
    "a null error": [stream_head(), event({"content": "Hello"}, error=None), event({}, "stop", error=None), DONE],
    "the role in every event": [
        stream_head(),
        event({"role": "assistant", "content": "Hel"}),
        event({"role": "assistant", "content": "lo"}),
        event({"role": "assistant"}, "stop"),
        DONE,
    ],
    "no finish reason": [stream_head(), event({"content": "Hello"}), DONE],
    "empty events": [stream_head(), b"data: \n\n", b"event: ping\ndata: ping\n\n", chat_stream(["Hello"])],
    "no choices between": [stream_head(), b'data: {"choices": []}\n\n', chunk("Hello"), chunk(finish="stop"), DONE],
    "more after the end": [stream_head(), chat_stream(["Hello"]), b"data: {oops\n\n"],
    "a message in a chunk": [stream_head(), b"data: " + chat_answer("Hello") + b"\n\n", DONE],
    "a character in two events": [
        stream_head(),
        b'data: {"choices": [{"delta": {"content": "Hello\\ud83d"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "\\ude00"}}]}\n\n',
        chunk(finish="stop"),
        DONE,
    ],
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_read_however_it_is_framed(server: Upstream, name: str, path: str) -> None:
    done = server.ask(path, body(path, stream=True), *STREAMS[name])
    assert (done.status, done.complete) == (200, True), done.body
    events = [e for e in done.events if e != "[DONE]"]
    text = "".join(c["delta"].get("content") or "" for e in events for c in e.get("choices", ()))
    assert text + "".join((e.get("delta") or {}).get("text", "") for e in events) in ("Hello", "Hello😀")
    assert ("stop" in done.body.decode()) and ("end_turn" in done.body.decode()) is (path == MESSAGES)


def test_a_stream_in_answer_to_a_whole_request_is_joined(server: Upstream) -> None:
    done = server.ask(CHAT, body(CHAT, stream=False), response(chat_stream(["Hel", "lo"]), "text/event-stream"))
    assert text_and_reasoning(done) == ("Hello", "")
    assert done.json["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("end", [chunk(finish="stop") + DONE, DONE], ids=["both", "done alone"])
def test_a_connection_that_stays_open_after_the_end_is_not_waited_for(server: Upstream, end: bytes) -> None:
    done = server.ask(CHAT, body(CHAT, stream=True), stream_head(), chunk("Hello"), end, STALL)
    assert done.complete and done.events[-1] == "[DONE]"
    assert server.log[-1]["seconds"] < 5


WRONG: dict[str, Any] = {
    "content as a number": {"content": 5},
    "an image": {"content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
    "a call without a name": {"tool_calls": [call(None, "{}", id="a")]},
    "a call that is text": {"tool_calls": ["weather"]},
    "arguments as a number": {"tool_calls": [call("f", 5, id="a")]},
    "a message that is text": "Hello",
}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_plain_meaning_is_the_backends_error(server: Upstream, name: str, path: str, stream: bool) -> None:
    answer = [stream_head(), event(WRONG[name]), event({}, "stop"), DONE] if stream else [whole(WRONG[name])]
    done = server.ask(path, body(path, stream=stream), *answer)
    assert (done.status, done.error["code"]) == (502, "backend_error")


@pytest.mark.parametrize(
    "answer", [b'{"choices": []}', b'{"choices": null}', b"{}", b"[]", b"null", b"5", b"", b"\xff"]
)
def test_an_answer_without_choices_is_the_backends_error(server: Upstream, answer: bytes) -> None:
    for stream in (False, True):
        done = server.ask(CHAT, body(CHAT, stream=stream), response(answer))
        assert (done.status, done.error["code"]) == (502, "backend_error"), answer
    done = server.ask(CHAT, body(CHAT, stream=True), stream_head(), DONE)
    assert (done.status, done.error["message"]) == (502, "the backend answered without choices")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_an_answer_that_is_nested_too_deeply_is_the_backends_error(server: Upstream, path: str) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    message = {"content": "x", "tool_calls": [call("f", "{}", id="a", extra_content=deep)]}
    assert server.ask(path, body(path, stream=False), whole(message)).status == 502
    assert server.ask(path, body(path, stream=False), response(b"[" * 100_000)).status == 502


def test_log_probabilities_that_json_lacks_reach_the_client(tmp_path: Path, server: Upstream) -> None:
    """llama.cpp and vLLM write -Infinity for an impossible token."""
    choice = (
        b'{"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": '
        b'[{"token": "x", "logprob": -Infinity, "bytes": null, "top_logprobs": []}]}}'
    )
    done = server.ask(CHAT, body(CHAT, stream=False), response(b'{"choices": [' + choice + b"]}"))
    assert done.json["choices"][0]["logprobs"]["content"][0]["logprob"] is None
