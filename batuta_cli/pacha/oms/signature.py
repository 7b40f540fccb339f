"""A bundle of another OpenSSF Model Signing tool: its manifest, its envelope, and what it carries to verify it with."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives import hashes

from batuta_cli.pacha.envelope import PAYLOAD_TYPE, Envelope
from batuta_cli.pacha.oms.eckeys import AnyKey, EcVerifyingKey
from batuta_cli.pacha.oms.manifest import OmsManifest, parse_manifest
from batuta_cli.pacha.oms.material import Material, parse_material


@dataclass(frozen=True)
class OmsSignature:
    """A bundle that was parsed; parsing it proves nothing."""

    envelope: Envelope
    statement: OmsManifest
    material: Material

    def verified_by(self, key: AnyKey, value: bytes) -> bool:
        """Whether `value` is a signature by `key` over this statement."""
        if not self.statement.old:
            return key.verifies(value, self._signed_bytes)
        # model_signing 0.2 used SHA-256 with every curve.
        return isinstance(key, EcVerifyingKey) and key.verifies(value, self._signed_bytes, hash_with=hashes.SHA256())

    @cached_property
    def _signed_bytes(self) -> bytes:
        """The bytes under the signature.

        model_signing 0.2 put Python's notation of the payload (`b'…'`) where the payload is due, and wrote DSSEV1. That
        encoding cannot be mistaken for another: the notation of bytes is injective, and the prefix differs. It counts
        for statements of that version only.
        """
        payload = self.envelope.payload
        if not self.statement.old:
            return self.envelope.signed_bytes()
        return f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()


def read_oms(bundle: dict[str, Any], envelope: Envelope, document: dict[str, Any]) -> OmsSignature:
    """The signature from a bundle, its envelope and its statement. Raises `InvalidInputError` that names the field."""
    return OmsSignature(envelope, parse_manifest(document), parse_material(bundle))
