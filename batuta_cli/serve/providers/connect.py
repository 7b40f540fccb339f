"""HTTP through the privacy gate: a `GatedSession` sends the requests of one privacy tier.

* The gate judges the address that is passed to `connect`, and then the address of the peer, also of a reused
  connection. Each decision is in the audit log before the connection is opened.
* A host name is resolved only where the tier allows a DNS query; `localhost` needs none.
* Tiers share no connections: a session has one tier and its own connections.
* A request that may cost money is sent once. A server may close an open connection at any moment, and the client cannot
  tell whether it had read the request (RFC 9112, section 9.3.1). Such a request therefore reuses a connection only when
  it is idle for `YOUNGEST` to `OLDEST` seconds (`connector.py`) and no end of the connection is pending.
* Redirects are not followed, cookies are not kept, proxy variables and `.netrc` are not read. Only requests of the
  standard tier use the configured proxy, and not for local addresses, which mean another machine at the proxy.
  Certificates are always verified.

Raises `PrivacyError` when the gate refuses, `AuditError` when a decision cannot be written, and what aiohttp raises.
"""

import time
from collections.abc import Coroutine, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from batuta_cli import __version__
from batuta_cli.errors import UsageError
from batuta_cli.files import display
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import NO_NETWORKS, Networks, is_localhost, judge
from batuta_cli.serve.providers.connector import (
    ConnectionAttempt,
    ConnectionGate,
    Delivery,
    GatedConnector,
    current_attempt,
)
from batuta_cli.serve.tiers import PrivacyTier

_CLOSED_BEFORE = 0.25
"""Seconds within which a connection that the server has closed fails: one round trip."""


class GatedSession:
    """Sends the requests of one tier over its own connections; an asynchronous context manager.

    Args:
        tier: of every request.
        audit: where each decision is written.
        networks: the networks declared local and private.
        proxy: the URL of a proxy; only the standard tier uses it.
    """

    def __init__(
        self, tier: PrivacyTier, audit: AuditLog, networks: Networks = NO_NETWORKS, *, proxy: str = ""
    ) -> None:
        self.gate = ConnectionGate(tier, networks, audit)
        self._proxy = proxy if tier is PrivacyTier.STANDARD else ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        backend: str,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        once: bool = False,
        delivery: Delivery | None = None,
        repeated: bool = False,
    ) -> "_Request":
        """Send one request: `async with` gives the response, whose body is not read yet.

        Args:
            backend: the backend's name, for the log and for messages.
            request_id: the client's request, for the log.
            once: the request may cost money, so it is sent once.
            delivery: notes when the request is written.
            repeated: it is a probe, of whose equal decisions one an hour is recorded.

        Raises:
            PrivacyError: the tier does not admit the address.
            AuditError: the decision cannot be written.
            UsageError: the URL is invalid, or has a user in it.
            aiohttp.ClientError, TimeoutError: it failed.
        """
        options = {"headers": headers, "data": data, "timeout": timeout or _NO_TIMEOUT}
        attempt = ConnectionAttempt(
            request_id=request_id, backend=backend, delivery=delivery or Delivery(), once=once, repeated=repeated
        )
        return _Request(self._sent(method, url, attempt, options))

    async def _sent(
        self, method: str, url: str, first: ConnectionAttempt, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        target = _checked(url)
        session = self._opened()
        attempt = first
        while True:
            began = time.monotonic()
            token = current_attempt.set(attempt)
            try:
                return await session.request(
                    method, target, allow_redirects=False, proxy=self._proxy_to(target), **options
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if attempt.refusal is not None:
                    raise attempt.refusal from None
                # The server had closed the reused connection, as llama.cpp does after each stream: send once more, over
                # a new one. After a longer time the server may have processed the request. A request that must be sent
                # once is not sent again. (aiohttp itself repeats only idempotent methods, never a POST.)
                if attempt.once or not attempt.reused or time.monotonic() - began > _CLOSED_BEFORE:
                    raise
                attempt = ConnectionAttempt(
                    request_id=first.request_id,
                    backend=first.backend,
                    delivery=first.delivery,
                    fresh=True,
                    repeated=first.repeated,
                )
            except Exception:
                if attempt.refusal is not None:
                    raise attempt.refusal from None
                raise
            finally:
                current_attempt.reset(token)

    def _proxy_to(self, target: URL) -> str | None:
        if not self._proxy:
            return None
        host = target.raw_host or ""
        near = is_localhost(host) or judge(PrivacyTier.SOVEREIGN, host, networks=self.gate.networks).allowed
        return None if near else self._proxy

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # needs a running loop
            self._session = aiohttp.ClientSession(
                connector=GatedConnector(self.gate),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                headers={"User-Agent": f"batuta/{__version__}"},
            )
        return self._session


_NO_TIMEOUT = aiohttp.ClientTimeout()


class _Request:
    """A request that is sent when its `async with` block begins."""

    def __init__(self, sent: Coroutine[Any, Any, aiohttp.ClientResponse]) -> None:
        self._sent = sent

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._response = await self._sent
        return await self._response.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.__aexit__(kind, error, trace)


@lru_cache(maxsize=256)
def _checked(url: str) -> URL:
    try:
        target = URL(url)
        usable = target.scheme in ("http", "https") and bool(target.raw_host)
        has_user = "@" in target.raw_authority
    except ValueError:
        usable = has_user = False
    if has_user:
        raise UsageError("the address of a backend must not have a user or a password in it")
    if not usable:
        raise UsageError(f"{display(url)}: not an http or https address")
    return target
