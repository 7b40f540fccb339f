"""Bundles that old versions of model_signing wrote, see vectors/README.md."""

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509

from batuta_cli.errors import UnknownSignerError, VerificationError
from batuta_cli.pacha import ModelSignature, Policy, verify_path
from batuta_cli.pacha.oms.eckeys import parse_public_key

VECTORS = Path(__file__).with_name("vectors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("signme-1", "signme-2"):
        (directory / name).write_text(name)
    return directory


def test_a_key_s_bundle_of_version_0_3_1_is_verified(tmp_path: Path) -> None:
    path = VECTORS / "v0.3.1-elliptic-key.sig"
    brought = base64.b64decode(json.loads(path.read_text())["verificationMaterial"]["publicKey"]["rawBytes"])
    (tmp_path / "signme-1").write_text("signme-1\n")
    signature, policy = ModelSignature.load(path), Policy(key=parse_public_key(brought))
    assert verify_path(tmp_path / "signme-1", signature, policy).binds == ("content", "name")
    (tmp_path / "signme-1").write_text("signme-1")
    with pytest.raises(VerificationError):
        verify_path(tmp_path / "signme-1", signature, policy)


def test_a_certificate_s_bundle_of_version_0_2_is_verified(model: Path) -> None:
    """Its encoding of the signed bytes is the old one, and its hash SHA-256 though the key is on P-384."""
    path = VECTORS / "v0.2.0-certificate.sig"
    chain = json.loads(path.read_text())["verificationMaterial"]["x509CertificateChain"]["certificates"]
    issuer = x509.load_der_x509_certificate(base64.b64decode(chain[1]["rawBytes"]))
    signature, policy = ModelSignature.load(path), Policy(identity="CN=intermediate-ca", authorities=(issuer,))
    assert verify_path(model, signature, policy).binds == ("content", "identity")
    (model / "signme-3").touch()
    with pytest.raises(VerificationError):
        verify_path(model, signature, policy)


def test_a_keyless_bundle_says_what_it_needs(model: Path) -> None:
    signature = ModelSignature.load(VECTORS / "v1.1.0-sigstore.sig")
    with pytest.raises(UnknownSignerError) as refusal:
        verify_path(model, signature, Policy())
    assert str(refusal.value.hint).endswith(
        "add: --trusted-root FILE --issuer https://sigstore.verify.ibm.com/oauth2 --identity stefanb@us.ibm.com"
    )
