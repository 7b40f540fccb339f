"""Which bytes a bundle's signature is over: DSSE, and what model_signing 0.2 had in its place."""

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from batuta_cli.errors import VerificationError, WrongSignerError
from batuta_cli.pacha import ModelSignature, Policy, Signer
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey
from batuta_cli.pacha.signer import judge_signer
from tests.pacha.oms.forge import Signatory, bundle, bundle_02, pae, resources, statement

SIGNED = statement(resources({".": b"weights"}))
LEAF, OTHER = Signatory(ec.SECP384R1()), Signatory()


def key_of(signatory: Signatory) -> EcVerifyingKey:
    return EcVerifyingKey(signatory.der)


def judged(raw: bytes, policy: Policy) -> Signer:
    [signer] = judge_signer(ModelSignature.parse(raw), policy)[0]
    return signer


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


def test_a_signature_under_another_hash_than_that_of_the_curve_is_wrong() -> None:
    payload = json.dumps(SIGNED).encode()
    value = LEAF.key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))  # P-384 goes with SHA-384
    with pytest.raises(VerificationError):
        judged(bundle(payload, LEAF, value=value), Policy(key=key_of(LEAF)))
