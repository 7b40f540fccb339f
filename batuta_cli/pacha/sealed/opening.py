"""File objects over verified bytes, for Python programs.

    from batuta_cli.pacha import Policy, open_verified

    with open_verified("model.gguf", Policy(trust=store)) as file:
        magic = file.read(4)

The bytes are those of sealed memory, so that a change of the file on disk, made during or after the verification, has
no effect on them.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from batuta_cli.errors import InvalidInputError, VerificationError
from batuta_cli.files import StrPath, display
from batuta_cli.pacha.encryption.passwords import Password
from batuta_cli.pacha.locate import Located, inside_model
from batuta_cli.pacha.sealed.content import SealingOptions, is_encrypted_file, signatures_beside
from batuta_cli.pacha.sealed.memfd import MemoryFile
from batuta_cli.pacha.sealed.verified import SealedModel, seal_verified
from batuta_cli.pacha.signer import Policy
from batuta_cli.pacha.signing import ModelSignature, model_name
from batuta_cli.pacha.verification import Verification

Signatures = ModelSignature | Sequence[ModelSignature] | None
"""A signature, several, or None for the one that is beside the model."""


class VerifiedFile(io.BufferedReader):
    """A seekable, read-only file object over verified bytes. It stays valid after the file on disk has changed."""

    def __init__(self, memory: MemoryFile, verification: Verification | None, *, owned: bool) -> None:
        super().__init__(io.FileIO(memory.path))
        self.verification = verification
        self._memory = memory if owned else None

    @property
    def path(self) -> str:
        """A path for libraries that want one: it opens the verified bytes in this process while the file is open."""
        return f"/proc/self/fd/{self.fileno()}"

    def close(self) -> None:
        """Close the file; when it is the only one, free the memory."""
        super().close()
        if self._memory is not None:
            self._memory.close()


class VerifiedDirectory(Mapping[str, VerifiedFile]):
    """The files of a model directory by their `/`-separated names. Each access opens a new file object.

    Files that a signature does not cover are not in it; `verification.ignored` and `.unsigned` list them. Closing it
    frees the memory, once the file objects are closed too.
    """

    def __init__(self, sealed: SealedModel) -> None:
        self._content = sealed.content
        self._files = sealed.files
        self.verification = sealed.verification

    def __getitem__(self, name: str) -> VerifiedFile:
        return VerifiedFile(self._files[name], self.verification, owned=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def close(self) -> None:
        """Free the memory of files that are not open."""
        self._files = {}
        self._content.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_verified(
    path: StrPath,
    policy: Policy,
    signatures: Signatures = None,
    *,
    require: int | None = None,
    password: Password | None = None,
    max_memory: int | None = None,
    allow_swap: bool = False,
) -> VerifiedFile:
    """Verify a model that is a single file, and open the verified bytes; the caller closes the file.

    An encrypted file is decrypted in memory, and the signature that counts is the one over the plaintext.

    Args:
        policy: who may have signed, as for `verify_path`.
        signatures: by default `PATH.sig`; of an encrypted `MODEL.enc` it is `MODEL.sig`.
        require: as for `verify_path`.
        password: of an encrypted file.
        max_memory: bytes that the model may take; by default the memory that is available.
        allow_swap: accept memory that cannot be locked on a machine that has swap.

    Raises:
        VerificationError, SignerError, NotFoundError, InvalidInputError: as `verify_path`; there is no signature.
        DecryptionError: the password is wrong, or the ciphertext is damaged.
        OperationError: there is not enough memory, or no sealed memory on this system.
    """
    options = SealingOptions(max_memory, allow_swap, password)
    if os.path.isdir(path):
        raise InvalidInputError(f"{display(path)}: is a directory", hint="verified_directory opens one")
    sealed = _sealed(path, policy, signatures, options, require, ())
    return VerifiedFile(sealed.files["."], sealed.verification, owned=True)


def verified_directory(
    path: StrPath,
    policy: Policy,
    signatures: Signatures = None,
    *,
    require: int | None = None,
    allow_unsigned: Sequence[str] = (),
    max_memory: int | None = None,
    allow_swap: bool = False,
) -> VerifiedDirectory:
    """Verify a model directory, and open its files by name; use it in a `with` block.

    Args:
        signatures: by default `DIR.sig` or `DIR/model.sig`.
        allow_unsigned: globs of files that may be there without being signed. They are not in the result.

    The other arguments and the errors are those of `open_verified`.
    """
    if not os.path.isdir(path):
        raise InvalidInputError(f"{display(path)}: is not a directory", hint="open_verified opens a file")
    options = SealingOptions(max_memory, allow_swap)
    return VerifiedDirectory(_sealed(path, policy, signatures, options, require, allow_unsigned))


def _sealed(
    path: StrPath,
    policy: Policy,
    signatures: Signatures,
    options: SealingOptions,
    require: int | None,
    allow_unsigned: Sequence[str],
) -> SealedModel:
    text = os.fspath(path)
    found, encrypted, tolerated = Located(text, text, model_name(path)), is_encrypted_file(path), list(allow_unsigned)
    if signatures is None:
        candidates = signatures_beside(found, encrypted)
        file = next(filter(os.path.lexists, candidates), None)
        if file is None:
            raise VerificationError(
                f"{display(path)}: there is no signature, {display(candidates[0])} does not exist",
                hint="pass signatures=",
            )
        signatures, tolerated = [ModelSignature.load(file)], [*tolerated, *inside_model([file], path)]
    elif isinstance(signatures, ModelSignature):
        signatures = [signatures]
    return seal_verified(
        found, signatures, policy, options, encrypted=encrypted, require=require, allow_unsigned=tolerated
    )
