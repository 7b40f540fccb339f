"""The header of an encrypted file, version 1 and 2: building, parsing, and checks that need no key.

An unknown magic, version, key derivation or chunk size, and costs out of bounds, are an `InvalidInputError`. Salt,
nonce and commitment can only be checked with the key, so they are not checked here.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import StrPath, display
from batuta_cli.pacha.encryption.kdf import MEMORY_CEILING_KIB, SALT_SIZE, KdfParameters

MAGIC = b"PACHAENC"
NONCE_SIZE = 12
TAG_SIZE = 16
COMMITMENT_SIZE = 32

_START = struct.Struct(f">8sB{SALT_SIZE}s{NONCE_SIZE}s")
_PREFIX_2 = struct.Struct(f">8sB{SALT_SIZE}s{NONCE_SIZE}sBIIIB")
_ARGON2ID = 1
_MIN_CHUNK_LOG2 = 12
_MAX_CHUNK_LOG2 = 24


@dataclass(frozen=True, slots=True)
class SingleMessageHeader:
    """Version 1: one RFC 8439 message under the key itself."""

    SIZE: ClassVar[int] = _START.size
    version: ClassVar[int] = 1
    kdf: ClassVar[KdfParameters] = KdfParameters()

    salt: bytes
    nonce: bytes

    @classmethod
    def new(cls) -> "SingleMessageHeader":
        """A header with a fresh salt and nonce."""
        return cls(salt=os.urandom(SALT_SIZE), nonce=os.urandom(NONCE_SIZE))

    def pack(self) -> bytes:
        """The 53 bytes of the file."""
        return _START.pack(MAGIC, self.version, self.salt, self.nonce)


@dataclass(frozen=True, slots=True)
class ChunkedHeader:
    """Version 2 without its commitment, which needs the key: what `prefix` packs are bytes 0 to 66."""

    SIZE: ClassVar[int] = _PREFIX_2.size + COMMITMENT_SIZE
    version: ClassVar[int] = 2

    salt: bytes
    nonce: bytes
    kdf: KdfParameters = field(default_factory=KdfParameters)
    chunk_log2: int = 20

    def __post_init__(self) -> None:
        if not _MIN_CHUNK_LOG2 <= self.chunk_log2 <= _MAX_CHUNK_LOG2:
            raise InvalidInputError(
                f"a chunk size of 2^{self.chunk_log2} bytes, which must be 2^{_MIN_CHUNK_LOG2} to 2^{_MAX_CHUNK_LOG2}"
            )

    @classmethod
    def new(cls, kdf: KdfParameters | None = None, chunk_log2: int = 20) -> "ChunkedHeader":
        """A header with a fresh salt and nonce."""
        return cls(os.urandom(SALT_SIZE), os.urandom(NONCE_SIZE), kdf or KdfParameters(), chunk_log2)

    @property
    def chunk_size(self) -> int:
        """Bytes of plaintext in every chunk but the last."""
        return 1 << self.chunk_log2

    def prefix(self) -> bytes:
        """The 67 bytes of the file that the commitment covers."""
        kdf = self.kdf
        costs = (kdf.memory_kib, kdf.passes, kdf.lanes)
        return _PREFIX_2.pack(MAGIC, self.version, self.salt, self.nonce, _ARGON2ID, *costs, self.chunk_log2)


Header = SingleMessageHeader | ChunkedHeader


def is_encrypted(data: bytes) -> bool:
    """Whether `data` begins with the magic of an encrypted file."""
    return data[: len(MAGIC)] == MAGIC


def read_header(
    take: Callable[[int], bytes], name: StrPath, *, memory_limit_kib: int = MEMORY_CEILING_KIB
) -> tuple[Header, bytes]:
    """The header at the beginning of a file, and the commitment that follows it (empty in version 1).

    Args:
        take: returns the next n bytes, fewer only at the end of the file.
        name: the file, for messages.
        memory_limit_kib: the memory that the key derivation may ask for.

    Raises:
        InvalidInputError: not an encrypted file, cut within the header, or structure that is not allowed.
        UsageError: `memory_limit_kib` is above 1 GiB.
    """
    if not 1 <= memory_limit_kib <= MEMORY_CEILING_KIB:
        raise UsageError(f"--allow-kdf-memory must be 1 to {MEMORY_CEILING_KIB // 1024:,} MiB")
    start = take(len(MAGIC) + 1)
    if start[: len(MAGIC)] != MAGIC[: len(start)]:
        raise InvalidInputError(f"{display(name)}: not an encrypted file, it does not begin with PACHAENC")
    if len(start) <= len(MAGIC):
        raise _truncated(name)
    version = start[len(MAGIC)]
    if version == SingleMessageHeader.version:
        data = start + take(SingleMessageHeader.SIZE - len(start))
        if len(data) < SingleMessageHeader.SIZE:
            raise _truncated(name)
        _, _, salt, nonce = _START.unpack(data)
        return SingleMessageHeader(salt, nonce), b""
    if version == ChunkedHeader.version:
        data = start + take(ChunkedHeader.SIZE - len(start))
        if len(data) < ChunkedHeader.SIZE:
            raise _truncated(name)
        try:
            return _parse_2(data, memory_limit_kib), data[_PREFIX_2.size :]
        except InvalidInputError as error:
            raise InvalidInputError(f"{display(name)}: {error.message}", hint=error.hint) from None
    raise InvalidInputError(
        f"{display(name)}: an encrypted file of version {version}, known are 1 and 2",
        hint="a newer batuta may read it: pip install --upgrade batuta-cli",
    )


def _truncated(name: StrPath) -> InvalidInputError:
    return InvalidInputError(f"{display(name)}: truncated, the header of an encrypted file is not complete")


def _parse_2(data: bytes, memory_limit_kib: int) -> ChunkedHeader:
    fields: tuple[Any, ...] = _PREFIX_2.unpack_from(data)
    _, _, salt, nonce, kdf, memory, passes, lanes, chunk_log2 = fields
    if kdf != _ARGON2ID:
        raise InvalidInputError(f"key derivation number {kdf}, known is {_ARGON2ID} (Argon2id)")
    parameters = KdfParameters(memory, passes, lanes)
    parameters.check_memory(memory_limit_kib)
    return ChunkedHeader(salt, nonce, parameters, chunk_log2)
