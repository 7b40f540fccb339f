"""The rules that a certificate chain must keep, each broken once."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from batuta_cli.errors import ExpiredSignatureError, InvalidInputError, SignerError, UnknownSignerError
from batuta_cli.pacha import ModelSignature, Policy, Signer
from batuta_cli.pacha.signer import judge_signer
from tests.pacha.oms.forge import (
    AUTHORITY,
    CODE_SIGNING,
    MAY_SIGN,
    NOW,
    SERVER,
    Extension,
    Signatory,
    alternative_names,
    bundle,
    certificate,
    chain_material,
    key_usage,
    resources,
    statement,
)

SIGNED = statement(resources({".": b"weights"}))
ROOT, MIDDLE, LEAF, OTHER = Signatory(), Signatory(), Signatory(ec.SECP384R1()), Signatory()
EMAIL = "models@example.com"
NAMES = alternative_names(x509.RFC822Name(EMAIL), x509.DNSName("example.com"))
ROOT_CERTIFICATE = certificate("Root", ROOT, "Root", ROOT, AUTHORITY)
MIDDLE_CERTIFICATE = certificate("Middle", MIDDLE, "Root", ROOT, AUTHORITY)
POLICY = Policy(identity=EMAIL, authorities=(ROOT_CERTIFICATE,), at=NOW)


def judged(raw: bytes, policy: Policy) -> Signer:
    [signer] = judge_signer(ModelSignature.parse(raw), policy)[0]
    return signer


def own_certificate(
    extensions: tuple[Extension, ...] = (*MAY_SIGN, NAMES), **validity: dt.datetime
) -> x509.Certificate:
    return certificate("Signer", LEAF, "Middle", MIDDLE, extensions, **validity)


def signed_with(*chain: x509.Certificate, signer: Signatory = LEAF, **options: Any) -> bytes:
    return bundle(SIGNED, signer, material=chain_material(*chain), **options)


IMPOSTOR = certificate("Root", OTHER, "Root", OTHER, AUTHORITY)


ONLY_ORG: Extension = (x509.NameConstraints([x509.DNSName("example.org")], None), True)


CHAINS: dict[str, list[x509.Certificate]] = {
    "no link to the authority": [own_certificate()],
    "an authority of the same name with another key": [
        certificate("Signer", LEAF, "Middle", OTHER, [*MAY_SIGN, NAMES]),
        certificate("Middle", OTHER, "Root", OTHER, AUTHORITY),
    ],
    "the bundle's own root": [certificate("Signer", LEAF, "Root", OTHER, [*MAY_SIGN, NAMES]), IMPOSTOR],
    "an issuer that is no authority": [own_certificate(), certificate("Middle", MIDDLE, "Root", ROOT, MAY_SIGN)],
    "an issuer that says it is none": [
        own_certificate(),
        certificate("Middle", MIDDLE, "Root", ROOT, [(x509.BasicConstraints(False, None), True)]),
    ],
    "an issuer that may not sign certificates": [
        own_certificate(),
        certificate("Middle", MIDDLE, "Root", ROOT, [*AUTHORITY, key_usage("digital_signature")]),
    ],
    "a chain that is too long": [
        own_certificate(),
        certificate("Middle", MIDDLE, "Between", OTHER, AUTHORITY),
        certificate("Between", OTHER, "Root", ROOT, [(x509.BasicConstraints(True, 0), True)]),
    ],
    "a name that the authority may not vouch for": [
        own_certificate(),
        certificate(
            "Middle",
            MIDDLE,
            "Root",
            ROOT,
            [*AUTHORITY, ONLY_ORG],
        ),
    ],
    "an issuer that has expired": [
        own_certificate(),
        certificate("Middle", MIDDLE, "Root", ROOT, AUTHORITY, until=NOW - dt.timedelta(days=1)),
    ],
    "a critical extension that is not known": [
        own_certificate((*MAY_SIGN, NAMES, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), True))),
        MIDDLE_CERTIFICATE,
    ],
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_chain_that_breaks_a_rule_does_not_count(chain: list[x509.Certificate]) -> None:
    with pytest.raises(UnknownSignerError) as refusal:
        judged(signed_with(*chain), POLICY)
    assert refusal.value.exit_code == 4


USAGES: dict[str, tuple[Extension, ...]] = {
    "neither usage": (NAMES,),
    "not for signatures": (key_usage("key_agreement"), CODE_SIGNING, NAMES),
    "for servers": (key_usage("digital_signature"), SERVER, NAMES),
    "for servers alone": (SERVER, NAMES),
}


@pytest.mark.parametrize("extensions", USAGES.values(), ids=USAGES)
def test_a_certificate_that_is_not_for_signing_code_does_not_count(extensions: tuple[Extension, ...]) -> None:
    with pytest.raises(SignerError):
        judged(signed_with(own_certificate(extensions), MIDDLE_CERTIFICATE), POLICY)


ANY: Extension = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)


@pytest.mark.parametrize("extensions", [(key_usage("digital_signature"), NAMES), (CODE_SIGNING, NAMES), (ANY, NAMES)])
def test_one_of_the_two_usages_is_enough(extensions: tuple[Extension, ...]) -> None:
    assert judged(signed_with(own_certificate(extensions), MIDDLE_CERTIFICATE), POLICY)


def test_a_certificate_is_judged_at_the_verifier_s_time_and_not_at_its_own() -> None:
    expired = signed_with(own_certificate(until=NOW - dt.timedelta(days=1)), MIDDLE_CERTIFICATE)
    with pytest.raises(ExpiredSignatureError) as refusal:
        judged(expired, POLICY)
    assert "--at DATE" in str(refusal.value.hint)
    assert judged(expired, replace(POLICY, at=NOW - dt.timedelta(days=2)))
    with pytest.raises(ExpiredSignatureError):
        judged(signed_with(own_certificate(since=NOW + dt.timedelta(days=1)), MIDDLE_CERTIFICATE), POLICY)


def test_a_certificate_with_an_rsa_key_is_refused_in_words() -> None:
    holder = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateBuilder().subject_name(ROOT_CERTIFICATE.subject).issuer_name(ROOT_CERTIFICATE.subject)
    builder = builder.public_key(holder.public_key()).serial_number(1).not_valid_before(NOW).not_valid_after(NOW)
    with pytest.raises(InvalidInputError) as refusal:
        judged(signed_with(builder.sign(ROOT.key, ROOT.hash)), POLICY)  # type: ignore[arg-type]
    assert "not ECDSA" in refusal.value.message
