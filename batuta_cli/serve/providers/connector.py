"""The privacy gate of connections: a connector of aiohttp that asks it before it opens or reuses a connection.

The gate judges each address that is passed to `connect`, and then the address of the peer. `connect.py` sends the
requests and states the rules.
"""

import asyncio
import contextlib
import errno
import math
import select
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from batuta_cli.errors import BatutaError, PrivacyError
from batuta_cli.files import display
from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.gate import Networks, Verdict, is_localhost, judge, may_resolve, read_address
from batuta_cli.serve.tiers import PrivacyTier


@dataclass
class Delivery:
    """Whether a request was sent, for its caller."""

    begun: bool = False
    """A connection is open and the request is being written, so the backend may have read it."""


@dataclass(kw_only=True)
class ConnectionAttempt:
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

current_attempt: ContextVar[ConnectionAttempt] = ContextVar("attempt")
"""The request for which aiohttp opens a connection; the caller of the connector sets it."""


class ConnectionGate:
    """The privacy gate of one tier, with its audit log."""

    def __init__(self, tier: PrivacyTier, networks: Networks, audit: AuditLog) -> None:
        self.tier = tier
        self.networks = networks
        self._audit = audit
        self._recorded: dict[tuple[str, str, bool, str], float] = {}
        """When a decision about a repeated request was last recorded, in monotonic seconds."""

    def pass_address(self, attempt: ConnectionAttempt, host: str, port: int | None, *, again: bool = False) -> None:
        """Judge an address and log the decision; `port` is None for a Unix socket.

        Raises:
            PrivacyError: the tier does not admit it.
            AuditError: the decision cannot be written.
        """
        verdict = judge(self.tier, host, tls_name=attempt.tls_name, networks=self.networks)
        self._decide(attempt, _with_port(host, port), verdict, " (an open connection)" if again else "")

    def pass_name(self, attempt: ConnectionAttempt, host: str) -> None:
        """Judge whether a host name may be resolved; logged only when it may not. Raises as `pass_address`."""
        if not may_resolve(self.tier, host, tls=attempt.tls_name is not None, networks=self.networks):
            self._decide(
                attempt, host, Verdict(False, PrivacyTier.STANDARD, "a host name that may not be resolved"), ""
            )

    def _decide(self, attempt: ConnectionAttempt, address: str, verdict: Verdict, remark: str) -> None:
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
        self, attempt: ConnectionAttempt, address: str, verdict: Verdict, remark: str, refusal: PrivacyError | None
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

    def _is_known(self, attempt: ConnectionAttempt, address: str, verdict: Verdict) -> bool:
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

    `ConnectionAttempt.refusal` keeps the error itself.
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
        attempt = current_attempt.get()
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
        self, attempt: ConnectionAttempt, found: list[tuple[socket.AddressFamily, str]], port: int
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


class GatedConnector(aiohttp.TCPConnector):
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
        attempt = current_attempt.get()
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
        attempt = current_attempt.get()
        if attempt.fresh or not self._has_usable(key, attempt):
            return None
        return await super()._get(key, traces)

    def _has_usable(self, key: Any, attempt: ConnectionAttempt) -> bool:
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
        attempt = current_attempt.get()
        with _as_os_error():
            self._gate.pass_address(attempt, address[0], address[1])
        attempt.opened = True
        return socket.socket(family=family, type=kind, proto=protocol)

    def _check_peer(self, attempt: ConnectionAttempt, connection: aiohttp.connector.Connection) -> None:
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
