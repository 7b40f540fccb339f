"""A request in an API that the backend speaks too: the body goes on as it came, the response comes back as it is."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Privacy
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from tests.serve.gateway.support import CHAT, MESSAGES, Asking, Response, ask, run, text_of
from tests.serve.gateway.support_backends import HI, answers, asked, streams
from tests.serve.support_pipeline import MODEL, backends, pipeline, refuser, servers, speaker

OPENAI_BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "developer", "content": "Be terse.", "name": "operator"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            ],
        },
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ],
    "chat_template_kwargs": {"enable_thinking": False},
    "guided_json": {"type": "object"},
    "grammar": "root ::= [a-z]+",
    "cache_prompt": True,
    "of_next_year": {"deep": [1, 2.5, None]},
    "temperature": 0.5,
    "max_tokens": 64,
}  # fmt: skip

ANTHROPIC_BODY: dict[str, Any] = {
    "model": "claude-3-haiku-20240307",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "Be terse.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"url": "http://10.0.0.1/"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
        {"role": "system", "content": "The time is 12:00."},
        {"role": "user", "content": "Well?"},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "metadata": {"user_id": "user_" + "a" * 160},
    "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
}
BETAS = {"anthropic-beta": "context-management-2025-06-27,mid-conversation-system-2026-04-07"}


def anthropic_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


ANTHROPIC_STREAM = [
    anthropic_event(
        "message_start",
        message={
            "id": "msg_upstream",
            "type": "message",
            "role": "assistant",
            "model": "claude-3-haiku-20240307",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 1},
        },
    ),
    anthropic_event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
    anthropic_event("ping"),
    anthropic_event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Zażółć"}),
    anthropic_event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
    anthropic_event("content_block_stop", index=0),
    anthropic_event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
    anthropic_event("content_block_delta", index=1, delta={"type": "text_delta", "text": "Füchse 🦊"}),
    anthropic_event("event_of_next_year", index=1, what=[1, 2]),
    anthropic_event("content_block_delta", index=1, delta={"type": "text_delta", "text": " laufen."}),
    anthropic_event("content_block_stop", index=1),
    anthropic_event("message_delta", delta={"stop_reason": "stop_sequence", "stop_sequence": "END"},
                    usage={"output_tokens": 20}),
    anthropic_event("message_stop"),
]  # fmt: skip


def openai_event(**fields: Any) -> bytes:
    frame = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 7, "model": "m-2026"}
    return b"data: " + json.dumps(frame | fields, ensure_ascii=False).encode() + b"\n\n"


def openai_delta(finish: str | None = None, **delta: Any) -> bytes:
    return openai_event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}], system_fingerprint="fp")


USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}}
OPENAI_STREAM = [
    openai_delta(role="assistant", content=""),
    openai_delta(content="Füchse", of_next_year={"a": 1}),
    openai_delta(content=" laufen.", token_ids=[3, 4]),
    openai_delta("stop"),
]
USAGE_EVENT = openai_event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def without_comments(done: Response) -> bytes:
    return b"".join(part + b"\n\n" for part in done.body.split(b"\n\n") if part and not part.startswith(b":"))


@pytest.mark.parametrize("profile", ["llamacpp", "vllm", "ollama", "groq", "tgi"])
def test_a_chat_completion_goes_on_as_it_came(tmp_path: Path, profile: str) -> None:
    body = {name: value for name, value in OPENAI_BODY.items() if profile != "tgi" or name != "messages"}
    body = {"messages": [{"role": "user", "content": "Hi"}], **body}
    if profile == "groq":
        body["model"] = "llama-3.3-70b-versatile"
    with servers(answers({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})) as [one]:
        done = asked(tmp_path, profile, one, CHAT, body)
    assert done.status == 200, done.body
    assert one.requests[0][0] == "/v1/chat/completions"
    assert one.requests[0][2] == body
    assert "x-batuta-dropped" not in done.headers


def test_a_whole_chat_completion_comes_back_as_it_is(tmp_path: Path) -> None:
    document = {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": "m-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "annotations": [{"type": "x"}], "reasoning": "hm"},
                "finish_reason": "stop",
                "stop_reason": "END",
            }
        ],
        "usage": USAGE,
        "service_tier": "default",
        "of_next_year": [1.0, None],
    }
    with servers(answers(document)) as [one]:
        assert asked(tmp_path, "vllm", one, CHAT, OPENAI_BODY).json == document


@pytest.mark.parametrize("usage", [{}, {"usage": None}])
def test_a_whole_response_without_usage_gets_the_counts_and_is_not_changed_otherwise(
    tmp_path: Path, usage: dict[str, Any]
) -> None:
    document = {"id": "c", "object": "chat.completion", "created": 1, "model": "m-2026", "beside": 1, **HI}
    with servers(answers(document | usage)) as [one]:
        found = asked(tmp_path, "vllm", one, CHAT, OPENAI_BODY).json
    counts = found.pop("usage")
    assert found == document
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"] > 1


def test_a_chat_stream_comes_back_event_by_event_and_usage_is_asked_for(tmp_path: Path) -> None:
    body = OPENAI_BODY | {"stream": True, "stream_options": {"include_usage": True, "of_next_year": 1}}
    with servers(streams([*OPENAI_STREAM, USAGE_EVENT, DONE])) as [one]:
        done = asked(tmp_path, "vllm", one, CHAT, body)
    assert without_comments(done) == b"".join([*OPENAI_STREAM, USAGE_EVENT, DONE])
    assert one.requests[0][2] == body


def test_the_first_event_of_a_stream_gets_the_fields_that_it_lacks(tmp_path: Path) -> None:
    """The official client makes its message of them, and a message without a role is refused in the next request."""
    events = [b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}], "x": 1}\n\n']
    with servers(streams([*events, *OPENAI_STREAM[-1:], DONE])) as [one]:
        first, *_ = asked(tmp_path, "vllm", one, CHAT, OPENAI_BODY | {"stream": True}).events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}
    assert (first["object"], first["model"], first["x"]) == ("chat.completion.chunk", MODEL, 1)
    assert first["id"].startswith("chatcmpl-") and type(first["created"]) is int


def test_usage_that_the_client_did_not_ask_for_is_asked_for_and_hidden(tmp_path: Path) -> None:
    with_null = [event.replace(b"}\n\n", b', "usage": null}\n\n') for event in OPENAI_STREAM[:2]]
    compact = [event.replace(b"}\n\n", b',"usage":null}\n\n') for event in OPENAI_STREAM[2:]]
    with servers(streams([*with_null, *compact, USAGE_EVENT, DONE])) as [one]:
        done = asked(tmp_path, "vllm", one, CHAT, OPENAI_BODY | {"stream": True})
    assert one.requests[0][2] == OPENAI_BODY | {"stream": True, "stream_options": {"include_usage": True}}
    assert done.events == [json.loads(event[6:]) for event in OPENAI_STREAM] + ["[DONE]"]


def test_what_names_a_user_goes_only_to_the_provider_of_the_api(tmp_path: Path) -> None:
    names = {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"}
    body = OPENAI_BODY | names | {"max_tokens": None, "max_completion_tokens": 64, "model": "gpt-4o"}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    document = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    with servers(answers(document)) as [one]:
        done = asked(tmp_path, "openai", one, CHAT, body)
        assert one.requests[0][2] == body
        assert "x-batuta-dropped" not in done.headers
    with servers(answers(document)) as [one]:
        done = asked(tmp_path, "vllm", one, CHAT, body)
        sent = one.requests[0][2]
    assert not names.keys() & sent
    assert done.headers["x-batuta-dropped"] == "metadata, prompt_cache_key, safety_identifier, user"


def test_a_request_of_anthropics_goes_to_anthropic_as_it_came_with_its_betas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-operator")
    body = ANTHROPIC_BODY | {"stream": True}
    headers = BETAS | {"anthropic-version": "2024-01-01", "x-api-key": "client", "authorization": "Bearer client"}
    with servers(streams(ANTHROPIC_STREAM)) as [one]:
        done = asked(tmp_path, "anthropic", one, MESSAGES, body, headers=headers)
    path, sent_headers, sent = one.requests[0]
    assert (path, sent) == ("/v1/messages", body)
    assert sent_headers["anthropic-beta"] == BETAS["anthropic-beta"]
    assert sent_headers["anthropic-version"] == "2024-01-01"
    assert "authorization" not in sent_headers
    assert "client" not in sent_headers.values()
    assert without_comments(done) == b"".join(ANTHROPIC_STREAM)
    assert "x-batuta-dropped" not in done.headers


def test_cache_reads_are_charged_at_their_own_price(tmp_path: Path) -> None:
    breaker = CostCircuitBreaker(CircuitBreakerConfig())
    with servers(streams(ANTHROPIC_STREAM)) as [one]:
        done = asked(tmp_path, "anthropic", one, MESSAGES, ANTHROPIC_BODY | {"stream": True}, breaker=breaker)
    assert done.status == 200
    # Claude 3 Haiku: 0.25 and 1.25 dollars for a million tokens, cache reads 0.03.
    cost = json.loads(done.body.rsplit(b": batuta ", 1)[1])["cost_usd"]
    assert Decimal(cost) == Decimal("0.0000305")


def test_a_whole_message_comes_back_as_it_is(tmp_path: Path) -> None:
    document = {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
            {"type": "text", "text": "Hi", "citations": [{"type": "char_location"}]},
        ],
        "stop_reason": "pause_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2, "service_tier": "standard"},
    }
    with servers(answers(document)) as [one]:
        assert asked(tmp_path, "vllm", one, MESSAGES, ANTHROPIC_BODY).json == document


@pytest.mark.parametrize(
    ("profile", "tier"), [("llamacpp", "sovereign"), ("vllm", "private"), ("vllm", "standard"), ("ollama", "standard")]
)
def test_local_servers_get_anthropics_body_without_the_users_name(tmp_path: Path, profile: str, tier: str) -> None:
    with servers(streams(ANTHROPIC_STREAM)) as [one]:
        done = asked(tmp_path, profile, one, MESSAGES, ANTHROPIC_BODY | {"stream": True}, tier=tier, headers=BETAS)
    path, headers, sent = one.requests[0]
    expected = {name: value for name, value in (ANTHROPIC_BODY | {"stream": True}).items() if name != "metadata"}
    assert (path, sent) == ("/v1/messages", expected)
    assert headers["anthropic-beta"] == BETAS["anthropic-beta"]
    assert done.headers["x-batuta-dropped"] == "metadata"
    assert without_comments(done) == b"".join(ANTHROPIC_STREAM)


def both(tmp_path: Path, first: Any, second: Any, path: str, body: Any, profile: str = "vllm") -> tuple[Response, Any]:
    with servers(first, second) as [one, two]:
        tables = backends(one=("vllm", one.base_url), two=(profile, two.base_url))
        done = ask(tmp_path, path, body, pipeline=pipeline(tmp_path, tables))
        return done, two.requests


def test_a_chat_stream_that_breaks_is_continued_by_another_backend_under_the_first_id(tmp_path: Path) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say it."}], "max_tokens": 64, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "cache_prompt": True}
    done, requests = both(
        tmp_path, streams([OPENAI_STREAM[0], openai_delta(content="Füchse")]), speaker("Füchse laufen."), CHAT, body
    )
    *chunks, usage, end = done.events
    assert (text_of(chunks), end, done.complete) == ("Füchse laufen.", "[DONE]", True)
    assert {chunk["id"] for chunk in [*chunks, usage]} == {"chatcmpl-up"}
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"][0]["finish_reason"]] == ["stop"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 0
    assert not any(chunk.get("usage") for chunk in chunks)
    assert requests[0][2]["messages"][-1] == {"role": "assistant", "content": "Füchse"}
    assert requests[0][2]["cache_prompt"] is True


def test_a_message_stream_that_breaks_is_continued_in_its_open_block(tmp_path: Path) -> None:
    first = [ANTHROPIC_STREAM[0], *(e.replace(b'"index": 1', b'"index": 0') for e in ANTHROPIC_STREAM[6:8])]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say it."}], "max_tokens": 64, "stream": True}
    done, _ = both(tmp_path, streams(first), speaker("Füchse 🦊 laufen."), MESSAGES, body)
    kinds = [event["type"] for event in done.events]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    texts = [event["delta"]["text"] for event in done.events if event["type"] == "content_block_delta"]
    assert "".join(texts) == "Füchse 🦊 laufen."
    assert {event["index"] for event in done.events if "index" in event} == {0}
    assert done.complete


def test_each_attempt_is_charged_once_and_the_client_reads_one_usage(tmp_path: Path) -> None:
    """Claude 3 continues a text by a trailing message of the assistant."""
    first = [ANTHROPIC_STREAM[0], *(e.replace(b'"index": 1', b'"index": 0') for e in ANTHROPIC_STREAM[6:8])]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    rest = [
        anthropic_event("message_start", message={"usage": {"input_tokens": 30, "output_tokens": 1}}),
        anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": " laufen."}),
        anthropic_event("content_block_stop", index=0),
        anthropic_event("message_delta", delta=end["delta"], usage=end["usage"]),
        anthropic_event("message_stop"),
    ]
    body = ANTHROPIC_BODY | {"stream": True, "messages": [{"role": "user", "content": "Say it."}]}
    with servers(streams(first), streams(rest)) as [one, two]:
        tables = backends((body["model"],), one=("anthropic", one.base_url), two=("anthropic", two.base_url))
        breaker = CostCircuitBreaker(CircuitBreakerConfig())
        made = pipeline(tmp_path, tables, breaker=breaker, privacy=Privacy(tier="standard"))
        done = ask(tmp_path, MESSAGES, body, pipeline=made)
        sent = two.requests[0][2]
    texts = [e["delta"]["text"] for e in done.events if e["type"] == "content_block_delta"]
    assert "".join(texts) == "Füchse 🦊 laufen."
    assert sent["messages"][-1] == {"role": "assistant", "content": "Füchse 🦊"}
    assert [e["message"]["id"] for e in done.events if e["type"] == "message_start"] == ["msg_upstream"]
    assert len([e for e in done.events if e["type"] == "message_delta"]) == 1
    comment = json.loads(done.body.rsplit(b": batuta ", 1)[1])
    assert comment["attempts"] == 2
    # The second: 30 tokens at 0.25 and 7 at 1.25 dollars a million; the first had no report, so its bounds count.
    assert Decimal(comment["cost_usd"]) > Decimal("0.00001625")
    status = breaker.status()
    assert status.reserved == 0
    assert status.spent == int(Decimal(comment["cost_usd"]) * 10**9)


def test_before_content_has_reached_the_client_another_backend_starts_over_and_nothing_of_the_first_is_seen(
    tmp_path: Path,
) -> None:
    body = ANTHROPIC_BODY | {"model": MODEL, "stream": True}
    done, requests = both(tmp_path, streams(ANTHROPIC_STREAM[:3]), streams(ANTHROPIC_STREAM), MESSAGES, body)
    assert without_comments(done) == b"".join(ANTHROPIC_STREAM)
    assert requests[0][2]["thinking"] == body["thinking"]


def test_after_an_event_that_is_not_understood_no_other_backend_continues(tmp_path: Path) -> None:
    first = [ANTHROPIC_STREAM[0], *ANTHROPIC_STREAM[6:9]]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say it."}], "max_tokens": 64, "stream": True}
    done, requests = both(tmp_path, streams(first), speaker("Füchse 🦊 laufen."), MESSAGES, body)
    assert requests == []
    assert done.events[-1]["type"] == "error"
    assert not done.complete


def test_a_request_that_only_its_own_api_can_express_is_not_continued_by_a_translation(tmp_path: Path) -> None:
    first = [ANTHROPIC_STREAM[0], *(e.replace(b'"index": 1', b'"index": 0') for e in ANTHROPIC_STREAM[6:8])]
    content = [{"type": "text", "text": "Say it."}, {"type": "of_next_year"}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 64, "stream": True}
    done, requests = both(tmp_path, streams(first), speaker("Füchse 🦊 laufen."), MESSAGES, body)
    assert requests == []
    assert done.events[-1]["type"] == "error"


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
def test_an_older_server_without_the_route_gets_the_request_translated(tmp_path: Path, status: str) -> None:
    def script(path: str, *_: Any) -> Any:
        return refuser(status)() if path == "/v1/messages" else answers(HI)()

    with servers(script) as [one]:
        done = asked(tmp_path, "llamacpp", one, MESSAGES, ANTHROPIC_BODY)
    assert done.status == 200
    assert done.json["content"] == [{"type": "text", "text": "Hi"}]
    assert [path for path, _, _ in one.requests] == ["/v1/messages", "/v1/chat/completions"]
    assert (
        done.headers["x-batuta-dropped"] == "cache_control, context_management, metadata, thinking, tools.cache_control"
    )


def test_what_cannot_be_translated_is_not_sent_to_an_older_server_again(tmp_path: Path) -> None:
    block = {"type": "of_next_year", "x": 1}
    body = ANTHROPIC_BODY | {"messages": [{"role": "user", "content": [block]}]}
    with servers(refuser("404 Not Found")) as [one]:
        done = asked(tmp_path, "llamacpp", one, MESSAGES, body)
    assert done.status >= 400
    assert [path for path, _, _ in one.requests] == ["/v1/messages"]


def test_an_event_that_has_to_be_mended_is_written_anew_under_the_first_id(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    events = [*OPENAI_STREAM[:2], openai_delta(tool_calls=[call]), openai_delta("eos"), DONE]
    with servers(streams(events)) as [one]:
        done = asked(tmp_path, "vllm", one, CHAT, OPENAI_BODY | {"stream": True})
    *chunks, end = done.events
    assert end == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-up"}
    assert chunks[1] == json.loads(OPENAI_STREAM[1][6:])
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "tool_calls"


def test_fields_that_no_table_knows_are_in_the_log_by_name_only(tmp_path: Path) -> None:
    document = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}

    async def scenario(asking: Asking) -> None:
        done = await asking.ask(CHAT, OPENAI_BODY | {"a secret: xyzzy": 1})
        assert done.status == 200
        (line,) = asking.log
        assert (line["level"], line["unknown_fields"]) == ("warning", ["of_next_year"])
        assert "xyzzy" not in asking.log_text

    with servers(answers(document)) as [one]:
        run(tmp_path, scenario, pipeline=pipeline(tmp_path, backends(one=("vllm", one.base_url))))
