"""Version 1: the whole file is one RFC 8439 ChaCha20-Poly1305 message without additional data.

The one-shot call of the `cryptography` package stops at 2 GiB and holds everything in memory, so the construction of
RFC 8439, section 2.8, is made here of its two primitives, in pieces: raw ChaCha20 from counter 1, and Poly1305
under the first 32 bytes of key stream block 0, over ciphertext, padding and two lengths. The result is the same to
the byte. Version 1 does not commit to its key; version 2 does.
"""

import hmac
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

from batuta_cli.errors import ChangedWhileReadError, DecryptionError, InvalidInputError
from batuta_cli.files import Advance, StrPath, display
from batuta_cli.pacha.encryption.header import TAG_SIZE, SingleMessageHeader
from batuta_cli.pacha.encryption.sink import Sink, put
from batuta_cli.pacha.encryption.source import ByteSource

PIECE = 1024 * 1024
"""Bytes handed to the primitives at a time: they stay in the processor's cache between the two."""

MAX_PLAINTEXT = 2**38 - 64
"""256 GiB less one block: the 32-bit block counter, of which block 0 is the Poly1305 key (RFC 8439, section 2.8)."""

_BLOCK = 64


def encrypted_size(plaintext: int) -> int:
    """The size of the file that `plaintext` bytes become."""
    return SingleMessageHeader.SIZE + plaintext + TAG_SIZE


def plaintext_size(encrypted: int) -> int | None:
    """The size of the plaintext in a file of `encrypted` bytes; None when no such file can be."""
    size = encrypted - SingleMessageHeader.SIZE - TAG_SIZE
    return size if 0 <= size <= MAX_PLAINTEXT else None


def check_size(plaintext: int, name: StrPath) -> None:
    """Raise `InvalidInputError` when `plaintext` bytes are more than one message can carry."""
    if plaintext > MAX_PLAINTEXT:
        raise InvalidInputError(
            f"{display(name)}: larger than 256 GiB - 64 bytes, which version 1 cannot carry",
            hint="use --format 2, which has no such limit",
        )


def encrypt(
    source: ByteSource, sink: Sink, header: SingleMessageHeader, key: bytes, name: StrPath, progress: Advance
) -> int:
    """Encrypt all of `source`; returns the number of plaintext bytes.

    Args:
        name: the source, for messages.
        progress: called with the plaintext bytes done.

    Raises `InvalidInputError` when there is more than version 1 can carry.
    """
    put(sink, header.pack())
    stream, tag = key_stream(key, header.nonce), Authenticator(key, header.nonce)
    total = 0
    for piece in _pieces(source):
        total += len(piece)
        check_size(total, name)
        out = sink.space(len(piece))
        stream.update_into(piece, out)
        tag.update(out)
        sink.advance(len(piece))
        progress(len(piece))
    put(sink, tag.finalize())
    return total


def check(
    source: ByteSource, header: SingleMessageHeader, key: bytes, tag: bytes, name: StrPath, progress: Advance
) -> None:
    """Pass 1: compare `tag` with that of the ciphertext in `source`, decrypting nothing.

    Raises `DecryptionError` when it differs.
    """
    computed = Authenticator(key, header.nonce)
    for piece in _pieces(source):
        computed.update(piece)
        progress(len(piece))
    if not hmac.compare_digest(computed.finalize(), tag):
        raise wrong_or_damaged(name)


def decrypt(
    source: ByteSource,
    sink: Sink,
    header: SingleMessageHeader,
    key: bytes,
    tag: bytes,
    name: StrPath,
    progress: Advance,
) -> int:
    """Pass 2: decrypt ciphertext that passed `check`; returns the number of plaintext bytes.

    The tag is computed again, over the very bytes that are decrypted, because a file can change between two reads.

    Raises `ChangedWhileReadError` when it did: the caller must discard the content of `sink`.
    """
    stream, computed = key_stream(key, header.nonce), Authenticator(key, header.nonce)
    total = 0
    for piece in _pieces(source):
        computed.update(piece)
        stream.update_into(piece, sink.space(len(piece)))
        sink.advance(len(piece))
        progress(len(piece))
        total += len(piece)
    if not hmac.compare_digest(computed.finalize(), tag):
        raise ChangedWhileReadError(f"{display(name)}: changed while it was being decrypted")
    return total


def wrong_or_damaged(name: StrPath) -> DecryptionError:
    """The error for a wrong password and for damage. It is the same one, so that an attacker cannot tell them apart."""
    return DecryptionError(
        f"{display(name)}: wrong password, or the file is damaged",
        hint="check the password; if it is right, get a fresh copy of the file",
    )


def key_stream(key: bytes, nonce: bytes, offset: int = 0) -> CipherContext:
    """ChaCha20 as it applies from plaintext byte `offset`, a multiple of 64; its `update` de- and encrypts alike."""
    counter = 1 + offset // _BLOCK
    return _chacha20(key, nonce, counter)


def _chacha20(key: bytes, nonce: bytes, counter: int) -> CipherContext:
    # The package takes RFC 8439's counter and nonce as one 16-byte value.
    return Cipher(ChaCha20(key, counter.to_bytes(4, "little") + nonce), None).encryptor()


class Authenticator:
    """The tag of RFC 8439, section 2.8, for a message without additional data."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._poly1305 = Poly1305(_chacha20(key, nonce, 0).update(bytes(32)))
        self._size = 0

    def update(self, ciphertext: memoryview) -> None:
        """Cover the next piece."""
        self._poly1305.update(ciphertext)
        self._size += len(ciphertext)

    def finalize(self) -> bytes:
        """The 16-byte tag."""
        self._poly1305.update(bytes(-self._size % 16) + (0).to_bytes(8, "little") + self._size.to_bytes(8, "little"))
        return self._poly1305.finalize()


def _pieces(source: ByteSource) -> Iterator[memoryview]:
    for block, _ in source.blocks(PIECE):
        for start in range(0, len(block), PIECE):
            yield block[start : start + PIECE]
