"""An encrypted file as a seekable, read-only binary file: only what is asked for is decrypted.

Every byte that a read returns has been authenticated, also when the file on the disk changes after it was opened.
Version 2 has a tag for each chunk. Version 1 has one tag for the whole, which is checked when the
file is opened; the BLAKE3 digest of each piece is kept from that reading, 32 bytes a MiB, and compared later.
"""

import hmac
import io
import os
from typing import Protocol

from blake3 import blake3

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.files import StrPath, display, open_regular
from batuta_cli.pacha.encryption import v1, v2
from batuta_cli.pacha.encryption.header import TAG_SIZE, ChunkedHeader, SingleMessageHeader, read_header
from batuta_cli.pacha.encryption.kdf import DEFAULT_MEMORY_LIMIT_KIB
from batuta_cli.pacha.encryption.passwords import Password, normalise
from batuta_cli.pacha.encryption.source import RangeSource, StreamSource, pread_into
from batuta_cli.pacha.encryption.unlock import chunk_cipher, password_key


def open_encrypted(
    path: StrPath, password: Password, *, allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB
) -> io.BufferedReader:
    """Open an encrypted file for reading at any position; the caller closes it.

    A file of version 2 opens at once, after its last chunk, and with it its length, is authenticated. Version 1 is
    read through once. Reading one byte decrypts its whole chunk (version 1: MiB), and the last one is kept.

    Args:
        allow_kdf_memory_kib: the memory in KiB that the file may ask for to derive its key, up to 1 GiB.

    Raises:
        DecryptionError: wrong password, damaged or cut; later also from `read`, when the damage is met there.
        ChangedWhileReadError: from `read`, when a version 1 file is no longer what it was when opened.
        InvalidInputError: not an encrypted file, a header that is cut or not allowed, or an unusable password.
        NotFoundError, OperationError: it could not be read.
    """
    secret = normalise(password)
    descriptor = open_regular(path)
    try:
        start = StreamSource(descriptor, path, ahead=False)
        header, commitment = read_header(start.take, path, memory_limit_kib=allow_kdf_memory_kib)
        pieces: _Pieces
        if isinstance(header, SingleMessageHeader):
            pieces = _SingleMessagePieces(descriptor, path, header, password_key(header, secret))
        else:
            pieces = _ChunkedPieces(descriptor, path, header, chunk_cipher(header, commitment, secret, path))
        return io.BufferedReader(_Plaintext(descriptor, pieces))
    except BaseException:
        os.close(descriptor)
        raise


class _Pieces(Protocol):
    """The plaintext in pieces of `piece_size` bytes, of which the last may be shorter."""

    piece_size: int
    size: int

    def read(self, index: int) -> memoryview:
        """Piece number `index`, authenticated."""


class _SingleMessagePieces:
    piece_size = v1.PIECE

    def __init__(self, descriptor: int, name: StrPath, header: SingleMessageHeader, key: bytes) -> None:
        self._descriptor, self._name, self._header, self._key = descriptor, name, header, key
        self.size = os.fstat(descriptor).st_size - SingleMessageHeader.SIZE - TAG_SIZE
        if self.size < 0:
            raise v1.wrong_or_damaged(name)
        v1.check_size(self.size, name)
        self._digests: list[bytes] = []
        self._check()

    def _check(self) -> None:
        computed = v1.Authenticator(self._key, self._header.nonce)
        for block, _ in RangeSource(self._descriptor, self._name, SingleMessageHeader.SIZE, self.size).blocks(v1.PIECE):
            for start in range(0, len(block), v1.PIECE):
                piece = block[start : start + v1.PIECE]
                computed.update(piece)
                self._digests.append(blake3(piece).digest())
        tag = bytearray(TAG_SIZE)
        pread_into(self._descriptor, memoryview(tag), SingleMessageHeader.SIZE + self.size, self._name)
        if not hmac.compare_digest(computed.finalize(), tag):
            raise v1.wrong_or_damaged(self._name)

    def read(self, index: int) -> memoryview:
        start = index * v1.PIECE
        ciphertext = memoryview(bytearray(min(v1.PIECE, self.size - start)))
        pread_into(self._descriptor, ciphertext, SingleMessageHeader.SIZE + start, self._name)
        if blake3(ciphertext).digest() != self._digests[index]:
            raise ChangedWhileReadError(f"{display(self._name)}: changed since it was opened")
        plaintext = memoryview(bytearray(len(ciphertext)))
        v1.key_stream(self._key, self._header.nonce, start).update_into(ciphertext, plaintext)
        return plaintext


class _ChunkedPieces:
    def __init__(self, descriptor: int, name: StrPath, header: ChunkedHeader, cipher: v2.ChunkCipher) -> None:
        self._descriptor, self._name, self._cipher = descriptor, name, cipher
        self.piece_size = header.chunk_size
        size = v2.plaintext_size(os.fstat(descriptor).st_size, self.piece_size)
        if size is None:
            raise v1.wrong_or_damaged(name)
        self.size = size
        self._last = max(0, -(-size // self.piece_size) - 1)
        self.read(self._last)  # sealed as the last one: the file was not cut at a chunk boundary

    def read(self, index: int) -> memoryview:
        start = index * self.piece_size
        chunk = memoryview(bytearray(min(self.piece_size, self.size - start) + TAG_SIZE))
        position = ChunkedHeader.SIZE + index * (self.piece_size + TAG_SIZE)
        pread_into(self._descriptor, chunk, position, self._name)  # what is missing stays zero and fails the tag
        plaintext = memoryview(bytearray(len(chunk) - TAG_SIZE))
        self._cipher.open_into(index, index == self._last, chunk, plaintext)
        return plaintext


class _Plaintext(io.RawIOBase):
    """The pieces as one file. The descriptor belongs to it."""

    def __init__(self, descriptor: int, pieces: _Pieces) -> None:
        self._descriptor = descriptor
        self._pieces = pieces
        self._position = 0
        self._index = -1  # the piece that is kept
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, origin: int = os.SEEK_SET, /) -> int:
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._pieces.size}.get(origin)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {origin}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed: any Buffer
        self._check_open()
        if self._position >= self._pieces.size or not len(buffer):
            return 0
        index, start = divmod(self._position, self._pieces.piece_size)
        if index != self._index:
            self._piece = self._pieces.read(index)
            self._index = index
        found = self._piece[start : start + len(buffer)]
        memoryview(buffer)[: len(found)] = found
        self._position += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("read from a closed file")
