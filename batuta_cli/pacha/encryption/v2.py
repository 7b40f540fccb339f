"""Version 2: chunks, each authenticated with its position and with the header, for pipes and random access.

What each part is for:

* the commitment: a file decrypts under one password only, so that one request to a server that answers "wrong password"
  cannot test many passwords (partitioning oracles, https://eprint.iacr.org/2020/1491); it also shows a wrong
  password before any chunk is read;
* the counter in the nonce: chunks cannot be swapped, repeated or left out;
* the last byte of the nonce: a file cannot end early at a chunk boundary;
* the header as additional data: no chunk verifies under another header.
"""

import hmac

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from batuta_cli.files import Advance, StrPath
from batuta_cli.pacha.encryption.header import TAG_SIZE, ChunkedHeader
from batuta_cli.pacha.encryption.sink import Sink, put
from batuta_cli.pacha.encryption.source import ByteSource
from batuta_cli.pacha.encryption.v1 import wrong_or_damaged

_COMMITMENT_CONTEXT = "batuta pacha 2026-11-23 PACHAENC v2 commitment"
_PAYLOAD_CONTEXT = "batuta pacha 2026-11-23 PACHAENC v2 payload"


def encrypted_size(plaintext: int, chunk_size: int) -> int:
    """The size of the file that `plaintext` bytes become."""
    chunks = max(1, -(-plaintext // chunk_size))
    return ChunkedHeader.SIZE + plaintext + chunks * TAG_SIZE


def plaintext_size(encrypted: int, chunk_size: int) -> int | None:
    """The size of the plaintext in a file of `encrypted` bytes; None when no such file can be."""
    full, rest = divmod(encrypted - ChunkedHeader.SIZE, chunk_size + TAG_SIZE)
    if full < 0:
        return None
    if rest == 0 and full > 0:
        return full * chunk_size
    if rest > TAG_SIZE or (rest == TAG_SIZE and full == 0):  # only an empty file has an empty last chunk
        return full * chunk_size + rest - TAG_SIZE
    return None


class ChunkCipher:
    """Seals and opens the chunks of one file."""

    def __init__(self, header: ChunkedHeader, password_key: bytes, commitment: bytes | None, name: StrPath) -> None:
        """`password_key` is the Argon2id key; `commitment` is the one in the file, None when the file is new.

        Raises `DecryptionError` when the commitment does not match this key and header.
        """
        prefix = header.prefix()
        expected = blake3(password_key + prefix, derive_key_context=_COMMITMENT_CONTEXT).digest()
        if commitment is not None and not hmac.compare_digest(expected, commitment):
            raise wrong_or_damaged(name)
        chunk_key = blake3(password_key + header.nonce, derive_key_context=_PAYLOAD_CONTEXT).digest()
        self._aead = ChaCha20Poly1305(chunk_key)
        self._name = name
        self.header_bytes = prefix + expected
        """The 99 bytes at the beginning of the file."""

    def seal_into(self, index: int, last: bool, plaintext: memoryview, out: memoryview) -> None:
        """Encrypt chunk number `index` into `out`, which is 16 bytes longer."""
        self._aead.encrypt_into(_nonce(index, last), plaintext, self.header_bytes, out)

    def open_into(self, index: int, last: bool, chunk: memoryview, out: memoryview) -> None:
        """Decrypt chunk number `index` into `out`, which is 16 bytes shorter.

        Raises `DecryptionError`; the content of `out` must not be used then.
        """
        try:
            self._aead.decrypt_into(_nonce(index, last), chunk, self.header_bytes, out)
        except InvalidTag:
            raise wrong_or_damaged(self._name) from None


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def encrypt(source: ByteSource, sink: Sink, header: ChunkedHeader, cipher: ChunkCipher, progress: Advance) -> int:
    """Encrypt all of `source`; returns the number of plaintext bytes. `progress` is called with them."""
    put(sink, cipher.header_bytes)
    size, index, total = header.chunk_size, 0, 0
    for block, final in source.blocks(size):
        for start in range(0, max(len(block), 1), size):
            piece = block[start : start + size]
            last = final and start + size >= len(block)
            cipher.seal_into(index, last, piece, sink.space(len(piece) + TAG_SIZE))
            sink.advance(len(piece) + TAG_SIZE)
            progress(len(piece))
            index += 1
            total += len(piece)
    return total


def decrypt(
    source: ByteSource, sink: Sink, header: ChunkedHeader, cipher: ChunkCipher, name: StrPath, progress: Advance
) -> int:
    """Decrypt the chunks in `source`; returns the number of plaintext bytes.

    A chunk is written to `sink` only once it is authenticated. `progress` is called with the ciphertext bytes done.

    Raises `DecryptionError` when a chunk is damaged, missing, in the wrong place, or follows the last one.
    """
    size, index, total = header.chunk_size + TAG_SIZE, 0, 0
    for block, final in source.blocks(size):
        for start in range(0, max(len(block), 1), size):
            chunk = block[start : start + size]
            length = len(chunk) - TAG_SIZE
            if length < 0 or (length == 0 and index > 0):
                raise wrong_or_damaged(name)
            last = final and start + size >= len(block)
            cipher.open_into(index, last, chunk, sink.space(length))
            sink.advance(length)
            progress(len(chunk))
            index += 1
            total += length
    return total
