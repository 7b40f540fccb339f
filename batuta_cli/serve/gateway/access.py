"""Who is let in: judged from the connection's address and the headers, before a byte of the body is read.

* Without a single client key only the loopback is served, and only under a loopback name: a web page whose own name
  was made to point at 127.0.0.1 (DNS rebinding) still sends its own name as `Host`. What was forwarded by a proxy does
  not come from the loopback, whatever the connection says.
* With keys, every request needs one, from the loopback as well: a proxy on this machine looks just like it.
* A request with an `Origin` is from a web page, and must be listed in `[gateway] origins`; it would spend the owner's
  money.
* A header that decides must not come twice.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence

from batuta_cli.errors import BatutaError, UsageError
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.gateway.keys import ClientKeys
from batuta_cli.serve.tiers import PrivacyTier

Headers = Sequence[tuple[bytes, bytes]]

_LOOPBACK_HOST = re.compile(rb"(?:127(?:\.[0-9]{1,3}){3}|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_FORWARDED = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
)
_ONCE = frozenset((b"host", b"origin", b"authorization", b"x-api-key", b"x-batuta-privacy", b"content-type"))
_JSON = re.compile(rb"application/json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def read_headers(headers: Headers) -> dict[bytes, bytes]:
    """The headers by name. Raises `HttpError` when one that decides comes twice."""
    found = dict(headers)
    if len(found) != len(headers):
        names = [name for name, _ in headers]
        for name in _ONCE.intersection(names):
            if names.count(name) > 1:
                raise HttpError(400, "duplicate_header", f"the header {name.decode()} comes twice")
    return found


class AccessCheck:
    """Says who is let in."""

    def __init__(self, keys: ClientKeys, origins: Collection[str]) -> None:
        self._keys = keys
        self._origins = frozenset(origin.encode() for origin in origins)

    def admit(self, client: Sequence[object] | None, headers: Mapping[bytes, bytes]) -> str:
        """The name of the client's key, empty when none is needed. Raises `HttpError`."""
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            raise HttpError(403, "origin", "web pages of this origin are not listed in [gateway] origins")
        try:
            required = self._keys.required
        except BatutaError:
            raise HttpError(503, "client_keys", "the list of client keys cannot be read") from None
        if required:
            return self._owner(headers)
        if not _is_loopback(client) or not _FORWARDED.isdisjoint(headers):
            raise HttpError(401, "missing_key", "beyond the loopback a client key is required")
        if not _LOOPBACK_HOST.fullmatch(headers.get(b"host", b"")):
            raise HttpError(403, "host", "the Host is not a name of the loopback, such as 127.0.0.1 or localhost")
        return ""

    def _owner(self, headers: Mapping[bytes, bytes]) -> str:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key", b"")
        if not key.strip():
            raise HttpError(401, "missing_key", "a client key is required", headers={b"www-authenticate": b"Bearer"})
        owner = self._keys.owner(key.strip())
        if owner is None:
            raise HttpError(401, "invalid_api_key", "the client key is not known, or was revoked")
        return owner

    def cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers by which a browser lets a page of a listed origin see the answer."""
        origin = headers.get(b"origin")
        if origin is None or origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"x-request-id, x-batuta-backend, x-batuta-tier, x-batuta-cost"),
            (b"vary", b"origin"),
        ]


def _is_loopback(client: Sequence[object] | None) -> bool:
    if not client:
        return False
    if client[0] == "127.0.0.1":
        return True
    try:
        address = ipaddress.ip_address(str(client[0]))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_json(headers: Mapping[bytes, bytes]) -> None:
    """Raise `HttpError` unless the body is declared as JSON, which a foreign page cannot do without being asked."""
    if not _JSON.fullmatch(headers.get(b"content-type", b"").strip()):
        raise HttpError(415, "content_type", "the content type must be application/json")


def tier_for(headers: Mapping[bytes, bytes], default: PrivacyTier) -> PrivacyTier:
    """The tier of a request: the default, or the one in `X-Batuta-Privacy` when that is no more open."""
    asked = headers.get(b"x-batuta-privacy")
    if asked is None:
        return default
    try:
        tier = PrivacyTier.parse(asked.decode("latin-1").strip())
    except UsageError:
        words = ", ".join(PrivacyTier)
        raise HttpError(400, "invalid_value", f"X-Batuta-Privacy must be one of {words}", "X-Batuta-Privacy") from None
    if not default.admits(tier):
        raise HttpError(403, "privacy", f"X-Batuta-Privacy may not loosen the tier, which is {default} here")
    return tier
