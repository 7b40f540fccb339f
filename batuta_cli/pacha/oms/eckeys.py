"""ECDSA keys on P-256, P-384 and P-521, with which OpenSSF Model Signing tools sign.

The hash follows from the curve: SHA-256, SHA-384, SHA-512 (model-signing-spec, algorithm registry). Signatures are
ASN.1 DER (RFC 3279 section 2.2.3). Public keys are SPKI (RFC 5480), private keys PKCS#8 or SEC1 PEM.

No error quotes key material.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self, cast

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from batuta_cli.errors import DecryptionError, InvalidInputError, UsageError
from batuta_cli.pacha.keys import AUTHORITY_TYPE, VerifyingKey, is_encrypted_key
from batuta_cli.pacha.oms.authority import PEM_LINE, AuthorityCertificate
from batuta_cli.pacha.pem import restored

CURVES: dict[str, tuple[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256),
    "secp384r1": ("ecdsa-p384", hashes.SHA384),
    "secp521r1": ("ecdsa-p521", hashes.SHA512),
}
"""Curve, as `cryptography` calls it, to the key type's name and the hash that ECDSA uses with it."""
KEY_TYPES = tuple(name for name, _ in CURVES.values())

_ONLY = "ECDSA keys are read on P-256, P-384 and P-521"
_SSH = b"ecdsa-sha2-"
_AUTHORITY_PREFIX = AUTHORITY_TYPE.encode() + b":"


@dataclass(frozen=True)
class EcVerifyingKey:
    """An ECDSA public key: its SPKI in DER, with an uncompressed point. Equality compares all of it."""

    spki: bytes

    @cached_property
    def _key(self) -> ec.EllipticCurvePublicKey:
        from cryptography.hazmat.primitives import serialization

        return cast(ec.EllipticCurvePublicKey, serialization.load_der_public_key(self.spki))

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey, source: str) -> Self:
        """The key that `cryptography` read. Raises `InvalidInputError` that names `source` for another curve."""
        from cryptography.hazmat.primitives import serialization

        if key.curve.name not in CURVES:
            raise InvalidInputError(f"{source}: the curve {key.curve.name} is not supported", hint=_ONLY)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return cls(key.public_bytes(serialization.Encoding.DER, form))

    @classmethod
    def from_base64(cls, text: str, key_type: str | None = None) -> Self:
        """Read SPKI DER in Base64, of `key_type` when that is given. Raises `InvalidInputError`."""
        from cryptography.hazmat.primitives import serialization

        try:
            loaded = serialization.load_der_public_key(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError, UnsupportedAlgorithm):
            raise InvalidInputError("the key: not a public key (SPKI DER in Base64)") from None
        if not isinstance(loaded, ec.EllipticCurvePublicKey):
            raise InvalidInputError("the key: not an ECDSA key")
        key = cls.of(loaded, "the key")
        if key_type not in (None, key.key_type):
            raise InvalidInputError(f"the key: is {key.key_type}, not {key_type}")
        return key

    @property
    def key_type(self) -> str:
        """`ecdsa-p256`, `ecdsa-p384` or `ecdsa-p521`."""
        return CURVES[self._key.curve.name][0]

    @property
    def key_id(self) -> str:
        """What is shown of a key: the first 32 hexadecimal digits of BLAKE3 of its SPKI DER. Never compared."""
        return blake3(self.spki).hexdigest()[:32]

    @property
    def hint(self) -> str:
        """Hexadecimal SHA-256 of the SPKI PEM text, as OpenSSF Model Signing bundles name a key."""
        return hashlib.sha256(self.to_pem()).hexdigest()

    @property
    def base64(self) -> str:
        """The SPKI DER in Base64."""
        return base64.b64encode(self.spki).decode()

    @property
    def inline(self) -> str:
        """The key as one word for a command line: its type, a colon, and the SPKI DER in Base64."""
        return f"{self.key_type}:{self.base64}"

    def to_pem(self) -> bytes:
        """SPKI PEM."""
        from cryptography.hazmat.primitives import serialization

        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_bytes(serialization.Encoding.PEM, form)

    def verifies(self, signature: bytes, data: bytes, *, hash_with: hashes.HashAlgorithm | None = None) -> bool:
        """Whether `signature` (DER) is this key's over `data`; `hash_with` replaces the hash of the curve."""
        algorithm = hash_with or CURVES[self._key.curve.name][1]()
        try:
            self._key.verify(signature, data, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True


AnyKey = VerifyingKey | EcVerifyingKey | AuthorityCertificate
"""What a trust store holds: keys of signers, and authorities that issue certificates to signers."""


def parse_trusted(data: bytes, source: str = "the key") -> AnyKey:
    """Read what `trust add` takes: a public key as `parse_public_key` reads it, or the PEM certificate of an authority.

    Raises `InvalidInputError`.
    """
    text = restored(data).strip()
    if text.startswith(_AUTHORITY_PREFIX):
        return AuthorityCertificate.from_base64(text.removeprefix(_AUTHORITY_PREFIX).decode("ascii", "replace"))
    return AuthorityCertificate.parse(text, source) if PEM_LINE in text else parse_public_key(data, source)


KEY_READERS: dict[str, Callable[[str], AnyKey]] = {
    "ed25519": VerifyingKey.from_base64,
    AUTHORITY_TYPE: AuthorityCertificate.from_base64,
    **{name: partial(EcVerifyingKey.from_base64, key_type=name) for name in KEY_TYPES},
}
"""`key_type` in a trust store, and prefix of a key on a command line, to the reader of its Base64."""


def parse_public_key(data: bytes, source: str = "the key") -> AnyKey:
    """Read a signer's public key: what `VerifyingKey.parse` reads, and ECDSA keys in SPKI PEM, as an OpenSSH line or as
    `ecdsa-p256:<Base64>`. Raises `InvalidInputError`."""
    from cryptography.hazmat.primitives import serialization

    text = restored(data).strip()
    kind, _, body = text.partition(b":")
    if kind.decode("ascii", "replace") in KEY_TYPES:
        return EcVerifyingKey.from_base64(body.decode("ascii", "replace"), kind.decode())
    if text.startswith((PEM_LINE, _AUTHORITY_PREFIX)):
        raise InvalidInputError(
            f"{source}: is a certificate, where a public key is due", hint="--ca FILE names a certificate authority"
        )
    single = text.count(b"-----BEGIN ") <= 1 and not (text.startswith(_SSH) and b"\n" in text)
    if not single or not text.startswith((b"-----BEGIN PUBLIC KEY-----", _SSH)):
        return VerifyingKey.parse(data, source)
    load = serialization.load_ssh_public_key if text.startswith(_SSH) else serialization.load_pem_public_key
    try:
        key = load(text)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInputError(f"{source}: a damaged or unknown public key") from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return EcVerifyingKey.of(key, source)
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidInputError(f"{source}: neither an Ed25519 nor an ECDSA key", hint="batuta pacha keygen makes one")
    return VerifyingKey.parse(data, source)


def is_inline(text: str) -> bool:
    """Whether a command-line word is a key itself, `TYPE:BASE64`, and not the name of a file."""
    return text.partition(":")[0] in KEY_READERS


@dataclass(frozen=True, repr=False)
class EcSigningKey:
    """An ECDSA private key; its `repr` does not show it."""

    _key: ec.EllipticCurvePrivateKey

    @property
    def verifying_key(self) -> EcVerifyingKey:
        """The public half."""
        return EcVerifyingKey.of(self._key.public_key(), "the key")

    def sign(self, data: bytes) -> bytes:
        """The DER signature over `data`."""
        return self._key.sign(data, ec.ECDSA(CURVES[self._key.curve.name][1]()))

    @classmethod
    def parse(cls, data: bytes, *, passphrase: bytes | None = None, source: str = "the key") -> Self:
        """Read PKCS#8 or SEC1 PEM.

        Raises:
            InvalidInputError: not a private key, or not an ECDSA one on a supported curve.
            UsageError: it is encrypted and `passphrase` is None.
            DecryptionError: the passphrase is wrong.
        """
        from cryptography.hazmat.primitives import serialization

        text = restored(data).strip()
        if b"PUBLIC KEY-----" in text:
            raise InvalidInputError(f"{source}: is a public key; a private key is needed here")
        if b"-----BEGIN EC PARAMETERS-----" in text:  # openssl ecparam -genkey writes them in front of the key
            text = text.partition(b"-----END EC PARAMETERS-----")[2].strip()
        if not (text.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in text):
            raise InvalidInputError(f"{source}: not a private key in PEM", hint=_MAKE)
        encrypted = is_encrypted_key(text)
        if encrypted and passphrase is None:
            raise UsageError(f"{source}: the key is encrypted", hint="--passphrase-env VAR names its passphrase")
        try:
            key = serialization.load_pem_private_key(text, passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if encrypted:
                raise DecryptionError(f"{source}: wrong passphrase, or the key file is damaged") from None
            raise InvalidInputError(f"{source}: a damaged or unknown private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidInputError(f"{source}: not an ECDSA key, which OpenSSF Model Signing tools need", hint=_MAKE)
        EcVerifyingKey.of(key.public_key(), source)
        return cls(key)


_MAKE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem makes one"
