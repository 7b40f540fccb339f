"""Requests that are not what they should be: each has its status, names its field, and quotes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.serve.gateway.connection import ConnectionLimits
from batuta_cli.serve.gateway.dialects.anthropic_fields import MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.openai_fields import CHAT_FIELDS, SERVER_FIELDS
from batuta_cli.serve.gateway.state import GatewaySettings
from tests.serve.gateway.support import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    Asking,
    ask,
    chat,
    message,
    run,
)

SECRET = "xyzzy-secret"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


BODIES = {
    "empty": b"",
    "text": b"hello " + SECRET.encode(),
    "half": b'{"model": "' + SECRET.encode(),
    "list": b"[1]",
    "null": b"null",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "lone surrogate": rb'{"model": "echo", "messages": [{"role": "user", "content": "\ud800"}]}',
    "NaN": b'{"model": "echo", "temperature": NaN}',
    "very deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "UTF-16": '{"model": "echo"}'.encode("utf-16"),
}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, path: str, name: str) -> None:
    done = ask(tmp_path, path, BODIES[name])
    assert (done.status, done.error["type"], done.error["code"]) == (400, "invalid_request_error", "invalid_json")
    assert SECRET not in done.body.decode()


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "empty model": ({"model": ""}, "model"),
    "model number": ({"model": 7}, "model"),
    "long model": ({"model": "m" * 201}, "model"),
    "model with a line": ({"model": "a\nb"}, "model"),
    "no messages": ({"messages": None}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages text": ({"messages": SECRET}, "messages"),
    "unknown role": ({"messages": [{"role": "robot", "content": SECRET}]}, "messages"),
    "no content": ({"messages": [{"role": "user"}]}, "messages"),
    "image": ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": SECRET}]}]}, "messages"),
    "NUL": ({"messages": [{"role": "user", "content": SECRET + "\0"}]}, "messages"),
    "result without call": ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages"),
    "max_tokens negative": ({"max_tokens": -1}, "max_tokens"),
    "max_tokens zero": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens huge": ({"max_tokens": 10**12}, "max_tokens"),
    "max_tokens enormous": ({"max_tokens": 10**40}, "max_tokens"),
    "max_tokens true": ({"max_tokens": True}, "max_tokens"),
    "max_tokens fraction": ({"max_tokens": 1.5}, "max_tokens"),
    "max_tokens text": ({"max_tokens": "100"}, "max_tokens"),
    "max_completion_tokens": ({"max_completion_tokens": -5}, "max_completion_tokens"),
    "two limits": ({"max_completion_tokens": 5, "max_tokens": 6}, "max_tokens"),
    "n of 1,000": ({"n": 1000}, "n"),
    "n zero": ({"n": 0}, "n"),
    "n true": ({"n": True}, "n"),
    "temperature": ({"temperature": "hot"}, "temperature"),
    "temperature true": ({"temperature": True}, "temperature"),
    "stream": ({"stream": "yes"}, "stream"),
    "stream number": ({"stream": 1}, "stream"),
    "stream_options": ({"stream": True, "stream_options": 1}, "stream_options"),
    "include_usage": ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "stop": ({"stop": [1]}, "stop"),
    "many stops": ({"stop": ["x"] * 17}, "stop"),
    "logit_bias": ({"logit_bias": []}, "logit_bias"),
    "seed": ({"seed": 1.5}, "seed"),
    "response_format": ({"response_format": "json"}, "response_format"),
    "response_format deep": ({"response_format": {"type": "json_schema", "x": nested(100)}}, "response_format"),
    "tools": ({"tools": "f"}, "tools"),
    "no tools": ({"tools": []}, "tools"),
    "tool without function": ({"tools": [{"type": "function"}]}, "tools"),
    "tool without name": ({"tools": [{"type": "function", "function": {}}]}, "tools"),
    "tool of another type": ({"tools": [TOOL | {"type": "custom"}]}, "tools"),
    "tool parameters": ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, "tools"),
    "tool deep": ({"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(200)}}]}, "tools"),
    "custom tool without name": ({"tools": [{"type": "custom", "custom": {}}]}, "tools"),
    "tool without type": ({"tools": [{"name": "f"}]}, "tools"),
    "tool_choice without type": ({"tools": [TOOL], "tool_choice": {"name": "f"}}, "tool_choice"),
    "tool_choice": ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    "tool_choice object": ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "audio": ({"audio": {"voice": "a"}}, "audio"),
    "modalities": ({"modalities": ["text", "audio"]}, "modalities"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_field_that_is_wrong_is_named_and_nothing_is_quoted(tmp_path: Path, name: str) -> None:
    change, param = WRONG[name]

    async def scenario(asking: Asking) -> None:
        done = await asking.ask(CHAT, chat() | change)
        assert (done.status, done.error["type"], done.error["param"]) == (400, "invalid_request_error", param)
        assert set(done.error) == {"message", "type", "param", "code"}
        assert SECRET not in done.body.decode() + asking.log_text
        assert asking.pipeline.requests == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "change",
    [{"prompt": None}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"suffix": "x"}, {"echo": True}, {"best_of": 3}],
)
def test_a_completion_that_cannot_be_had_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    done = ask(tmp_path, COMPLETIONS, {"model": "echo", "prompt": "x"} | change)
    assert (done.status, done.error["param"]) == (400, next(iter(change)))


def test_fields_of_the_api_and_unknown_ones_are_passed_on_and_what_names_a_user_is_not(tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "n": 2,
        "seed": 7,
        "stop": "END",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"},
        "grammar": "root ::= [a-z]+",
        "chat_template_kwargs": {"enable_thinking": False},
        "of_next_year": [1],
    }
    more: dict[str, Any] = {"user": "u", "metadata": {}, "logprobs": None}

    async def scenario(asking: Asking) -> None:
        assert (await asking.ask(CHAT, chat(max_completion_tokens=9, **good, **more))).status == 200
        request = asking.pipeline.requests[0]
        assert dict(request.options) == good
        assert (request.max_tokens, request.stream, request.model) == (9, False, "echo")

    run(tmp_path, scenario)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    ({"prompt", "grammar", "of_next_year"} | CHAT_FIELDS.keys() | MESSAGE_FIELDS.keys()) - SERVER_FIELDS.keys()
)
FIELDS += ["input", "options", "format", "think", "keep_alive", "images", "dimensions", "encoding_format"]
POSTS = [CHAT, COMPLETIONS, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE, "/v1/embeddings", "/api/embed", "/api/embeddings"]


@settings(max_examples=300)
@given(st.sampled_from(POSTS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_no_json_makes_anything_but_an_answer_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, path: str, change: dict[str, Any]
) -> None:
    body = message(prompt="x", input="x") | change
    done = ask(tmp_path_factory.getbasetemp(), path, body)
    assert done.status in (200, 400, 404)


BLOCKS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image"]) | JSON,
            "text": st.text(max_size=5) | JSON,
            "id": st.just("a") | JSON,
            "tool_use_id": st.just("a") | JSON,
            "name": st.just("f") | JSON,
            "input": JSON,
            "content": JSON,
        },
    ),
    max_size=3,
)


@settings(max_examples=150)
@given(
    st.sampled_from([CHAT, MESSAGES]),
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "tool", "x"]) | JSON, "content": BLOCKS | JSON},
            optional={"tool_calls": JSON, "name": JSON, "tool_call_id": JSON},
        ),
        max_size=3,
    ),
)
def test_no_conversation_makes_anything_but_an_answer_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, path: str, messages: list[Any]
) -> None:
    done = ask(tmp_path_factory.getbasetemp(), path, message() | {"messages": messages})
    assert done.status in (200, 400)


def test_a_body_over_the_limit_is_refused_by_its_declared_length_and_by_its_true_one(tmp_path: Path) -> None:
    small = GatewaySettings(limits=ConnectionLimits(body_bytes=1000))
    big = json.dumps(chat(text="x" * 1000)).encode()
    for headers in ({"content-length": str(len(big))}, {}, {"content-length": "9" * 30}):
        done = ask(tmp_path, CHAT, big, headers=headers, settings=small)
        assert (done.status, done.error["code"]) == (413, "body_too_large")
    # Before a byte of it is there:
    assert ask(tmp_path, CHAT, b"", headers={"content-length": "1001"}, settings=small).status == 413
    fits = json.dumps(chat(text="x")).encode()
    assert ask(tmp_path, CHAT, fits.ljust(1000), settings=small).status == 200
    assert ask(tmp_path, CHAT, fits.ljust(1001), settings=small).status == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_is_not_declared_as_json_is_refused(tmp_path: Path, kind: str) -> None:
    done = ask(tmp_path, CHAT, chat(), headers={"content-type": kind})
    assert (done.status, done.error["code"]) == (415, "content_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_declared_in_any_spelling(tmp_path: Path, kind: str) -> None:
    assert ask(tmp_path, CHAT, chat(), headers={"content-type": kind}).status == 200


def test_an_unknown_address_and_a_wrong_method_are_told_in_openais_shape(tmp_path: Path) -> None:
    for path in ("/v1", "/v1/nothing", "/v2/x"):
        done = ask(tmp_path, path, chat())
        assert (done.status, done.error["code"]) == (404, "not_found")
    for path, method, allow in ((CHAT, "GET", "POST"), ("/v1/models", "POST", "GET, HEAD"), ("/health", "POST", "GET")):
        done = ask(tmp_path, path, chat(), method=method)
        assert (done.status, done.error["code"]) == (405, "method_not_allowed")
        assert done.headers["allow"].startswith(allow)


def test_an_unknown_model_is_404_when_the_models_are_known(tmp_path: Path) -> None:
    done = ask(tmp_path, CHAT, chat("no-such-model"))
    assert (done.status, done.error["code"], done.error["param"]) == (404, "model_not_found", "model")
