"""One call to one backend, from the request to the last piece of its answer.

The answer comes as `Piece`s, streamed or not. It ends well only when the backend says that it is complete; anything
else is a `BackendError`: another status than 200, something that is no answer, silence for longer than the timeouts
allow, a stream that stops. Leaving the generator closes the connection, by which the backend learns that nobody
listens any more.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from batuta_cli.serve.backends import Backend
from batuta_cli.serve.backends.profile import ContinuationMethod
from batuta_cli.serve.providers import anthropic, completion, openai
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.sse import Event, EventScanner
from batuta_cli.serve.providers.wire import BackendError, Call, Outgoing, Piece, Reader

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that is not streamed."""

_LARGEST_RETRY_AFTER = 3600.0  # seconds; longer ones are no use to a client that waits
_OWN_FAULT = frozenset((400, 405, 413, 415, 422))
"""Statuses by which a backend says that the request is wrong, which it is at any other backend, too."""


@dataclass(frozen=True)
class Timeouts:
    """How long a backend may take, in seconds."""

    connect: float = 5.0
    first_token: float = 120.0
    """From the request to the first piece; a long prompt on a slow machine takes its time."""
    idle: float = 60.0
    """Between two pieces."""
    total: float = 3600.0


async def exchange(
    session: GatedSession,
    backend: Backend,
    base_url: str,
    call: Call,
    *,
    request_id: str,
    timeouts: Timeouts,
) -> AsyncGenerator[Piece, None]:
    """The pieces of a backend's answer, the end included.

    Raises `BackendError`, and what the gate raises: `PrivacyError`, `AuditError`.
    """
    outgoing, reader = _shape(backend, call)
    pieces = _answer(session, backend, _url(base_url, outgoing.path), call, outgoing, reader, request_id, timeouts)
    loop = asyncio.get_running_loop()
    end = loop.time() + timeouts.total
    allowed = timeouts.first_token
    try:
        while True:
            try:
                # The scope ends before the piece is given on: it must not cancel whoever takes it.
                async with asyncio.timeout_at(min(end, loop.time() + allowed)):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                break
            yield piece
            allowed = timeouts.idle
    except TimeoutError:
        raise BackendError(f"the backend was silent for {allowed:g} seconds, or took too long") from None
    except aiohttp.ClientError as error:
        raise BackendError(_connection_words(error)) from None
    finally:
        await pieces.aclose()
    if not reader.complete:
        raise BackendError("the backend's stream ended before its answer was complete")


async def _answer(
    session: GatedSession,
    backend: Backend,
    url: str,
    call: Call,
    outgoing: Outgoing,
    reader: Reader,
    request_id: str,
    timeouts: Timeouts,
) -> AsyncGenerator[Piece, None]:
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream" if call.stream else "application/json"}
    async with session.request(
        "POST",
        url,
        backend=backend.name,
        request_id=request_id,
        headers=headers | backend.auth_headers(),
        data=json.dumps(outgoing.body, ensure_ascii=False).encode(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect),
    ) as response:
        _check_status(response)
        async for piece in _stream(response, reader) if call.stream else _whole(response, reader):
            yield piece


def _shape(backend: Backend, call: Call) -> tuple[Outgoing, Reader]:
    profile = backend.profile
    method = profile.continuation.method
    if call.prompt:
        if profile.continuation.path.endswith("/api/generate"):
            return completion.outgoing_ollama(call), completion.OllamaReader()
        return completion.outgoing(call), completion.CompletionReader()
    if profile.wire == "anthropic":
        return anthropic.outgoing(call), anthropic.MessagesReader()
    fields = profile.continuation.body if method is ContinuationMethod.FIELDS else None
    return openai.outgoing(call, fields), openai.ChatReader()


def _url(base_url: str, path: str) -> str:
    if not path.startswith("/"):
        return f"{base_url}/{path}"
    scheme, _, rest = base_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{path}"


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    status = response.status
    words = "sends elsewhere, which is not followed" if 300 <= status < 400 else "answered"
    raise BackendError(
        f"the backend {words} (HTTP {status})",
        status=status,
        retryable=status not in _OWN_FAULT,
        retry_after=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(value: str) -> float | None:
    """Seconds; the form with a date is not used by any of the services (RFC 9110, section 10.2.3)."""
    return min(float(value), _LARGEST_RETRY_AFTER) if value.isascii() and value.isdecimal() else None


async def _stream(response: aiohttp.ClientResponse, reader: Reader) -> AsyncIterator[Piece]:
    kind = response.content_type
    if kind == "application/x-ndjson":
        events = _lines(response)
    elif kind == "text/event-stream":
        events = _events(response)
    else:
        raise BackendError(f"the backend answered with {kind[:60]}, which is no stream of events")
    async for event in events:
        for piece in reader.event(event):
            yield piece


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    scanner = EventScanner()
    async for data in response.content.iter_any():
        for event in scanner.feed(data):
            yield event


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    async for line in response.content:
        if line.strip():
            yield Event("", line)


async def _whole(response: aiohttp.ClientResponse, reader: Reader) -> AsyncIterator[Piece]:
    body = b""
    async for data in response.content.iter_any():
        body += data
        if len(body) > ANSWER_LIMIT:
            raise BackendError(f"the backend's answer has more than {ANSWER_LIMIT:,} bytes")
    for piece in reader.whole(_document(body)):
        yield piece


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BackendError("the backend's answer is not JSON") from None


def _connection_words(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate of the backend cannot be verified"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "the backend cannot be reached"
    return "the connection to the backend broke"
