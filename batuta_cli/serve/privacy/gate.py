"""The privacy gate: whether a request of a privacy tier may be sent to an address. It resolves and opens nothing.

It judges addresses, not names. Sovereign: the loopback, a Unix socket, or a network in `local_networks`. Private: also
`private_networks`, and https with a verified certificate to a host name of the private clouds. Any other address is
Standard, regardless of the backend's profile, and so is a text that is not an address.

Some addresses are never local, even within a declared network, because other machines decide where they lead: addresses
that contain an IPv4 address for a translator or a tunnel (NAT64, 6to4, Teredo, ISATAP), link-local addresses (such as
the clouds' metadata services), multicast, `0.0.0.0`, `::`, and addresses with a scope. An IPv4-mapped address counts as
its IPv4 address.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, Self

from batuta_cli.serve.names import NameEnum
from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Config

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX = "unix:"
"""The prefix of the path of a Unix socket."""

PRIVATE_CLOUD = "a private cloud behind a verified certificate"
"""The reason of verdicts about hosts of the private clouds."""


@dataclass(frozen=True)
class Networks:
    """The networks in `local_networks` and `private_networks` of the configuration."""

    local: tuple[Network, ...] = ()
    private: tuple[Network, ...] = ()

    @classmethod
    def configured(cls, config: "Config") -> Self:
        """The networks of a configuration."""
        return cls(config.privacy.local_networks, config.privacy.private_networks)


NO_NETWORKS = Networks()


class Basis(NameEnum):
    """What a verdict was made from."""

    ADDRESS = "address"
    """An address, or a host name whose tier does not depend on its address."""
    UNRESOLVED_NAME = "unresolved name"
    """A host name whose tier depends on an address that is not known yet."""


class Verdict(NamedTuple):
    """Whether a tier allows an address, the tier of the address, and the reason."""

    allowed: bool
    tier: PrivacyTier
    reason: str
    basis: Basis = Basis.ADDRESS


class _Range(NamedTuple):
    network: Network
    what: str


# https://www.iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry
_NEVER_LOCAL = tuple(
    _Range(ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("169.254.0.0/16", "a link-local address"),
        ("192.88.99.0/24", "a 6to4 relay"),  # RFC 7526
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved or broadcast address"),
        ("::/128", "an unspecified address"),
        ("::/96", "an IPv4-compatible address"),  # RFC 4291, deprecated; the loopback is tested before
        ("::ffff:0:0:0/96", "a translated IPv4 address"),  # RFC 2765
        ("64:ff9b::/96", "a NAT64 address"),  # RFC 6052
        ("64:ff9b:1::/48", "a NAT64 address"),  # RFC 8215
        ("2001::/32", "a Teredo address"),  # RFC 4380
        ("2002::/16", "a 6to4 address"),  # RFC 3056
        ("fe80::/10", "a link-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
_ISATAP = (
    0x00005EFE,
    0x02005EFE,
)  # RFC 5214: upper half of the interface identifier; the lower half is an IPv4 address


def judge(
    tier: PrivacyTier,
    address: str | Address,
    *,
    tls_name: str | None = None,
    networks: Networks = NO_NETWORKS,
) -> Verdict:
    """Whether `tier` allows a connection to `address`.

    Args:
        address: an IP address in the form of `ipaddress`, or `unix:` and a path. A host name must be resolved first.
        tls_name: the host name for which the peer's certificate is verified before any data is sent.
    """
    near, reason = _place(address, networks)
    if near is PrivacyTier.STANDARD and tls_name is not None and is_private_host(tls_name):
        near, reason = PrivacyTier.PRIVATE, PRIVATE_CLOUD
    return Verdict(tier.admits(near), near, reason)


@lru_cache(maxsize=1024)
def read_address(text: str) -> Address | None:
    """The IP address in `text`, an IPv4-mapped one as IPv4; None for any other text.

    `127.1`, `0x7f.1`, `0177.0.0.1` and `2130706433` count as names, because resolvers interpret them differently.
    """
    try:
        return _unmapped(ip_address(text))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped and not address.scope_id:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def _place(address: str | Address, networks: Networks) -> tuple[PrivacyTier, str]:
    """The tier of an address, and the reason."""
    if isinstance(address, str):
        if address.startswith(UNIX) and len(address) > len(UNIX):
            return PrivacyTier.SOVEREIGN, "a Unix socket"
        parsed = read_address(address)
        if parsed is None:
            return PrivacyTier.STANDARD, "not an IP address"
    else:
        parsed = _unmapped(address)
    if isinstance(parsed, IPv6Address) and parsed.scope_id:
        return PrivacyTier.STANDARD, "an address with a scope, never local"
    if parsed.is_loopback:
        return PrivacyTier.SOVEREIGN, "the loopback"
    if what := _never_local(parsed):
        return PrivacyTier.STANDARD, f"{what}, never local"
    if any(parsed in network for network in networks.local):
        return PrivacyTier.SOVEREIGN, "in local_networks"
    if any(parsed in network for network in networks.private):
        return PrivacyTier.PRIVATE, "in private_networks"
    return PrivacyTier.STANDARD, "not in a declared network"


def _never_local(address: Address) -> str | None:
    if isinstance(address, IPv6Address) and (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "an ISATAP address"
    return next((what for network, what in _NEVER_LOCAL if address in network), None)


def is_private_host(name: str, patterns: Sequence[str] | None = None) -> bool:
    """Whether a host name matches a pattern of the private clouds' profiles.

    A name with other characters than letters, digits, dashes and dots, or with a final dot, does not match: certificate
    checks differ for such names.
    """
    if patterns is None:
        from batuta_cli.serve.backends.kinds import private_hosts

        patterns = private_hosts()
    return any(_pattern(pattern).fullmatch(name.lower()) for pattern in patterns)


@lru_cache(maxsize=64)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("[a-z0-9-]+".join(re.escape(part) for part in pattern.lower().split("*")), re.ASCII)


def is_localhost(name: str) -> bool:
    """Whether a host name is the loopback without a resolver (RFC 6761, section 6.3)."""
    return name.lower().removesuffix(".") == "localhost"


def may_resolve(tier: PrivacyTier, host: str, *, tls: bool, networks: Networks = NO_NETWORKS) -> bool:
    """Whether `tier` allows a DNS query for a host name. The query itself reveals the destination.

    Sovereign: only with `local_networks`, which may contain the address. Private: also with `private_networks`, and for
    the private clouds over https.
    """
    if tier is PrivacyTier.STANDARD or networks.local:
        return True
    return tier is PrivacyTier.PRIVATE and (bool(networks.private) or (tls and is_private_host(host)))


def foresee(tier: PrivacyTier, url: str, *, networks: Networks = NO_NETWORKS) -> Verdict:
    """The expected verdict about a URL, without resolving its host name.

    For plans and tables; the gate itself judges when the connection is made. A host name whose address may be in a
    declared network is allowed here, with the given tier.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, tls = parts.hostname or "", parts.scheme == "https"
    except ValueError:
        return Verdict(tier.admits(PrivacyTier.STANDARD), PrivacyTier.STANDARD, "not a usable address")
    if is_localhost(host):
        return judge(tier, "127.0.0.1")
    if read_address(host) is not None:
        return judge(tier, host, networks=networks)
    verdict = judge(tier, host, tls_name=host if tls else None, networks=networks)
    if not verdict.allowed and may_resolve(tier, host, tls=tls, networks=networks):
        return Verdict(True, tier, "depends on the address of the host name", Basis.UNRESOLVED_NAME)
    if verdict.tier is PrivacyTier.STANDARD:
        return verdict._replace(reason="a host name")
    return verdict
