"""Clients of OpenAI's and Anthropic's APIs over the real llama.cpp, which speaks both: nothing is lost on the way."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import BackendSection, Config, Privacy
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.support import CHAT, MESSAGES, Response, ask
from tests.serve.support_server import running_llamacpp

MODEL = "smollm2-135m"
COUNT = "/v1/messages/count_tokens"
CLAUDE_CODE = Path(__file__).parents[1] / "data" / "claude_code_2.1.197.json"


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[str]:
    with running_llamacpp(gguf) as base_url:
        yield base_url


def asked(tmp_path: Path, server: str, path: str, body: Any, **more: Any) -> Response:
    config = Config(backends={"llamacpp": BackendSection(base_url=server)}, privacy=Privacy(tier="sovereign"))
    made = Pipeline(config, audit=AuditLog(tmp_path / "audit"), watch=True)  # as the gateway does: probed at the start
    settings = GatewaySettings(PrivacyTier.SOVEREIGN)
    return ask(tmp_path, path, body, pipeline=made, settings=settings, **more)


def direct(server: str, path: str, body: Any) -> Any:
    """What the server itself answers."""
    host = server.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=120)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return answer


def message(**more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Name a colour."}]
    return {"model": MODEL, "max_tokens": 6, "temperature": 0, "messages": turns} | more


def test_a_message_is_the_servers_own(tmp_path: Path, server: str) -> None:
    done = asked(tmp_path, server, MESSAGES, message(metadata={"user_id": "u"}))
    expected = direct(server, MESSAGES, message())
    assert done.status == 200
    assert done.headers["x-batuta-dropped"] == "metadata"
    assert done.json.keys() == expected.keys()
    assert done.json["content"] == expected["content"]
    assert done.json["stop_reason"] == "max_tokens"


def test_the_count_is_the_prompt_that_the_server_reads(tmp_path: Path, server: str) -> None:
    body = message(system=[{"type": "text", "text": "Be terse."}])
    counted = asked(tmp_path, server, COUNT, {name: body[name] for name in ("model", "system", "messages")})
    usage = asked(tmp_path, server, MESSAGES, body).json["usage"]
    assert counted.headers["x-batuta-count"] == "exact"
    assert counted.json["input_tokens"] == usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_requests_of_claude_code_stream_and_are_counted_exactly(
    tmp_path: Path, server: str, number: int
) -> None:
    entry = json.loads(CLAUDE_CODE.read_text())[number]
    headers = {name: value for name, value in entry["headers"].items() if name.startswith("anthropic-")}
    body = entry["body"] | {"model": MODEL, "max_tokens": 6}
    done = asked(tmp_path, server, MESSAGES, body, headers=headers)
    kinds = [event["type"] for event in done.events]
    assert (done.status, done.complete) == (200, True), done.body
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    usage = done.events[0]["message"]["usage"]
    counted = asked(tmp_path, server, COUNT, {n: body[n] for n in body if n not in ("max_tokens", "stream")})
    assert counted.headers["x-batuta-count"] == "exact"
    assert counted.json["input_tokens"] == usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


def test_an_image_for_a_model_without_eyes_is_refused_in_words_and_the_model_goes_on(
    tmp_path: Path, server: str
) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    done = asked(tmp_path, server, MESSAGES, message(messages=[{"role": "user", "content": [image]}]))
    assert (done.status, done.error["type"]) == (400, "invalid_request_error")
    assert "its API has no images" in done.error["message"]


def test_a_grammar_and_variables_of_the_template_reach_the_server(tmp_path: Path, server: str) -> None:
    turns = [{"role": "user", "content": "Name a colour."}]
    body = {"model": MODEL, "max_tokens": 8, "messages": turns, "grammar": 'root ::= "teal"'}
    body |= {"chat_template_kwargs": {"enable_thinking": False}, "cache_prompt": False}
    done = asked(tmp_path, server, CHAT, body)
    assert done.json["choices"][0]["message"]["content"] == "teal"
    assert "timings" in done.json  # llama.cpp's own field
    stream = asked(tmp_path, server, CHAT, body | {"stream": True})
    texts = [c["delta"].get("content") or "" for e in stream.events if e != "[DONE]" for c in e["choices"]]
    assert "".join(texts) == "teal"
    assert stream.events[-1] == "[DONE]"
    assert not any("usage" in event for event in stream.events[:-1])
