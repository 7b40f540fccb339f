"""The privacy gate: whether a request of a tier may go to an address. A pure judgement: it resolves and opens nothing.

It judges addresses, not names. Sovereign: the loopback, a Unix socket, or a network declared local. Private: these, a
network declared private, or https with a verified certificate to a host name of the private clouds. Everything else is
Standard, whatever the profile of the backend claims; so is text that is no address.

Some addresses are never local, even inside a declared network, because what they lead to is decided elsewhere: those
that stand for an IPv4 address behind a translator or a tunnel (NAT64, 6to4, Teredo, ISATAP), link-local ones (the
metadata services of the clouds among them), multicast, `0.0.0.0` and `::`, and any with a scope. An IPv4-mapped
address is the IPv4 address it contains.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, Self

from batuta_cli.serve.tiers import PrivacyTier

if TYPE_CHECKING:
    from batuta_cli.config import Config

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX = "unix:"
"""Stands before the path of a Unix socket."""

PRIVATE_CLOUD = "a private cloud behind a verified certificate"
UNRESOLVED = "depends on the address of the host name"
"""Reasons of verdicts that a host name decided, or has not decided yet."""


@dataclass(frozen=True)
class Networks:
    """Networks that the user declared near: `local_networks` and `private_networks` of the configuration."""

    local: tuple[Network, ...] = ()
    private: tuple[Network, ...] = ()

    @classmethod
    def configured(cls, config: "Config") -> Self:
        """Those of a configuration."""
        return cls(config.privacy.local_networks, config.privacy.private_networks)


NO_NETWORKS = Networks()


class Verdict(NamedTuple):
    """Whether a tier admits an address, the tier the address belongs to, and why."""

    allowed: bool
    tier: PrivacyTier
    reason: str


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
        ("::/96", "an IPv4-compatible address"),  # RFC 4291, deprecated; the loopback is judged before
        ("::ffff:0:0:0/96", "a translated IPv4 address"),  # RFC 2765
        ("64:ff9b::/96", "a NAT64 address"),  # RFC 6052
        ("64:ff9b:1::/48", "a NAT64 address"),  # RFC 8215
        ("2001::/32", "a Teredo address"),  # RFC 4380
        ("2002::/16", "a 6to4 address"),  # RFC 3056
        ("fe80::/10", "a link-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: upper half of the interface identifier, the lower is an IPv4 address


def judge(
    tier: PrivacyTier,
    address: str | Address,
    *,
    tls_name: str | None = None,
    networks: Networks = NO_NETWORKS,
) -> Verdict:
    """Whether `tier` admits a connection to `address`.

    Args:
        address: an IP address as `ipaddress` reads it, or `unix:` and a path. Never a host name: that has to be
            resolved first, and what it resolved to is judged.
        tls_name: the host name that the peer's certificate was verified for, or must be before anything is sent.
    """
    near, reason = _place(address, networks)
    if near is PrivacyTier.STANDARD and tls_name is not None and is_private_host(tls_name):
        near, reason = PrivacyTier.PRIVATE, PRIVATE_CLOUD
    return Verdict(tier.admits(near), near, reason)


@lru_cache(maxsize=1024)
def read_address(text: str) -> Address | None:
    """The IP address that `text` is, an IPv4-mapped one unmapped; None for anything else.

    `127.1`, `0x7f.1`, `0177.0.0.1` and `2130706433` are names: who resolves them decides what they mean.
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
    """The tier that an address belongs to by itself, and why."""
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
    """Whether a host name is one of the private clouds', by the patterns in their profiles.

    A name with anything but letters, digits, dashes and dots, or with a dot at the end, is not: what a certificate
    was verified for would have to be argued about.
    """
    if patterns is None:
        from batuta_cli.serve.backends.kinds import private_hosts

        patterns = private_hosts()
    return any(_pattern(pattern).fullmatch(name.lower()) for pattern in patterns)


@lru_cache(maxsize=64)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("[a-z0-9-]+".join(re.escape(part) for part in pattern.lower().split("*")), re.ASCII)


def is_localhost(name: str) -> bool:
    """Whether a host name means the loopback without asking a resolver (RFC 6761, section 6.3)."""
    return name.lower().removesuffix(".") == "localhost"


def may_resolve(tier: PrivacyTier, host: str, *, tls: bool, networks: Networks = NO_NETWORKS) -> bool:
    """Whether a host name may be asked of a resolver under `tier`: the question alone can tell who talks to whom.

    Sovereign only when there are local networks that the answer could lie in; Private also for the private clouds
    over https, and when there are private networks.
    """
    if tier is PrivacyTier.STANDARD or networks.local:
        return True
    return tier is PrivacyTier.PRIVATE and (bool(networks.private) or (tls and is_private_host(host)))


def foresee(tier: PrivacyTier, url: str, *, networks: Networks = NO_NETWORKS) -> Verdict:
    """What the gate can be expected to say to a URL, without resolving its host name.

    For plans and tables; the gate itself judges at the time of the connection. A host name that could turn out to lie
    in a declared network is allowed here, as the tier asked for.
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
        return Verdict(True, tier, UNRESOLVED)
    if verdict.tier is PrivacyTier.STANDARD:
        return verdict._replace(reason="a host name")
    return verdict
