"""How many tokens a conversation has: `count_messages`.

For OpenAI's chat models by the rule of the API, to the token. For a model whose prompt we render, by counting that
prompt. Otherwise an upper estimate: the texts, and more than any template adds to them.
"""

from collections.abc import Callable, Sequence
from typing import Final

from batuta_cli.files import StrPath
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.tokens.openai_models import Overhead, openai_model, openai_tokenizer
from batuta_cli.serve.tokens.resolve import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount, Tokenizer

Render = Callable[[Sequence[ChatMessage]], str]
"""Messages to the prompt that the model is given."""

UNKNOWN_TEMPLATE: Final = Overhead(message=24, name=2, request=24, exact=False)
"""More than the known templates add: Llama 2's system block, the longest of them, takes 20 tokens as plain text."""

_TOOL_CALL: Final = 24  # the JSON around a call's name and arguments


def count_messages(
    model: str, messages: Sequence[ChatMessage], *, tokenizer_path: StrPath | None = None, render: Render | None = None
) -> TokenCount:
    """The tokens of a request's messages.

    With `render`, a model that is not OpenAI's is counted by its prompt, control tokens included. Raises as
    `tokenizer_for`, and what `render` raises.
    """
    known = None if tokenizer_path else openai_model(model)
    if known is not None:
        method = f"tiktoken {known.encoding} and OpenAI's chat overhead"
        return _by_overhead(messages, openai_tokenizer(known.encoding), known.overhead, method)
    tokenizer = tokenizer_for(model, tokenizer_path=tokenizer_path)
    if render is not None:
        return count_prompt(tokenizer, render(messages))
    method = tokenizer.name + " and an upper estimate of its chat template" * tokenizer.exact
    return _by_overhead(messages, tokenizer, UNKNOWN_TEMPLATE, method)


def count_prompt(tokenizer: Tokenizer, prompt: str) -> TokenCount:
    """The tokens of a prompt rendered by a template, whose control tokens are read as such."""
    return TokenCount(tokenizer.count(prompt, special=True), tokenizer.exact, tokenizer.name)


def _by_overhead(messages: Sequence[ChatMessage], tokenizer: Tokenizer, overhead: Overhead, method: str) -> TokenCount:
    total = overhead.request
    exact = tokenizer.exact and overhead.exact
    for message in messages:
        total += overhead.message + tokenizer.count(str(message.role)) + tokenizer.count(message.content)
        if message.name is not None:
            total += overhead.name + tokenizer.count(message.name)
        if message.tool_call_id is not None:
            total += _TOOL_CALL + tokenizer.count(message.tool_call_id)
            exact = False
        for call in message.tool_calls:
            total += _TOOL_CALL + sum(map(tokenizer.count, (call.id, call.name, call.arguments)))
            exact = False
    if overhead.exact and tokenizer.exact and not exact:
        method += "; tool calls are an upper estimate"
    return TokenCount(total, exact, method)
