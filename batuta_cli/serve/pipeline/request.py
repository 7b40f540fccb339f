"""A chat request as every front end gives it to the pipeline, and what is told of it afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batuta_cli.errors import UsageError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.tiers import LatencyTier, PrivacyTier
from batuta_cli.serve.usage import Usage


@dataclass(frozen=True)
class ChatRequest:
    """One request; its privacy tier is required and never changes. Raises `UsageError` for `max_tokens` below 1."""

    request_id: str
    model: str
    messages: tuple[ChatMessage, ...]
    privacy: PrivacyTier
    max_tokens: int | None = None
    """The most tokens of an answer; None for what the model's window reserves."""
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of OpenAI's request: sampling, stop, tools, response_format, n…; passed on as they are."""
    latency: LatencyTier = LatencyTier.INTERACTIVE
    backend: str | None = None
    """The only backend that may take it, when the caller named one."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:  # the bound of what it may cost hangs on it
            raise UsageError("max_tokens must be at least 1")


@dataclass(frozen=True)
class AttemptReport:
    """One backend's part of an answer."""

    backend: str
    cost: int
    """Nano-dollars that were charged."""
    failed: str | None = None
    """Why it did not finish it."""


@dataclass(frozen=True)
class Summary:
    """What an answer took, once it has ended."""

    backend: str
    """The one that finished it."""
    input_tokens: int
    output_tokens: int
    exact: bool
    """Whether the tokens are the backend's own count; else they were counted here."""
    cost: int
    """Nano-dollars, all legs together."""
    budget_left: int | None
    """Nano-dollars; None when nothing was paid for, or when the ledger cannot be read."""
    attempts: tuple[AttemptReport, ...]
    prompted: bool = False
    """A backend was asked in words to continue, so the seam may show."""
    usage: Usage | None = None
    """The tokens with the kinds that were reported."""

    @property
    def tokens(self) -> Usage:
        """The tokens, with the kinds where they are known."""
        return self.usage or Usage(self.input_tokens, self.output_tokens)
