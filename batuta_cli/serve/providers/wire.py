"""What all wire shapes have in common: the call that is made, and the pieces that an answer comes in.

A shape is a module with two functions: `outgoing(call)` says what to post where, and `reader(call)` gives an object
that turns what comes back into `Piece`s. Both are pure; `http.py` does the talking. What a service reports as an
error, with whatever status, is a `BackendError`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from batuta_cli.errors import OperationError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.usage import Usage as Usage


class BackendError(OperationError):
    """A backend answered with an error, or with something that is no answer. Exit 1.

    `retryable`: another backend may do better; False when the request itself is at fault. `retry_after`: seconds,
    for the model that was asked for. `sent`: the backend may have worked on the request, so it may want to be paid.
    `reached`: a connection to the backend was made.
    """

    kind = "backend_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
        sent: bool = True,
        reached: bool = True,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent = sent
        self.reached = reached


@dataclass(frozen=True)
class Call:
    """One request to one backend."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    stream: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of OpenAI's request, sampling and tools for example, passed on where the shape has them."""
    prefix: str = ""
    """The beginning of the answer, when another backend was cut off in it."""
    prompt: str = ""
    """The rendered prompt, for raw completion."""


@dataclass(frozen=True)
class Outgoing:
    """What to post: a path under the base URL, or from the root when it begins with a slash, and a JSON body."""

    path: str
    body: dict[str, Any]


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer; most have text alone."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    delta: Mapping[str, Any] | None = None
    """What OpenAI's shape has beside text (tool calls, reasoning, refusals), to be relayed as it is."""
    index: int = 0
    """Which of several choices, when `n` was more than one."""
    logprobs: Any = None


class Reader(Protocol):
    """Turns what a backend sends into pieces."""

    @property
    def complete(self) -> bool:
        """Whether the answer has its proper end; a stream that stops before was cut off."""

    def event(self, event: Event) -> Iterator[Piece]:
        """The pieces in one event of a stream. Raises `BackendError`."""

    def whole(self, document: Any) -> Iterator[Piece]:
        """The pieces of an answer that was not streamed. Raises `BackendError`."""
