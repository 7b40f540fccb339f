"""Tools of the Responses API become functions, and a function's name leads back to the tool."""

import json
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.responses_tools import DeclaredTool, ResponseTools, ToolKind, is_optional
from batuta_cli.serve.gateway.http_errors import HttpError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "parameters": SCHEMA}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch"'},
}
SPACE = {"type": "namespace", "name": "agents", "description": "Sub-agents.", "tools": [WEATHER]}


def tools(*declared: Any) -> ResponseTools:
    found = ResponseTools()
    found.add(list(declared))
    return found


def functions(*declared: Any) -> list[dict[str, Any]]:
    return [tool["function"] for tool in tools(*declared).functions]


def refused(work: Any) -> HttpError:
    with pytest.raises(HttpError) as raised:
        work()
    assert raised.value.status == 400
    return raised.value


def test_a_function_keeps_its_name_description_schema_and_strictness() -> None:
    declared = {**WEATHER, "description": "Tells it.", "strict": True}
    assert tools(declared).functions == [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True},
        }
    ]
    empty = {"type": "function", "name": "now", "parameters": None, "strict": None}
    assert functions(empty) == [{"name": "now", "parameters": {"type": "object", "properties": {}}}]


def test_a_custom_tool_becomes_a_function_with_one_text_whose_description_has_the_grammar() -> None:
    (function,) = functions(PATCH)
    assert function["name"] == "apply_patch"
    assert function["description"] == (
        'Edits files.\n\nThe input must match this lark grammar:\nstart: "*** Begin Patch"'
    )
    assert function["parameters"]["required"] == ["input"]
    assert function["parameters"]["properties"]["input"]["type"] == "string"
    assert tools(PATCH).origin("apply_patch") == DeclaredTool(ToolKind.CUSTOM, "apply_patch")


def test_functions_of_a_namespace_carry_its_name_and_are_found_again() -> None:
    found = tools(SPACE)
    assert [tool["function"]["name"] for tool in found.functions] == ["agents__weather"]
    assert found.functions[0]["function"]["description"] == "Sub-agents."
    assert found.origin("agents__weather") == DeclaredTool(ToolKind.FUNCTION, "weather", "agents")
    assert functions({**SPACE, "name": "mcp__git__"})[0]["name"] == "mcp__git__weather"


def test_a_name_that_is_too_long_ends_with_a_digest_and_stays_unique() -> None:
    long = [{**WEATHER, "name": "w" * 60 + end} for end in ("a", "b")]
    names = [function["name"] for function in functions({**SPACE, "tools": long})]
    assert [len(name) for name in names] == [64, 64]
    assert names[0] != names[1]


def test_a_search_for_tools_that_the_client_executes_is_a_function_and_another_is_left_out() -> None:
    search = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": SCHEMA}
    found = tools(search)
    assert functions(search) == [{"name": "tool_search", "description": "Finds tools.", "parameters": SCHEMA}]
    assert found.origin("tool_search").kind is ToolKind.SEARCH
    hosted = tools({"type": "tool_search"})
    assert (hosted.functions, hosted.dropped) == ([], {"tools.tool_search"})


@pytest.mark.parametrize("access", [True, False])
def test_a_request_can_do_without_the_search_that_codex_declares(access: bool) -> None:
    assert is_optional({"type": "web_search", "external_web_access": access})
    assert not is_optional({"type": "web_search"})
    assert not is_optional(WEATHER | {"external_web_access": access})


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "web_search", "external_web_access": True},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "mcp", "server_label": "x", "server_url": "https://example.com"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "local_shell"},
        {"type": "image_generation"},
    ],
)
def test_a_tool_that_only_openai_has_is_for_its_own_backends(tool: dict[str, Any]) -> None:
    found = tools(WEATHER, tool)
    assert found.native_only == {f"tools.{tool['type']}"}
    assert len(found.functions) == 1


def test_fields_that_no_chat_completion_has_are_named() -> None:
    assert tools({**WEATHER, "defer_loading": True, "output_schema": {"type": "object"}}).dropped == {
        "tools.defer_loading",
        "tools.output_schema",
    }


@pytest.mark.parametrize(
    ("tool", "about"),
    [
        ("weather", "an object"),
        ({"name": "weather"}, "with a type"),
        ({"type": "function", "parameters": {}}, "without a name"),
        ({"type": "function", "name": "f", "parameters": []}, "parameters"),
        ({"type": "function", "name": "f", "description": 7}, "description"),
        ({"type": "custom", "name": "c", "format": {"type": "xml"}}, "format"),
        ({"type": "namespace", "name": "n"}, "namespace"),
        ({"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}, "namespace"),
        ({"type": "tool_search", "execution": "client"}, "parameters"),
        ({"type": "x", "deep": json.loads("[" * 70 + "]" * 70)}, "levels"),
    ],
)
def test_a_malformed_tool_is_an_error_about_tools(tool: Any, about: str) -> None:
    error = refused(lambda: tools(tool))
    assert error.param == "tools"
    assert about in error.message


def test_two_tools_of_one_name_are_an_error_and_the_same_tool_twice_is_not() -> None:
    assert len(functions(WEATHER, WEATHER)) == 1
    error = refused(lambda: tools(WEATHER, {"type": "custom", "name": "weather"}))
    assert error.message == "tools has two tools with the same name"


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_in_one_word_stays(choice: str) -> None:
    assert tools(WEATHER).choice(choice) == {"tool_choice": choice}


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "weather"}, "weather"),
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "function", "name": "weather", "namespace": "agents"}, "agents__weather"),
    ],
)
def test_the_choice_of_a_tool_is_the_choice_of_its_function(choice: dict[str, Any], name: str) -> None:
    chosen = tools(WEATHER, PATCH, SPACE).choice(choice)
    assert chosen == {"tool_choice": {"type": "function", "function": {"name": name}}}


def test_allowed_tools_are_the_only_ones_that_are_left() -> None:
    found = tools(WEATHER, PATCH)
    allowed = [{"type": "custom", "name": "apply_patch"}]
    assert found.choice({"type": "allowed_tools", "mode": "required", "tools": allowed}) == {"tool_choice": "required"}
    assert [tool["function"]["name"] for tool in found.functions] == ["apply_patch"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "file_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}, {"type": "mcp"}]},
    ],
)
def test_the_choice_of_a_hosted_tool_is_for_openais_own_backends(choice: dict[str, Any]) -> None:
    found = tools(WEATHER)
    assert found.choice(choice) == {}
    assert found.native_only == {"tool_choice"}


@pytest.mark.parametrize(
    "choice",
    [
        "any",
        7,
        {"name": "weather"},
        {"type": "function", "name": "unknown"},
        {"type": "function"},
        {"type": "allowed_tools", "mode": "none", "tools": [WEATHER]},
        {"type": "allowed_tools", "mode": "auto", "tools": []},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "unknown"}]},
    ],
)
def test_another_choice_is_an_error_about_it(choice: Any) -> None:
    assert refused(lambda: tools(WEATHER).choice(choice)).param == "tool_choice"
