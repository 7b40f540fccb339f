"""Render a prompt that ends inside the assistant's last message, so that the model continues it.

Same method as transformers (`continue_final_message`): append a mark to the message, render, and cut the prompt at the
mark. If the template trims its texts, the prompt ends without the trailing white space of the message.
"""

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import Role
from batuta_cli.serve.templates.template_input import Conversation, inexpressible


def marked(conversation: Conversation) -> tuple[Conversation, str]:
    """Return the conversation with a mark at its end, and the mark.

    Raises `TemplateError` if the last message is not the assistant's, or has tool calls.
    """
    last = conversation[-1]
    if last.role is not Role.ASSISTANT:
        raise inexpressible(last, f"only an assistant's message can be continued; the role of this one is {last.role}")
    if last.message.tool_calls:
        raise inexpressible(last, "tool calls cannot be continued")
    number = 0
    while any(_mark(number) in turn.message.content for turn in conversation):
        number += 1
    mark = _mark(number)
    # The space shows whether the template trims.
    return (*conversation[:-1], last.with_content(last.message.content + mark + " ")), mark


def cut(prompt: str, mark: str, content: str) -> str:
    """Return the prompt up to the mark; `content` is the message. Raises `TemplateError` if the mark is missing."""
    before, found, after = prompt.rpartition(mark)
    if not found:
        raise TemplateError("the template leaves out the message to be continued")
    if after.startswith(" ") or not content.strip():
        return before
    return before.rstrip()


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"  # private use characters
