"""Counts the tokens of a conversation: `count_messages`.

OpenAI's chat models are counted by the rule that OpenAI published, exactly. A model whose template is known is counted
by its rendered prompt, with the tools as the template writes them. For any other model the texts are counted, plus more
than any known template adds. Response formats, and tools that no known template writes, are counted as `request_fields`
describes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from batuta_cli.errors import InvalidInputError, TemplateError
from batuta_cli.files import StrPath
from batuta_cli.serve.messages import ChatMessage, Role, template_input_of
from batuta_cli.serve.names import unknown_name
from batuta_cli.serve.tokens.openai_models import Overhead, openai_model, openai_tokenizer
from batuta_cli.serve.tokens.request_fields import MARGINS, count_fields
from batuta_cli.serve.tokens.resolve import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount, Tokenizer

Render = Callable[..., str]
"""Renders messages as the prompt that the model reads, such as `ChatTemplateEngine.apply`.

The keyword arguments are `tools`, `documents` and template variables of the request, where it has them.
"""

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
    has further fields of OpenAI's request; those that a template may read reach `render`, and its tools and its
    response format are counted. Of content parts only the texts are counted. Raises the errors of `tokenizer_for` and
    of `render`.
    """
    known = None if tokenizer_path else openai_model(model)
    if known is not None and not (known.rendered and render):
        tokenizer = openai_tokenizer(known.encoding)
        method = f"tiktoken {known.encoding} and OpenAI's chat overhead"
        count = _by_overhead(messages, tokenizer, known.overhead, method)
    else:
        tokenizer = tokenizer_for(model, tokenizer_path=tokenizer_path)
        if render is not None:
            prompt, options = _rendered(render, messages, options)
            count = count_prompt(tokenizer, prompt)
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


def _check_roles(messages: Sequence[ChatMessage]) -> None:
    """Raise `InvalidInputError` for a role that only a known template could write."""
    for number, message in enumerate(messages, 1):
        if not isinstance(message.role, Role):
            error = unknown_name("role", message.role, list(Role))
            raise InvalidInputError(f"message {number}: {error.message}", hint=error.hint)


def _rendered(
    render: Render, messages: Sequence[ChatMessage], options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The prompt, and the options that are not part of it: leaving such a one out makes no difference."""
    given = template_input_of(options).arguments()
    prompt = render(messages, **given)

    def written(name: str) -> bool:
        if name not in given:
            return False
        try:
            return render(messages, **{key: value for key, value in given.items() if key != name}) != prompt
        except TemplateError:
            return True

    return prompt, {name: value for name, value in options.items() if name in MARGINS and value and not written(name)}


def _by_overhead(messages: Sequence[ChatMessage], tokenizer: Tokenizer, overhead: Overhead, method: str) -> TokenCount:
    _check_roles(messages)
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
        for value in filter(None, message.fields.values()):
            total += _TOOL_CALL + tokenizer.count(json.dumps(value, ensure_ascii=False))
            exact = False
    if overhead.exact and tokenizer.exact and not exact:
        method += "; tool calls and further fields of messages are an upper estimate"
    return TokenCount(total, exact, method)
