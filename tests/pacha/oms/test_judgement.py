"""Whose signatures of other tools count: keys, certificates, and the rules that a certificate must keep."""

import base64
import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from batuta_cli.errors import (
    BatutaError,
    ExpiredSignatureError,
    InvalidInputError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.pacha import ModelSignature, Policy, Signer, TrustStore, verify_model
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey
from batuta_cli.pacha.signer import judge_signer
from batuta_cli.pacha.trust import Revocation, TrustedKey
from batuta_cli.pacha.verification import hashed_bytes, verify_all
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
    bundle_02,
    certificate,
    chain_material,
    key_usage,
    pae,
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


def test_the_old_encoding_counts_for_old_statements_only() -> None:
    signed = bundle_02({"a": b"1"}, OTHER)
    assert judged(signed, Policy(key=key_of(OTHER)))
    payload = json.dumps(SIGNED).encode()
    encoded = f"DSSEV1 28 application/vnd.in-toto+json {len(payload)} {payload!r}".encode()
    value = OTHER.key.sign(encoded, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(VerificationError):
        judged(bundle(payload, OTHER, value=value), Policy(key=key_of(OTHER)))


def test_an_ed25519_key_verifies_no_statement_of_version_0_2() -> None:
    ours = SigningKey.generate().verifying_key
    with pytest.raises(WrongSignerError):
        judged(bundle_02({"a": b"1"}, OTHER), Policy(key=ours))
    assert judged(bundle_02({"a": b"1"}, OTHER), Policy(key=(ours, key_of(OTHER)))).key == key_of(OTHER)


def test_a_key_on_another_curve_or_of_another_type_than_stated_is_refused() -> None:
    public = ec.generate_private_key(ec.SECP256K1()).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidInputError, match="the curve secp256k1 is not supported"):
        EcVerifyingKey.from_base64(base64.b64encode(der).decode())
    text = base64.b64encode(OTHER.der).decode()
    assert EcVerifyingKey.from_base64(text, "ecdsa-p256") == key_of(OTHER)
    with pytest.raises(InvalidInputError, match="is ecdsa-p256, not ecdsa-p384"):
        EcVerifyingKey.from_base64(text, "ecdsa-p384")


def test_a_signature_under_another_hash_than_that_of_the_curve_is_wrong() -> None:
    payload = json.dumps(SIGNED).encode()
    value = LEAF.key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))  # P-384 goes with SHA-384
    with pytest.raises(VerificationError):
        judged(bundle(payload, LEAF, value=value), Policy(key=key_of(LEAF)))


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


def test_a_certificate_with_an_rsa_key_is_refused_in_words() -> None:
    holder = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateBuilder().subject_name(ROOT_CERTIFICATE.subject).issuer_name(ROOT_CERTIFICATE.subject)
    builder = builder.public_key(holder.public_key()).serial_number(1).not_valid_before(NOW).not_valid_after(NOW)
    with pytest.raises(InvalidInputError) as refusal:
        judged(signed_with(builder.sign(ROOT.key, ROOT.hash)), POLICY)  # type: ignore[arg-type]
    assert "not ECDSA" in refusal.value.message


def test_a_bundle_with_a_certificate_has_one_signature() -> None:
    document = json.loads(signed_with(own_certificate(), MIDDLE_CERTIFICATE))
    document["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(InvalidInputError):
        judged(json.dumps(document).encode(), POLICY)
