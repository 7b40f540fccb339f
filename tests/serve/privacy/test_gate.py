"""The privacy gate: which address belongs to which tier, by a table of cases."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.serve.privacy.gate import (
    Networks,
    foresee,
    is_localhost,
    is_private_host,
    judge,
    may_resolve,
    read_address,
)
from batuta_cli.serve.tiers import PrivacyTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD

OFFICE = Networks(
    (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"), ip_network("2001:db8:1::/48")),
    (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("203.0.113.0/24")),
)
# Somebody who declares nearly everything: what is never local stays out all the same.
GENEROUS = Networks(
    (ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1"), ip_network("::/1"), ip_network("8000::/1")),
)

# address, TLS name, tier of the address with OFFICE
CASES = [
    # the loopback
    ("127.0.0.1", None, SOVEREIGN),
    ("127.0.0.2", None, SOVEREIGN),
    ("127.255.255.254", None, SOVEREIGN),
    ("126.255.255.255", None, STANDARD),
    ("128.0.0.1", None, STANDARD),
    ("::1", None, SOVEREIGN),
    ("0:0:0:0:0:0:0:1", None, SOVEREIGN),
    ("0000:0000:0000:0000:0000:0000:0000:0001", None, SOVEREIGN),
    ("::2", None, STANDARD),
    # IPv4-mapped addresses are what they contain
    ("::ffff:127.0.0.1", None, SOVEREIGN),
    ("::FFFF:7F00:1", None, SOVEREIGN),
    ("::ffff:10.1.2.3", None, SOVEREIGN),
    ("::ffff:10.2.2.3", None, PRIVATE),
    ("::ffff:8.8.8.8", None, STANDARD),
    ("::ffff:169.254.169.254", None, STANDARD),
    ("::ffff:0.0.0.0", None, STANDARD),
    # sockets
    ("unix:/run/llama.sock", None, SOVEREIGN),
    ("unix:", None, STANDARD),
    ("/run/llama.sock", None, STANDARD),
    # declared networks, and their edges
    ("10.1.0.0", None, SOVEREIGN),
    ("10.1.255.255", None, SOVEREIGN),
    ("10.0.255.255", None, PRIVATE),
    ("10.2.0.0", None, PRIVATE),
    ("9.255.255.255", None, STANDARD),
    ("11.0.0.0", None, STANDARD),
    ("203.0.113.9", None, PRIVATE),
    ("203.0.114.1", None, STANDARD),
    ("fd00:1::5", None, SOVEREIGN),
    ("fd00:2::5", None, PRIVATE),
    ("fc00::5", None, STANDARD),
    ("2001:db8:1::1", None, SOVEREIGN),
    ("2001:db8:2::1", None, STANDARD),
    # private by RFC 1918 is not declared
    ("192.168.1.10", None, STANDARD),
    ("172.16.0.1", None, STANDARD),
    ("100.64.0.1", None, STANDARD),
    # public
    ("8.8.8.8", None, STANDARD),
    ("2606:4700::1111", None, STANDARD),
    # text that only some programs take for an address
    ("127.1", None, STANDARD),
    ("127.0.1", None, STANDARD),
    ("2130706433", None, STANDARD),
    ("0x7f000001", None, STANDARD),
    ("0x7f.0.0.1", None, STANDARD),
    ("0x7f.1", None, STANDARD),
    ("0177.0.0.1", None, STANDARD),
    ("127.0.0.01", None, STANDARD),
    ("017700000001", None, STANDARD),
    ("127.0.0.1.", None, STANDARD),
    ("127.0.0.1 ", None, STANDARD),
    (" 127.0.0.1", None, STANDARD),
    ("127.0.0.1\n", None, STANDARD),
    ("127.0.0.1\x00", None, STANDARD),
    ("127.0.0.1:8080", None, STANDARD),
    ("127.0.0.1/8", None, STANDARD),
    ("user@127.0.0.1", None, STANDARD),
    ("127.0.0.1@evil.example", None, STANDARD),
    ("127。0。0。1", None, STANDARD),
    ("１２７.0.0.1", None, STANDARD),
    ("٠.0.0.1", None, STANDARD),
    ("[::1]", None, STANDARD),
    ("::1.", None, STANDARD),
    ("::00001", None, STANDARD),
    (":::1", None, STANDARD),
    ("", None, STANDARD),
    ("localhost", None, STANDARD),
    ("LOCALHOST", None, STANDARD),
    ("example.com", None, STANDARD),
    ("127.0.0.1.example.com", None, STANDARD),
    ("xn--lcalhost-54a", None, STANDARD),
    # scopes
    ("::1%lo", None, STANDARD),
    ("fe80::1%eth0", None, STANDARD),
    ("fd00:1::5%eth0", None, STANDARD),
    ("::ffff:127.0.0.1%eth0", None, STANDARD),
    # the private clouds, behind a verified certificate
    ("20.1.2.3", "contoso.openai.azure.com", PRIVATE),
    ("20.1.2.3", "Contoso.OpenAI.Azure.Com", PRIVATE),
    ("20.1.2.3", "contoso.openai.azure.com.", STANDARD),
    ("20.1.2.3", "openai.azure.com", STANDARD),
    ("20.1.2.3", ".openai.azure.com", STANDARD),
    ("20.1.2.3", "a.b.openai.azure.com", STANDARD),
    ("20.1.2.3", "contoso.openai.azure.com.evil.example", STANDARD),
    ("20.1.2.3", "contosoXopenai.azure.com", STANDARD),
    ("20.1.2.3", "contoso.openaiXazure.com", STANDARD),
    ("20.1.2.3", "contoso.openai.azure.com\n", STANDARD),
    ("20.1.2.3", "contoso.openai.azure.com\x00.evil.example", STANDARD),
    ("20.1.2.3", "ſ.openai.azure.com", STANDARD),
    ("20.1.2.3", "*.openai.azure.com", STANDARD),
    ("20.1.2.3", "", STANDARD),
    ("52.1.2.3", "bedrock-runtime.eu-central-1.amazonaws.com", PRIVATE),
    ("52.1.2.3", "bedrock-runtime.amazonaws.com", STANDARD),
    ("52.1.2.3", "bedrock-runtime.evil.example.amazonaws.com", STANDARD),
    ("52.1.2.3", "s3.eu-central-1.amazonaws.com", STANDARD),
    ("52.1.2.3", "bedrock-runtime.eu-central-1.amazonaws.com.cn", STANDARD),
    ("34.1.2.3", "europe-west1-aiplatform.googleapis.com", PRIVATE),
    ("34.1.2.3", "aiplatform.googleapis.com", PRIVATE),
    ("34.1.2.3", "storage.googleapis.com", STANDARD),
    ("34.1.2.3", "evil.example-aiplatform.googleapis.com", STANDARD),
    ("34.1.2.3", "api.openai.com", STANDARD),
    ("34.1.2.3", "api.groq.com", STANDARD),
    # a certificate makes nothing more local, nor less
    ("127.0.0.1", "api.groq.com", SOVEREIGN),
    ("10.1.2.3", "contoso.openai.azure.com", SOVEREIGN),
    ("192.168.1.10", "contoso.openai.azure.com", PRIVATE),
    ("64:ff9b::1401:203", "contoso.openai.azure.com", PRIVATE),
]


@pytest.mark.parametrize(("address", "tls_name", "expected"), CASES)
def test_an_address_has_one_tier_and_is_admitted_by_it_and_the_more_open_ones(
    address: str, tls_name: str | None, expected: PrivacyTier
) -> None:
    for tier in PrivacyTier:
        verdict = judge(tier, address, tls_name=tls_name, networks=OFFICE)
        assert verdict.tier is expected
        assert verdict.allowed is (list(PrivacyTier).index(tier) >= list(PrivacyTier).index(expected))
        assert verdict.reason


NEVER_LOCAL = [
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::2",
    "::7f00:1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:7f00:1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1:ffff::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2002:7f00:1::",
    "2002:7f00:1::1",
    "2002:a01:203::1",
    "fe80::1",
    "febf::1",
    "fe80::5efe:7f00:1",
    "ff02::1",
    "ff0e::1",
    "2001:db8:1::5efe:127.0.0.1",
    "2001:db8:1::200:5efe:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:224.0.0.1",
    "::1%lo",
]


@pytest.mark.parametrize("address", NEVER_LOCAL)
def test_what_leads_elsewhere_is_never_local_even_in_a_declared_network(address: str) -> None:
    for networks in (GENEROUS, Networks(private=GENEROUS.local)):
        for tier in (SOVEREIGN, PRIVATE):
            assert not judge(tier, address, networks=networks).allowed
        assert judge(STANDARD, address, networks=networks).allowed


NEIGHBOURS = [
    "1.1.1.1",
    "169.253.255.255",
    "169.255.0.0",
    "192.88.98.255",
    "192.88.100.0",
    "223.255.255.255",
    "64:ff9a::1",
    "64:ff9b:2::1",
    "2001:1::1",
    "2003::1",
    "fe7f::1",
    "fec0::1",
    "feff::1",
    "2001:db8::5efd:0:1",
]


@pytest.mark.parametrize("address", NEIGHBOURS)
def test_the_neighbours_of_those_ranges_can_be_declared(address: str) -> None:
    assert judge(SOVEREIGN, address, networks=GENEROUS).tier is SOVEREIGN


def test_the_reason_names_what_the_address_is() -> None:
    for address, what in (
        ("0.0.0.0", "an unspecified address"),  # noqa: S104
        ("::", "an unspecified address"),
        ("::7f00:1", "an IPv4-compatible address"),
        ("169.254.169.254", "a link-local address"),
        ("64:ff9b::1", "a NAT64 address"),
    ):
        assert judge(SOVEREIGN, address).reason == f"{what}, never local"


@given(st.ip_addresses())
def test_the_text_of_an_address_is_judged_as_the_address(address: object) -> None:
    assert judge(SOVEREIGN, str(address), networks=OFFICE) == judge(
        SOVEREIGN, ip_address(str(address)), networks=OFFICE
    )


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_what_it_contains(address: object) -> None:
    for networks in (OFFICE, GENEROUS, Networks()):
        assert judge(SOVEREIGN, f"::ffff:{address}", networks=networks) == judge(
            SOVEREIGN, str(address), networks=networks
        )


@given(st.text(), st.sampled_from(PrivacyTier))
def test_text_that_is_no_address_is_never_admitted_by_a_strict_tier(text: str, tier: PrivacyTier) -> None:
    if read_address(text) is None and not text.startswith("unix:"):
        assert judge(tier, text, networks=GENEROUS).allowed is (tier is STANDARD)


@given(st.ip_addresses(), st.sampled_from(PrivacyTier), st.sampled_from(PrivacyTier))
def test_a_stricter_tier_never_admits_more(address: object, one: PrivacyTier, other: PrivacyTier) -> None:
    if one.admits(other) and judge(other, str(address), networks=OFFICE).allowed:
        assert judge(one, str(address), networks=OFFICE).allowed


def test_only_the_name_localhost_means_the_loopback_without_a_resolver() -> None:
    assert all(map(is_localhost, ("localhost", "LocalHost", "localhost.")))
    assert not any(map(is_localhost, ("localhost..", "localhost.example.com", "local", "xlocalhost", "ⓛocalhost", "")))


@pytest.mark.parametrize(
    ("tier", "host", "tls", "networks", "asked"),
    [
        (SOVEREIGN, "llm.office.example", False, Networks(), False),
        (SOVEREIGN, "llm.office.example", True, Networks(), False),
        (SOVEREIGN, "contoso.openai.azure.com", True, Networks(), False),
        (SOVEREIGN, "llm.office.example", False, Networks(private=OFFICE.private), False),
        (SOVEREIGN, "llm.office.example", False, Networks(local=OFFICE.local), True),
        (PRIVATE, "llm.office.example", False, Networks(), False),
        (PRIVATE, "llm.office.example", True, Networks(), False),
        (PRIVATE, "contoso.openai.azure.com", True, Networks(), True),
        (PRIVATE, "contoso.openai.azure.com", False, Networks(), False),
        (PRIVATE, "llm.office.example", False, Networks(private=OFFICE.private), True),
        (PRIVATE, "llm.office.example", False, Networks(local=OFFICE.local), True),
        (STANDARD, "api.groq.com", True, Networks(), True),
    ],
)
def test_a_host_name_is_asked_of_a_resolver_only_where_its_answer_could_be_admitted(
    tier: PrivacyTier, host: str, tls: bool, networks: Networks, asked: bool
) -> None:
    assert may_resolve(tier, host, tls=tls, networks=networks) is asked


@pytest.mark.parametrize(
    ("url", "tier", "networks", "allowed", "place"),
    [
        ("http://127.0.0.1:8080/v1", SOVEREIGN, Networks(), True, SOVEREIGN),
        ("http://[::1]:8080/v1", SOVEREIGN, Networks(), True, SOVEREIGN),
        ("http://localhost:8080/v1", SOVEREIGN, Networks(), True, SOVEREIGN),
        ("http://10.1.2.3/v1", SOVEREIGN, OFFICE, True, SOVEREIGN),
        ("http://10.1.2.3/v1", SOVEREIGN, Networks(), False, STANDARD),
        ("http://llm.office.example/v1", SOVEREIGN, Networks(), False, STANDARD),
        ("http://llm.office.example/v1", SOVEREIGN, OFFICE, True, SOVEREIGN),  # the gate will know
        ("https://contoso.openai.azure.com/openai/v1", SOVEREIGN, Networks(), False, PRIVATE),
        ("https://contoso.openai.azure.com/openai/v1", PRIVATE, Networks(), True, PRIVATE),
        ("http://contoso.openai.azure.com/openai/v1", PRIVATE, Networks(), False, STANDARD),
        ("https://api.groq.com/openai/v1", PRIVATE, Networks(), False, STANDARD),
        ("https://api.groq.com/openai/v1", STANDARD, Networks(), True, STANDARD),
        ("http://[::1%25lo]/v1", SOVEREIGN, Networks(), False, STANDARD),
        ("http://[::1/v1", SOVEREIGN, Networks(), False, STANDARD),
        ("http://2130706433/v1", SOVEREIGN, Networks(), False, STANDARD),
    ],
)
def test_what_the_gate_will_say_to_a_url_can_be_foreseen_without_asking_anybody(
    url: str, tier: PrivacyTier, networks: Networks, allowed: bool, place: PrivacyTier
) -> None:
    verdict = foresee(tier, url, networks=networks)
    assert (verdict.allowed, verdict.tier) == (allowed, place)


@given(st.text(alphabet="abcxyz-.019"))
def test_a_host_is_a_private_clouds_only_under_its_domain(name: str) -> None:
    if is_private_host(name):
        assert name.endswith((".openai.azure.com", ".amazonaws.com", "aiplatform.googleapis.com"))
    for domain in ("openai.azure.com", "example.com"):
        assert is_private_host(f"{name}.{domain}") is (domain == "openai.azure.com" and name != "" and "." not in name)
