"""OpenSSF bundles and certificates made by hand, from the specification and not with the code under test."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
HASHERS: dict[str, Callable[[bytes], Any]] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}


class Signatory:
    """A holder of an ECDSA key on one of the three curves."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        public = self.key.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.private_pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key_id = blake3(self.der).hexdigest()[:32]
        self.hint = hashlib.sha256(self.pem).hexdigest()
        self.hash: hashes.HashAlgorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[
            self.key.key_size
        ]

    def save(self, directory: Path, name: str = "ec") -> tuple[Path, Path]:
        """The private and the public key as files."""
        private, public = directory / f"{name}.pem", directory / f"{name}.pub"
        private.write_bytes(self.private_pem)
        private.chmod(0o600)
        public.write_bytes(self.pem)
        return private, public

    def sign(self, payload: bytes) -> bytes:
        return self.key.sign(pae(payload), ec.ECDSA(self.hash))

    def material(self, **changes: Any) -> dict[str, Any]:
        return {"publicKey": {"hint": self.hint} | changes, "tlogEntries": []}


def pae(payload: bytes) -> bytes:
    return b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload


def resources(files: Mapping[str, bytes], algorithm: str = "sha256") -> list[dict[str, Any]]:
    """One entry a file, in the order given."""
    return [
        {"name": name, "algorithm": algorithm, "digest": HASHERS[algorithm](data).hexdigest()}
        for name, data in files.items()
    ]


def shards(files: Mapping[str, bytes], size: int, algorithm: str = "sha256") -> list[dict[str, Any]]:
    """As model_signing writes them: one entry for each `size` bytes of each file, none for an empty one."""
    return [
        {
            "name": f"{name}:{start}:{min(start + size, len(data))}",
            "algorithm": f"{algorithm}-sharded-{size}",
            "digest": HASHERS[algorithm](data[start : start + size]).hexdigest(),
        }
        for name, data in files.items()
        for start in range(0, len(data), size)
    ]


def root(rows: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(row["digest"]) for row in rows)).hexdigest()


def statement(rows: list[dict[str, Any]], name: str = "model", **serialization: Any) -> dict[str, Any]:
    """A version 1 statement; arguments go into `predicate.serialization`, and out of it when they are None."""
    settings = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []} | serialization
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": root(rows)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {key: value for key, value in settings.items() if value is not None},
            "resources": rows,
        },
    }


def statement_02(files: Mapping[str, bytes]) -> dict[str, Any]:
    """A statement of model_signing 0.2."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": name,
                "digest": {"sha256": hashlib.sha256(data).hexdigest()},
                "annotations": {"actual_hash_algorithm": "file-sha256"},
            }
            for name, data in files.items()
        ],
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }


def bundle(
    signed: Mapping[str, Any] | bytes,
    signer: Signatory,
    *,
    material: Mapping[str, Any] | None = None,
    value: bytes | None = None,
    keyid: str | None = "",
) -> bytes:
    """A bundle around a statement, signed by `signer` unless `value` is the signature."""
    payload = signed if isinstance(signed, bytes) else json.dumps(signed).encode()
    signature: dict[str, Any] = {"sig": base64.b64encode(value or signer.sign(payload)).decode(), "keyid": keyid}
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": signer.material() if material is None else material,
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [signature],
        },
    }
    return json.dumps(document).encode()


def bundle_02(files: Mapping[str, bytes], signer: Signatory) -> bytes:
    """A bundle of model_signing 0.2, with its encoding of what is signed: Python's notation of the payload."""
    payload = json.dumps(statement_02(files)).encode()
    encoded = f"DSSEV1 28 application/vnd.in-toto+json {len(payload)} {payload!r}".encode()
    value = signer.key.sign(encoded, ec.ECDSA(hashes.SHA256()))
    raw = base64.b64encode(signer.pem).decode()
    material = {"publicKey": {"rawBytes": raw, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}}
    return bundle(payload, signer, material=material, value=value, keyid=None)


# --- certificates

Extension = tuple[x509.ExtensionType, bool]
AUTHORITY: Sequence[Extension] = ((x509.BasicConstraints(True, None), True),)


def key_usage(*names: str) -> Extension:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every}), True


CODE_SIGNING: Extension = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
SERVER: Extension = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
MAY_SIGN: Sequence[Extension] = (key_usage("digital_signature"), CODE_SIGNING)


def alternative_names(*names: x509.GeneralName) -> Extension:
    return x509.SubjectAlternativeName(names), False


def certificate(
    subject: str,
    holder: Signatory,
    issuer: str,
    issued_by: Signatory,
    extensions: Sequence[Extension] = (),
    *,
    since: dt.datetime = NOW - dt.timedelta(days=30),
    until: dt.datetime = NOW + dt.timedelta(days=3650),
) -> x509.Certificate:
    """A certificate for `holder` by `issued_by`; names are of one organization and a common name."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(holder.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issued_by.key, issued_by.hash)  # type: ignore[arg-type]


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def chain_material(*certificates: x509.Certificate) -> dict[str, Any]:
    rows = [{"rawBytes": base64.b64encode(each.public_bytes(Encoding.DER)).decode()} for each in certificates]
    return {"x509CertificateChain": {"certificates": rows}, "tlogEntries": []}
