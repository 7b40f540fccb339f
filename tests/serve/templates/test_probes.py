"""The conversations that templates are examined with contain each text once, so that a missing one is seen."""

from itertools import chain

from batuta_cli.serve.templates.formats import named_formats
from batuta_cli.serve.templates.probes import CALL, CONVERSATIONS, GROWING, RESULT, SYSTEM


def test_no_template_of_this_package_contains_a_text_of_the_conversations() -> None:
    texts = {message.content for chat in CONVERSATIONS for message in chat.messages if message.content}
    texts |= {CALL.name, RESULT.content, SYSTEM.content}
    for format in named_formats().values():
        assert not [text for text in texts if text in format.template]


def test_each_longer_conversation_begins_with_the_shorter_one() -> None:
    for shorter, longer in GROWING:
        assert longer[: len(shorter)] == shorter and len(longer) > len(shorter)


def test_every_kind_of_input_is_in_a_conversation() -> None:
    assert any(chat.tools for chat in CONVERSATIONS) and any(chat.variables for chat in CONVERSATIONS)
    messages = list(chain.from_iterable(chat.messages for chat in CONVERSATIONS))
    assert any(message.tool_calls for message in messages) and any(message.fields for message in messages)
