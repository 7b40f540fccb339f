"""A prompt that ends in the middle of the assistant's message, so that the model goes on with it.

As transformers does it: a mark is put behind the message's text, the conversation is rendered, and the prompt ends
where the mark stands. Where the template trims its texts, the prompt ends without the white space of the message.
"""

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import Role
from batuta_cli.serve.templates.template_input import Conversation, inexpressible


def marked(conversation: Conversation) -> tuple[Conversation, str]:
    """The conversation with a mark at its end, and the mark.

    Raises `TemplateError` when the last message is not the assistant's.
    """
    last = conversation[-1]
    if last.role is not Role.ASSISTANT:
        raise inexpressible(last, f"only an assistant's message can be continued, and this is of the role {last.role}")
    if last.message.tool_calls:
        raise inexpressible(last, "tool calls cannot be continued")
    number = 0
    while any(_mark(number) in turn.message.content for turn in conversation):
        number += 1
    mark = _mark(number)
    # The space shows whether the template trims.
    return (*conversation[:-1], last.with_content(last.message.content + mark + " ")), mark


def cut(prompt: str, mark: str, content: str) -> str:
    """The prompt up to the mark; `content` is the text before it. Raises `TemplateError` when it is not there."""
    before, found, after = prompt.rpartition(mark)
    if not found:
        raise TemplateError("the template leaves out the message that is to be continued")
    if after.startswith(" ") or not content.strip():
        return before
    return before.rstrip()


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"  # private use: in no text by chance
