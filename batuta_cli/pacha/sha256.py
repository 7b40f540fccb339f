"""SHA-256 digests of single files, as `sha256sum` writes them: `sha256:<hex>`.

A directory has no SHA-256 digest here: OpenSSF Model Signing's root digest does not bind the names of files.
"""

import hashlib
import os
from dataclasses import dataclass

from batuta_cli.errors import UsageError, VerificationError
from batuta_cli.files import Advance, StrPath, display
from batuta_cli.pacha.hashing import ContentAddress, PrefixedDigest, hash_stream_counting
from batuta_cli.pacha.oms.digests import Part, digest_parts
from batuta_cli.pacha.scanning import scan


@dataclass(frozen=True)
class Sha256Digest(PrefixedDigest):
    """A SHA-256 digest of 32 bytes; its `str` is `sha256:` and 64 hexadecimal digits."""

    prefix = "sha256:"
    refusal = "not a digest"
    hint = "a digest is sha256: or blake3: and 64 hexadecimal digits"


def parse_digest(text: str) -> ContentAddress | Sha256Digest:
    """Read `sha256:<hex>` or `blake3:<hex>`. Raises `InvalidInputError`."""
    return Sha256Digest.parse(text) if text.startswith(Sha256Digest.prefix) else ContentAddress.parse(text)


def sha256_of(path: StrPath, progress: Advance | None = None) -> Sha256Digest:
    """The SHA-256 of a file.

    Raises `UsageError` for a directory, and as `hashing.hash_model`.
    """
    if os.path.isdir(path):
        raise directory_without_digest(path)
    [entry] = scan(path)
    return Sha256Digest(digest_parts([Part(entry, 0, entry.size)], "sha256", progress)[0])


def directory_without_digest(path: StrPath) -> UsageError:
    """The error for the SHA-256 of a directory."""
    return UsageError(
        f"{display(path)}: a directory has no SHA-256 digest, only files have",
        hint="the default, BLAKE3, has one for directories",
    )


def check_digest(label: str, actual: ContentAddress | Sha256Digest, wanted: ContentAddress | Sha256Digest) -> None:
    """Raise `VerificationError` unless the address or digest of the model `label` is the one that is wanted."""
    if actual != wanted:
        kind = "address" if isinstance(wanted, ContentAddress) else "digest"
        raise VerificationError(f"{display(label)}: the content is {actual}, not {wanted}", result={kind: str(actual)})


def sha256_of_stream(descriptor: int, name: StrPath, progress: Advance | None = None) -> Sha256Digest:
    """The SHA-256 of what can be read from a descriptor, in constant memory. Raises `OperationError`."""
    hasher = hashlib.sha256()
    hash_stream_counting(descriptor, name, progress, also=[hasher.update])
    return Sha256Digest(hasher.digest())
