"""What batuta signs, checked with code that is not ours: openssl, b3sum, in-toto, securesystemslib, model_signing."""

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha import ModelSignature, content_address, generate_keypair, sign_path
from batuta_cli.pacha.keys import SigningKey, VerifyingKey

KEY = SigningKey.parse(
    b"-----BEGIN PACHA ED25519 SIGNING KEY-----\nERERERERERERERERERERERERERERERERERERERERERE=\n"
    b"-----END PACHA ED25519 SIGNING KEY-----\n",
    identity="alice@example.com",
)
PEERS = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
"""Where `make test` puts model_signing, whose pydantic must stay out of our own environment."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    (path / "weights").mkdir(parents=True)
    (path / "config.json").write_bytes(b"{}")
    (path / "weights" / "a.bin").write_bytes(os.urandom(5_000_000))
    return path


@pytest.fixture
def signature(model: Path) -> ModelSignature:
    return sign_path(model, KEY, expires_days=30)


def envelope_of(signature: ModelSignature) -> dict[str, Any]:
    return json.loads(signature.raw)["dsseEnvelope"]  # type: ignore[no-any-return]


def openssl_verifies(public_pem: bytes, signature: bytes, message: bytes) -> bool:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / part for part in ("pub", "sig", "msg")]
        for path, data in zip(paths, (public_pem, signature, message), strict=True):
            path.write_bytes(data)
        public, sig, msg = paths
        command: list[str | Path] = [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-rawin",
            "-inkey",
            public,
            "-sigfile",
            sig,
            "-in",
            msg,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0 and "Signature Verified Successfully" in done.stdout


def test_openssl_verifies_a_signature_over_the_pre_authentication_encoding(signature: ModelSignature) -> None:
    envelope = envelope_of(signature)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    value = base64.b64decode(envelope["signatures"][0]["sig"])
    assert openssl_verifies(KEY.verifying_key.to_pem(), value, message)
    assert not openssl_verifies(KEY.verifying_key.to_pem(), value, message.replace(b"alice", b"mally"))
    assert not openssl_verifies(generate_keypair()[1].to_pem(), value, message)


def test_openssl_verifies_a_signature_in_the_format_of_the_rust_crate(model: Path) -> None:
    document = json.loads(sign_path(model / "config.json", KEY, format="pacha1").raw)
    value, message = bytes.fromhex(document["signature"]), document["content_hash"].encode()
    assert openssl_verifies(KEY.verifying_key.to_pem(), value, message)


def test_a_signature_made_with_openssl_is_accepted_here(tmp_path: Path) -> None:
    message, key = tmp_path / "message", tmp_path / "key"
    message.write_bytes(b"a message")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], capture_output=True, check=True).stdout
    command: list[str | Path] = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", message]
    value = subprocess.run(command, capture_output=True, check=True).stdout
    assert VerifyingKey.parse(public).verifies(value, b"a message")


def test_securesystemslib_verifies_our_envelope_with_its_own_dsse_and_our_public_pem(
    signature: ModelSignature,
) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    def key_of(pem: bytes) -> Any:
        return SSlibKey.from_crypto(load_pem_public_key(pem), keyid=KEY.verifying_key.key_id)

    envelope = Envelope.from_dict(envelope_of(signature))
    verified = envelope.verify([key_of(KEY.verifying_key.to_pem())], threshold=1)
    assert list(verified) == [KEY.verifying_key.key_id]
    with pytest.raises(VerificationError):
        envelope.verify([key_of(generate_keypair()[1].to_pem())], threshold=1)


def test_the_in_toto_library_reads_and_validates_our_statement(signature: ModelSignature) -> None:
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from in_toto_attestation.v1 import statement_pb2  # type: ignore[import-untyped]
    from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]

    message = statement_pb2.Statement()
    json_format.Parse(base64.b64decode(envelope_of(signature)["payload"]), message)  # unknown fields are errors
    Statement.copy_from_pb(message).validate()
    assert message.predicate_type == "https://model_signing/signature/v1.0"
    assert message.subject[0].name == "model"


def test_b3sum_gives_a_file_our_address(model: Path) -> None:
    path = model / "weights" / "a.bin"
    printed = subprocess.run(["b3sum", "--no-names", path], capture_output=True, text=True, check=True).stdout
    assert str(content_address(path)) == f"blake3:{printed.strip()}"


MODEL_SIGNING = """
import json, pathlib, sys
from model_signing import hashing
from model_signing._signing import sign_ec_key, sign_sigstore_pb, signing
bundle, model = map(pathlib.Path, sys.argv[1:])
signature = sign_sigstore_pb.Signature.read(bundle)
envelope = signature.bundle.dsse_envelope
signed = signing.dsse_payload_to_manifest(json.loads(envelope.payload))
config = hashing.Config().use_file_serialization(hashing_algorithm="blake3")
print(signed == config.hash(model))
print(bytes(sign_sigstore_pb.pae(envelope.payload)).hex())
"""


@pytest.mark.skipif(not PEERS.exists(), reason="model_signing is not in .venv/peers: `make .venv/.peers` brings it")
def test_model_signing_reads_our_bundle_and_finds_the_model_it_describes(
    model: Path, signature: ModelSignature, tmp_path: Path
) -> None:
    signature.save(tmp_path / "model.sig")
    command: list[str | Path] = [str(PEERS), "-c", MODEL_SIGNING, tmp_path / "model.sig", model]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same, message = done.stdout.split()
    assert same == "True"
    value = base64.b64decode(envelope_of(signature)["signatures"][0]["sig"])
    assert KEY.verifying_key.verifies(value, bytes.fromhex(message))
