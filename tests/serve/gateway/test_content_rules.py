"""Content beside text, hosted tools and unknown fields: to a backend that has them and within a bound, or refused."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Budget, ModelSection
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from tests.serve.gateway.support import CHAT, MESSAGES
from tests.serve.gateway.support_backends import HI, MESSAGE, answers, asked, streams
from tests.serve.support_pipeline import MODEL, servers

HAIKU = "claude-3-haiku-20240307"
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def message(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"model": HAIKU, "max_tokens": 10, "messages": [{"role": "user", "content": list(blocks) or "Hi"}]} | more


@pytest.mark.parametrize(
    ("profile", "part", "kind"),
    [
        ("candle", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "images"),
        ("vllm", {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}, "files"),
        ("ollama", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio input"),
        ("llamacpp", {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "video input"),
    ],
)
def test_content_that_the_backend_does_not_take_is_refused_in_words(
    tmp_path: Path, profile: str, part: Any, kind: str
) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}]}
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, profile, one, CHAT, body)
    assert (done.status, one.requests) == (400, [])
    assert f"its API has no {kind}" in done.error["message"]


def test_a_message_with_an_image_is_translated_for_a_backend_that_takes_images(tmp_path: Path) -> None:
    body = message({"type": "text", "text": "What?"}, PNG) | {"model": MODEL}
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, "tgi", one, MESSAGES, body)
    assert done.status == 200
    assert one.requests[0][2]["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_fields_that_the_backends_api_does_not_have_are_named(tmp_path: Path, stream: bool) -> None:
    turns = [{"role": "assistant", "content": "x", "reasoning_content": "hm"}, {"role": "user", "content": "Hi"}]
    body = {"model": HAIKU, "max_tokens": 10, "messages": turns, "temperature": 0.5, "stream": stream}
    body |= {"seed": 7, "user": "u", "grammar": "g", "logit_bias": {"1": 2}, "top_k": 3}
    events = [b"event: message_start\ndata: " + json.dumps({"type": "message_start", "message": MESSAGE}).encode()]
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    events += [b"data: " + json.dumps(delta).encode(), b'data: {"type": "message_stop"}', b""]
    with servers(streams([b"\n\n".join(events)]) if stream else answers(MESSAGE)) as [one]:
        done = asked(tmp_path, "anthropic", one, CHAT, body)
        sent = one.requests[0][2]
    assert done.status == 200
    assert done.headers["x-batuta-dropped"] == "grammar, logit_bias, reasoning_content, seed, user"
    assert (sent["temperature"], sent["top_k"]) == (0.5, 3)
    assert sent["messages"][0] == {"role": "assistant", "content": "x"}


CUSTOM = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}


def test_a_custom_tool_goes_to_backends_of_openais_api_as_it_came_and_to_no_other(tmp_path: Path) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CUSTOM]}}
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [CUSTOM],
        "tool_choice": choice,
    }
    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** Begin Patch"}}
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    with servers(answers(HI)) as [one]:
        assert asked(tmp_path, "vllm", one, CHAT, body).status == 200
        assert one.requests[0][2] == body
    with servers(answers(MESSAGE)) as [one]:
        done = asked(tmp_path, "anthropic", one, CHAT, body | {"model": HAIKU})
        assert (done.status, one.requests) == (400, [])
    assert "its API has no custom tools or allowed_tools tools" in done.error["message"]


def test_a_chat_completion_with_image_and_file_is_translated_for_anthropic(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ]
    body = {"model": HAIKU, "max_tokens": 10, "messages": [{"role": "user", "content": parts}]}
    with servers(answers(MESSAGE)) as [one]:
        done = asked(tmp_path, "anthropic", one, CHAT, body)
    assert (done.status, done.json["choices"][0]["message"]["content"]) == (200, "Hi")
    assert one.requests[0][2]["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        PNG,
        {**PDF, "title": "a.pdf"},
    ]


def refused(tmp_path: Path, body: dict[str, Any], **more: Any) -> tuple[int, str, str]:
    with servers(answers(MESSAGE)) as [one]:
        done = asked(tmp_path, "anthropic", one, MESSAGES, body, **more)
        assert one.requests == []
    return done.status, done.error["code"], done.error["message"]


def test_a_document_reserves_the_models_whole_window(tmp_path: Path) -> None:
    window = ModelSection(context_window=200_000, output_reserve=64)
    # 200,000 tokens at 0.25 dollars a million are 0.05 dollars.
    breaker = CostCircuitBreaker(CircuitBreakerConfig(max_request_cost_usd=Decimal("0.0499")))
    status, code, _ = refused(tmp_path, message(PDF), breaker=breaker, model=window)
    assert (status, code) == (402, "request_too_expensive")
    enough = CostCircuitBreaker(CircuitBreakerConfig(max_request_cost_usd=Decimal("0.0501")))
    with servers(answers(MESSAGE)) as [one]:
        assert asked(tmp_path, "anthropic", one, MESSAGES, message(PDF), breaker=enough, model=window).status == 200


def test_an_image_reserves_the_profiles_maximum(tmp_path: Path) -> None:
    # 8,464 tokens at 0.25 dollars a million are 0.002116 dollars.
    breaker = CostCircuitBreaker(CircuitBreakerConfig(max_request_cost_usd=Decimal("0.0021")))
    assert refused(tmp_path, message(PNG), breaker=breaker)[1] == "request_too_expensive"


def reserved_input(tmp_path: Path, body: dict[str, Any]) -> Decimal:
    """Dollars that would be reserved for the input; the output is 10 tokens at 1.25 dollars a million."""
    breaker = CostCircuitBreaker(CircuitBreakerConfig(max_request_cost_usd=Decimal("0.0000001")))
    found = re.search(r"\$([0-9.]+), above the limit", refused(tmp_path, body, breaker=breaker)[2])
    assert found is not None
    return Decimal(found[1]) - Decimal("0.0000125")


def test_a_cache_write_reserves_its_own_price(tmp_path: Path) -> None:
    block = {"type": "text", "text": "word " * 10_000}
    plain = reserved_input(tmp_path, message(block))
    written = reserved_input(tmp_path, message({**block, "cache_control": {"type": "ephemeral"}}))
    hour = reserved_input(tmp_path, message({**block, "cache_control": {"type": "ephemeral", "ttl": "1h"}}))
    # Claude 3 Haiku: 0.25 dollars a million, 0.30 to write, and no price for an hour, so the highest multiple, twice.
    assert (written / plain, hour / plain) == (Decimal("1.2"), Decimal(2))


def test_a_hosted_tool_without_a_limit_is_refused_where_it_costs_money(tmp_path: Path) -> None:
    status, code, text = refused(tmp_path, message(tools=[WEB_SEARCH]))
    assert (status, code) == (402, "unbounded_cost")
    assert "web_search_20250305" in text
    allowed = Budget(allow_unbounded_tools=True)
    with servers(answers(MESSAGE)) as [one]:
        done = asked(tmp_path, "anthropic", one, MESSAGES, message(tools=[WEB_SEARCH]), budget=allowed)
    assert done.status == 200


def test_a_hosted_tool_with_a_limit_is_charged_for_its_uses(tmp_path: Path) -> None:
    with servers(answers(MESSAGE)) as [one]:
        body = message(tools=[{**WEB_SEARCH, "max_uses": 2}])
        done = asked(tmp_path, "anthropic", one, MESSAGES, body)
        assert one.requests[0][2] == body
    # 5 tokens at 0.25, 2 at 1.25 dollars a million, and 2 searches at 0.01 dollars.
    assert Decimal(done.headers["x-batuta-cost"]) == Decimal("0.02000375")


def test_unknown_fields_are_refused_where_they_may_cost_money_if_the_operator_says_so(tmp_path: Path) -> None:
    refuses = Budget(unknown_fields="refuse")
    status, code, _ = refused(tmp_path, message(of_next_year=1), budget=refuses)
    assert (status, code) == (402, "unbounded_cost")
    with servers(answers(HI)) as [one]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "of_next_year": 1, "grammar": "g"}
        assert asked(tmp_path, "vllm", one, CHAT, body, budget=refuses).status == 200
        assert one.requests[0][2] == body


def test_a_dearer_service_is_reserved_and_charged_at_its_price(tmp_path: Path) -> None:
    with servers(answers(MESSAGE)) as [one]:
        usual = asked(tmp_path, "anthropic", one, MESSAGES, message())
        fast = asked(tmp_path, "anthropic", one, MESSAGES, message(speed="fast"))
    assert Decimal(fast.headers["x-batuta-cost"]) == 6 * Decimal(usual.headers["x-batuta-cost"])
