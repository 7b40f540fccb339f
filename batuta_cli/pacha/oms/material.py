"""What a bundle brings along to verify it with: a key's hint, a certificate chain, or a Sigstore certificate.

None of it is authenticated, and none of it is trusted: it says only what the verifier has to be given.
Source: https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto (VerificationMaterial).
"""

import base64
from dataclasses import dataclass
from typing import Any, Literal

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.envelope import decode_base64, dict_field, text_field
from batuta_cli.pacha.oms.eckeys import AnyKey, EcVerifyingKey, parse_public_key

Method = Literal["key", "certificate", "sigstore"]

MAX_CERTIFICATES = 16
"""Certificates in a chain; real ones have two to four."""

_WHERE = "verificationMaterial."


@dataclass(frozen=True)
class Material:
    """How a bundle was signed, and what it carries for that."""

    method: Method
    hint: str = ""
    """Of a key: the hexadecimal SHA-256 of its SPKI PEM text; empty when the bundle names none."""
    raw_key: bytes | None = None
    """Of a key in bundles before model_signing 1.1: the public key's PEM or DER."""
    certificates: tuple[bytes, ...] = ()
    """DER; the signer's own first, then its issuers."""
    log_entries: int = 0
    """Entries of transparency logs."""


def parse_material(bundle: dict[str, Any]) -> Material:
    """Read the verification material of a bundle. Raises `InvalidInputError` that names the field."""
    material = dict_field(bundle, "verificationMaterial", "")
    entries = material.get("tlogEntries")
    entries = [] if entries is None else entries
    if not isinstance(entries, list):
        raise InvalidInputError(f"{_WHERE}tlogEntries: is not a list")
    kinds = [name for name in ("publicKey", "x509CertificateChain", "certificate") if material.get(name) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "nothing"
        raise InvalidInputError(
            f"verificationMaterial: has {found}, not one of publicKey, x509CertificateChain and certificate"
        )
    value = dict_field(material, kinds[0], _WHERE)
    if kinds[0] == "publicKey":
        return _key(value)
    where = f"{_WHERE}{kinds[0]}."
    if kinds[0] == "certificate":
        return Material("sigstore", certificates=(_raw(value, where),), log_entries=len(entries))
    rows = value.get("certificates")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_CERTIFICATES:
        raise InvalidInputError(f"{where}certificates: is not a list of 1 to {MAX_CERTIFICATES} certificates")
    certificates = tuple(_raw(row, f"{where}certificates[{i}].") for i, row in enumerate(rows))
    # Sigstore bundles before v0.3 carry the chain, and are told by their log entries.
    return Material("sigstore" if entries else "certificate", certificates=certificates, log_entries=len(entries))


def _key(value: dict[str, Any]) -> Material:
    where = f"{_WHERE}publicKey."
    hint = text_field(value, "hint", where) if value.get("hint") is not None else ""
    raw = value.get("rawBytes")
    raw_key = None if raw is None else decode_base64(text_field(value, "rawBytes", where), f"{where}rawBytes")
    return Material("key", hint, raw_key)


def _raw(value: Any, where: str) -> bytes:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where[:-1]}: is not an object")
    return decode_base64(text_field(value, "rawBytes", where), f"{where}rawBytes")


def old_public_key(material: Material) -> AnyKey | None:
    """The key that an old bundle carries, which proves nothing but tells who may have signed; None without one.

    Raises `InvalidInputError` when it is not a key that signs such bundles.
    """
    raw = material.raw_key
    if raw is None:
        return None
    if not raw.lstrip().startswith(b"-----BEGIN "):
        return EcVerifyingKey.from_base64(base64.b64encode(raw).decode())
    return parse_public_key(raw, f"{_WHERE}publicKey.rawBytes")
