"""Whose signatures of other tools count: keys, certificates, and the rules that a certificate must keep."""

import base64
import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from batuta_cli.errors import (
    BatutaError,
    ExpiredSignatureError,
    InvalidInputError,
    RevokedSignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.pacha import ModelSignature, Policy, Signer, TrustStore, verify_model
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey
from batuta_cli.pacha.signer import judge_signer
from batuta_cli.pacha.trust import Revocation, TrustedKey
from batuta_cli.pacha.verification import hashed_bytes, verify_all
from tests.pacha.oms.forge import (
    AUTHORITY,
    MAY_SIGN,
    NOW,
    Extension,
    Signatory,
    alternative_names,
    bundle,
    certificate,
    chain_material,
    resources,
    statement,
)

MODEL = b"weights"
SIGNED = statement(resources({".": MODEL}))
ROOT, MIDDLE, LEAF, OTHER = Signatory(), Signatory(), Signatory(ec.SECP384R1()), Signatory()
EMAIL = "models@example.com"
NAMES = alternative_names(
    x509.RFC822Name(EMAIL), x509.UniformResourceIdentifier("https://example.com/release"), x509.DNSName("example.com")
)
ROOT_CERTIFICATE = certificate("Root", ROOT, "Root", ROOT, AUTHORITY)
MIDDLE_CERTIFICATE = certificate("Middle", MIDDLE, "Root", ROOT, AUTHORITY)
POLICY = Policy(identity=EMAIL, authorities=(ROOT_CERTIFICATE,), at=NOW)


def key_of(signatory: Signatory) -> EcVerifyingKey:
    return EcVerifyingKey(signatory.der)


def judged(raw: bytes, policy: Policy) -> Signer:
    [signer] = judge_signer(ModelSignature.parse(raw), policy)[0]
    return signer


def own_certificate(
    extensions: tuple[Extension, ...] = (*MAY_SIGN, NAMES), **validity: dt.datetime
) -> x509.Certificate:
    return certificate("Signer", LEAF, "Middle", MIDDLE, extensions, **validity)


def signed_with(*chain: x509.Certificate, signer: Signatory = LEAF, **options: Any) -> bytes:
    return bundle(SIGNED, signer, material=chain_material(*chain), **options)


# --- keys


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_a_trusted_key_has_the_name_of_the_trust_store(curve: ec.EllipticCurve) -> None:
    signatory = Signatory(curve)
    store = TrustStore((TrustedKey("NVIDIA", key_of(signatory), NOW),))
    found = judged(bundle(SIGNED, signatory), Policy(store, identity="NVIDIA"))
    assert (found.name, found.key.key_id) == ("NVIDIA", signatory.key_id)
    with pytest.raises(WrongSignerError):
        judged(bundle(SIGNED, signatory), Policy(store, identity="IBM"))
    with pytest.raises(UnknownSignerError):
        judged(bundle(SIGNED, OTHER), Policy(store))


def test_a_given_key_is_the_only_one_that_counts() -> None:
    store = TrustStore((TrustedKey("LEAF", key_of(LEAF), NOW),))
    assert judged(bundle(SIGNED, OTHER), Policy(store, key_of(OTHER))).name is None
    with pytest.raises(WrongSignerError):
        judged(bundle(SIGNED, LEAF), Policy(store, key_of(OTHER)))


def test_a_revoked_key_does_not_count_even_when_it_is_given() -> None:
    store = TrustStore((), (Revocation(key_of(OTHER), NOW, "leaked"),))
    with pytest.raises(RevokedSignerError):
        judged(bundle(SIGNED, OTHER), Policy(store, key_of(OTHER)))


def test_a_key_with_limits_does_not_count_because_the_bundle_has_no_signed_time() -> None:
    store = TrustStore((TrustedKey("LEAF", key_of(LEAF), NOW, valid_until=NOW + dt.timedelta(days=9999)),))
    with pytest.raises(ExpiredSignatureError):
        judged(bundle(SIGNED, LEAF), Policy(store))


def test_a_signature_that_names_a_trusted_key_and_is_not_its_own_is_wrong() -> None:
    forged = bundle(SIGNED, OTHER, material=LEAF.material())
    with pytest.raises(VerificationError):
        judged(forged, Policy(key=key_of(LEAF)))


def test_the_key_that_an_old_bundle_brings_along_is_never_trusted() -> None:
    for raw in (OTHER.pem, OTHER.der):
        old = {"publicKey": {"rawBytes": base64.b64encode(raw).decode(), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}
        signed = bundle(SIGNED, OTHER, material=old, keyid=None)
        assert judged(signed, Policy(key=key_of(OTHER))).key == key_of(OTHER)
        with pytest.raises(UnknownSignerError) as refusal:
            judged(signed, Policy())
        assert OTHER.key_id in refusal.value.message and "batuta pacha trust add" in str(refusal.value.hint)
        with pytest.raises(VerificationError):  # it does not even verify under the key that it brings along
            judged(bundle(SIGNED, LEAF, material=old), Policy())


def test_a_model_in_memory_is_verified() -> None:
    signature = ModelSignature.parse(bundle(SIGNED, OTHER))
    assert verify_model(MODEL, signature, key=key_of(OTHER))
    with pytest.raises(VerificationError):
        verify_model(MODEL + b"x", signature, key=key_of(OTHER))
    with pytest.raises(VerificationError):
        verify_model(b"", signature, key=key_of(OTHER))


# --- certificates


@pytest.mark.parametrize("identity", [EMAIL, "https://example.com/release", "example.com", "CN=Signer,O=Example"])
def test_a_certificate_of_the_authority_that_names_the_signer_counts(identity: str) -> None:
    signer = judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE), replace(POLICY, identity=identity))
    assert signer.certificate is not None
    assert (signer.name, signer.certificate.issuer, signer.certificate.judged_at) == (
        identity,
        "CN=Middle,O=Example",
        NOW,
    )


@pytest.mark.parametrize(
    "identity",
    ["", "Models@example.com", "models@example.com ", "example", "CN=Signer", "Signer", "O=Example,CN=Signer", "*"],
)
def test_a_name_is_compared_exactly(identity: str) -> None:
    with pytest.raises(WrongSignerError):
        judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE), replace(POLICY, identity=identity))


def test_the_signer_of_a_certificate_can_be_any_of_several_identities() -> None:
    raw = signed_with(own_certificate(), MIDDLE_CERTIFICATE)
    assert judged(raw, replace(POLICY, identity=("other@example.com", EMAIL))).name == EMAIL
    with pytest.raises(WrongSignerError, match=r"not by other@example.com or third@example.com"):
        judged(raw, replace(POLICY, identity=("other@example.com", "third@example.com")))


def test_what_was_not_given_is_named() -> None:
    raw = signed_with(own_certificate(), MIDDLE_CERTIFICATE)
    for policy, option in (
        (replace(POLICY, identity=None), "--identity models@example.com"),
        (replace(POLICY, authorities=()), "--ca FILE"),
    ):
        with pytest.raises(UnknownSignerError) as refusal:
            judged(raw, policy)
        assert str(refusal.value.hint).endswith(f"add: {option}")


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"trusted_root": None}, "--trusted-root FILE"),
        ({"issuer": None}, "--issuer URL"),
        ({"identity": None}, f"--identity {EMAIL}"),
        ({"trusted_root": None, "issuer": None, "identity": None}, f"FILE --issuer URL --identity {EMAIL}"),
    ],
)
def test_a_keyless_bundle_needs_root_issuer_and_identity_even_when_an_authority_is_given(
    change: dict[str, Any], options: str
) -> None:
    material = {"certificate": chain_material(own_certificate())["x509CertificateChain"]["certificates"][0]}
    whole = replace(POLICY, trusted_root="trusted_root.json", issuer="https://issuer.example")
    with pytest.raises(UnknownSignerError) as refusal:
        judged(bundle(SIGNED, LEAF, material=material), replace(whole, **change))
    assert str(refusal.value.hint).endswith(options)


def test_a_given_key_does_not_stand_in_for_an_authority() -> None:
    with pytest.raises(UnknownSignerError):
        judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE), Policy(key=key_of(LEAF), at=NOW))


def test_a_signature_that_is_not_by_the_certificate_s_key_is_wrong() -> None:
    with pytest.raises(VerificationError):
        judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE, signer=OTHER), POLICY)


def test_the_key_of_a_certificate_can_be_revoked() -> None:
    revoked = TrustStore((), (Revocation(key_of(LEAF), NOW, "leaked"),))
    with pytest.raises(RevokedSignerError):
        judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE), replace(POLICY, trust=revoked))


@pytest.mark.parametrize("holder", [MIDDLE, ROOT], ids=["an issuer", "the authority"])
def test_a_certificate_does_not_count_when_the_only_chain_has_a_revoked_key(holder: Signatory) -> None:
    revoked = TrustStore((), (Revocation(key_of(holder), NOW, "leaked"),))
    with pytest.raises(RevokedSignerError, match=f"{holder.key_id}, which was revoked on 2026-11-23: leaked"):
        judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE), replace(POLICY, trust=revoked))


def test_a_revoked_key_of_a_certificate_that_is_not_in_the_chain_does_no_harm() -> None:
    revoked = TrustStore((), (Revocation(key_of(OTHER), NOW, "leaked"),))
    unrelated = certificate("Elsewhere", OTHER, "Root", ROOT, AUTHORITY)
    assert judged(signed_with(own_certificate(), MIDDLE_CERTIFICATE, unrelated), replace(POLICY, trust=revoked))


def test_two_certificates_of_one_name_are_one_signer() -> None:
    """Certificates change their keys, and short-lived ones at each signature."""
    second = certificate("Signer", OTHER, "Middle", MIDDLE, [*MAY_SIGN, NAMES])
    both = [
        ModelSignature.parse(signed_with(own_certificate(), MIDDLE_CERTIFICATE)),
        ModelSignature.parse(signed_with(second, MIDDLE_CERTIFICATE, signer=OTHER)),
    ]
    model = hashed_bytes(MODEL, both)
    assert len(verify_all(model, both, POLICY, label="m", actual_name=None, require=1).signers) == 1
    with pytest.raises(BatutaError) as refusal:
        verify_all(model, both, POLICY, label="m", actual_name=None, require=2)
    assert refusal.value.exit_code == 4


def test_a_bundle_with_a_certificate_has_one_signature() -> None:
    document = json.loads(signed_with(own_certificate(), MIDDLE_CERTIFICATE))
    document["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(InvalidInputError):
        judged(json.dumps(document).encode(), POLICY)
