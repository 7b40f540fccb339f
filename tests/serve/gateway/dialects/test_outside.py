"""What in a request reaches beyond the generation of text, and what every tier makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.outside import may_fetch, reach_of
from batuta_cli.serve.gateway.http_errors import HttpError
from tests.serve.gateway.support import CHAT, MESSAGES, Response
from tests.serve.gateway.support_backends import HI, MESSAGE, answers, asked
from tests.serve.support_pipeline import MODEL, servers

URL = "http://192.168.0.1/secret.png"
CLAUDE = "claude-3-haiku-20240307"
WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def chat_of(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": list(parts)}]} | more


def text() -> dict[str, str]:
    return {"type": "text", "text": f"Look at {URL}"}


PLACES: dict[str, Any] = {
    "image": {"type": "image_url", "image_url": {"url": URL}},
    "image without an object": {"type": "image_url", "image_url": URL},
    "video": {"type": "video_url", "video_url": {"url": URL}},
    "audio": {"type": "audio_url", "audio_url": {"url": URL}},
    "audio data": {"type": "input_audio", "input_audio": {"data": URL, "format": "wav"}},
    "file data": {"type": "file", "file": {"file_data": URL}},
    "file": {"type": "file", "file": {"file_url": URL}},
    "responses image": {"type": "input_image", "image_url": URL},
    "responses file": {"type": "input_file", "file_url": URL},
    "anthropic image": {"type": "image", "source": {"type": "url", "url": URL}},
    "anthropic document": {"type": "document", "source": {"type": "url", "url": URL}},
    "document of other services": {"type": "document_url", "document_url": URL},
    "image of a template": {"type": "image", "image": URL},
    "image with a URL beside its type": {"type": "image", "url": URL},
    "part of a type of next year": {"type": "hologram", "hologramUri": URL},
    "in a document": {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]},
    },
    "tool result": {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "image", "source": {"type": "url", "url": URL}}],
    },
    "of a text": {"type": "text", "text": "x", "image_url": {"url": URL}},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_url_is_found_wherever_content_may_have_one(place: str) -> None:
    assert reach_of(chat_of(text(), PLACES[place]), "messages").urls == (URL,)


def test_what_no_backend_fetches_is_no_url() -> None:
    call = {"type": "tool_use", "id": "t", "name": "fetch", "input": {"url": URL, "image_url": URL}}
    found = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "url": URL, "title": "x"}]}
    function = {"function": {"name": "fetch", "arguments": json.dumps({"image_url": URL})}}
    tab = {"type": "browser_state", "tabs": [], "content": [{"type": "tab_entry", "url": URL}]}
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    document = chat_of(text(), call, found, tab, inline, {"type": "image", "image": "/9j/4AAQ"})
    document["messages"].append({"role": "assistant", "content": None, "tool_calls": [function]})
    assert reach_of(document, "messages").urls == ()


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "FILE:/etc/passwd", " file:///etc/passwd", "\tfile:///x", "/etc/passwd", "//h/x", "x", "",
     "http\\:x", "fi\nle:///etc/passwd"],
)  # fmt: skip
@pytest.mark.parametrize("tier", ["standard", "private", "sovereign"])
def test_a_file_and_what_is_no_url_is_refused_in_every_tier(tmp_path: Path, url: str, tier: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(HttpError) as raised:
        reach_of(chat_of(part), "messages")
    assert (raised.value.status, raised.value.code) == (400, "unsupported_url")
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, "vllm", one, CHAT, chat_of(text(), part), tier=tier, media_hosts=("*",))
        assert (done.status, one.requests) == (400, [])
    assert "passwd" not in done.body.decode()


def test_a_path_on_the_backends_machine_is_refused() -> None:
    with pytest.raises(HttpError):
        reach_of(chat_of({"type": "image", "path": "/etc/passwd"}), "messages")


@pytest.mark.parametrize("url", ["http://[", "http://[::1"])
def test_a_url_that_is_not_well_formed_is_never_fetched_from_inside(url: str) -> None:
    assert reach_of(chat_of({"type": "image_url", "image_url": {"url": url}}), "messages").urls == (url,)
    assert not may_fetch((url,), ("*",))


@pytest.mark.parametrize("url", ["file:/etc/passwd", "File:///etc/passwd"])
@pytest.mark.parametrize("part", [{"type": "file", "file": {}}, {"type": "input_audio", "input_audio": {}}])
def test_data_that_is_a_file_url_is_refused(url: str, part: Any) -> None:
    inner = {"file_data": url, "data": url}
    with pytest.raises(HttpError):
        reach_of(chat_of({"type": part["type"], part["type"]: inner}), "messages")


def test_content_that_nests_without_an_end_is_refused() -> None:
    block: Any = {"type": "text", "text": "x"}
    for _ in range(40):
        block = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
    with pytest.raises(HttpError):
        reach_of(chat_of(block), "messages")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://images.example.com/a.png", True),
        ("https://IMAGES.example.com:8443/a.png", True),
        ("https://images.example.com./a.png", True),
        ("https://cdn.example.org/a.png", True),
        ("https://example.org/a.png", False),
        ("https://images.example.com.evil.net/a.png", False),
        ("https://images.example.com@evil.net/a.png", False),
        ("https://evil.net\\@images.example.com/a.png", False),
        ("https://user:password@images.example.com/a.png", False),
        ("https://evil.net\\.example.org/a.png", False),
        ("https://evil.net/#@images.example.com/", False),
        ("https://evil.net?@images.example.com/", False),
        ("https://[images.example.com/a.png", False),
        ("ftp://images.example.com/a.png", False),
        ("http://192.168.0.1/a.png", False),
    ],
)
def test_only_a_host_that_the_operator_names_may_be_fetched_from(url: str, allowed: bool) -> None:
    assert may_fetch((url,), ("images.example.com", "*.example.org")) is allowed
    assert may_fetch((url, "https://images.example.com/"), ("images.example.com", "*.example.org")) is allowed


def fetched(tmp_path: Path, profile: str, tier: str, hosts: tuple[str, ...] = (), url: str = URL) -> Response:
    body = chat_of(text(), {"type": "image_url", "image_url": {"url": url}})
    if profile == "groq":
        body["model"] = "llama-3.3-70b-versatile"
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, profile, one, CHAT, body, tier=tier, media_hosts=hosts)
        assert bool(one.requests) is (done.status == 200)
        return done


@pytest.mark.parametrize("tier", ["standard", "private", "sovereign"])
def test_a_local_backend_fetches_nothing_in_any_tier_unless_the_operator_names_the_host(
    tmp_path: Path, tier: str
) -> None:
    done = fetched(tmp_path, "vllm", tier)
    assert (done.status, done.error["code"]) == (403, "privacy")
    assert "media_hosts" in done.error["message"]
    assert URL not in done.body.decode()
    assert fetched(tmp_path, "vllm", tier, hosts=("192.168.0.1",)).status == 200


CARRIES_OUT: dict[str, tuple[str, dict[str, Any]]] = {
    "web search of anthropic": (MESSAGES, {"tools": [{**WEB_SEARCH, "max_uses": 1}]}),
    "code execution": (MESSAGES, {"tools": [{"type": "code_execution_20250825", "name": "c", "max_uses": 1}]}),
    "a tool of next year": (MESSAGES, {"tools": [{"type": "send_mail_20270101", "name": "m", "max_uses": 1}]}),
    "mcp servers": (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://mcp.example.com", "name": "m"}]}),
    "container": (MESSAGES, {"container": "c1"}),
    "a file's id": (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
    ),
    "web search of chat": (CHAT, {"web_search_options": {"search_context_size": "low"}}),
    "web search of chat with its defaults": (CHAT, {"web_search_options": {}}),
    "store": (CHAT, {"store": True}),
    "plugins": (CHAT, {"plugins": [{"id": "web"}]}),
    "a file's id in chat": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
    ),
}


@pytest.mark.parametrize("what", CARRIES_OUT)
@pytest.mark.parametrize("tier", ["private", "sovereign"])
def test_what_hands_data_to_a_service_is_refused_under_the_stricter_tiers(tmp_path: Path, what: str, tier: str) -> None:
    path, change = CARRIES_OUT[what]
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, "vllm", one, path, chat_of(text()) | change, tier=tier)
    assert (done.status, one.requests) == (403, [])
    assert f"{tier} does not admit" in done.error["message"]


@pytest.mark.parametrize("what", CARRIES_OUT)
def test_under_standard_the_service_that_has_it_gets_it_as_it_came(tmp_path: Path, what: str) -> None:
    from batuta_cli.config import Budget

    path, change = CARRIES_OUT[what]
    profile, model = ("anthropic", CLAUDE) if path == MESSAGES else ("openai", "gpt-4o")
    body = chat_of(text(), **change) | {"model": model}
    if path == CHAT:
        body["max_completion_tokens"] = body.pop("max_tokens")
    with servers(answers(MESSAGE if path == MESSAGES else HI)) as [one]:
        done = asked(tmp_path, profile, one, path, body, budget=Budget(allow_unbounded_tools=True))
        assert done.status == 200, done.body
        assert one.requests[0][2] == body


@pytest.mark.parametrize(
    "what",
    [
        "web search of anthropic",
        "mcp servers",
        "container",
        "web search of chat",
        "web search of chat with its defaults",
    ],
)
def test_a_backend_without_hosted_tools_is_not_given_them(tmp_path: Path, what: str) -> None:
    path, change = CARRIES_OUT[what]
    with servers(answers(HI)) as [one]:
        done = asked(tmp_path, "vllm", one, path, chat_of(text()) | change)
    assert (done.status, one.requests) == (400, [])
    assert "its API has no hosted tools" in done.error["message"]


@pytest.mark.parametrize("nothing", [None, False, [], ""])
def test_a_field_without_a_value_asks_for_no_hosted_tool(nothing: Any) -> None:
    assert reach_of({"web_search_options": nothing, "mcp_servers": nothing, "store": nothing}) == reach_of({})


def test_tools_that_the_client_runs_are_no_hosted_tools() -> None:
    kinds = ["function", "custom", "bash_20250124", "text_editor_20250728", "computer_20250124", "memory_20250818"]
    tools = [{"type": kind, "name": "x"} for kind in kinds] + [{"name": "f", "input_schema": {}}]
    assert reach_of({"tools": tools}).hosted == ()


def test_a_limit_of_uses_bounds_a_hosted_tool() -> None:
    tools = [{**WEB_SEARCH, "max_uses": 3}, {"type": "web_fetch_20250910", "name": "w", "max_uses": 2}]
    reach = reach_of({"tools": tools})
    assert (reach.uses, reach.unbounded) == (5, ())
    assert reach.call_cost == 3 * 10_000_000  # 10 dollars for 1,000 searches; a fetch costs its tokens alone
    for limit in (None, 0, -1, "3", True, 10**9):
        assert reach_of({"tools": [{**WEB_SEARCH, "max_uses": limit}]}).unbounded == ("web_search_20250305",)
