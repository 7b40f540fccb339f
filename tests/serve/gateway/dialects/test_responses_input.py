"""The input of the Responses API becomes the messages of a chat completion."""

import json
from typing import Any

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.gateway.dialects.responses_input import InputReader, encoded_reasoning
from batuta_cli.serve.gateway.dialects.responses_tools import ResponseTools

CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Łódź"}', "id": "fc_1"}
SEEN = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def reader(*items: Any, instructions: str = "") -> InputReader:
    found = InputReader(ResponseTools())
    if instructions:
        found.instructions(instructions)
    found.add(list(items))
    return found


def messages(*items: Any, instructions: str = "") -> list[dict[str, Any]]:
    return [message.to_dict() for message in reader(*items, instructions=instructions).messages()]


def error(*items: Any) -> str:
    with pytest.raises(InvalidInputError) as raised:
        messages(*items)
    return raised.value.message


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_text_is_a_message_of_the_user() -> None:
    found = InputReader(ResponseTools())
    found.add("Hello")
    assert [message.to_dict() for message in found.messages()] == [user("Hello")]


def test_messages_of_every_role_with_text_or_parts() -> None:
    assert messages(
        user("One"),
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Two", "annotations": []}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "Three"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "status": "completed", "id": "msg_1"},
        {"role": "developer", "content": "Later"},
    ) == [
        user("One"),
        {"role": "assistant", "content": "Two"},
        user("Three"),
        {"role": "assistant", "content": "No."},
        {"role": "system", "content": "Later"},
    ]


def test_instructions_and_the_first_system_messages_are_one_message() -> None:
    parts = [{"type": "input_text", "text": "C"}, {"type": "input_text", "text": "D"}]
    assert messages(
        {"role": "system", "content": "B"}, {"role": "developer", "content": parts}, user("Hi"), instructions="A"
    ) == [{"role": "system", "content": "A\n\nB\n\nC\n\nD"}, user("Hi")]


def test_several_texts_stay_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"role": "user", "content": parts}) == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_reasoning_text_and_calls_of_an_assistant_are_one_message() -> None:
    assert messages(
        user("Weather?"),
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hmm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        CALL,
        {**CALL, "call_id": "c2", "name": "time", "arguments": ""},
        SEEN,
        {**SEEN, "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        {"role": "user", "content": "Thanks"},
    )[1:] == [
        {
            "role": "assistant",
            "reasoning_content": "Hmm.",
            "content": "I look.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Łódź"}'}},
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        user("Thanks"),
    ]


def test_reasoning_comes_from_the_content_then_from_what_the_gateway_encoded_then_from_the_summary() -> None:
    summary = [{"type": "summary_text", "text": "Sum."}]
    items = [
        {"type": "reasoning", "summary": summary, "content": [{"type": "reasoning_text", "text": "Content."}]},
        {"type": "reasoning", "summary": summary, "encrypted_content": encoded_reasoning("Encoded Łódź.")},
        {"type": "reasoning", "summary": summary, "content": None},
    ]
    for item, text in zip(items, ("Content.", "Encoded Łódź.", "Sum."), strict=True):
        found = messages(user("x"), item, {"role": "assistant", "content": "y"})
        assert found[1] == {"role": "assistant", "reasoning_content": text, "content": "y"}


@pytest.mark.parametrize("content", ["gAAAAABforeign", "batuta1.!!", "batuta1./w=="])
def test_encrypted_reasoning_of_another_service_is_left_out_and_named(content: str) -> None:
    found = reader(user("x"), {"type": "reasoning", "summary": [], "encrypted_content": content})
    assert len(found.messages()) == 1
    assert found.dropped == {"input.encrypted_content"}


def test_a_custom_call_is_a_call_whose_argument_is_its_text() -> None:
    call = {"type": "custom_tool_call", "call_id": "c9", "name": "apply_patch", "input": '*** "Begin"\nŁ'}
    found = messages(user("x"), call, {"type": "custom_tool_call_output", "call_id": "c9", "output": "Done"})
    function = found[1]["tool_calls"][0]["function"]
    assert function["name"] == "apply_patch"
    assert json.loads(function["arguments"]) == {"input": '*** "Begin"\nŁ'}
    assert found[2] == {"role": "tool", "tool_call_id": "c9", "content": "Done"}


def test_a_call_in_a_namespace_has_the_functions_name() -> None:
    found = messages(user("x"), {**CALL, "namespace": "agents"})
    assert found[1]["tool_calls"][0]["function"]["name"] == "agents__weather"


def test_a_search_for_tools_is_a_call_and_what_it_found_is_declared() -> None:
    tool = {"type": "function", "name": "spawn", "parameters": {"type": "object"}}
    call = {"type": "tool_search_call", "execution": "client", "call_id": "s1", "arguments": {"query": "agents"}}
    output = {
        "type": "tool_search_output",
        "call_id": "s1",
        "tools": [{"type": "namespace", "name": "a", "tools": [tool]}],
    }
    tools = ResponseTools()
    found = InputReader(tools)
    found.add([user("x"), call, output])
    sent = [message.to_dict() for message in found.messages()]
    assert sent[1]["tool_calls"][0]["function"] == {"name": "tool_search", "arguments": '{"query": "agents"}'}
    assert sent[2] == {"role": "tool", "tool_call_id": "s1", "content": "Found tools: a__spawn"}
    assert [tool["function"]["name"] for tool in tools.functions] == ["a__spawn"]


def test_additional_tools_are_declared() -> None:
    tools = ResponseTools()
    found = InputReader(tools)
    declared = [{"type": "custom", "name": "late"}]
    found.add([user("x"), {"type": "additional_tools", "role": "developer", "tools": declared}])
    assert [tool["function"]["name"] for tool in tools.functions] == ["late"]


def test_images_files_and_sounds_become_parts_of_a_chat_completion() -> None:
    parts = [
        {"type": "input_text", "text": "Look"},
        {"type": "input_image", "image_url": IMAGE, "detail": "high"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]
    assert messages({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ]


def test_an_image_in_a_result_follows_the_results_as_a_message_of_the_user() -> None:
    seen = {**SEEN, "output": [{"type": "input_text", "text": "A map"}, {"type": "input_image", "image_url": IMAGE}]}
    other = {**CALL, "call_id": "c2"}
    found = messages(user("x"), CALL, other, seen, {**SEEN, "call_id": "c2"}, user("y"))
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert found[2]["content"] == "A map"
    assert found[4]["content"] == [
        {"type": "text", "text": "From the result of the tool call c1:"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ]


def test_a_message_between_a_call_and_its_result_follows_the_result() -> None:
    found = messages(user("x"), CALL, {"role": "developer", "content": "note"}, SEEN, user("y"))
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "system", "user"]


def test_a_message_after_an_unanswered_call_is_not_lost() -> None:
    assert [message["role"] for message in messages(user("x"), CALL, user("stop"))] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"type": "input_image", "file_id": "file-1", "detail": "auto"}, "input.file_id"),
        ({"type": "input_file", "file_id": "file-1"}, "input.file_id"),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "input.file_url"),
    ],
)
def test_files_that_openai_keeps_or_fetches_are_for_its_own_backends(part: dict[str, Any], name: str) -> None:
    found = reader({"role": "user", "content": [{"type": "input_text", "text": "x"}, part]})
    assert found.native_only == {name}
    (message,) = found.messages()
    assert message.content == "x"
    assert len(message.parts) == 2


@pytest.mark.parametrize("kind", ["compaction", "mcp_call", "code_interpreter_call", "computer_call_output", "new_one"])
def test_items_that_only_openai_can_read_are_for_its_own_backends(kind: str) -> None:
    found = reader(user("x"), {"type": kind})
    assert found.native_only == {f"input.{kind}"}
    assert found.messages()[1].parts == ({"type": kind},)
    assert reader(user("x"), {"type": "é\r\nx: y"}).native_only == {"input.unknown"}


def test_records_of_a_web_search_and_cache_breakpoints_are_left_out_and_named() -> None:
    part = {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}
    found = reader(
        {"role": "user", "content": [part]}, {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    )
    assert found.dropped == {"input.web_search_call", "input.prompt_cache_breakpoint"}
    assert len(found.messages()) == 1


@pytest.mark.parametrize(
    ("item", "about"),
    [
        ("text", "item 2: must be an object"),
        ({}, "item 2: is a reference"),
        ({"id": "msg_1"}, "batuta keeps no responses"),
        ({"type": "item_reference", "id": "msg_1"}, "item 2: is a reference; send the item itself"),
        ({"type": 7}, "type must be text"),
        ({"role": "critic", "content": "x"}, "role must be one of"),
        ({"role": "user"}, "content or output must be text"),
        ({"role": "user", "content": [{"type": "video"}]}, "has a part that is not one of"),
        ({"role": "user", "content": ["x"]}, "has a part that is not one of"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "needs text"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "without image_url"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input_audio"),
        ({"role": "user", "content": [{"type": "input_file", "filename": "a.pdf"}]}, "without file_data"),
        ({"role": "user", "content": "NUL \0"}, "NUL"),
        ({"type": "function_call", "call_id": "c"}, "needs name"),
        ({**CALL, "arguments": {"city": "x"}}, "needs arguments"),
        (SEEN, "is the result of a call that is not before it"),
    ],
)
def test_a_malformed_item_is_named_by_its_number(item: Any, about: str) -> None:
    assert about in error(user("x"), item)
    assert error(user("x"), item).startswith("item 2: ")


def test_a_result_is_accepted_once() -> None:
    assert "item 4" in error(user("x"), CALL, SEEN, SEEN)


@pytest.mark.parametrize("input", [7, {}, []])
def test_other_inputs_are_errors(input: Any) -> None:
    found = InputReader(ResponseTools())
    with pytest.raises(InvalidInputError):
        found.add(input)
        found.messages()
