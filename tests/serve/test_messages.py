"""A conversation is read in the shape of OpenAI's API, and what is wrong in it is named by its message."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.messages import (
    ChatMessage,
    Role,
    ToolCall,
    parse_messages,
    read_input,
    read_messages,
    read_request,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_a_list_and_an_object_with_messages_are_the_same_conversation() -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé", "name": "ana"}]
    expected = [ChatMessage.system("Be brief."), ChatMessage.user("Hé", name="ana")]
    assert read_messages(json.dumps(conversation)) == expected
    assert read_messages(json.dumps({"model": "m", "messages": conversation}).encode()) == expected


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]])
def test_the_system_field_of_an_anthropic_body_is_the_first_message(system: Any) -> None:
    body = json.dumps({"model": "m", "system": system, "messages": [{"role": "user", "content": "Hello"}]})
    expected = [ChatMessage.system("Be brief."), ChatMessage.user("Hello")]
    assert read_messages(body) == read_input(body).messages == expected
    assert read_request(body) == (expected, {"model": "m"})


@pytest.mark.parametrize("system", ["", [], None])
def test_an_empty_system_field_is_no_message(system: Any) -> None:
    body = json.dumps({"system": system, "messages": [{"role": "user", "content": "Hello"}]})
    assert read_messages(body) == [ChatMessage.user("Hello")]


@pytest.mark.parametrize("system", [3, {"text": "x"}, ["Be brief."], [{"type": "image", "source": {}}]])
def test_a_system_field_that_is_not_text_is_refused(system: Any) -> None:
    with pytest.raises(InvalidInputError, match="system must be text"):
        read_messages(json.dumps({"system": system, "messages": [{"role": "user", "content": "Hello"}]}))


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert parse_messages([{"role": "user", "content": parts}]) == [ChatMessage.user("one two")]


def test_tool_calls_and_their_results_are_kept() -> None:
    messages = parse_messages(
        [
            {"role": "user", "content": "add"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
        ]
    )
    assert messages[1] == ChatMessage.assistant("", [ToolCall("c1", "add", '{"a": 1}')])
    assert messages[2] == ChatMessage.tool("2", "c1")


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
PLAIN = st.builds(ChatMessage, st.sampled_from([Role.SYSTEM, Role.DEVELOPER, Role.USER, Role.ASSISTANT]), TEXT)


@given(st.lists(PLAIN, min_size=1))
def test_what_is_written_as_json_is_read_back(messages: list[ChatMessage]) -> None:
    assert read_messages(json.dumps([m.to_dict() for m in messages])) == messages


def test_a_call_is_written_as_the_api_has_it() -> None:
    written = ChatMessage.assistant("", [ToolCall("c1", "add", '{"a": 1}')]).to_dict()
    assert written == {"role": "assistant", "content": None, "tool_calls": [CALL]}


USER = {"role": "user", "content": "x"}
REFUSED: list[tuple[Any, str]] = [
    ([], "there are no messages"),
    ("text", "must be a list, not text"),
    (None, "must be a list, not null"),
    (7, "must be a list, not a number"),
    ([USER, "x"], "message 2: must be an object with role and content, not text"),
    ([USER, {"content": "x"}], "message 2: has no role"),
    ([{"role": "usr", "content": "x"}], "message 1: unknown role usr, did you mean user?"),
    ([{"role": "User", "content": "x"}], "message 1: unknown role User, did you mean user?"),
    ([{"role": 1, "content": "x"}], "message 1: role must be text, not a number"),
    ([{"role": "user"}], "message 1: has no content"),
    ([{"role": "user", "content": None}], "message 1: content is null"),
    ([{"role": "assistant", "content": None}], "message 1: content is null"),
    ([{"role": "user", "content": 5}], "message 1: content must be text, not a number"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "a content part of type 'image_url'"),
    ([{"role": "user", "content": ["x"]}], "a content part without a type"),
    ([{"role": "user", "content": [{"type": "text"}]}], "a content part whose text is missing"),
    ([{"role": "user", "content": "a\0b"}], "message 1: contains NUL"),
    ([{"role": "user", "content": "a\ud800b"}], "message 1: contains a lone surrogate"),
    ([{"role": "user", "content": "x", "name": "\ud800"}], "message 1: contains a lone surrogate"),
    ([{"role": "user", "content": "x", "name": 5}], "message 1: name must be text"),
    ([{"role": "tool", "content": "2"}], "message 1: a tool result needs the tool_call_id"),
    ([{"role": "tool", "content": "2", "tool_call_id": "c1"}], "message 1: a tool result without its call"),
    ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "only an assistant has tool_calls, not user"),
    ([{"role": "user", "content": "x", "tool_call_id": "c1"}], "only a tool has tool_call_id, not user"),
    ([{"role": "assistant", "content": "x", "tool_calls": {}}], "tool_calls must be a list, not an object"),
    ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "c1"}]}], "needs an id and a function"),
    ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "c1", "function": {}}]}], "needs a name"),
]


@pytest.mark.parametrize(("document", "message"), REFUSED)
def test_what_is_wrong_is_named_with_its_message(document: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_messages(document)
    assert message in caught.value.message


def test_a_result_answers_a_call_once_and_only_in_its_turn() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "content": "2", "tool_call_id": "c1"}
    assert len(parse_messages([USER, call, result])) == 3
    for wrong in ([USER, call, result, result], [USER, call, USER, result], [USER, result, call]):
        with pytest.raises(InvalidInputError, match="a tool result without its call"):
            parse_messages(wrong)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON, line 1, column 1"),
        (b"{", "not JSON, line 1"),
        (b"[" * 100_000, "not JSON"),
        (b'[{"role": "user", "content": "\xff"}]', "not UTF-8"),
        (b"{}", 'the JSON object has no "messages"'),
        (b"5", "must be a list"),
    ],
)
def test_what_is_no_conversation_gets_an_error_that_shows_one(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_messages(data)
    assert message in caught.value.message
    assert caught.value.hint and '{"role": "user"' in caught.value.hint


def test_no_error_quotes_a_message() -> None:
    secret = "correct horse battery staple"
    for wrong in (
        [{"role": "user", "content": secret + "\0"}],
        [{"role": "user", "content": [{"type": "text"}, secret]}],
    ):
        with pytest.raises(InvalidInputError) as caught:
            parse_messages(wrong)
        assert secret not in f"{caught.value!r} {caught.value.hint}"


FIELDS = st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "type", "text", "id", "function"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner),
)


@given(JSON)
def test_any_json_is_a_conversation_or_an_error_of_ours(document: Any) -> None:
    try:
        messages = parse_messages(document)
    except InvalidInputError:
        return
    assert parse_messages([m.to_dict() for m in messages]) == messages


def test_a_hundred_thousand_messages_are_read() -> None:
    assert len(read_messages(json.dumps([USER] * 100_000))) == 100_000


def test_arguments_of_a_call_that_nest_too_deeply_are_refused() -> None:
    arguments: dict[str, Any] = {}
    for _ in range(100_000):
        arguments = {"a": arguments}
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(InvalidInputError, match="message 1: the arguments of a tool call nest too deeply"):
        parse_messages([{"role": "assistant", "content": "", "tool_calls": [call]}])
