"""The types that all wire formats share: a call to a backend, and the pieces of its response.

A wire format (a module of `formats/`) turns a `Call` into an `Outgoing` HTTP request, and its `Reader` turns the
response into `Piece`s. Formats do no I/O; `client.py` sends. An error that a backend reports, with any status, is a
`BackendError`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol

from batuta_cli.errors import OperationError
from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.backends.wire_formats import ClientApi
from batuta_cli.serve.messages import ChatMessage, EmbeddingText
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.usage import Usage as Usage


@dataclass(kw_only=True, frozen=True)
class ReportedError:
    """The error that a backend reports, in the fields of OpenAI's; empty where it has none."""

    message: str = ""
    code: str = ""
    type: str = ""
    param: str = ""
    """The field of the request that is wrong."""
    status: int | None = None
    """The HTTP status within the report."""


class BackendError(OperationError):
    """A backend could not be reached, or its response is an error, malformed or incomplete. Exit 1.

    `retryable`: another backend may succeed; False when the request itself is invalid. `retry_after`: seconds that the
    backend asked to wait. `sent`: the backend may have processed the request, so it may charge for it. `reached`: a
    connection to the backend was made. `reported`: the backend's own error; its text is in the message, and may be
    shown, once `redacted` is True.
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
        reported: ReportedError | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent = sent
        self.reached = reached
        self.reported = reported
        self.redacted = False


_NO_ROUTE = frozenset((404, 405, 501))
"""Statuses for a path or method that a server does not have (RFC 9110, sections 15.5.5, 15.5.6 and 15.6.2)."""


@dataclass(frozen=True, kw_only=True)
class NativeRequest:
    """A client's request as it came, for backends that speak the client's API."""

    api: ClientApi
    document: Mapping[str, Any]
    """The body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers that belong to the API, such as `anthropic-beta`; the names are in lower case."""
    personal: tuple[str, ...] = ()
    """Fields of the body that name a user or a conversation; only the provider of the API gets them."""
    left_out: tuple[str, ...] = ()
    """What the client sent and `document` does not have, for every backend."""

    def withheld(self, profile: Profile) -> tuple[str, ...]:
        """The fields that a backend with this profile does not get."""
        return () if self.api in profile.provides else self.personal


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to one backend."""

    model: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int | None
    """The output limit; None for a format that needs none: no limit is sent."""
    stream: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of OpenAI's chat request (sampling, tools, …); sent where the format has them."""
    prefix: str = ""
    """The text so far, when another backend failed during the response."""
    prompt: str = ""
    """The rendered prompt, for raw completion."""
    inputs: tuple[EmbeddingText, ...] = ()
    """The texts to embed; empty for a request for text."""
    native: NativeRequest | None = None
    """The client's own request, which is sent in the place of `messages` and `options`."""

    def lacks_route(self, error: BackendError, profile: Profile) -> bool:
        """Whether `error` may mean that the server, perhaps an older one, does not speak the API of `native`.

        Then the translated request may succeed there. The API of the profile's own wire format is never in doubt.
        """
        return self.native is not None and self.native.api is not profile.wire.api and error.status in _NO_ROUTE


@dataclass(frozen=True)
class Outgoing:
    """The HTTP request: a path under the base URL (from the root when it begins with a slash) and a JSON body."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    events_url: Callable[[Any], str] | None = None
    """For a stream that takes two requests: the URL of its events, from the JSON response to the first request."""


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a response; most have only text."""

    text: str = ""
    _: KW_ONLY
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    delta: Mapping[str, Any] | None = None
    """Fields of OpenAI's delta beside text (tool calls, reasoning, refusals), relayed unchanged."""
    index: int = 0
    """The choice, when `n` is more than one."""
    logprobs: Any = None
    embeddings: tuple[list[float] | str, ...] = ()
    """All embeddings of a response, in the order of the inputs: numbers, or base64 of little-endian floats."""
    raw: Event | Mapping[str, Any] | None = None
    """The backend's event, or its whole response, in the client's API: relayed unchanged in the place of the other
    fields, which say the same as far as they are understood. None: the other fields are written."""
    stop: str | None = None
    """The stop sequence that ended the text, if the backend names it."""
    opaque: bool = False
    """`raw` has content that the other fields do not have."""

    @property
    def has_content(self) -> bool:
        """Whether a part of the response is in it, beside its end and the usage."""
        return bool(self.text or self.delta or self.logprobs or self.embeddings or self.opaque)


class Reader(Protocol):
    """Turns a backend's response into pieces."""

    @property
    def complete(self) -> bool:
        """Whether the end of the response was read; a stream that stops before is incomplete."""

    @property
    def ended(self) -> bool:
        """Whether nothing can follow: the mark of a stream's end was read. Some servers then keep the connection."""

    def event(self, event: Event) -> Iterator[Piece]:
        """The pieces in one event of a stream. Raises `BackendError`."""

    def whole(self, document: Any) -> Iterator[Piece]:
        """The pieces of a response that was not streamed. Raises `BackendError`."""


class EndingReader:
    """The part of a `Reader` that remembers whether it has read the end of the response."""

    def __init__(self) -> None:
        self._complete = False
        self._ended = False

    @property
    def complete(self) -> bool:
        """See `Reader`."""
        return self._complete

    @property
    def ended(self) -> bool:
        """See `Reader`."""
        return self._ended


class FormatModule(Protocol):
    """What each module of `formats/` has."""

    OPTIONS: frozenset[str] | None
    """The options of a call that the format can express; the others are dropped. None: all of them."""

    def outgoing(self, call: Call, profile: Profile, /) -> Outgoing:
        """The HTTP request of a call. Raises `BackendError` when the format cannot express it."""

    def reader(self, call: Call, /) -> Reader:
        """A reader for the response to a call."""
