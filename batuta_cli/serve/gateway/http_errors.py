"""What a client is told when it gets no answer: the status, and the error body in OpenAI's or Anthropic's shape.

`RULES` says which error is which status. A refusal for money is 402 and one for privacy 403, because the official
clients send a request again after 408, 409, 429 and 5xx, and neither gets better by that. The message of an error
that is the operator's business (the ledger, the audit log, the configuration) stays in the log: it names files.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from batuta_cli.errors import (
    AuditError,
    BatutaError,
    ConfigError,
    ContextOverflowError,
    CostError,
    DamagedStateError,
    LedgerError,
    MissingDependencyError,
    NoBackendError,
    PrivacyError,
    QueueFullError,
    RequestTooExpensive,
    UnknownPriceError,
    UsageError,
)
from batuta_cli.serve.pipeline.splice import SpliceError
from batuta_cli.serve.providers.wire import BackendError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Error types by status; the words are Anthropic's (https://docs.anthropic.com/en/api/errors) and OpenAI's."""

_AGAIN = 5.0  # seconds until backends are looked at anew; see the rest of a failed backend in the router


@dataclass(eq=False)  # not frozen: contextlib sets the traceback of what passes through it
class HttpError(Exception):
    """A request that is not answered."""

    status: int
    code: str
    message: str
    param: str | None = None
    """The field of the request that is at fault."""
    retry_after: float | None = None
    """Seconds after which it is worth trying again."""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The kind of error, in the words of both services."""
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that belong to it."""
        found = list(self.headers.items())
        if self.retry_after is not None:
            found.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after))))
        return found


@dataclass(frozen=True)
class Rule:
    """How one class of errors is told."""

    status: int
    code: str
    message: str | None = None
    """Instead of the error's own."""
    retry_after: float | None = None
    """When the error itself does not know."""


RULES: tuple[tuple[type[BatutaError], Rule], ...] = (
    (RequestTooExpensive, Rule(402, "request_too_expensive")),
    (UnknownPriceError, Rule(402, "unknown_price")),
    (CostError, Rule(402, "budget_exceeded")),
    (PrivacyError, Rule(403, "privacy")),
    (QueueFullError, Rule(429, "queue_full", retry_after=_AGAIN)),
    (NoBackendError, Rule(503, "no_backend", retry_after=_AGAIN)),
    (ContextOverflowError, Rule(400, "context_length_exceeded")),
    (LedgerError, Rule(503, "ledger", "the ledger cannot be used, so nothing paid for is sent", _AGAIN)),
    (AuditError, Rule(503, "audit", "the audit log cannot be written, so nothing private is sent", _AGAIN)),
    (SpliceError, Rule(502, "backend_error")),
    (DamagedStateError, Rule(500, "internal_error", "internal error")),
    (MissingDependencyError, Rule(500, "internal_error", "internal error")),
    (ConfigError, Rule(500, "internal_error", "internal error")),
    (UsageError, Rule(400, "invalid_request")),
)
"""The first class that fits counts."""

_INTERNAL = Rule(500, "internal_error", "internal error")


def http_error_for(error: Exception) -> HttpError:
    """What a client is told of an error."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, BackendError):
        return _backend(error)
    if not isinstance(error, BatutaError):
        return HttpError(_INTERNAL.status, _INTERNAL.code, str(_INTERNAL.message))
    rule = next((rule for kind, rule in RULES if isinstance(error, kind)), _INTERNAL)
    known = getattr(error, "retry_after", None)
    return HttpError(
        rule.status, rule.code, rule.message or error.message, retry_after=rule.retry_after if known is None else known
    )


def _backend(error: BackendError) -> HttpError:
    if not error.retryable and error.status is not None:
        return HttpError(400, "refused_by_backend", error.message)
    if error.status == 429:
        return HttpError(429, "backend_busy", error.message, retry_after=error.retry_after or _AGAIN)
    return HttpError(502, "backend_error", error.message, retry_after=error.retry_after)


ErrorFormat = Callable[[HttpError, str], dict[str, Any]]
"""From a refusal and the request's id to the body."""


def openai_error(refusal: HttpError, request_id: str) -> dict[str, Any]:
    """The body as OpenAI has it."""
    return {
        "error": {
            "message": refusal.message,
            "type": refusal.type,
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def anthropic_error(refusal: HttpError, request_id: str) -> dict[str, Any]:
    """The body as Anthropic has it; `code` is beyond it, for those who look."""
    error = {"type": refusal.type, "message": refusal.message, "code": refusal.code}
    return {"type": "error", "error": error, "request_id": request_id}


def error_body(shape: ErrorFormat, refusal: HttpError, request_id: str) -> bytes:
    """The body of a refusal, or the data of an error event."""
    return orjson.dumps(shape(refusal, request_id))
