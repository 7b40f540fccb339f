"""Two templates are compared over conversations, and conversations are read from one file."""

import json
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.messages import ChatInput, ChatMessage
from batuta_cli.serve.templates.probes import CONVERSATIONS
from batuta_cli.serve.templates.subject import TemplateSubject
from batuta_cli.serve.templates.template_diff import compare, read_conversations

HELLO = ChatInput([ChatMessage.user("Hello")])
WHISPER = ChatInput([ChatMessage.system("Whisper."), ChatMessage.user("Hello")])


def test_a_template_equals_itself() -> None:
    with TemplateSubject.of("qwen3") as one, TemplateSubject.of("qwen3-8b") as two:
        assert compare(one, two, CONVERSATIONS) == []


def test_a_conversation_that_only_one_renders_differs_and_one_that_none_renders_does_not() -> None:
    with (
        TemplateSubject.of("gemma") as gemma,
        TemplateSubject.of("phi3") as phi,
        TemplateSubject.of("zephyr") as zephyr,
    ):
        assert [found.kind for found in compare(gemma, phi, [WHISPER])] == []
        (found,) = compare(gemma, zephyr, [WHISPER])
        (back,) = compare(zephyr, gemma, [WHISPER])
    assert (found.number, found.messages, found.kind, found.difference) == (1, 2, "refusal", None)
    assert "no system messages" in found.refusals[0] and found.refusals[1] == ""
    assert back.refusals == (found.refusals[1], found.refusals[0])


def test_each_conversation_has_its_first_difference(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}x")
    with TemplateSubject.of(str(tmp_path / "t.jinja")) as one, TemplateSubject.of("zephyr") as zephyr:
        found = compare(one, zephyr, [HELLO, WHISPER], lambda text: list(text.encode()))
    ends = ["<|user|>\nHello</s>\n", "<|system|>\nWhisper.</s>\n<|user|>\nHello</s>\n"]
    assert [(item.number, item.messages) for item in found] == [(1, 1), (2, 2)]
    assert [(item.difference and item.difference.offset) for item in found] == [len(end) for end in ends]
    assert [(item.difference and item.difference.token) for item in found] == [len(end) for end in ends]


TALK = [{"role": "user", "content": "Hello"}]
BODY = {"messages": TALK, "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (json.dumps(TALK), 1),
        (json.dumps(BODY, indent=2), 1),
        (json.dumps([TALK, BODY]), 2),
        (json.dumps(TALK) + "\n" + json.dumps(BODY) + "\n\n" + json.dumps(TALK), 3),
        (json.dumps([TALK]), 1),
    ],
)
def test_a_file_has_one_conversation_or_several(data: str, count: int) -> None:
    chats = read_conversations(data.encode())
    assert len(chats) == count
    assert all(chat.messages == HELLO.messages for chat in chats)
    assert all(chat.variables in ({}, {"enable_thinking": False}) for chat in chats)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "not JSON"),
        ("[]", "no messages"),
        (json.dumps(TALK) + "\n{}", 'conversation 2: the JSON object has no "messages"'),
        (json.dumps([TALK, [{"role": "user"}]]), "conversation 2: message 1: has no content"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_number_of_the_conversation(data: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_conversations(data.encode())
