"""Compare two chat templates over conversations: where do their prompts first differ, and in what kind?

Both templates are used as for a request: a message that one would lose is refused. A conversation that both refuse
counts as the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from batuta_cli.errors import InvalidInputError, TemplateError
from batuta_cli.serve.messages import ChatInput, read_input
from batuta_cli.serve.templates.difference import Difference, Tokenize, difference
from batuta_cli.serve.templates.subject import TemplateSubject

REFUSAL = "refusal"
"""The kind of a difference where one template renders and the other refuses."""


@dataclass(frozen=True)
class Disagreement:
    """A conversation for which two templates write different prompts."""

    number: int
    """Of the conversation, from 1."""
    messages: int
    difference: Difference | None
    """None if one template refuses the conversation."""
    refusals: tuple[str, str] = ("", "")
    """Why the first or the second template refuses it."""

    @property
    def kind(self) -> str:
        """The kind of the difference."""
        return self.difference.kind if self.difference else REFUSAL


def compare(
    first: TemplateSubject, second: TemplateSubject, chats: Sequence[ChatInput], tokenize: Tokenize | None = None
) -> list[Disagreement]:
    """Return the conversations for which the prompts differ, each with its first difference.

    Raises `UsageError` for a variable that batuta sets.
    """
    found = []
    for number, chat in enumerate(chats, 1):
        (one, why_not_one), (two, why_not_two) = _prompt(first, chat), _prompt(second, chat)
        if one is not None and two is not None:
            bos = first.bos_token, second.bos_token
            if place := difference(one, two, _texts(chat), bos, tokenize):
                found.append(Disagreement(number, len(chat.messages), place))
        elif one is not None or two is not None:
            found.append(Disagreement(number, len(chat.messages), None, (why_not_one, why_not_two)))
    return found


def read_conversations(data: bytes) -> list[ChatInput]:
    """Read one conversation, a JSON list of conversations, or JSON Lines with one conversation a line.

    Raises `InvalidInputError`, with the number of the conversation.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            return [read_input(data)]  # raises, and says where
        return [_numbered_input(line, number) for number, line in enumerate(lines, 1)]
    several = isinstance(document, list) and all(
        isinstance(item, list) or (isinstance(item, dict) and "messages" in item) for item in document
    )
    if not several or not document:
        return [read_input(data)]
    return [_numbered_input(json.dumps(item), number) for number, item in enumerate(document, 1)]


def _numbered_input(data: bytes | str, number: int) -> ChatInput:
    try:
        return read_input(data)
    except InvalidInputError as error:
        raise InvalidInputError(f"conversation {number}: {error.message}", hint=error.hint) from None


def _prompt(subject: TemplateSubject, chat: ChatInput) -> tuple[str | None, str]:
    try:
        return subject.prompt(chat), ""
    except TemplateError as error:
        return None, error.message


def _texts(chat: ChatInput) -> list[str]:
    texts = [message.content for message in chat.messages]
    for message in chat.messages:
        texts += [value for value in message.fields.values() if isinstance(value, str)]
        texts += [text for call in message.tool_calls for text in (call.name, call.arguments)]
    return texts
