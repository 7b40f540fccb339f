"""A backend that speaks the Responses API itself gets the request as it came, and its events are relayed."""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Budget, ModelSection, Router
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.support import RESPONSES, Asking, Response, run
from tests.serve.support_backend import FaultServer, Script, chat_answer, response, stream_head
from tests.serve.support_pipeline import MODEL, backends, pipeline, servers, speaker

TEXT = "Zażółć gęślą jaźń, said the backend."
PATCH = {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "s"}}
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 70,
}
MESSAGE = {"id": "msg_up", "type": "message", "role": "assistant", "status": "completed"}


def event(number: int, kind: str, **fields: Any) -> bytes:
    data = {"type": f"response.{kind}", "sequence_number": number, **fields}
    return f"event: response.{kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def document(status: str, output: list[Any], **more: Any) -> dict[str, Any]:
    given = {"id": "resp_up", "object": "response", "created_at": 7, "model": MODEL, "status": status}
    return given | {"output": output, "from_upstream": True} | more


def opening(item: Mapping[str, Any]) -> list[bytes]:
    place: dict[str, Any] = {"output_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    return [
        event(0, "created", response=document("in_progress", [])),
        event(1, "in_progress", response=document("in_progress", [])),
        event(2, "output_item.added", item={**item, "status": "in_progress", "content": []}, **place),
        event(3, "content_part.added", item_id="msg_up", content_index=0, part=part, **place),
    ]


def words(text: str, first: int = 4) -> list[bytes]:
    place: dict[str, Any] = {"item_id": "msg_up", "output_index": 0, "content_index": 0, "logprobs": []}
    parts = [word + " " for word in text.split(" ")]
    parts[-1] = parts[-1].rstrip()
    return [event(first + n, "output_text.delta", delta=part, **place) for n, part in enumerate(parts)]


def stream(*extra: bytes) -> list[bytes]:
    """A stream as OpenAI sends it."""
    item = {**MESSAGE, "content": [{"type": "output_text", "text": TEXT, "annotations": []}]}
    done = event(20, "output_item.done", output_index=0, item=item)
    end = event(21, "completed", response=document("completed", [item], usage=USAGE))
    return [*opening(MESSAGE), *words(TEXT), *extra, done, end]


def whole(**more: Any) -> dict[str, Any]:
    item = {**MESSAGE, "content": [{"type": "output_text", "text": TEXT, "annotations": []}]}
    return document("completed", [item], usage=USAGE, **more)


def openai(path: str, headers: dict[str, str], body: Any) -> Script:
    if not path.endswith("/responses"):
        return [response(b'{"data": []}')]
    if body.get("stream"):
        return [stream_head(), *stream()]
    return [response(json.dumps(whole()).encode())]


def scripted(*events: bytes) -> Any:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        return [stream_head(), *events] if path.endswith("/responses") else [response(b'{"data": []}')]

    return script


def ask(
    tmp_path: Path,
    tables: Any,
    body: Mapping[str, Any],
    tier: PrivacyTier = PrivacyTier.STANDARD,
    path: str = RESPONSES,
    budget: Budget | None = None,
) -> tuple[Response, list[dict[str, Any]]]:
    """The answer of a gateway over these backends, and the log."""
    priced = ModelSection(
        context_window=100_000,
        output_reserve=64,
        input_usd_per_million=Decimal(1),
        output_usd_per_million=Decimal(2),
        cached_input_usd_per_million=Decimal("0.1"),
    )
    made = pipeline(tmp_path, tables, models={MODEL: priced}, router=Router(local_backend="one"), budget=budget)

    async def scenario(asking: Asking) -> tuple[Response, list[dict[str, Any]]]:
        done = await asking.ask(path, {"model": MODEL, "input": "Say it."} | dict(body))
        return done, asking.log

    found: tuple[Response, list[dict[str, Any]]] = run(tmp_path, scenario, GatewaySettings(privacy=tier), made)
    return found


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


def sent(server: FaultServer) -> dict[str, Any]:
    (body,) = [body for path, _, body in server.requests if path.endswith("/responses")]
    return dict(body)


BODY = {
    "instructions": "Be brief.",
    "tools": [PATCH, {"type": "web_search", "external_web_access": False}],
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "low", "summary": "auto", "context": "all_turns"},
    "text": {"verbosity": "low"},
    "prompt_cache_key": "k",
    "client_metadata": {"x-codex-installation-id": "0"},
    "truncation": "auto",
    "brand_new": {"a": [1]},
    "store": True,
    "max_output_tokens": 60,
}


def test_openai_gets_the_body_as_it_came_but_for_store(tmp_path: Path) -> None:
    with servers(openai) as [one]:
        budget = Budget(allow_unbounded_tools=True)
        done, log = ask(tmp_path, backends(one=("openai", one.base_url)), BODY, budget=budget)
        assert done.status == 200, done.body
        assert sent(one) == BODY | {"model": MODEL, "input": "Say it.", "store": False}
    assert done.json == whole()
    assert done.headers["x-batuta-cost"] == "0.000092"  # 10 at 1, 20 at 0.1, 40 at 2 dollars a million
    assert log[-1]["unknown_fields"] == ["brand_new"]
    assert done.headers["x-batuta-dropped"] == "store"


@pytest.mark.parametrize("access", [True, False])
@pytest.mark.parametrize(
    ("backend", "tier"),
    [
        ("openai", PrivacyTier.STANDARD),  # nothing limits the cost of its searches
        ("openai", PrivacyTier.SOVEREIGN),
        ("vllm", PrivacyTier.STANDARD),
        ("vllm", PrivacyTier.SOVEREIGN),
    ],
)
def test_the_search_that_codex_declares_is_left_out_where_it_cannot_be(
    tmp_path: Path, backend: str, tier: PrivacyTier, access: bool
) -> None:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        return speaker(TEXT)(path, headers, body) if path.endswith("completions") else openai(path, headers, body)

    tools = [PATCH, {"type": "web_search", "external_web_access": access}]
    with servers(script) as [one]:
        done, log = ask(tmp_path, backends(one=(backend, one.base_url)), BODY | {"tools": tools, "stream": True}, tier)
        assert done.status == 200, done.body
        (body,) = [body for path, _, body in one.requests if path.endswith(("completions", "/responses"))]
    assert [tool["type"] for tool in body["tools"]] == ["custom" if backend == "openai" else "function"]
    assert "tools.web_search" in log[-1]["dropped"]
    assert "tools.web_search" in done.headers["x-batuta-dropped"].split(", ")


def test_an_output_limit_is_added_where_money_needs_one(tmp_path: Path) -> None:
    with servers(openai) as [one]:
        ask(tmp_path, backends(one=("openai", one.base_url)), {})
        assert sent(one)["max_output_tokens"] == 64


def test_another_company_that_speaks_the_api_gets_no_field_that_names_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    with servers(openai) as [one]:
        done, _ = ask(tmp_path, backends(one=("azureopenai", one.base_url)), BODY)
        assert done.status == 200, done.body
        assert {"prompt_cache_key", "client_metadata"}.isdisjoint(sent(one))
        assert sent(one)["brand_new"] == {"a": [1]}
        assert "prompt_cache_key" in done.headers["x-batuta-dropped"]


def test_events_are_relayed_as_they_come_also_unknown_ones(tmp_path: Path) -> None:
    new = event(18, "brand_new.event", thing={"deep": [1, "Łódź"]})
    with servers(scripted(*stream(new))) as [one]:
        done, _ = ask(tmp_path, backends(one=("openai", one.base_url)), {"stream": True})
    body, _, comment = done.body.rpartition(b": batuta ")
    assert body == b"".join(stream(new))
    assert json.loads(comment)["cost_usd"] == "0.000092"
    assert done.complete


def test_another_backend_continues_the_message_of_the_first(tmp_path: Path) -> None:
    begun = [*opening(MESSAGE), *words("Zażółć gęślą ")[:-1]]
    with servers(scripted(*begun), speaker(TEXT)) as (one, two):
        tables = backends(one=("openai", one.base_url), two=("vllm", two.base_url))
        done, _ = ask(tmp_path, tables, {"stream": True})
    events = done.events
    assert "".join(each["delta"] for each in events if each["type"].endswith("text.delta")) == TEXT
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert {each["item_id"] for each in events if "item_id" in each} == {"msg_up"}
    assert len([each for each in events if each["type"] == "response.output_item.added"]) == 1
    last = events[-1]["response"]
    assert (events[-1]["type"], last["id"], last["status"]) == ("response.completed", "resp_up", "completed")
    assert last["output"][0]["id"] == "msg_up"
    assert last["output"][0]["content"][0]["text"] == TEXT
    assert json.loads(done.body.rpartition(b": batuta ")[2])["attempts"] == 2


def test_a_stream_that_fails_before_its_text_starts_over_elsewhere(tmp_path: Path) -> None:
    failed = event(4, "failed", response=document("failed", [], error={"code": "server_error", "message": "x"}))
    with servers(scripted(*opening(MESSAGE), failed), speaker(TEXT)) as (one, two):
        tables = backends(one=("openai", one.base_url), two=("vllm", two.base_url))
        done, _ = ask(tmp_path, tables, {"stream": True})
    events = done.events
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    assert b"msg_up" not in done.body


def test_half_a_call_of_a_backend_is_not_continued(tmp_path: Path) -> None:
    call = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "apply_patch", "input": ""}
    begun = [
        *opening(MESSAGE)[:2],
        event(2, "output_item.added", output_index=0, item=call),
        event(3, "custom_tool_call_input.delta", item_id="ctc_1", output_index=0, delta="*** Begin"),
    ]
    with servers(scripted(*begun), speaker(TEXT)) as (one, two):
        tables = backends(one=("openai", one.base_url), two=("vllm", two.base_url))
        done, _ = ask(tmp_path, tables, {"stream": True, "tools": [PATCH]})
    assert [each["sequence_number"] for each in done.events] == [0, 1, 2, 3, 4]
    assert (done.events[-1]["type"], done.events[-1]["response"]["id"]) == ("response.failed", "resp_up")
    assert not done.complete


def test_a_hosted_tool_needs_a_backend_that_has_it(tmp_path: Path) -> None:
    search = {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}
    with servers(speaker(TEXT)) as [one]:
        done, _ = ask(tmp_path, backends(one=("vllm", one.base_url)), search)
        assert not any(path.endswith("completions") for path, _, _ in one.requests)
    assert (done.status, done.error["code"]) == (400, "invalid_request")
    assert "tools.file_search" in done.error["message"]


@pytest.mark.parametrize("tier", [PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE])
@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"role": "user", "content": "x"}, {"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
    ],
)
def test_hosted_tools_and_kept_files_are_refused_under_the_strict_tiers(
    tmp_path: Path, tier: PrivacyTier, body: dict[str, Any]
) -> None:
    with servers(openai) as [one]:
        done, _ = ask(tmp_path, backends(one=("openai", one.base_url)), body, tier)
        assert (done.status, done.error["code"]) == (403, "privacy")
        assert not [path for path, _, _ in one.requests if path.endswith("/responses")]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "FILE:///etc/passwd"])
def test_a_file_url_is_refused(tmp_path: Path, url: str) -> None:
    content = [{"type": "input_image", "image_url": url, "detail": "auto"}]
    with servers(openai) as [one]:
        done, _ = ask(
            tmp_path, backends(one=("openai", one.base_url)), {"input": [{"role": "user", "content": content}]}
        )
    assert (done.status, done.error["code"]) == (400, "unsupported_url")


def test_openai_counts_its_own_input_tokens(tmp_path: Path) -> None:
    def counting(path: str, headers: dict[str, str], body: Any) -> Script:
        counted = {"object": "response.input_tokens", "input_tokens": 11}
        return [response(json.dumps(counted if path.endswith("/input_tokens") else {"data": []}).encode())]

    body = {"instructions": "Be brief.", "tools": [PATCH]}
    with servers(counting) as [one]:
        done, _ = ask(tmp_path, backends(one=("openai", one.base_url)), body, path=RESPONSES + "/input_tokens")
        (sent_body,) = [each for path, _, each in one.requests if path.endswith("/input_tokens")]
    assert (done.json["input_tokens"], done.headers["x-batuta-count"]) == (11, "exact")
    assert sent_body == {"model": MODEL, "input": "Say it.", "instructions": "Be brief.", "tools": [PATCH]}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_without_the_route_is_asked_for_a_chat_completion(tmp_path: Path, streamed: bool) -> None:
    def script(path: str, headers: dict[str, str], body: Any) -> Script:
        if path.endswith("/responses"):
            return [response(b'{"error": {"message": "no such route"}}', status="404 Not Found")]
        if not path.endswith("/completions"):
            return [response(b'{"data": []}')]
        return speaker(TEXT)(path, headers, body) if streamed else [response(chat_answer(TEXT))]

    with servers(script) as [one]:
        done, _ = ask(tmp_path, backends(one=("openai", one.base_url)), {"stream": streamed})
        assert done.status == 200, done.body
        assert [path for path, _, _ in one.requests][-1] == "/v1/chat/completions"
    answer = done.events[-1]["response"] if streamed else done.json
    assert answer["output"][0]["content"][0]["text"] == TEXT
