"""A certificate authority in the trust store: its certificate, known by its public key.

Two certificates of one key are the same authority, so that a revocation counts for a renewed certificate as well.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.keys import AUTHORITY_TYPE

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PEM_LINE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class AuthorityCertificate:
    """The certificate of an authority. Equality compares the public key."""

    spki: bytes
    """The public key as SPKI DER (RFC 5280 section 4.1.2.7)."""
    der: bytes = field(compare=False)
    """The certificate in DER."""

    @classmethod
    def from_der(cls, der: bytes, source: str) -> Self:
        """Read a certificate. Raises `InvalidInputError` unless it is an authority's (basicConstraints, cA)."""
        from cryptography import x509

        from batuta_cli.pacha.oms.certificates import load_certificate, spki

        certificate = load_certificate(der, source)
        key = spki(certificate)
        if key is None:
            raise InvalidInputError(f"{source}: a certificate with a damaged or unknown public key")
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_authority = False
        if not is_authority:
            raise InvalidInputError(
                f"{source}: is the certificate of a signer, not of an authority (basicConstraints has no cA)",
                hint="trust the authority that issued it, or the signer's public key",
            )
        return cls(key, der)

    @classmethod
    def parse(cls, data: bytes, source: str) -> Self:
        """Read one certificate in PEM. Raises `InvalidInputError`."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            found = x509.load_pem_x509_certificates(data)
        except ValueError:
            raise InvalidInputError(f"{source}: not a certificate in PEM, or a damaged one") from None
        if len(found) != 1:
            raise InvalidInputError(
                f"{source}: has {len(found)} certificates, and one authority is trusted at a time",
                hint="put each certificate into a separate file",
            )
        return cls.from_der(found[0].public_bytes(Encoding.DER), source)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read DER in Base64. Raises `InvalidInputError`."""
        try:
            der = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise InvalidInputError("the certificate: not Base64") from None
        return cls.from_der(der, "the certificate")

    @cached_property
    def certificate(self) -> "Certificate":
        """The certificate, parsed."""
        from cryptography import x509

        return x509.load_der_x509_certificate(self.der)

    @property
    def key_type(self) -> str:
        """`certificate`."""
        return AUTHORITY_TYPE

    @property
    def key_id(self) -> str:
        """The first 32 hexadecimal digits of BLAKE3 of the SPKI DER, as of other keys. Never compared."""
        return blake3(self.spki).hexdigest()[:32]

    @property
    def hint(self) -> str:
        """Hexadecimal SHA-256 of the certificate, its usual fingerprint."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def base64(self) -> str:
        """The certificate's DER in Base64."""
        return base64.b64encode(self.der).decode()

    @property
    def inline(self) -> str:
        """The certificate as one word: `certificate:` and Base64."""
        return f"{AUTHORITY_TYPE}:{self.base64}"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """False: an authority's key signs certificates, and never counts as the signer of a model."""
        del signature, data
        return False
