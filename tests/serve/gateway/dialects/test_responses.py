"""OpenAI's Responses API: what is asked becomes a chat completion, and the answer is the same, streamed or whole."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.serve.gateway.dialects.responses import Responses
from batuta_cli.serve.gateway.http_errors import HttpError
from tests.serve.gateway.support import RESPONSES, Response, ask

DATA = Path(__file__).resolve().parents[3] / "data"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
SEARCH = {"type": "web_search", "external_web_access": False}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files."}


def request(model: str = "echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": "one two three"} | more


def options(**fields: Any) -> dict[str, Any]:
    return dict(Responses().read(request(**fields)).options or {})


def refused(**fields: Any) -> HttpError:
    with pytest.raises(HttpError) as raised:
        Responses().read(request(**fields))
    assert raised.value.status == 400
    return raised.value


def streamed(tmp_path: Path, body: dict[str, Any]) -> Response:
    return ask(tmp_path, RESPONSES, body | {"stream": True})


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    """A response object with the parts that differ from one request to the next taken out."""
    name = response["id"].removeprefix("resp_")
    found: dict[str, Any] = json.loads(json.dumps(response).replace(name, "NAME"))
    found.pop("created_at")
    return found


# Requests.


def test_the_fields_of_a_request_become_those_of_a_chat_completion() -> None:
    parsed = Responses().read(
        request(
            instructions="Be brief.",
            max_output_tokens=77,
            temperature=0.5,
            top_p=0.9,
            reasoning={"effort": "low", "summary": "auto"},
            text={"verbosity": "low", "format": {"type": "json_object"}},
            tools=[WEATHER, PATCH],
            tool_choice={"type": "custom", "name": "apply_patch"},
            parallel_tool_calls=False,
            top_logprobs=3,
            stream=True,
        )
    )
    assert [message.to_dict() for message in parsed.messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one two three"},
    ]
    assert (parsed.max_tokens, parsed.stream, parsed.dropped, parsed.native_only) == (77, True, (), ())
    given = dict(parsed.options or {})
    assert [tool["function"]["name"] for tool in given.pop("tools")] == ["weather", "apply_patch"]
    assert given == {
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_object"},
        "tool_choice": {"type": "function", "function": {"name": "apply_patch"}},
        "parallel_tool_calls": False,
        "logprobs": True,
        "top_logprobs": 3,
    }


def test_a_json_schema_has_its_name_schema_and_strictness() -> None:
    schema = {"type": "object", "properties": {}}
    format = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True, "description": None}
    assert options(text={"format": format}) == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    }
    assert options(text={"format": {"type": "text"}}) == {}


def test_log_probabilities_may_be_asked_for_by_include() -> None:
    assert options(include=["message.output_text.logprobs"]) == {"logprobs": True}
    assert options(include=["reasoning.encrypted_content"]) == {}


def test_choices_about_tools_are_not_sent_without_tools() -> None:
    assert options(tool_choice="auto", parallel_tool_calls=True) == {}
    assert refused(tool_choice="required").param == "tool_choice"


def test_fields_of_local_servers_and_unknown_fields_are_sent_on() -> None:
    parsed = Responses().read(request(chat_template_kwargs={"enable_thinking": False}, top_k=40, brand_new=[1]))
    assert parsed.options == {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 40, "brand_new": [1]}
    assert parsed.unknown == ("brand_new",)


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"user": "u"}, "user"),
        ({"safety_identifier": "u"}, "safety_identifier"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key"),
        ({"client_metadata": {"x-codex-installation-id": "0"}}, "client_metadata"),
        ({"truncation": "auto"}, "truncation"),
        ({"store": True}, "store"),
        ({"include": ["web_search_call.action.sources"]}, "include"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"context_management": [{"type": "compaction", "compact_threshold": 9}]}, "context_management"),
    ],
)
def test_what_a_translated_request_leaves_out_is_named(fields: dict[str, Any], dropped: str) -> None:
    parsed = Responses().read(request(**fields))
    assert parsed.dropped == (dropped,)
    assert parsed.options == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"truncation": "disabled"},
        {"background": False},
        {"reasoning": {"mode": "standard"}},
        {"n": 1},
    ],
)
def test_values_that_ask_for_nothing_are_not_named(fields: dict[str, Any]) -> None:
    parsed = Responses().read(request(**fields))
    assert (parsed.dropped, parsed.native_only) == ((), ())


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools.file_search"),
        ({"input": [{"role": "user", "content": "x"}, {"type": "mcp_call"}]}, "input.mcp_call"),
        ({"moderation": {"model": "omni"}}, "moderation"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
    ],
)
def test_what_only_openai_has_is_named_for_the_choice_of_a_backend(fields: dict[str, Any], needs: str) -> None:
    assert Responses().read(request(**fields)).native_only == (needs,)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"previous_response_id": "resp_1"}, "send the whole conversation in input"),
        ({"conversation": "conv_1"}, "send the whole conversation in input"),
        ({"background": True}, "batuta keeps no responses"),
        ({"prompt": {"id": "pmpt_1"}}, "instructions and input"),
        ({"n": 2}, "one text"),
    ],
)
def test_stored_state_is_refused_in_words(fields: dict[str, Any], word: str) -> None:
    error = refused(**fields)
    assert (error.code, error.param) == ("unsupported_field", next(iter(fields)))
    assert word in error.message


def test_a_reference_to_an_item_is_refused_in_words() -> None:
    error = refused(input=[{"role": "user", "content": "x"}, {"type": "item_reference", "id": "msg_1"}])
    assert (error.code, error.param) == ("invalid_messages", "input")
    assert error.message == "input: item 2: is a reference; send the item itself, because batuta keeps no responses"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"model": ""}, "model"),
        ({"instructions": 7}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"verbosity": 7}}, "text.verbosity"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort"),
        ({"include": "all"}, "include"),
        ({"tools": {}}, "tools"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_wrong_field_is_an_error_about_it(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@pytest.mark.parametrize(
    "choice", [{"type": "web_search"}, {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH]}]
)
def test_a_search_that_the_choice_of_tools_names_is_needed(choice: dict[str, Any]) -> None:
    parsed = Responses().read(request(tools=[WEATHER, SEARCH], tool_choice=choice))
    assert (parsed.native_only, parsed.without_optional) == (("tool_choice", "tools.web_search"), None)


@pytest.mark.parametrize("number", [0, 1])
def test_the_first_request_of_codex_is_understood(tmp_path: Path, number: int) -> None:
    body = json.loads((DATA / "codex_0.169.0.json").read_text())[number]["body"]
    parsed = Responses().read(body)
    assert (set(parsed.dropped), parsed.native_only) == ({"client_metadata", "prompt_cache_key"}, ("tools.web_search",))
    less = parsed.without_optional
    assert less is not None
    assert (set(less.dropped), less.native_only) == ({*parsed.dropped, "tools.web_search"}, ())
    assert (parsed.unknown, less.options, less.messages) == ((), parsed.options, parsed.messages)
    assert [str(message.role) for message in parsed.messages] == ["system", "user", "user"]
    names = [tool["function"]["name"] for tool in (parsed.options or {})["tools"]]
    assert "exec_command" in names
    assert ("apply_patch" in names, "tool_search" in names, "multi_agent_v1__spawn_agent" in names) == (
        (False, False, True) if number == 0 else (True, True, False)
    )
    done = ask(tmp_path, RESPONSES, body | {"model": "echo"})
    assert done.status == 200
    assert done.events[-1]["type"] == "response.completed"
    assert done.events[-1]["response"]["tools"] == body["tools"]


PARTS: list[dict[str, Any]] = [
    {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
    {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
    {"type": "input_file", "file_data": "data:,x", "filename": "a"},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
]
EVERYTHING: dict[str, Any] = {
    "model": "echo",
    "instructions": "x",
    "input": [
        {"role": "developer", "content": "x"},
        {"type": "message", "role": "user", "content": PARTS},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}", "namespace": "n"},
        {"type": "custom_tool_call", "call_id": "b", "name": "apply_patch", "input": "x"},
        {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"query": "x"}},
        {"type": "function_call_output", "call_id": "a", "output": PARTS},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "x"},
        {
            "type": "tool_search_output",
            "call_id": "c",
            "tools": [{"type": "namespace", "name": "n", "tools": [WEATHER]}],
        },
        {"type": "additional_tools", "tools": [{"type": "custom", "name": "z"}]},
        {"type": "mcp_call", "id": "x"},
    ],
    "tools": [
        WEATHER,
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
        {"type": "web_search", "external_web_access": True},
        {"type": "mcp", "server_label": "x"},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "metadata": {"a": "b"},
    "stream": True,
}
JUNK: list[Any] = [None, True, 0, -1, 1.5, "", "x", "\0", [], {}, [None], [[]], {"type": None}, {"type": "x"}, {"a": 1}]
CHANGES = st.lists(st.tuples(st.integers(0, 500), st.none() | st.integers(0, len(JUNK) - 1)), min_size=1, max_size=3)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@settings(max_examples=300)
@given(CHANGES)
def test_a_request_with_anything_wrong_anywhere_is_read_or_refused_with_its_field(
    changes: list[tuple[int, int | None]],
) -> None:
    body = json.loads(json.dumps(EVERYTHING))
    for number, junk in changes:
        found = places(body)
        container, key = found[number % len(found)]
        if junk is None:
            del container[key]
        else:
            container[key] = json.loads(json.dumps(JUNK[junk]))
    try:
        parsed = Responses().read(body)
    except HttpError as error:
        assert (error.status, bool(error.param)) == (400, True)
    else:
        Responses().reply(parsed, "NAME", 0).begin()


# Responses.


def test_a_response_has_what_the_reference_lists(tmp_path: Path) -> None:
    body = ask(tmp_path, RESPONSES, request(input="Hello there", metadata={"a": "b"}, store=True, temperature=0.5)).json
    assert without_ids(body) == {
        "id": "resp_NAME",
        "object": "response",
        "model": "echo",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [
            {
                "id": "msg_NAME_0",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello there"}],
            }
        ],
        "usage": {
            "input_tokens": 2,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 4,
        },
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "store": False,
        "background": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": None,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }


@pytest.mark.parametrize("model", ["echo", "tools", "whole-tools", "thinking", "more", "custom", "refuses", "filtered"])
@pytest.mark.parametrize("summary", [None, "auto"])
def test_a_streamed_response_ends_with_what_a_whole_one_is(tmp_path: Path, model: str, summary: str | None) -> None:
    body = request(
        model, tools=[WEATHER, PATCH], reasoning={"summary": summary}, include=["reasoning.encrypted_content"]
    )
    whole = ask(tmp_path, RESPONSES, body).json
    events = streamed(tmp_path, body).events
    assert events[-1]["type"] == f"response.{whole['status']}"
    assert without_ids(events[-1]["response"]) == without_ids(whole)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        ("echo", "completed", None),
        ("tools", "completed", None),
        ("more", "incomplete", {"reason": "max_output_tokens"}),
        ("filtered", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_end_of_the_text_is_the_status(tmp_path: Path, model: str, status: str, reason: Any) -> None:
    body = ask(tmp_path, RESPONSES, request(model)).json
    assert (body["status"], body["incomplete_details"]) == (status, reason)
    if body["output"]:
        assert body["output"][-1]["status"] == status


def test_an_error_before_the_response_has_openais_format(tmp_path: Path) -> None:
    done = ask(tmp_path, RESPONSES, request(model="over-budget"))
    assert (done.status, done.error["code"], done.error["type"]) == (402, "budget_exceeded", "billing_error")
    done = ask(tmp_path, RESPONSES, request(previous_response_id="resp_1"))
    assert (done.status, done.error["code"], done.error["param"]) == (400, "unsupported_field", "previous_response_id")


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("path", ["resp_1", "resp_1/input_items", "resp_1/cancel", "compact"])
def test_the_routes_of_a_stored_response_say_that_there_are_none(tmp_path: Path, method: str, path: str) -> None:
    done = ask(tmp_path, f"{RESPONSES}/{path}", {} if method == "POST" else None, method=method)
    assert (done.status, done.error["code"]) == (404, "no_stored_responses")
    assert "send the whole conversation to POST /v1/responses" in done.error["message"]
