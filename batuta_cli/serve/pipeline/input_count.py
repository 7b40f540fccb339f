"""The number of input tokens of a request, for its context window and its price.

`bound` is a cheap upper bound, enough for most requests. `count` uses the tokenizer and takes longer. Where an estimate
exceeds the window, `ServerCounts` asks the server itself.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from batuta_cli.config import ModelSection
from batuta_cli.errors import InvalidInputError, PrivacyError, UsageError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.context.manager import prompt_counter
from batuta_cli.serve.messages import EmbeddingText
from batuta_cli.serve.pipeline.content import other_texts
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.pipeline.settlement import least_tokens
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.server_count import ServerCount, native_count, server_count, server_text_count
from batuta_cli.serve.providers.wire import BackendError
from batuta_cli.serve.routing.gates import BackendState
from batuta_cli.serve.tokens import count_messages, tokenizer_for
from batuta_cli.serve.tokens.openai_models import openai_model
from batuta_cli.serve.tokens.request_fields import field_texts
from batuta_cli.serve.tokens.tokenizer import TokenCount

_UNNAMED = "a model that is not named"
_FILES = (".gguf", ".json")
"""Suffixes that `tokenizer_for` reads as the name of a file."""

_SERVER_TIMEOUT = 5.0
"""Seconds that a server may take for each call. llama.cpp tokenizes a million tokens in about one."""

_COUNT_TIMEOUT = 30.0
"""Seconds that a server may take when a client asks for the count alone."""

_REMEMBERED = 256
"""Counts in memory. A request is planned again for each failover."""

_BYTES = 4  # of a character in UTF-8, at most
_ENDS = 2  # tokens that a model adds to a text that it embeds, at most
_MESSAGE = 32  # tokens around a message, a call or a result, at most


def bound(request: ChatRequest) -> TokenCount:
    """An upper bound that reads no tokenizer: no tokenizer makes more than one token a byte."""
    size = sum(len(message.content) * _BYTES + _MESSAGE for message in request.messages)
    for message in request.messages:
        if message.name or message.tool_calls or message.tool_call_id:
            texts = [message.name or "", message.tool_call_id or ""]
            for call in message.tool_calls:
                texts += [call.id, call.name, call.arguments]
            size += sum(len(text) * _BYTES + _MESSAGE for text in texts)
    size += sum(len(text) * _BYTES + margin for text, margin in field_texts(request.options))
    size += sum(len(text) * _BYTES + _MESSAGE for text in other_texts(request))
    return TokenCount(size, False, "one token a byte")


def count(request: ChatRequest, models: Mapping[str, ModelSection]) -> TokenCount:
    """The count by the model's tokenizer, or an upper estimate. `models` has the config's `[models]`.

    With a configured tokenizer the prompt is rendered, so the count is exact where the template is known. A request
    that template or tokenizer cannot take has `bound`: the backend may be able to.
    """
    own = models.get(request.model)
    try:
        if own and own.tokenizer:
            count_prompt = prompt_counter(model_name(request.model), own.tokenizer, own.template)
            found = count_prompt(request.messages, request.options)
        else:
            found = count_messages(model_name(request.model), request.messages, options=request.options)
        if texts := list(other_texts(request, fields=False)):
            tokenizer = tokenizer_for(tokenizer_name(request.model, models))
            more = sum(tokenizer.count(text) + _MESSAGE for text in texts)
            found = replace(found, tokens=found.tokens + more, exact=False)
        return found if not any(message.parts for message in request.messages) else replace(found, exact=False)
    except (UsageError, InvalidInputError):
        return bound(request)


def bound_inputs(request: ChatRequest) -> tuple[TokenCount, TokenCount]:
    """As `bound`, for texts to embed: of all of them, and of the longest, since each must fit the window."""
    return _sum_and_longest([_most(each) for each in request.inputs], False, "one token a byte")


def count_inputs(request: ChatRequest, models: Mapping[str, ModelSection]) -> tuple[TokenCount, TokenCount]:
    """As `count`, for texts to embed: of all of them, and of the longest.

    OpenAI's models add no tokens to a text; others may add one at each end.
    """
    own = models.get(request.model)
    name = model_name(request.model)
    try:
        tokenizer = tokenizer_for(name, tokenizer_path=own.tokenizer if own else None)
        exact = tokenizer.exact and not (own and own.tokenizer) and openai_model(name) is not None
        ends = 0 if exact else _ENDS
        counts = [(tokenizer.count(each) if isinstance(each, str) else len(each)) + ends for each in request.inputs]
    except (UsageError, InvalidInputError):
        return bound_inputs(request)
    return _sum_and_longest(counts, exact, tokenizer.name)


def _sum_and_longest(counts: list[int], exact: bool, method: str) -> tuple[TokenCount, TokenCount]:
    return TokenCount(sum(counts), exact, method), TokenCount(max(counts), exact, method)


def _most(text: EmbeddingText) -> int:
    return len(text) * (_BYTES if isinstance(text, str) else 1) + _ENDS


def _least(text: EmbeddingText) -> int:
    return max(1, least_tokens(text)) if isinstance(text, str) else len(text)


def least(request: ChatRequest, counted: TokenCount | None, models: Mapping[str, ModelSection]) -> int:
    """A lower bound of the input tokens: the count where it is exact, otherwise the fewest of any tokenizer.

    A prompt rendered with a configured template is no lower bound: a paid host may use a shorter template.
    """
    own = models.get(request.model)
    if counted is not None and counted.exact and not (own and own.tokenizer):
        return counted.tokens
    if request.inputs:
        return sum(map(_least, request.inputs))
    return sum(max(1, least_tokens(message.content)) for message in request.messages)


def tokenizer_name(model: str, models: Mapping[str, ModelSection]) -> str:
    """The argument of `tokenizer_for` for a client's model: its configured tokenizer, or its name."""
    own = models.get(model)
    return own.tokenizer if own and own.tokenizer else model_name(model)


def model_name(model: str) -> str:
    """A client's model as a name. A name that is also a path on this machine is never read as one."""
    return _UNNAMED if model.endswith(_FILES) or os.path.lexists(os.path.expanduser(model)) else model


def with_count(state: BackendState, found: ServerCount | None) -> BackendState:
    """The state of a backend with the count of its server, whose window counts where it is smaller."""
    if found is None:
        return state
    windows = [window for window in (state.window, found.window) if window is not None]
    return replace(state, counted=found.count, window=min(windows, default=None))


async def counted_by(session: GatedSession, backend: Backend, base_url: str, request: ChatRequest) -> TokenCount | None:
    """The count of a backend's server, by its route for the client's API or by its tokenizer; None when it has neither,
    fails, or the gate refuses it. Raises `AuditError`."""
    try:
        native = request.native and await native_count(
            session,
            backend,
            base_url,
            request.model,
            request.native,
            timeout=_COUNT_TIMEOUT,
            request_id=request.request_id,
        )
    except (BackendError, PrivacyError):
        native = None
    if native:
        return native
    found = await ServerCounts().of(session, backend, base_url, request)
    return found.count if found else None


async def _server_count(
    session: GatedSession, backend: Backend, base_url: str, request: ChatRequest
) -> ServerCount | None:
    """The count of the messages, or of the longest text to embed; None for token ids, which need no server."""
    limits: dict[str, Any] = {"timeout": _SERVER_TIMEOUT, "request_id": request.request_id}
    model = request.model
    if not request.inputs:
        return await server_count(session, backend, base_url, model, request.messages, request.options, **limits)
    longest = max(request.inputs, key=_most)
    if isinstance(longest, str):
        return await server_text_count(session, backend, base_url, model, longest, **limits)
    return None


class ServerCounts:
    """Asks servers for their counts, each once for a request."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], ServerCount | None] = OrderedDict()

    async def of(
        self, session: GatedSession, backend: Backend, base_url: str, request: ChatRequest
    ) -> ServerCount | None:
        """The count of a request; None when the server cannot count, fails, or the gate refuses it.

        Raises `AuditError`.
        """
        if backend.profile.count is None:
            return None
        key = request.request_id, backend.name
        if key not in self._counts:
            try:
                self._counts[key] = await _server_count(session, backend, base_url, request)
            except (BackendError, PrivacyError):
                self._counts[key] = None
            while len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return self._counts.get(key)
