"""One call to one backend, from the request to the last piece of its response.

A response is complete only when the backend marks its end. Everything else is a `BackendError`: a status other than
200, a malformed response, a timeout, a stream that stops early. Closing the generator closes the connection, which
tells the backend to stop.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiohttp
import orjson

from batuta_cli.config import TimeoutsSection
from batuta_cli.errors import InvalidInputError, OperationError, PrivacyError
from batuta_cli.serve.backends import Backend
from batuta_cli.serve.backends.profile import Profile
from batuta_cli.serve.backends.wire_formats import WireFormat
from batuta_cli.serve.deadline import Deadline
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.connector import Delivery
from batuta_cli.serve.providers.formats import format_module, native_module
from batuta_cli.serve.providers.framing import UnnamedScanner, check_size, scanner_for, whole_pieces
from batuta_cli.serve.providers.reported import BODY_LIMIT, Redaction, read_error_body
from batuta_cli.serve.providers.tolerant_json import json_value
from batuta_cli.serve.providers.wire import BackendError, Call, Outgoing, Piece, Reader
from batuta_cli.serve.retry import read_retry_after

Timeouts = TimeoutsSection
"""How long a backend may take, in seconds: `[timeouts]` of the configuration."""

AFTER_END = 0.25
"""Seconds to wait for the end of the HTTP message after the mark of a stream's end. Some servers keep the connection
open; a connection whose message has ended is used again."""

AFTER_COMPLETE = 5.0
"""Seconds without data, after a finish reason, in which the usage and the mark of the end may follow."""

_ERROR_SECONDS = 5.0  # to read the body of an error
_LOST_BEHIND = frozenset((502, 504, 520, 524))
"""Statuses of a gateway that got no valid response from the server behind it, which may have processed the request
(RFC 9110, sections 15.6.3 and 15.6.5; https://developers.cloudflare.com/support/troubleshooting/http-status-codes/)."""

_OWN_FAULT = frozenset((400, 405, 413, 415, 422))
"""Statuses that mean an invalid request, which no other backend would accept either."""


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
    sender = _Sender(
        session=session, backend=backend, request_id=request_id, timeouts=timeouts, paid=paid, delivery=delivery
    )
    wire = native_module() if call.native else format_module(_format(backend.profile, call))
    outgoing, reader = wire.outgoing(call, backend.profile), wire.reader(call)
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
                    if pieces:  # else data without a piece, such as a ping, which shows that the backend works
                        yield pieces
                        if any(piece.has_content for piece in pieces):
                            allowed = timeouts.idle
                    if reader.complete:
                        allowed = AFTER_END if reader.ended else min(timeouts.idle, AFTER_COMPLETE)
        else:
            with Deadline(min(timeouts.total, allowed)):
                pieces = await sender.whole(url, outgoing, reader)
            yield pieces
    except BackendError as error:
        raise _redaction(backend, call).apply(error) from None
    except (TimeoutError, aiohttp.ClientError) as error:
        if not reader.complete:
            # The cause is dropped, because its text may quote the messages.
            raise _failure(error, allowed, delivery) from None
    if not reader.complete:
        raise BackendError("the backend's stream ended before its response was complete")


@dataclass(kw_only=True, frozen=True)
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
        async with self._send("POST", url, outgoing, Accept="application/json") as response:
            await _check_status(response)
            return whole_pieces(await _body(response), reader)

    async def streamed(self, url: str, outgoing: Outgoing, reader: Reader) -> AsyncGenerator[list[Piece], None]:
        """The pieces of a streamed response, one list for each read; empty for a read without a piece."""
        if outgoing.events_url:
            async with self._send("POST", url, outgoing) as response:
                await _check_status(response)
                url = outgoing.events_url(json_value(await _body(response)))
            sent = self._send("GET", url, None, Accept="text/event-stream")
        else:
            sent = self._send("POST", url, outgoing, Accept="text/event-stream")
        try:
            async with sent as response:
                await _check_status(response)
                yield []  # the head of the response counts as data
                scanner = scanner_for(response.content_type)
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
                    if pieces or not failure:  # also the pieces before the failure
                        yield pieces
                    if failure:
                        raise failure
                last = [piece for event in scanner.end() for piece in reader.event(event)]
                if isinstance(scanner, UnnamedScanner) and scanner.document is not None:
                    last += whole_pieces(bytes(scanner.document), reader, stream=True)
                if last:
                    yield last
        except (BackendError, PrivacyError, aiohttp.ClientConnectorError):
            if outgoing.events_url:  # the first request was accepted and may be charged
                raise BackendError("the stream of the backend's response cannot be read, or broke off") from None
            raise

    def _send(
        self, method: str, url: str, outgoing: Outgoing | None, **headers: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if outgoing is not None:
            headers |= {"Content-Type": "application/json"}
        return self.session.request(
            method,
            url,
            backend=self.backend.name,
            request_id=self.request_id,
            headers=headers | self.backend.auth_headers_with(outgoing.headers if outgoing else {}),
            data=None if outgoing is None else _encoded(outgoing.body),
            timeout=_client_timeout(self.timeouts.connect),
            once=self.paid and method == "POST",
            delivery=self.delivery,
        )


@cache
def _client_timeout(connect: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def _format(profile: Profile, call: Call) -> WireFormat:
    """The wire format of a call: the raw one for a rendered prompt."""
    if call.inputs:
        return WireFormat.EMBEDDINGS
    return profile.continuation.format if call.prompt else profile.wire


def _url(base_url: str, path: str) -> str:
    if not path.startswith("/"):
        return f"{base_url}/{path}"
    scheme, _, rest = base_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{path}"


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status in (200, 201):  # 201: Replicate has created a prediction
        return
    status = response.status
    redirect = 300 <= status < 400
    reported = None if redirect else read_error_body(await _error_body(response))
    code = f" ({reported.code})" if reported and reported.code else ""
    raise BackendError(
        f"the backend answered with a redirect (HTTP {status}); batuta does not follow redirects"
        if redirect
        else f"the backend answered with HTTP {status}{code}",
        status=status,
        retryable=status not in _OWN_FAULT,
        retry_after=read_retry_after(response.headers.get("Retry-After", ""), response.headers.get("Date", "")),
        sent=status in _LOST_BEHIND,
        reported=reported,
    )


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the body of an error; what cannot be read in time is left out."""
    body = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError), Deadline(_ERROR_SECONDS):
        async for data in response.content.iter_any():
            body += data
            if len(body) > BODY_LIMIT:
                break
    return bytes(body[:BODY_LIMIT])


def _redaction(backend: Backend, call: Call) -> Redaction:
    known = backend.profile.auth.headers
    keys = [value.rpartition(" ")[2] for name, value in backend.auth_headers().items() if name not in known]
    texts = [message.content for message in call.messages]
    texts += [each.arguments for message in call.messages for each in message.tool_calls]
    texts += [each for each in call.inputs if isinstance(each, str)]
    return Redaction(keys, [*texts, call.prefix, call.prompt])


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        check_size(body)
    return bytes(body)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # the error's text may quote the body
        raise InvalidInputError("the request has a value that JSON cannot represent") from None


def _failure(error: Exception, allowed: float, delivery: Delivery) -> BackendError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return BackendError("the certificate of the backend cannot be verified", sent=False, reached=False)
    refused = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    if refused or not delivery.begun:
        return BackendError("the backend cannot be reached", sent=delivery.begun, reached=False)
    if isinstance(error, TimeoutError):
        return BackendError(f"the backend sent nothing for {allowed:g} s, or the response took too long")
    return BackendError("the connection to the backend broke")
