"""What a bundle brings along to be verified with: each form is read, anything else is refused with its field."""

import base64
import json
from typing import Any

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha import ModelSignature
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey
from batuta_cli.pacha.oms.material import Material, old_public_key, parse_material
from tests.pacha.oms.forge import Signatory, bundle, resources, statement

SIGNER = Signatory()
FILES = {"b": b"2", "a/x": b"1"}
DER = base64.b64encode(b"certificate").decode()


@pytest.mark.parametrize(
    ("material", "expected"),
    [
        ({"publicKey": {"hint": "ab"}, "tlogEntries": []}, Material("key", "ab")),
        ({"publicKey": {}}, Material("key")),
        ({"publicKey": {"rawBytes": DER}, "tlogEntries": None}, Material("key", "", b"certificate")),
        (
            {"x509CertificateChain": {"certificates": [{"rawBytes": DER}] * 2}},
            Material("certificate", certificates=(b"certificate",) * 2),
        ),
        (
            {"certificate": {"rawBytes": DER}, "tlogEntries": [{}]},
            Material("sigstore", certificates=(b"certificate",), log_entries=1),
        ),
        (
            {"x509CertificateChain": {"certificates": [{"rawBytes": DER}]}, "tlogEntries": [{}]},
            Material("sigstore", certificates=(b"certificate",), log_entries=1),
        ),
    ],
    ids=["hint", "no hint", "old key", "chain", "Sigstore v0.3", "Sigstore before v0.3"],
)
def test_each_form_says_how_the_bundle_was_signed(material: dict[str, Any], expected: Material) -> None:
    assert parse_material({"verificationMaterial": material}) == expected


@pytest.mark.parametrize("raw", [SIGNER.pem, SIGNER.der], ids=["PEM", "DER"])
def test_the_key_of_an_old_bundle_is_read_in_both_forms(raw: bytes) -> None:
    assert old_public_key(Material("key", raw_key=raw)) == EcVerifyingKey(SIGNER.der)


def test_a_bundle_without_a_key_has_none() -> None:
    assert old_public_key(Material("key", "ab")) is None


@pytest.mark.parametrize(
    ("field", "material"),
    [
        ("verificationMaterial: is missing", None),
        ("has nothing", {"tlogEntries": []}),
        ("has publicKey and certificate", {"publicKey": {"hint": "x"}, "certificate": {"rawBytes": ""}}),
        ("publicKey.hint: is not text", {"publicKey": {"hint": 3}}),
        ("publicKey.rawBytes: is not Base64", {"publicKey": {"rawBytes": "%"}}),
        ("x509CertificateChain.certificates", {"x509CertificateChain": {"certificates": []}}),
        ("certificates[0].rawBytes: is missing", {"x509CertificateChain": {"certificates": [{}]}}),
        ("certificates: is not a list of 1 to 16", {"x509CertificateChain": {"certificates": [{}] * 17}}),
        ("tlogEntries", {"publicKey": {}, "tlogEntries": {}}),
    ],
)
def test_verification_material_that_makes_no_sense_is_refused(field: str, material: dict[str, Any] | None) -> None:
    document = json.loads(bundle(statement(resources(FILES)), SIGNER))
    document["verificationMaterial"] = material
    with pytest.raises(InvalidInputError) as refusal:
        ModelSignature.parse(json.dumps(document).encode())
    assert field in refusal.value.message
