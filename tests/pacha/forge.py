"""Signatures and models made by hand, from the formats' descriptions and not with the code under test."""

import base64
import datetime as dt
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from batuta_cli.pacha.keys import SigningKey, VerifyingKey
from batuta_cli.pacha.trust import Revocation, TrustedKey, TrustStore

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


class Person:
    """Somebody whose key comes from a fixed seed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seed = hashlib.sha256(name.encode()).digest()
        self.key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = blake3(self.raw).hexdigest()[:32]
        self.hint = hashlib.sha256(self.pem).hexdigest()

    @property
    def verifying(self) -> VerifyingKey:
        return VerifyingKey(self.raw)

    @property
    def signing(self) -> SigningKey:
        return SigningKey(self.key, self.name)

    def trusted(
        self, name: str | None = None, *, since: dt.datetime | None = None, until: dt.datetime | None = None
    ) -> TrustedKey:
        return TrustedKey(name or self.name, self.verifying, NOW, since, until)


ALICE, BOB, MALLORY = Person("alice@example.com"), Person("bob@example.com"), Person("mallory@example.com")


def trusting(*people: Person | TrustedKey, revoked: Sequence[Person] = ()) -> TrustStore:
    """A trust store with these people or entries in it."""
    return TrustStore(
        tuple(p.trusted() if isinstance(p, Person) else p for p in people),
        tuple(Revocation(p.verifying, NOW, "laptop stolen") for p in revoked),
    )


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding for in-toto payloads (docs/formats.md#signature)."""
    return b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload


def directory_address(files: Mapping[str, bytes]) -> str:
    """The content address of a directory (docs/formats.md#content-address)."""
    hasher = blake3(derive_key_context="batuta pacha 2026-11-23 directory v1")
    for name in sorted(files):
        raw = name.encode()
        hasher.update(struct.pack(">I", len(raw)) + raw + struct.pack(">Q", len(files[name])))
        hasher.update(blake3(files[name]).digest())
    return hasher.hexdigest()


def statement(content: bytes | Mapping[str, bytes], signer: Person | None = ALICE, **notes: Any) -> dict[str, Any]:
    """A statement about one file's bytes or about files by name; `notes` change the annotations (None removes one)."""
    files = {".": content} if isinstance(content, bytes) else content
    resources: list[dict[str, Any]] = [
        {
            "name": name,
            "algorithm": "blake3",
            "digest": blake3(data).hexdigest(),
            "annotations": {"size": len(data)},
        }
        for name, data in files.items()
    ]
    root = hashlib.sha256(b"".join(blake3(data).digest() for data in files.values())).hexdigest()
    address = blake3(content).hexdigest() if isinstance(content, bytes) else directory_address(content)
    annotations: dict[str, Any] = {"created": "2026-11-20T10:00:00Z", "tool": "by hand"}
    if signer:
        public = base64.b64encode(signer.raw).decode()
        annotations |= {"identity": signer.name, "keyType": "ed25519", "publicKey": public}
    annotations |= notes
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "model.gguf" if isinstance(content, bytes) else "model",
                "digest": {"sha256": root, "blake3": address},
                "annotations": {name: value for name, value in annotations.items() if value is not None},
            }
        ],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "blake3",
                "allow_symlinks": False,
                "ignore_paths": [],
            },
            "resources": resources,
        },
    }


def signature_row(person: Person, payload: bytes, keyid: str | None = None) -> dict[str, Any]:
    """One good signature over a payload, as it stands in an envelope."""
    value = base64.b64encode(person.key.sign(pae(payload))).decode()
    return {"keyid": person.key_id if keyid is None else keyid, "sig": value}


def bundle_of(payload: bytes, rows: Sequence[Mapping[str, Any]], material: Mapping[str, Any] | None = None) -> bytes:
    """A `.sig` file around a payload and its signatures."""
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material or {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64.b64encode(payload).decode(),
            "signatures": list(rows),
        },
    }
    return json.dumps(document).encode()


def bundle(stated: Mapping[str, Any], *signers: Person) -> bytes:
    """A `.sig` file with good signatures by `signers` (by Alice when none is named)."""
    payload = json.dumps(stated).encode()
    people = signers or (ALICE,)
    material = {"publicKey": {"hint": people[0].hint}, "tlogEntries": []}
    return bundle_of(payload, [signature_row(person, payload) for person in people], material)


def rust_signature(content: bytes, person: Person = ALICE, **changes: Any) -> bytes:
    """A `.sig` file as the Rust crate writes it (docs/formats.md#rust-crate-signature)."""
    digits = blake3(content).hexdigest()
    document = {
        "content_hash": digits,
        "signature": person.key.sign(digits.encode()).hex(),
        "signer_key": person.raw.hex(),
        "signer_id": person.name,
        "timestamp": 1795000000,
        "algorithm": "ed25519-blake3",
    }
    return json.dumps(document | changes, indent=2, ensure_ascii=False).encode()


def write_model(root: Path, files: Mapping[str, bytes]) -> Path:
    """A model directory with these files."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
