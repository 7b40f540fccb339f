"""Any JSON value in any place of a backend's response gives a mended response or a backend's error.

The response of a real server is taken, some of its values are replaced by arbitrary JSON, and the gateway serves it in
each dialect. Formats that a loopback server cannot play (Replicate's second request goes to its own host) and those
that are used only to continue a text are read without the pipeline.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batuta_cli.serve.backends.wire_formats import WireFormat
from batuta_cli.serve.gateway.dialects.anthropic import Messages
from batuta_cli.serve.gateway.dialects.openai import ChatCompletions, Completions
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.providers.formats import format_module
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.tolerant_json import json_value
from batuta_cli.serve.providers.wire import BackendError, Call, Piece
from tests.serve.gateway.support import CHAT, COMPLETIONS, MESSAGES, message
from tests.serve.gateway.support_upstream import MODEL, Upstream
from tests.serve.support_backend import response, stream_head

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}
CALLS = [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}


def chat_choice(part: str, **more: Any) -> dict[str, Any]:
    fields = {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "refusal": "no", "tool_calls": CALLS}
    return {"index": 0, part: fields, "finish_reason": None, "logprobs": LOGPROBS, **more}


STREAMS: dict[WireFormat, list[Any]] = {
    WireFormat.OPENAI: [
        {"id": "u", "object": "chat.completion.chunk", "choices": [chat_choice("delta")], "error": None},
        {"choices": [{"index": 0, "delta": {"tool_calls": CALLS}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
        "[DONE]",
    ],
    WireFormat.ANTHROPIC: [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "x"}},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        },
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"x": 1}'}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ],
    WireFormat.COMPLETIONS: [
        {"choices": [{"index": 0, "text": "Hi", "logprobs": {"tokens": ["Hi"]}, "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": USAGE},
        "[DONE]",
    ],
    WireFormat.OLLAMA_GENERATE: [
        {"model": "m", "response": "Hi", "done": False},
        {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5},
    ],
    WireFormat.REPLICATE: ["Hi", {}],
    WireFormat.EMBEDDINGS: [{}],
}
WHOLE: dict[WireFormat, Any] = {
    WireFormat.OPENAI: {"choices": [chat_choice("message", finish_reason="stop")], "usage": USAGE, "error": None},
    WireFormat.ANTHROPIC: {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 5},
    },
    WireFormat.COMPLETIONS: {"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}], "usage": USAGE},
    WireFormat.OLLAMA_GENERATE: {"response": "Hi", "done": True, "prompt_eval_count": 7, "eval_count": 5},
    WireFormat.EMBEDDINGS: {"data": [{"index": 0, "embedding": [0.5, 1]}], "usage": {"prompt_tokens": 7}},
    WireFormat.REPLICATE: {"status": "succeeded", "output": ["H", "i"], "metrics": {"input_token_count": 7}},
}
PROFILES = {WireFormat.OPENAI: "generic", WireFormat.ANTHROPIC: "anthropic"}
EVENT_TYPES = {WireFormat.REPLICATE: ("output", "done")}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "stop", "text", "\ud83d", "error", "tool_use", "0", "{", "é", "a" * 300])
    | st.text(max_size=5)
)
names = st.sampled_from(["text", "content", "type", "id", "name", "arguments", "function", "index", "message", "x"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within a document."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


@st.composite
def spoilt(draw: st.DrawFn, document: Any) -> Any:
    """A document in which up to three values are replaced, repeated or left out."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(document))))
        if not path:
            document = draw(values) if draw(st.booleans()) else document
            continue
        within = document
        for key in path[:-1]:
            within = within[key]
        how = draw(st.sampled_from(["replace", "replace", "leave out", "repeat"]))
        if how == "replace":
            within[path[-1]] = draw(values)
        elif how == "leave out":
            del within[path[-1]]
        elif isinstance(within, list):
            within.append(copy.deepcopy(within[path[-1]]))
    return document


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def stream_of(events: Any) -> bytes:
    items = events if isinstance(events, list) else [events]
    return b"".join(b"data: %s\n\n" % (b"[DONE]" if item == "[DONE]" else encoded(item)) for item in items)


RESPONSES, OLLAMA = "/v1/responses", "/api/chat"

BOUND = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=PROFILES, ids=lambda wire: wire.value)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Upstream]]:
    with Upstream(tmp_path_factory.mktemp("upstream"), PROFILES[request.param]) as running:
        yield request.param, running


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES, RESPONSES, OLLAMA])
@pytest.mark.parametrize("stream", [False, True])
@BOUND
@given(data=st.data())
def test_the_gateway_mends_or_reports_but_has_no_internal_error(
    server: tuple[WireFormat, Upstream], path: str, stream: bool, data: st.DataObject
) -> None:
    wire, upstream = server
    spoilt_one = data.draw(spoilt(STREAMS[wire] if stream else WHOLE[wire]))
    answer = [stream_head(), stream_of(spoilt_one)] if stream else [response(encoded(spoilt_one))]
    body = message(MODEL, prompt="Say it.", stream=stream) | ({} if path == MESSAGES else {"logprobs": True})
    if path == COMPLETIONS:
        body.pop("logprobs")
    if path == OLLAMA:
        body = {"model": MODEL, "messages": body["messages"], "stream": stream}
    if path == RESPONSES:
        body = {"model": MODEL, "input": "Say it.", "stream": stream}
    done = upstream.ask(path, body, *answer)
    assert done.status in (200, 400, 502), done.body
    assert b"internal" not in done.body, (spoilt_one, done.body)
    if done.status == 200 and stream:
        assert done.complete or b'"error"' in done.body, done.body
    elif done.status == 200:
        assert done.json.get("usage") or (path == OLLAMA and done.json["done"])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", "/api/embeddings"])
@pytest.mark.parametrize("encoding", ["float", "base64"])
@BOUND
@given(document=spoilt(WHOLE[WireFormat.EMBEDDINGS]))
def test_embeddings_are_mended_or_reported_too(upstream: Upstream, path: str, encoding: str, document: Any) -> None:
    body = {"model": MODEL, "input": "Say it.", "prompt": "Say it.", "encoding_format": encoding}
    body = {name: body[name] for name in _EMBEDDING_FIELDS[path]}
    done = upstream.ask(path, body, response(encoded(document)))
    assert done.status in (200, 502), (document, done.body)


_EMBEDDING_FIELDS = {
    "/v1/embeddings": ("model", "input", "encoding_format"),
    "/api/embed": ("model", "input"),
    "/api/embeddings": ("model", "prompt"),
}

REPLIES: dict[str, Any] = {"chat": ChatCompletions(), "completions": Completions(), "messages": Messages()}


@pytest.mark.parametrize("wire", WireFormat, ids=lambda wire: wire.value)
@pytest.mark.parametrize("stream", [False, True])
@BOUND
@given(data=st.data())
def test_every_format_gives_pieces_that_every_dialect_can_write(
    wire: WireFormat, stream: bool, data: st.DataObject
) -> None:
    call = Call(
        model="o/m",
        messages=(ChatMessage.user("Say it."),),
        max_tokens=9,
        stream=stream,
        prompt="p",
        inputs=("Say it.",),
    )
    reader = format_module(wire).reader(call)
    document = data.draw(spoilt(STREAMS[wire] if stream else WHOLE[wire]))
    pieces: list[Piece] = []
    try:
        if stream:
            for number, item in enumerate(document if isinstance(document, list) else [document]):
                types = EVENT_TYPES.get(wire, ("",))
                event = b"[DONE]" if item == "[DONE]" else encoded(item)
                pieces += reader.event(Event(types[min(number, len(types) - 1)], event))
        else:
            pieces += reader.whole(json_value(encoded(document)))
    except BackendError:
        pass
    for dialect in REPLIES.values():
        written(dialect, pieces)


def written(dialect: Any, pieces: list[Piece]) -> None:
    body = message(MODEL, prompt="Say it.", stream=True)
    summary = Summary(backend="b", input_tokens=1, output_tokens=1, exact=True, cost=0, budget_left=None, attempts=())
    reply = dialect.reply(dialect.read(body), "name", 1)
    try:
        assert reply.begin() is not None
        for piece in pieces:
            reply.piece(piece)
        reply.end(summary)
        orjson.loads(dialect.reply(dialect.read(body), "name", 1).whole(pieces, summary))
    except BackendError:
        pass
