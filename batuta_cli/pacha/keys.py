"""Ed25519 keys (RFC 8032) and the file formats they are read from and written to.

Written: PKCS#8 PEM for private keys (RFC 5958; encrypted by PBES2, RFC 8018, when there is a passphrase) and SPKI PEM
for public ones (RFC 8410), both of which `openssl pkey` reads. Read besides: OpenSSH Ed25519 keys, and the
`PACHA ED25519` PEM of the Rust crate. Anything else is an `InvalidInputError`; no error quotes key material.
"""

import base64
import binascii
import hashlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from batuta_cli.errors import DecryptionError, InvalidInputError, UsageError
from batuta_cli.files import display, is_control, is_invisible
from batuta_cli.pacha.pem import restored

DEFAULT_IDENTITY = "default"
KEY_SIZE = 32  # bytes of a raw Ed25519 private or public key, RFC 8032 section 5.1.5
KEY_FILE_LIMIT = 64 * 1024  # bytes; no key file comes near it
INLINE_PREFIX = "ed25519:"
AUTHORITY_TYPE = "certificate"
"""The `key_type` of a certificate authority in a trust store; see `oms/authority.py`."""

_IDENTITY_LIMIT = 200  # bytes
_SSH_NAMES = (b"ssh-", b"ecdsa-", b"sk-")  # how the lines of OpenSSH public keys begin
_PACHA_PRIVATE = "PACHA ED25519 SIGNING KEY"
_PACHA_PUBLIC = "PACHA ED25519 VERIFYING KEY"
_PBKDF2_ITERATIONS = 600_000  # OWASP Password Storage Cheat Sheet for PBKDF2-HMAC-SHA256; `cryptography` writes 2,048

# The points of order 1, 2, 4 and 8, whose sign bit does not matter, with the encodings of y that are not reduced. Under
# such a key signatures can be made without a private key (Chalkias et al., https://eprint.iacr.org/2020/1244).
_P = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset(y.to_bytes(32, "little") for y in (0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8))


def check_identity(identity: str) -> str:
    """Return `identity` when it is a valid name of a signer.

    Raises `InvalidInputError` when it is empty, over 200 bytes of UTF-8, or has control, bidirectional or invisible
    characters.
    """
    check_recorded_identity(identity)
    refuse_invisible(identity)
    return identity


def refuse_invisible(identity: str) -> None:
    """Raise `InvalidInputError` for a name with invisible characters, because it looks like the one without them."""
    if has_invisible(identity):
        raise InvalidInputError(
            f"the identity has invisible characters: {display(identity)}", hint="type it instead of pasting it"
        )


def has_invisible(identity: str) -> bool:
    """Whether a name has characters that are displayed as nothing; see `files.is_invisible`."""
    return any(map(is_invisible, identity))


def check_recorded_identity(identity: str) -> str:
    """As `check_identity`, for a name in a file: it may have invisible characters, and is shown with them escaped.

    A signature may come from another tool, a trust store from a version before 2026-11-26.
    """
    try:
        size = len(identity.encode())
    except UnicodeEncodeError:
        raise InvalidInputError("an identity must be Unicode text") from None
    if not identity.strip():
        raise InvalidInputError("an identity must not be empty")
    if size > _IDENTITY_LIMIT:
        raise InvalidInputError(f"the identity has {size} bytes, at most {_IDENTITY_LIMIT} are allowed")
    if any(is_control(c) for c in identity):
        raise InvalidInputError(f"the identity has control characters: {display(identity)}")
    return identity


@dataclass(frozen=True)
class VerifyingKey:
    """An Ed25519 public key, 32 raw bytes; equality compares all of them."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_SIZE:
            raise InvalidInputError(f"an Ed25519 public key has {KEY_SIZE} bytes, this one has {len(self.raw)}")
        if self.raw[:-1] + bytes([self.raw[-1] & 0x7F]) in _SMALL_ORDER:
            raise InvalidInputError(
                "this Ed25519 public key is a point of small order: signatures under it can be forged"
            )

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    @property
    def key_type(self) -> str:
        """`ed25519`."""
        return "ed25519"

    @property
    def key_id(self) -> str:
        """The key id for display: the first 32 hexadecimal digits of BLAKE3 of the raw bytes. Never compared."""
        return blake3(self.raw).hexdigest()[:32]

    @property
    def spki(self) -> bytes:
        """The key as SPKI DER (RFC 8410 section 4)."""
        from cryptography.hazmat.primitives import serialization

        return self._key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def hint(self) -> str:
        """Hexadecimal SHA-256 of the SPKI PEM text, as OpenSSF Model Signing bundles name a key."""
        return hashlib.sha256(self.to_pem()).hexdigest()

    @property
    def inline(self) -> str:
        """The key as one word for a command line: `ed25519:` and Base64."""
        return INLINE_PREFIX + self.base64

    @property
    def base64(self) -> str:
        """The raw bytes in Base64."""
        return base64.b64encode(self.raw).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` is a valid signature of `data` by this key; False for any that is not 64 bytes long."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> bytes:
        """SPKI PEM."""
        from cryptography.hazmat.primitives import serialization

        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def to_openssh(self) -> bytes:
        """One line as in `authorized_keys`."""
        from cryptography.hazmat.primitives import serialization

        return self._key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n"

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read the raw bytes in Base64. Raises `InvalidInputError`."""
        return cls(_base64(text, "the key"))

    @classmethod
    def parse(cls, data: bytes, source: str = "the key") -> Self:
        """Read SPKI PEM, an OpenSSH public key line, the Rust crate's PEM, or `ed25519:<Base64>`.

        `source` names the input in errors. Raises `InvalidInputError`.
        """
        from cryptography.hazmat.primitives import serialization

        text = restored(data).strip()
        if text.startswith(INLINE_PREFIX.encode()):
            return cls._from_body(_base64(text.removeprefix(INLINE_PREFIX.encode()), source), source)
        if b"PRIVATE KEY-----" in text or b"SIGNING KEY-----" in text:
            raise InvalidInputError(f"{source}: is a private key; a public key is needed here")
        if text.count(b"-----BEGIN ") > 1 or (text.startswith(_SSH_NAMES) and b"\n" in text):
            raise InvalidInputError(f"{source}: has more than one key", hint="pass a file with one key")
        if (body := _pacha_pem(text, _PACHA_PUBLIC, source)) is not None:
            return cls._from_body(body, source)
        if text.startswith(_SSH_NAMES) and not text.startswith(b"ssh-ed25519 "):
            raise InvalidInputError(f"{source}: not an Ed25519 key", hint="batuta pacha keygen makes one")
        try:
            if text.startswith(b"-----BEGIN PUBLIC KEY-----"):
                key = serialization.load_pem_public_key(text)
            elif text.startswith(b"ssh-ed25519 "):
                key = serialization.load_ssh_public_key(text)
            else:
                raise InvalidInputError(f"{source}: not a public key", hint="PEM, OpenSSH or ed25519:BASE64 is read")
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidInputError(f"{source}: a damaged or unknown public key") from None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInputError(f"{source}: not an Ed25519 key", hint="batuta pacha keygen makes one")
        return cls(key.public_bytes_raw())

    @classmethod
    def _from_body(cls, body: bytes, source: str) -> Self:
        if len(body) != KEY_SIZE:
            raise InvalidInputError(f"{source}: an Ed25519 public key has {KEY_SIZE} bytes, this one has {len(body)}")
        return cls(body)


@dataclass(frozen=True, repr=False)
class SigningKey:
    """An Ed25519 private key and the identity it signs as; its `repr` shows neither.

    Raises `InvalidInputError` for an identity that cannot be used.
    """

    _key: Ed25519PrivateKey
    identity: str | None = None

    def __post_init__(self) -> None:
        if self.identity is not None:
            check_identity(self.identity)

    @classmethod
    def generate(cls, identity: str | None = None) -> Self:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate(), identity)

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return VerifyingKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return self._key.sign(data)

    def with_identity(self, identity: str | None) -> Self:
        """The same key under another identity."""
        return type(self)(self._key, identity)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when `passphrase` is given. Raises `UsageError` when that is empty."""
        if passphrase == b"":
            raise UsageError("the passphrase is empty", hint="leave it out for a key without one")
        from cryptography.hazmat.primitives import serialization

        plain = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if passphrase is None:
            return _pem("PRIVATE KEY", plain)
        return _pem("ENCRYPTED PRIVATE KEY", _encrypt_pkcs8(plain, passphrase))

    @classmethod
    def parse(
        cls, data: bytes, *, passphrase: bytes | None = None, identity: str | None = None, source: str = "the key"
    ) -> Self:
        """Read PKCS#8 PEM, an OpenSSH private key, or the Rust crate's PEM.

        Raises:
            InvalidInputError: not a private key, or not an Ed25519 one.
            UsageError: it is encrypted and `passphrase` is None, or a package is missing that is needed to open it.
            DecryptionError: the passphrase is wrong.
        """
        from cryptography.hazmat.primitives import serialization

        text = restored(data).strip()
        if (body := _pacha_pem(text, _PACHA_PRIVATE, source)) is not None:
            if len(body) != KEY_SIZE:
                raise InvalidInputError(f"{source}: an Ed25519 private key has {KEY_SIZE} bytes, not {len(body)}")
            return cls(Ed25519PrivateKey.from_private_bytes(body), identity)
        ssh = text.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
        if b"PUBLIC KEY-----" in text or text.startswith(b"ssh-") or b"VERIFYING KEY-----" in text:
            raise InvalidInputError(f"{source}: is a public key; a private key is needed here")
        if not ssh and not (text.startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in text):
            raise InvalidInputError(f"{source}: not a private key", hint="a PEM or OpenSSH Ed25519 key is read")
        encrypted = is_encrypted_key(text)
        if encrypted and passphrase is None:
            raise UsageError(f"{source}: the key is encrypted", hint="--passphrase-env VAR names its passphrase")
        if encrypted and ssh and importlib.util.find_spec("bcrypt") is None:  # `cryptography` leaves that one to it
            raise UsageError(
                f"{source}: reading an encrypted OpenSSH key needs the package bcrypt",
                hint="pip install 'batuta-cli[ssh]'",
            )
        load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
        try:
            key = load(text, passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            if encrypted:
                raise DecryptionError(f"{source}: wrong passphrase, or the key file is damaged") from None
            raise InvalidInputError(f"{source}: a damaged or unknown private key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInputError(f"{source}: not an Ed25519 key", hint="batuta pacha keygen makes one")
        return cls(key, identity)


def is_encrypted_key(data: bytes) -> bool:
    """Whether a private key file is encrypted."""
    data = restored(data)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data or b"\nProc-Type: 4,ENCRYPTED" in data:
        return True
    head, _, body = data.strip().partition(b"\n")
    if head.strip() != b"-----BEGIN OPENSSH PRIVATE KEY-----":
        return False
    try:  # PROTOCOL.key of OpenSSH: magic, then the cipher's name with its length
        opened = base64.b64decode(body.partition(b"-----")[0])
    except ValueError:
        return False
    return not opened.startswith(b"openssh-key-v1\0\0\0\0\x04none")


def generate_keypair(identity: str | None = None) -> tuple[SigningKey, VerifyingKey]:
    """A new private key and its public half."""
    key = SigningKey.generate(identity)
    return key, key.verifying_key


def _base64(text: str | bytes, source: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"{source}: is not Base64") from None


def _pacha_pem(text: bytes, label: str, source: str) -> bytes | None:
    begin, end = f"-----BEGIN {label}-----".encode(), f"-----END {label}-----".encode()
    if not (text.startswith(begin) and text.endswith(end)):
        return None
    return _base64(b"".join(text.removeprefix(begin).removesuffix(end).split()), source)


def _pem(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).replace(b"\n", b"")
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    return b"\n".join((f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----\n".encode()))


def _encrypt_pkcs8(plain: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo with PBES2: PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 5958 section 3, RFC 8018 A.4).

    `cryptography` writes this structure too, but with 2,048 iterations and no way to ask for more.
    """
    from cryptography.hazmat.primitives import hashes, padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    salt, iv = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, _PBKDF2_ITERATIONS).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    secret = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()

    prf = _sequence(bytes.fromhex("06082a864886f70d0209"), b"\x05\x00")  # hmacWithSHA256, NULL
    rounds = _PBKDF2_ITERATIONS.to_bytes(3, "big")
    pbkdf2 = _sequence(bytes.fromhex("06092a864886f70d01050c"), _sequence(_der(0x04, salt), _der(0x02, rounds), prf))
    aes256_cbc = _sequence(bytes.fromhex("060960864801650304012a"), _der(0x04, iv))
    pbes2 = _sequence(bytes.fromhex("06092a864886f70d01050d"), _sequence(pbkdf2, aes256_cbc))
    return _sequence(pbes2, _der(0x04, secret))


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + content
