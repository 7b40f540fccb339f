"""HTTP errors: the status, headers and body that a client gets, in the format of OpenAI, Anthropic or
Ollama.

`RULES` maps each error class to a status. Refusals by the budget are 402 and by privacy 403, because the official
clients retry 408, 409, 429 and 5xx, and a retry changes neither. Money that running requests have reserved is 429,
because it is free again soon. Messages about the ledger, the audit log and the
configuration name files of the operator: they go to the log, and the client gets a general message.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from batuta_cli.config.kinds import did_you_mean
from batuta_cli.errors import (
    AuditError,
    BatutaError,
    BudgetReservedError,
    ConfigError,
    ContextOverflowError,
    CostError,
    DamagedStateError,
    LedgerError,
    MissingDependencyError,
    ModelNotAllowedError,
    NoBackendError,
    PrivacyError,
    QueueFullError,
    RequestTooExpensive,
    TokenizeError,
    UnboundedCostError,
    UnknownPriceError,
    UsageError,
)
from batuta_cli.serve.pipeline.splice import SpliceError
from batuta_cli.serve.providers.wire import BackendError, ReportedError

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
"""Error types by status, as Anthropic (https://docs.anthropic.com/en/api/errors) and OpenAI name them."""

_RETRY_AFTER = 5.0  # seconds; the cooldown of a failed backend


@dataclass(eq=False)  # not frozen: contextlib sets the traceback of an exception
class HttpError(Exception):
    """A request that ends with an error response."""

    status: int
    code: str
    message: str
    _: KW_ONLY
    param: str | None = None
    """The field of the request that is wrong."""
    retry_after: float | None = None
    """Seconds for the header `Retry-After`."""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    details: Mapping[str, Any] | None = None
    """What Anthropic's clients read by program, such as `error_code`."""
    reported_type: str = ""
    """The error type that a backend reports."""

    @property
    def type(self) -> str:
        """The error type by the status, as both services name it."""
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response."""
        headers = list(self.headers.items())
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after))))
        return headers


@dataclass(frozen=True)
class Rule:
    """The response to one class of errors."""

    status: int
    code: str
    message: str | None = None
    """Replaces the error's own message."""
    retry_after: float | None = None
    """Seconds, when the error itself has none."""


RULES: tuple[tuple[type[BatutaError], Rule], ...] = (
    (RequestTooExpensive, Rule(402, "request_too_expensive")),
    (UnknownPriceError, Rule(402, "unknown_price")),
    (UnboundedCostError, Rule(402, "unbounded_cost")),
    (BudgetReservedError, Rule(429, "budget_reserved", retry_after=1.0)),
    (CostError, Rule(402, "budget_exceeded")),
    (PrivacyError, Rule(403, "privacy")),
    (ModelNotAllowedError, Rule(403, "model_not_allowed")),
    (QueueFullError, Rule(429, "queue_full", retry_after=_RETRY_AFTER)),
    (NoBackendError, Rule(503, "no_backend", retry_after=_RETRY_AFTER)),
    (ContextOverflowError, Rule(400, "context_length_exceeded")),
    (LedgerError, Rule(503, "ledger", "the ledger cannot be used; requests that cost money are refused", _RETRY_AFTER)),
    (AuditError, Rule(503, "audit", "the audit log cannot be written; private requests are refused", _RETRY_AFTER)),
    (SpliceError, Rule(502, "backend_error")),
    (DamagedStateError, Rule(500, "internal_error", "internal error")),
    (MissingDependencyError, Rule(500, "internal_error", "internal error")),
    (ConfigError, Rule(500, "internal_error", "internal error")),
    (TokenizeError, Rule(400, "cannot_tokenize")),
    (UsageError, Rule(400, "invalid_request")),
)
"""The first row whose class matches applies."""

_INTERNAL = Rule(500, "internal_error", "internal error")


def http_error_for(error: Exception) -> HttpError:
    """The HTTP error that a client gets for `error`."""
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


_OWN_ACCOUNT = frozenset((401, 402, 403, 407))
"""Statuses about the operator's key or account at a backend; a client would take them for its own at the gateway."""

_CODES = {404: "model_not_found", 429: "backend_busy"}


def _backend(error: BackendError) -> HttpError:
    """An upstream's 4xx keeps its status, and its message, code, type and field without keys and quotations."""
    reported = error.reported if error.redacted and error.reported else ReportedError()
    status = error.status if error.status and 400 <= error.status < 500 else 502
    if status in _OWN_ACCOUNT:
        status = 502
    lacking = error.status == HTTPStatus.NOT_IMPLEMENTED  # a retry there changes nothing (RFC 9110, section 15.6.2)
    if lacking:
        status = 400
    retry_after = error.retry_after
    if status == 429:
        retry_after = retry_after or _RETRY_AFTER
    elif lacking or not error.retryable:
        retry_after = None
    fallback = "backend_error" if status == 502 else _CODES.get(status, "refused_by_backend")
    # The backend's own words alone, because clients recognise some of them, such as "maximum context length".
    message = error.message if status == 502 else reported.message or error.message
    return HttpError(
        status,
        reported.code or fallback,
        message,
        param=reported.param or None,
        retry_after=retry_after,
        reported_type=reported.type if status != 502 else "",
    )


ErrorFormat = Callable[[HttpError, str], dict[str, Any]]
"""Makes the body of an error from the error and the request's id."""


def openai_error(error: HttpError, request_id: str) -> dict[str, Any]:
    """The body in OpenAI's format."""
    return {
        "error": {
            "message": error.message,
            "type": error.reported_type or error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def anthropic_error(error: HttpError, request_id: str) -> dict[str, Any]:
    """The body in Anthropic's format, with `code` added."""
    body: dict[str, Any] = {"type": error.type, "message": error.message, "code": error.code}
    if error.details is not None:
        body["details"] = dict(error.details)
    return {"type": "error", "error": body, "request_id": request_id}


def ollama_error(error: HttpError, request_id: str) -> dict[str, Any]:
    """The body in Ollama's format."""
    return {"error": error.message}


def error_body(error_format: ErrorFormat, error: HttpError, request_id: str) -> bytes:
    """The body of an error response, or the data of an error event."""
    return orjson.dumps(error_format(error, request_id))


def check_method(method: str, allowed: tuple[str, ...]) -> None:
    """Raise `HttpError` 405 unless `method` is allowed."""
    if method not in allowed:
        raise HttpError(
            405, "method_not_allowed", f"use {allowed[0]} here", headers={b"allow": ", ".join(allowed).encode()}
        )


def unknown_model(model: str, known: Collection[str]) -> HttpError:
    """The error for a model that no backend has; it suggests the nearest known one."""
    message = f"no backend has this model{did_you_mean(model, known) or ';'} GET /v1/models lists them"
    return HttpError(404, "model_not_found", message, param="model")
