"""One call to one backend, from the request to the last piece of its response.

A response is complete only when the backend marks its end. Everything else is a `BackendError`: a status other than
200, a malformed response, a timeout, a stream that stops early. Closing the generator closes the connection, which
tells the backend to stop.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import aiohttp
import orjson

from batuta_cli.errors import InvalidInputError, OperationError, PrivacyError
from batuta_cli.files import display
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.backends.profile import ContinuationMethod
from batuta_cli.serve.deadline import Deadline
from batuta_cli.serve.providers.connect import Delivery, GatedSession
from batuta_cli.serve.providers.formats import anthropic_messages, openai_chat, raw_completion, replicate
from batuta_cli.serve.providers.sse import EventScanner, LineScanner
from batuta_cli.serve.providers.wire import BackendError, Call, Outgoing, Piece, Reader

RESPONSE_LIMIT = 64 * 1024 * 1024
"""The largest response that is not streamed, in bytes."""

_LARGEST_RETRY_AFTER = 3600.0  # seconds
_LOST_BEHIND = frozenset((502, 504, 520, 524))
"""Statuses of a gateway that got no valid response from the server behind it, which may have processed the request
(RFC 9110, sections 15.6.3 and 15.6.5; https://developers.cloudflare.com/support/troubleshooting/http-status-codes/)."""

_OWN_FAULT = frozenset((400, 405, 413, 415, 422))
"""Statuses that mean an invalid request, which no other backend would accept either."""


@dataclass(frozen=True)
class Timeouts:
    """How long a backend may take, in seconds."""

    connect: float = 5.0
    first_token: float = 120.0
    """From the request to the first piece of the response."""
    idle: float = 60.0
    """Between two pieces."""
    total: float = 3600.0


async def send_call(
    session: GatedSession,
    backend: Backend,
    base_url: str,
    call: Call,
    *,
    request_id: str,
    timeouts: Timeouts,
    paid: bool = False,
    delivery: Delivery | None = None,
) -> AsyncGenerator[list[Piece], None]:
    """The pieces of a backend's response; each list has the pieces of one read.

    `paid`: the request may cost money, so it is sent once. `delivery` notes when the request is written. Raises
    `BackendError`, `InvalidInputError` for options that JSON cannot represent, `PrivacyError`, `AuditError`.
    """
    delivery = delivery or Delivery()
    sender = _Sender(session, backend, request_id, timeouts, paid, delivery)
    outgoing, reader = _shape(backend, call)
    url = _url(base_url, outgoing.path)
    allowed = timeouts.first_token
    try:
        if call.stream:
            loop = asyncio.get_running_loop()
            end = loop.time() + timeouts.total
            async with aclosing(sender.streamed(url, outgoing, reader)) as batches:
                while True:
                    # The deadline ends before the pieces are yielded, so that it cannot cancel the consumer.
                    with Deadline(min(end - loop.time(), allowed)):
                        pieces = await anext(batches, None)
                    if pieces is None:
                        break
                    yield pieces
                    allowed = timeouts.idle
        else:
            with Deadline(min(timeouts.total, allowed)):
                pieces = await sender.whole(url, outgoing, reader)
            yield pieces
    except (TimeoutError, aiohttp.ClientError) as error:
        if not reader.complete:
            # The cause is dropped, because its text may quote the messages.
            raise _failure(error, allowed, delivery) from None
    if not reader.complete:
        raise BackendError("the backend's stream ended before its response was complete")


@dataclass(frozen=True)
class _Sender:
    """Sends one request to one backend."""

    session: GatedSession
    backend: Backend
    request_id: str
    timeouts: Timeouts
    paid: bool
    delivery: Delivery

    async def whole(self, url: str, outgoing: Outgoing, reader: Reader) -> list[Piece]:
        """The pieces of a response that is not streamed."""
        headers = {"Prefer": "wait"} if self.backend.profile.wire == "replicate" else {}
        async with self._send("POST", url, outgoing.body, Accept="application/json", **headers) as response:
            _check_status(response)
            return list(reader.whole(_document(await _body(response))))

    async def streamed(self, url: str, outgoing: Outgoing, reader: Reader) -> AsyncGenerator[list[Piece], None]:
        """The pieces of a streamed response, one list for each read."""
        is_prediction = self.backend.profile.wire == "replicate"
        if is_prediction:
            async with self._send("POST", url, outgoing.body, Prefer="respond-async") as response:
                _check_status(response)
                url = replicate.stream_url(_document(await _body(response)))
            sent = self._send("GET", url, None, Accept="text/event-stream")
        else:
            sent = self._send("POST", url, outgoing.body, Accept="text/event-stream")
        try:
            async with sent as response:
                _check_status(response)
                scanner = _scanner(response.content_type)
                async for data in response.content.iter_any():
                    pieces: list[Piece] = []
                    failure: BackendError | None = None
                    try:
                        for event in scanner.feed(data):
                            pieces += reader.event(event)
                    except BackendError as error:
                        failure = error
                    except OperationError as error:
                        failure = BackendError(error.message)
                    if pieces:  # also those before the failure
                        yield pieces
                    if failure:
                        raise failure
                if last := [piece for event in scanner.end() for piece in reader.event(event)]:
                    yield last
        except (BackendError, PrivacyError, aiohttp.ClientConnectorError):
            if is_prediction:  # it was created and may be charged
                raise BackendError("the stream of the backend's response cannot be read, or broke off") from None
            raise

    def _send(
        self, method: str, url: str, body: dict[str, Any] | None, **headers: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self.session.request(
            method,
            url,
            backend=self.backend.name,
            request_id=self.request_id,
            headers=headers | self.backend.auth_headers(),
            data=None if body is None else _encoded(body),
            timeout=_client_timeout(self.timeouts.connect),
            once=self.paid and method == "POST",
            delivery=self.delivery,
        )


@cache
def _client_timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def _shape(backend: Backend, call: Call) -> tuple[Outgoing, Reader]:
    profile = backend.profile
    method = profile.continuation.method
    if call.prompt:
        if profile.continuation.path.endswith("/api/generate"):
            return raw_completion.outgoing_ollama(call), raw_completion.OllamaReader()
        return raw_completion.outgoing(call), raw_completion.CompletionReader()
    if profile.wire == "anthropic":
        return anthropic_messages.outgoing(call), anthropic_messages.MessagesReader()
    if profile.wire == "replicate":
        return replicate.outgoing(call), replicate.PredictionReader()
    fields = profile.continuation.body if method is ContinuationMethod.FIELDS else None
    return openai_chat.outgoing(call, fields, limit=profile.output_limit), openai_chat.ChatReader(
        call.options.get("n") or 1
    )


def _url(base_url: str, path: str) -> str:
    if not path.startswith("/"):
        return f"{base_url}/{path}"
    scheme, _, rest = base_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{path}"


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status in (200, 201):  # 201: Replicate has created a prediction
        return
    status = response.status
    redirect = 300 <= status < 400
    raise BackendError(
        f"the backend answered with a redirect (HTTP {status}); batuta does not follow redirects"
        if redirect
        else f"the backend answered with HTTP {status}",
        status=status,
        retryable=status not in _OWN_FAULT,
        retry_after=read_retry_after(response.headers.get("Retry-After", ""), response.headers.get("Date", "")),
        sent=status in _LOST_BEHIND,
    )


def read_retry_after(value: str, date: str = "") -> float | None:
    """Seconds to wait, from 0 to an hour, by a `Retry-After` header; None when it is invalid.

    It holds seconds or a date (RFC 9110, section 10.2.3). `date` is the response's own `Date` header: the difference of
    the two does not depend on our clock. Without a valid one our clock counts.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), _LARGEST_RETRY_AFTER)
    until = _http_date(value)
    if until is None:
        return None
    return min(max((until - (_http_date(date) or dt.datetime.now(dt.UTC))).total_seconds(), 0.0), _LARGEST_RETRY_AFTER)


def _http_date(value: str) -> dt.datetime | None:
    """A date in one of the three forms of RFC 9110, section 5.6.7; None when it is invalid."""
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _scanner(kind: str) -> "EventScanner | LineScanner":
    if kind == "application/x-ndjson":
        return LineScanner()
    if kind == "text/event-stream":
        return EventScanner()
    raise BackendError(
        f"the backend answered with the content type {display(kind[:60]) or '(missing)'}, not with an event stream"
    )


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > RESPONSE_LIMIT:
            raise BackendError(f"the backend's response has more than {RESPONSE_LIMIT:,} bytes")
    return bytes(body)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # the error's text may quote the body
        raise InvalidInputError("the request has a value that JSON cannot represent") from None


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BackendError("the backend's response is not JSON") from None


def _failure(error: Exception, allowed: float, delivery: Delivery) -> BackendError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return BackendError("the certificate of the backend cannot be verified", sent=False, reached=False)
    refused = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    if refused or not delivery.begun:
        return BackendError("the backend cannot be reached", sent=delivery.begun, reached=False)
    if isinstance(error, TimeoutError):
        return BackendError(f"the backend sent nothing for {allowed:g} s, or the response took too long")
    return BackendError("the connection to the backend broke")
