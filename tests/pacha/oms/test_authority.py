"""Certificate authorities of the trust store: which certificates they are, and when what they issue counts."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from batuta_cli.errors import InvalidInputError, RevokedSignerError, SignerError, UnknownSignerError
from batuta_cli.pacha import ModelSignature, Policy, Signer, TrustStore
from batuta_cli.pacha.oms.authority import AuthorityCertificate
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey, parse_public_key, parse_trusted
from batuta_cli.pacha.signer import judge_signer
from batuta_cli.pacha.trust import Revocation, TrustedKey, parse_toml, to_toml
from batuta_cli.pacha.trust_files import merge
from batuta_cli.pacha.trust_sources import combine
from tests.pacha.oms.forge import (
    AUTHORITY,
    MAY_SIGN,
    NOW,
    Signatory,
    alternative_names,
    bundle,
    certificate,
    chain_material,
    resources,
    statement,
)

ROOT, LEAF, OTHER = Signatory(), Signatory(), Signatory()
EMAIL = "models@example.com"
SIGNED = statement(resources({".": b"weights"}))
ROOT_CERTIFICATE = certificate("Root", ROOT, "Root", ROOT, AUTHORITY)
RENEWED = certificate("Root 2", ROOT, "Root 2", ROOT, AUTHORITY)
SIGNER = certificate("Signer", LEAF, "Root", ROOT, (*MAY_SIGN, alternative_names(x509.RFC822Name(EMAIL))))
DAY = dt.timedelta(days=1)


def authority(of: x509.Certificate = ROOT_CERTIFICATE) -> AuthorityCertificate:
    return AuthorityCertificate.parse(of.public_bytes(Encoding.PEM), "ca.pem")


def trusting(*, since: dt.datetime | None = None, until: dt.datetime | None = None) -> TrustStore:
    return TrustStore((TrustedKey("company-ca", authority(), NOW, since, until),))


def judged(policy: Policy, raw: bytes | None = None) -> Signer:
    raw = raw or bundle(SIGNED, LEAF, material=chain_material(SIGNER))
    [signer] = judge_signer(ModelSignature.parse(raw), policy)[0]
    return signer


def test_a_certificate_of_a_trusted_authority_counts_for_the_name_that_is_asked_for() -> None:
    assert judged(Policy(trusting(), identity=EMAIL, at=NOW)).name == EMAIL
    with pytest.raises(SignerError, match=r"not by mallory@example\.com"):
        judged(Policy(trusting(), identity="mallory@example.com", at=NOW))


def test_the_name_must_be_asked_for_because_an_authority_issues_certificates_to_many() -> None:
    with pytest.raises(UnknownSignerError) as caught:
        judged(Policy(trusting(), at=NOW))
    assert caught.value.hint is not None
    assert f"--identity {EMAIL}" in caught.value.hint
    assert "--ca" not in caught.value.hint


def test_an_authority_counts_only_in_its_period_of_validity() -> None:
    for store in (trusting(until=NOW), trusting(since=NOW + DAY)):
        with pytest.raises(UnknownSignerError):
            judged(Policy(store, identity=EMAIL, at=NOW))
    store = trusting(since=NOW, until=NOW + DAY)
    assert judged(Policy(store, identity=EMAIL, at=NOW)).name == EMAIL


def test_authorities_or_keys_that_are_given_count_instead_of_those_of_the_trust_store() -> None:
    other = certificate("Other", OTHER, "Other", OTHER, AUTHORITY)
    with pytest.raises(UnknownSignerError):
        judged(Policy(trusting(), identity=EMAIL, authorities=(other,), at=NOW))
    with pytest.raises(UnknownSignerError):
        judged(Policy(trusting(), EcVerifyingKey(OTHER.der), EMAIL, at=NOW))


def test_an_authority_never_counts_as_the_signer_of_a_model() -> None:
    by_the_authority = bundle(SIGNED, ROOT)
    with pytest.raises(UnknownSignerError):
        judged(Policy(trusting(), at=NOW), by_the_authority)


@pytest.mark.parametrize(
    "revoked", [authority(), authority(RENEWED), EcVerifyingKey(ROOT.der)], ids=lambda k: k.key_type
)
def test_a_revocation_counts_for_every_certificate_of_the_same_key(
    revoked: AuthorityCertificate | EcVerifyingKey,
) -> None:
    store = trusting().with_revocation(Revocation(revoked, NOW, "stolen"))
    assert store.revocation_of(authority()) is not None
    with pytest.raises(RevokedSignerError, match="stolen"):
        judged(Policy(store, identity=EMAIL, at=NOW))


def test_an_authority_survives_the_trust_store_s_file_an_import_and_the_system_s_store() -> None:
    store = trusting(until=NOW + DAY)
    assert parse_toml(to_toml(store).decode()) == store
    assert [change.kind for change in merge(TrustStore(), store)[1]] == ["trust"]
    assert combine(TrustStore(), store).find(authority()) is not None


def test_only_one_certificate_of_an_authority_is_taken() -> None:
    pem = ROOT_CERTIFICATE.public_bytes(Encoding.PEM)
    assert parse_trusted(pem, "ca.pem") == parse_trusted(authority().inline.encode())
    with pytest.raises(InvalidInputError, match="has 2 certificates"):
        parse_trusted(pem + pem, "ca.pem")
    with pytest.raises(InvalidInputError, match="of a signer, not of an authority"):
        parse_trusted(SIGNER.public_bytes(Encoding.PEM), "signer.pem")
    for damaged in (pem.replace(b"M", b"?"), b"certificate:AAAA", b"certificate:?"):
        with pytest.raises(InvalidInputError):
            parse_trusted(damaged, "ca.pem")


@pytest.mark.parametrize("given", [ROOT_CERTIFICATE.public_bytes(Encoding.PEM), authority().inline.encode()])
def test_a_certificate_where_a_key_is_due_is_refused_with_the_option_that_takes_it(given: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_public_key(given, "ca.pem")
    assert caught.value.hint == "--ca FILE names a certificate authority"
