"""The access check: decides from the peer's address and the headers, before any byte of the body is read.

* While no client key has been created, only the loopback is served, and only under a loopback `Host`. A web page whose
  domain was made to resolve to 127.0.0.1 (DNS rebinding) still sends its own domain as `Host`. A request that a proxy
  forwarded does not count as coming from the loopback.
* An expired key is refused like a revoked one, but in words that say so.
* Once there are client keys, every request needs one, from the loopback too: a proxy on this machine also connects
  from the loopback.
* A request with an `Origin` comes from a web page. The origin must be listed in `[gateway] origins`, because the page
  would spend the operator's money.
* `/metrics` beyond the loopback needs an admin key: it shows the names of keys and models, and what they cost.
* A header that decides about access or privacy must not be repeated.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.gateway.key_limits import NO_LIMITS, KeyLimits
from batuta_cli.serve.gateway.keys import ClientKey, ClientKeys, now
from batuta_cli.serve.tiers import PrivacyTier

Headers = Sequence[tuple[bytes, bytes]]

_LOOPBACK_HOST = re.compile(rb"(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_FORWARDED = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
)
_SINGLE = frozenset(
    (b"host", b"origin", b"authorization", b"x-api-key", b"api-key", b"x-batuta-privacy", b"content-type")
)
_READABLE = b", ".join(
    (
        b"x-request-id", b"x-batuta-backend", b"x-batuta-tier", b"x-batuta-cost", b"retry-after",
        b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests",
    )
)  # fmt: skip
"""Response headers that a page of a listed origin may read."""
_JSON = re.compile(rb"application/json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def read_headers(headers: Headers) -> dict[bytes, bytes]:
    """The headers by name. Raises `HttpError` when a header that decides about access or privacy is repeated."""
    by_name = dict(headers)
    if len(by_name) != len(headers):
        names = [name for name, _ in headers]
        for name in _SINGLE.intersection(names):
            if names.count(name) > 1:
                raise HttpError(400, "duplicate_header", f"the header {name.decode()} is repeated; send it once")
    return by_name


@dataclass(frozen=True)
class Client:
    """An admitted client."""

    name: str = ""
    """Name of the client key; empty when no key is required."""
    admin: bool = True
    """Whether it may read `/metrics`: it comes from the loopback, or has an admin key."""
    limits: KeyLimits = NO_LIMITS
    """The limits of its key."""
    key_id: str = ""
    """The SHA-256 of its key; empty when no key is required."""


class AccessCheck:
    """Decides which requests are admitted."""

    def __init__(self, keys: ClientKeys, origins: Collection[str]) -> None:
        self._keys = keys
        self.origins = origins

    @property
    def origins(self) -> Collection[str]:
        """The origins of web pages that may send requests."""
        return [origin.decode() for origin in self._origins]

    @origins.setter
    def origins(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def admit(self, peer: Sequence[object] | None, headers: Mapping[bytes, bytes]) -> Client:
        """The client of a request. Raises `HttpError`. `peer` is the address and port of the connection's other end."""
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            raise HttpError(403, "origin", "this Origin is not listed in [gateway] origins")
        try:
            required = self._keys.required
        except BatutaError:
            raise HttpError(503, "client_keys", "the list of client keys cannot be read") from None
        near = _is_loopback(peer) and _FORWARDED.isdisjoint(headers)
        if required:
            key = self._key(headers)
            return Client(key.name, key.admin or near, key.limits, key.sha256)
        if not near:
            raise HttpError(401, "missing_key", "a client key is required beyond the loopback")
        if not _LOOPBACK_HOST.fullmatch(headers.get(b"host", b"")):
            raise HttpError(403, "host", "the Host is not a loopback name such as 127.0.0.1 or localhost")
        return Client()

    def _key(self, headers: Mapping[bytes, bytes]) -> ClientKey:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key") or headers.get(b"api-key", b"")
        if not key.strip():
            raise HttpError(401, "missing_key", "a client key is required", headers={b"www-authenticate": b"Bearer"})
        entry = self._keys.find(key.strip())
        if entry is None:
            raise HttpError(401, "invalid_api_key", "the client key is unknown or revoked")
        if entry.limits.expired(now()):
            raise HttpError(401, "expired_key", f"the client key expired at {entry.limits.expires:%Y-%m-%d %H:%M} UTC")
        return entry

    def cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The response headers with which a browser lets a page of a listed origin read the response."""
        origin = headers.get(b"origin")
        if origin is None or origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _READABLE),
            (b"vary", b"origin"),
        ]


def _is_loopback(peer: Sequence[object] | None) -> bool:
    if not peer:
        return False
    if peer[0] == "127.0.0.1":
        return True
    try:
        address = ipaddress.ip_address(str(peer[0]))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_json(headers: Mapping[bytes, bytes]) -> None:
    """Raise `HttpError` unless the content type is JSON.

    A page of a foreign origin cannot send that content type without a CORS preflight.
    """
    if not _JSON.fullmatch(headers.get(b"content-type", b"").strip()):
        raise HttpError(415, "content_type", "the content type must be application/json")


def tier_for(headers: Mapping[bytes, bytes], configured: PrivacyTier, limits: KeyLimits) -> PrivacyTier:
    """The tier of a request: `X-Batuta-Privacy`, or the stricter one of the configured tier and that of the key.

    Raises `HttpError` when the header is looser than these two.
    """
    default = limits.tier(configured)
    value = headers.get(b"x-batuta-privacy")
    if value is None:
        return default
    try:
        tier = PrivacyTier.parse(value.decode("latin-1").strip())
    except UsageError:
        tiers = ", ".join(PrivacyTier)
        raise HttpError(
            400, "invalid_value", f"X-Batuta-Privacy must be one of {tiers}", param="X-Batuta-Privacy"
        ) from None
    if not default.admits(tier):
        whose = "the configured tier" if default is configured else "the tier of this key"
        raise HttpError(403, "privacy", f"X-Batuta-Privacy must not be looser than {whose}, {default}")
    return tier
