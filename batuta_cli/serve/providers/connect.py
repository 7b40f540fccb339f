"""HTTP through the privacy gate: a `GatedSession` sends the requests of one privacy tier.

* The gate judges the address that is passed to `connect`, and then the address of the peer, also of a reused
  connection. Each decision is in the audit log before the connection is opened.
* A host name is resolved only where the tier allows a DNS query; `localhost` needs none.
* Tiers share no connections: a session has one tier and its own connections.
* A request that may cost money is sent once. A server may close an open connection at any moment, and the client cannot
  tell whether it had read the request (RFC 9112, section 9.3.1). Such a request therefore reuses a connection only when
  it is idle for `YOUNGEST` to `OLDEST` seconds and no end of the connection is pending.
* Redirects are not followed, cookies are not kept, proxy variables and `.netrc` are not read. Only requests of the
  standard tier use the configured proxy, and not for local addresses, which mean another machine at the proxy.
  Certificates are always verified.

Raises `PrivacyError` when the gate refuses, `AuditError` when a decision cannot be written, and what aiohttp raises.
"""

import asyncio
import contextlib
import errno
import math
import select
import socket
import time
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from batuta_cli import __version__
from batuta_cli.errors import BatutaError, PrivacyError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.gate import NO_NETWORKS, Networks, Verdict, is_localhost, judge, may_resolve, read_address
from batuta_cli.serve.tiers import PrivacyTier


@dataclass
class Delivery:
    """Whether a request was sent, for its caller."""

    begun: bool = False
    """A connection is open and the request is being written, so the backend may have read it."""


@dataclass
class _Attempt:
    """One request that needs a connection."""

    request_id: str
    backend: str
    delivery: Delivery
    tls_name: str | None = None
    """The host name of the certificate that is verified before anything is sent."""
    opened: bool = False
    reused: bool = False
    """It uses a connection that was open before."""
    fresh: bool = False
    """It must use a new connection."""
    once: bool = False
    """It may cost money and is sent once."""
    repeated: bool = False
    """It is one of many equal requests, of which the audit log needs one record an hour."""
    refusal: BatutaError | None = None


REPEATED = 3600.0
"""Seconds for which an equal decision about a probe is not recorded again: an unhealthy backend is probed every second,
which would be 86,400 records a day."""

_MOST_RECORDED = 4096  # decisions about repeated requests that are remembered

YOUNGEST = 0.05
"""Seconds that a connection is idle before a request that is sent once may reuse it: servers that close after each
response have closed it by then."""

OLDEST = 4.0
"""Seconds after which such a request does not reuse it; common servers close idle connections after 5 s."""

_CLOSED_BEFORE = 0.25
"""Seconds within which a connection that the server has closed fails: one round trip."""

_current: ContextVar[_Attempt] = ContextVar("attempt")


class ConnectionGate:
    """The privacy gate of one tier, with its audit log."""

    def __init__(self, tier: PrivacyTier, networks: Networks, audit: AuditLog) -> None:
        self.tier = tier
        self.networks = networks
        self._audit = audit
        self._recorded: dict[tuple[str, str, bool, str], float] = {}
        """When a decision about a repeated request was last recorded, in monotonic seconds."""

    def pass_address(self, attempt: _Attempt, host: str, port: int | None, *, again: bool = False) -> None:
        """Judge an address and log the decision; `port` is None for a Unix socket.

        Raises:
            PrivacyError: the tier does not admit it.
            AuditError: the decision cannot be written.
        """
        verdict = judge(self.tier, host, tls_name=attempt.tls_name, networks=self.networks)
        self._decide(attempt, _with_port(host, port), verdict, " (an open connection)" if again else "")

    def pass_name(self, attempt: _Attempt, host: str) -> None:
        """Judge whether a host name may be resolved; logged only when it may not. Raises as `pass_address`."""
        if not may_resolve(self.tier, host, tls=attempt.tls_name is not None, networks=self.networks):
            self._decide(
                attempt, host, Verdict(False, PrivacyTier.STANDARD, "a host name that may not be resolved"), ""
            )

    def _decide(self, attempt: _Attempt, address: str, verdict: Verdict, remark: str) -> None:
        refusal = None
        if not verdict.allowed:
            refusal = PrivacyError(
                f"{display(attempt.backend)}: {self.tier} does not admit {display(address)}: {verdict.reason}",
                hint=_HINTS[self.tier],
            )
        if not self._is_known(attempt, address, verdict):
            self._record(attempt, address, verdict, remark, refusal)
        if refusal is not None:
            attempt.refusal = refusal
            raise refusal

    def _record(
        self, attempt: _Attempt, address: str, verdict: Verdict, remark: str, refusal: PrivacyError | None
    ) -> None:
        decision = Decision(
            attempt.request_id, self.tier, attempt.backend, address, verdict.allowed, verdict.reason + remark
        )
        try:
            self._audit.record(decision)
        except BatutaError as error:
            attempt.refusal = refusal or error
            raise attempt.refusal from None
        if attempt.repeated:
            if len(self._recorded) >= _MOST_RECORDED:
                self._recorded.clear()
            self._recorded[attempt.backend, address, verdict.allowed, verdict.reason] = time.monotonic()

    def _is_known(self, attempt: _Attempt, address: str, verdict: Verdict) -> bool:
        """Whether the same decision about a repeated request was recorded within the hour."""
        if not attempt.repeated:
            return False
        key = attempt.backend, address, verdict.allowed, verdict.reason
        return time.monotonic() - self._recorded.get(key, -math.inf) < REPEATED


_HINTS = {
    PrivacyTier.SOVEREIGN: "batuta config set privacy.local_networks 10.1.0.0/16 declares a network to be local",
    PrivacyTier.PRIVATE: "batuta config set privacy.private_networks 10.1.0.0/16 declares a network to be private",
}


def _with_port(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _as_os_error() -> Any:
    """Raise the gate's error as an `OSError`, the only failure of an address that aiohttp handles.

    `_Attempt.refusal` keeps the error itself.
    """
    try:
        yield
    except BatutaError as error:
        raise PermissionError(errno.EPERM, error.message) from error


class _Resolver(AbstractResolver):
    """Uses the system's resolver where the gate allows it, and returns the addresses that the gate admits."""

    def __init__(self, gate: ConnectionGate) -> None:
        self._gate = gate

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        attempt = _current.get()
        if is_localhost(host):
            found = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
            found = [each for each in found if family in (socket.AF_UNSPEC, each[0])]
        else:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            found = self._admitted(attempt, [(info[0], str(info[4][0])) for info in infos], port)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    def _admitted(
        self, attempt: _Attempt, found: list[tuple[socket.AddressFamily, str]], port: int
    ) -> list[tuple[socket.AddressFamily, str]]:
        gate = self._gate
        admitted = [
            each
            for each in found
            if judge(gate.tier, each[1], tls_name=attempt.tls_name, networks=gate.networks).allowed
        ]
        if found and not admitted:
            with _as_os_error():
                gate.pass_address(attempt, found[0][1], port)
        return admitted

    async def close(self) -> None:
        pass


class _Connector(aiohttp.TCPConnector):
    """Opens connections through the gate."""

    def __init__(self, gate: ConnectionGate) -> None:
        super().__init__(
            resolver=_Resolver(gate),
            use_dns_cache=False,  # each connection is judged by a fresh resolution
            socket_factory=self._make_socket,
            limit=0,  # the router limits requests
        )
        self._gate = gate

    async def connect(
        self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        attempt = _current.get()
        verified = req.is_ssl() and req.ssl is True and req.proxy is None
        host = req.url.raw_host or ""
        attempt.tls_name = host if verified else None
        if read_address(host) is None and not is_localhost(host):
            self._gate.pass_name(attempt, host)
        connection = await super().connect(req, traces, timeout)
        attempt.reused = not attempt.opened
        try:
            self._check_peer(attempt, connection)
        except BaseException:
            connection.close()
            raise
        attempt.delivery.begun = True
        return connection

    async def _get(self, key: Any, traces: Any) -> aiohttp.connector.Connection | None:
        attempt = _current.get()
        if attempt.fresh or not self._has_usable(key, attempt):
            return None
        return await super()._get(key, traces)

    def _has_usable(self, key: Any, attempt: _Attempt) -> bool:
        """Whether an open connection may be reused, which is then the first one. Closes those that have ended."""
        now = time.monotonic()
        if (idle := self._conns.get(key)) is None:
            return False
        for entry in tuple(idle):
            protocol, since = entry
            if attempt.once and now - since < YOUNGEST:
                continue
            idle.remove(entry)
            if (attempt.once and now - since > OLDEST) or _has_ended(protocol.transport):
                protocol.close()
                continue
            idle.appendleft(entry)
            return True
        if not idle:
            del self._conns[key]
        return False

    def _make_socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        attempt = _current.get()
        with _as_os_error():
            self._gate.pass_address(attempt, address[0], address[1])
        attempt.opened = True
        return socket.socket(family=family, type=kind, proto=protocol)

    def _check_peer(self, attempt: _Attempt, connection: aiohttp.connector.Connection) -> None:
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        if peer is None:
            raise aiohttp.ServerDisconnectedError
        if attempt.opened:  # the address was logged before the connection was opened
            verdict = judge(self._gate.tier, peer[0], tls_name=attempt.tls_name, networks=self._gate.networks)
            if verdict.allowed:
                return
        self._gate.pass_address(attempt, peer[0], peer[1], again=not attempt.opened)


def _has_ended(transport: asyncio.BaseTransport | None) -> bool:
    """Whether an idle connection is closed, or has data or an end that the event loop has not read yet."""
    if transport is None or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


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
        attempt = _Attempt(request_id, backend, delivery or Delivery(), once=once, repeated=repeated)
        return _Request(self._sent(method, url, attempt, options))

    async def _sent(self, method: str, url: str, first: _Attempt, options: dict[str, Any]) -> aiohttp.ClientResponse:
        target = _checked(url)
        session = self._opened()
        attempt = first
        while True:
            began = time.monotonic()
            token = _current.set(attempt)
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
                attempt = _Attempt(first.request_id, first.backend, first.delivery, fresh=True, repeated=first.repeated)
            except Exception:
                if attempt.refusal is not None:
                    raise attempt.refusal from None
                raise
            finally:
                _current.reset(token)

    def _proxy_to(self, target: URL) -> str | None:
        if not self._proxy:
            return None
        host = target.raw_host or ""
        near = is_localhost(host) or judge(PrivacyTier.SOVEREIGN, host, networks=self.gate.networks).allowed
        return None if near else self._proxy

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # needs a running loop
            self._session = aiohttp.ClientSession(
                connector=_Connector(self.gate),
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
