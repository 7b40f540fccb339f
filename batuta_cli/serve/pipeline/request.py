"""A chat request, and the summary of its response: the values that enter and leave the pipeline."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batuta_cli.errors import UsageError
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.messages import ChatMessage, EmbeddingText
from batuta_cli.serve.providers.wire import NativeRequest
from batuta_cli.serve.routing.demands import NO_REACH, Reach
from batuta_cli.serve.tiers import LatencyTier, PrivacyTier
from batuta_cli.serve.usage import Usage


def _generate_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One chat request. The privacy tier is required and cannot change.

        ChatRequest(model="smollm2-135m", messages=[ChatMessage.user("Hello")], privacy="sovereign")

    With `inputs` it is a request for embeddings, which has no messages and is never streamed.

    Raises `UsageError` for an unknown tier, neither messages nor inputs, or `max_tokens` below 1.
    """

    model: str
    messages: tuple[ChatMessage, ...] = ()
    privacy: PrivacyTier
    max_tokens: int | None = None
    """The output limit in tokens; None for the model's usual reserve."""
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of OpenAI's chat request (temperature, stop, tools, response_format, n, …), sent unchanged."""
    inputs: tuple[EmbeddingText, ...] = ()
    """The texts to embed. `options` has the further fields of OpenAI's embeddings request."""
    latency: LatencyTier = LatencyTier.INTERACTIVE
    backend: str | None = None
    """The only backend that may take the request; None for any."""
    native: NativeRequest | None = None
    """The client's request as it came, for backends that speak its API; the other fields say the same."""
    native_only: tuple[str, ...] = ()
    """Parts of `native` that no other API has: only a backend that takes `native` may get the request."""
    reach: Reach = NO_REACH
    """What the request makes a backend do beyond the generation of text."""
    fetches: bool = False
    """The content has a URL that a backend within the user's own networks must not fetch."""
    unknown_fields: tuple[str, ...] = ()
    """Fields of `options` that no table of the client's API has."""
    dropped: tuple[str, ...] = ()
    """Fields of `native` that the other fields of this request leave out."""
    client: ClientAccount = ANY_CLIENT
    """For whom it is made."""
    request_id: str = field(default_factory=_generate_id)
    """Unique among the requests in flight; in the audit log."""

    if TYPE_CHECKING:  # names of tiers and any sequence of messages are accepted

        def __init__(
            self,
            *,
            model: str,
            messages: Iterable[ChatMessage] = (),
            privacy: PrivacyTier | str,
            max_tokens: int | None = None,
            stream: bool = False,
            options: Mapping[str, Any] = ...,
            inputs: tuple[EmbeddingText, ...] = (),
            latency: LatencyTier | str = ...,
            backend: str | None = None,
            native: NativeRequest | None = None,
            native_only: tuple[str, ...] = (),
            reach: Reach = ...,
            fetches: bool = False,
            unknown_fields: tuple[str, ...] = (),
            dropped: tuple[str, ...] = (),
            client: ClientAccount = ...,
            request_id: str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if type(self.messages) is not tuple:
            object.__setattr__(self, "messages", tuple(self.messages))
        if type(self.privacy) is not PrivacyTier:
            object.__setattr__(self, "privacy", PrivacyTier.parse(self.privacy))
        if type(self.latency) is not LatencyTier:
            object.__setattr__(self, "latency", LatencyTier.parse(self.latency))
        if not self.messages and not self.inputs:
            raise UsageError("messages must not be empty")
        if self.messages and self.inputs:
            raise UsageError("a request has messages or inputs, not both")
        if self.inputs and self.stream:
            raise UsageError("embeddings cannot be streamed")
        if self.max_tokens is not None and self.max_tokens < 1:  # the reserved amount depends on it
            raise UsageError("max_tokens must be at least 1")


@dataclass(frozen=True)
class AttemptReport:
    """One attempt at a backend, in a summary."""

    backend: str
    cost: int
    """Nano-dollars charged."""
    failed: str | None = None
    """The kind of the error it failed with; None when it completed the response."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The backend, tokens and cost of a response that has ended."""

    backend: str
    """The backend that completed the response."""
    input_tokens: int
    output_tokens: int
    exact: bool
    """Whether the token counts are the backend's; otherwise they were counted here."""
    cost: int
    """Nano-dollars, all attempts together."""
    budget_left: int | None
    """Nano-dollars left of the day; None when the response was free or the ledger cannot be read."""
    attempts: tuple[AttemptReport, ...]
    prompted: bool = False
    """Whether a backend received an instruction to continue, so that the splice may be visible."""
    fallback: str = ""
    """The model that answered in the place of the one that the client named; empty: no other one."""
    usage: Usage | None = None
    """The token counts by kind, where they were reported."""

    @property
    def tokens(self) -> Usage:
        """The token counts, by kind where the kinds are known."""
        return self.usage or Usage(self.input_tokens, self.output_tokens)


@dataclass(frozen=True)
class Completion:
    """A complete response, as `Pipeline.complete` returns it."""

    text: str
    """Of the first choice."""
    finish_reason: str | None
    """`stop`, `length` when an output limit cut the text, `tool_calls` or `content_filter`; None when not reported."""
    summary: Summary
