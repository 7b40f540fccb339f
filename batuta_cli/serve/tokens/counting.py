"""Counts the tokens of a conversation: `count_messages`.

OpenAI's chat models are counted by the rule that OpenAI published, exactly. A model whose template is known is counted
by its rendered prompt. For any other model the texts are counted, plus more than any known template adds. Tools and
response formats are counted as `request_fields` describes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from batuta_cli.files import StrPath
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.tokens.openai_models import Overhead, openai_model, openai_tokenizer
from batuta_cli.serve.tokens.request_fields import count_fields
from batuta_cli.serve.tokens.resolve import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount, Tokenizer

Render = Callable[[Sequence[ChatMessage]], str]
"""Renders messages as the prompt that the model reads."""

UNKNOWN_TEMPLATE: Final = Overhead(message=24, name=2, request=24, exact=False)
"""More than the known templates add: Llama 2's system block, the longest of them, takes 20 tokens as plain text."""

_TOOL_CALL: Final = 24  # the JSON around a call's name and arguments


def count_messages(
    model: str,
    messages: Sequence[ChatMessage],
    *,
    tokenizer_path: StrPath | None = None,
    render: Render | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> TokenCount:
    """The tokens of a request.

    With `render`, the rendered prompt is counted, control tokens included, except for OpenAI's hosted models. `options`
    has further fields of OpenAI's request; its tools and its response format are counted. Raises the errors of
    `tokenizer_for` and of `render`.
    """
    known = None if tokenizer_path else openai_model(model)
    if known is not None and not (known.rendered and render):
        tokenizer = openai_tokenizer(known.encoding)
        method = f"tiktoken {known.encoding} and OpenAI's chat overhead"
        count = _by_overhead(messages, tokenizer, known.overhead, method)
    else:
        tokenizer = tokenizer_for(model, tokenizer_path=tokenizer_path)
        if render is not None:
            count = count_prompt(tokenizer, render(messages))
        else:
            method = tokenizer.name + " and an upper estimate of its chat template" * tokenizer.exact
            count = _by_overhead(messages, tokenizer, UNKNOWN_TEMPLATE, method)
    if not (more := count_fields(tokenizer, options)):
        return count
    method = f"{count.method}; tools and response format as JSON with a margin"
    return replace(count, tokens=count.tokens + more, exact=False, method=method)


def count_prompt(tokenizer: Tokenizer, prompt: str) -> TokenCount:
    """The tokens of a prompt rendered by a template. Control tokens in it count as one token each."""
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
