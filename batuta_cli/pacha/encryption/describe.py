"""Reads the header of an encrypted file without a password. Nothing in it is authenticated."""

import os
import stat
from dataclasses import dataclass

from batuta_cli.files import StrPath, open_stream
from batuta_cli.pacha.encryption import v1, v2
from batuta_cli.pacha.encryption.header import SingleMessageHeader, read_header
from batuta_cli.pacha.encryption.source import StreamSource


@dataclass(frozen=True, slots=True)
class Description:
    """The header of an encrypted file, and what the size of the file implies. Sizes in bytes."""

    version: int
    cipher: str
    kdf: str
    kdf_memory_kib: int
    kdf_passes: int
    kdf_lanes: int
    key_commitment: bool
    chunk_size: int | None
    """None in version 1, which has no chunks."""
    encrypted_size: int | None
    """None when the input is a pipe."""
    plaintext_size: int | None
    """None when the size is unknown, or when no complete encrypted file has it: then the file is truncated."""


def describe(path: StrPath) -> Description:
    """Describe an encrypted file.

    Raises `InvalidInputError` when it is not one, or its header is cut or not allowed; `NotFoundError` or
    `OperationError` when it cannot be read.
    """
    descriptor = open_stream(path)
    try:
        return describe_stream(descriptor, path)
    finally:
        os.close(descriptor)


def describe_stream(descriptor: int, name: StrPath = "stdin") -> Description:
    """As `describe`, for a descriptor, read from its current position."""
    header, _ = read_header(StreamSource(descriptor, name, ahead=False).take, name)
    status = os.fstat(descriptor)
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    chunk_size = None if isinstance(header, SingleMessageHeader) else header.chunk_size
    plaintext = None
    if size is not None:
        plaintext = v1.plaintext_size(size) if chunk_size is None else v2.plaintext_size(size, chunk_size)
    return Description(
        version=header.version,
        cipher="ChaCha20-Poly1305",
        kdf="Argon2id",
        kdf_memory_kib=header.kdf.memory_kib,
        kdf_passes=header.kdf.passes,
        kdf_lanes=header.kdf.lanes,
        key_commitment=chunk_size is not None,
        chunk_size=chunk_size,
        encrypted_size=size,
        plaintext_size=plaintext,
    )
