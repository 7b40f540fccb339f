"""Verifies a model in sealed memory: its signers, every file, and a digest that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batuta_cli.errors import VerificationError
from batuta_cli.files import Advance
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.locate import Located
from batuta_cli.pacha.sealed.content import SealedContent, SealingOptions, plaintext_name, seal_model
from batuta_cli.pacha.sealed.memfd import MemoryFile
from batuta_cli.pacha.sha256 import Sha256Digest, check_digest, directory_without_digest, sha256_of
from batuta_cli.pacha.signer import Policy
from batuta_cli.pacha.signing import ModelSignature
from batuta_cli.pacha.verification import Verification, verify_all


@dataclass(frozen=True)
class SealedModel:
    """A model whose bytes are verified and cannot change any more. Closing `content` frees the memory."""

    name: str
    """Its base name; of an encrypted model, that of the plaintext."""
    files: Mapping[str, MemoryFile]
    """The verified files by their names inside the model; a single file is named `"."`."""
    verification: Verification | None
    """None when only a digest was compared."""
    content: SealedContent


def seal_verified(
    found: Located,
    signatures: Sequence[ModelSignature],
    policy: Policy | None,
    options: SealingOptions,
    *,
    encrypted: bool,
    digest: ContentAddress | Sha256Digest | None = None,
    require: int | None = None,
    allow_unsigned: Sequence[str] = (),
    progress: Advance | None = None,
) -> SealedModel:
    """Copy or decrypt a model into sealed memory, and verify what is there.

    Args:
        policy: who may have signed; None when only `digest` is compared.
        encrypted: whether it is an encrypted file; the signature and the digest are those of the plaintext.
        digest: what the content must have, besides being signed.

    Raises as `verify_path` and `seal_model`.
    """
    stored = None if encrypted else found.address
    everything = digest is not None or stored is not None
    name = plaintext_name(found.name or "model", encrypted)
    content = seal_model(found.path, signatures, options, label=found.label, everything=everything, progress=progress)
    try:
        verification = None
        if policy is not None:
            verification = verify_all(
                content,
                signatures,
                policy,
                label=found.label,
                actual_name=plaintext_name(found.name, encrypted) if found.name else None,
                require=require,
                allow_unsigned=allow_unsigned,
            )
        for wanted in (digest, stored):
            if wanted is not None:
                _compare(content, found.label, wanted)
    except VerificationError as error:
        content.close()
        if encrypted and error.hint is None:
            error.hint = "the signature and the digest of an encrypted model are those of the plaintext"
        raise
    except BaseException:
        content.close()
        raise
    return SealedModel(
        name, content.files if verification is None else content.covered(verification), verification, content
    )


def _compare(content: SealedContent, label: str, wanted: ContentAddress | Sha256Digest) -> None:
    actual: ContentAddress | Sha256Digest
    if isinstance(wanted, ContentAddress):
        actual = content.address()
    elif "." in content.files:
        actual = sha256_of(content.files["."].path, content.progress)
    else:
        raise directory_without_digest(label)
    check_digest(label, actual, wanted)
