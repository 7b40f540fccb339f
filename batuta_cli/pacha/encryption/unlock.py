"""Derives from a header and a password the key of version 1 or the chunk cipher of version 2."""

from batuta_cli.errors import UsageError
from batuta_cli.files import StrPath
from batuta_cli.pacha.encryption import kdf
from batuta_cli.pacha.encryption.header import ChunkedHeader, Header, SingleMessageHeader
from batuta_cli.pacha.encryption.v2 import ChunkCipher

DEFAULT_FORMAT = 1
"""The version written unless another is asked for: the Rust crate reads it, too."""

FORMATS = (1, 2)
"""The versions that can be written."""


def new_header(version: int) -> Header:
    """A header for a new file. Raises `UsageError` for a version that cannot be written."""
    if version == SingleMessageHeader.version:
        return SingleMessageHeader.new()
    if version == ChunkedHeader.version:
        return ChunkedHeader.new()
    raise UsageError(f"encryption format {version} is not known", hint="choose --format 1 or --format 2")


def password_key(header: Header, password: bytes) -> bytes:
    """The Argon2id key of a normalised password under `header`. Takes about 0.2 s at the default cost."""
    return kdf.derive(password, header.salt, header.kdf)


def chunk_cipher(header: ChunkedHeader, commitment: bytes | None, password: bytes, name: StrPath) -> ChunkCipher:
    """The cipher of a version 2 file; `commitment` is None when the file is new.

    Raises `DecryptionError` for a wrong password, before any chunk is read.
    """
    return ChunkCipher(header, password_key(header, password), commitment, name)
