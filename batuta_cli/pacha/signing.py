"""Signing models, and signatures as files.

key = SigningKey.generate("alice@example.com")
signature = sign_path("model.gguf", key)
signature.save("model.gguf.sig")
"""

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import Advance, StrPath, display, read_limited, utf8_name, write_file
from batuta_cli.pacha import pacha1, statement, trust
from batuta_cli.pacha.envelope import (
    SIGNATURE_FILE_LIMIT,
    Envelope,
    EnvelopeSignature,
    load_json,
    parse_envelope,
    pre_authentication_encoding,
)
from batuta_cli.pacha.hashing import ContentAddress, Resource, address_of, address_of_bytes, hash_model
from batuta_cli.pacha.ignoring import check_globs, expand_ignored, topmost
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.pacha1 import Pacha1Signature
from batuta_cli.pacha.statement import Statement

if TYPE_CHECKING:
    from batuta_cli.pacha.digest_cache import DigestCache
    from batuta_cli.pacha.oms.eckeys import AnyKey
    from batuta_cli.pacha.oms.signature import OmsSignature

SignatureFormat = Literal["bundle", "pacha1"]

_MAX_LIFETIME = 36_500  # days; a century is beyond any key


@dataclass(frozen=True)
class SignedStatement:
    """A statement and the envelope it came in: the bytes that were signed are the bytes that were parsed."""

    envelope: Envelope
    statement: Statement

    def verified_by(self, key: "AnyKey", value: bytes) -> bool:
        """Whether `value` is a signature by `key` over this statement."""
        return key.verifies(value, self._signed_bytes)

    @cached_property
    def _signed_bytes(self) -> bytes:
        return self.envelope.signed_bytes()


@dataclass(frozen=True)
class ModelSignature:
    """The content of a `.sig` file; parsing it proves nothing, `verify_model` and `verify_path` do."""

    raw: bytes
    body: "SignedStatement | Pacha1Signature | OmsSignature"

    @property
    def address(self) -> ContentAddress | None:
        """The content address of the model that was signed; None when another tool signed it by other digests."""
        if isinstance(self.body, Pacha1Signature):
            return self.body.content
        return self.body.statement.address if isinstance(self.body, SignedStatement) else None

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a Sigstore bundle, of batuta or of another OpenSSF Model Signing tool, or the Rust crate's format.

        Raises `InvalidInputError` that names the field.
        """
        if len(raw) > SIGNATURE_FILE_LIMIT:
            raise InvalidInputError(f"the signature is larger than {SIGNATURE_FILE_LIMIT:,} bytes")
        document = load_json(raw, "the signature")
        if "content_hash" in document and "mediaType" not in document:
            return cls(raw, pacha1.parse(document))
        envelope = parse_envelope(document)
        stated = load_json(envelope.payload, "the statement")
        if statement.is_own(stated):
            return cls(raw, SignedStatement(envelope, statement.parse_document(stated)))
        from batuta_cli.pacha.oms.signature import read_oms  # not needed for batuta's own signatures

        return cls(raw, read_oms(document, envelope, stated))

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Read a `.sig` file. Raises as `parse` (naming the file), `NotFoundError`, `OperationError`."""
        raw = read_limited(path, SIGNATURE_FILE_LIMIT)
        try:
            return cls.parse(raw)
        except InvalidInputError as error:
            raise InvalidInputError(f"{display(path)}: {error.message}", hint=error.hint) from None

    def save(self, path: StrPath, *, force: bool = False) -> None:
        """Write the `.sig` file whole or not at all. Raises as `files.atomic_output`."""
        write_file(path, self.raw, force=force)


def signature_path(path: StrPath) -> str:
    """The path of a model's signature: `model.gguf.sig`; `model.sig` beside the directory `model/`."""
    return _plain(path) + ".sig"


def oms_signature_path(path: StrPath) -> str:
    """The path of the signature for OpenSSF tools: `model.gguf.oms.sig`, `model.oms.sig` of `model/`."""
    return _plain(path) + ".oms.sig"


def model_name(path: StrPath) -> str:
    """The name a model is signed under: the last part of its path, which is resolved when it ends in `.` or `..`."""
    return utf8_name(os.path.basename(_plain(path)))


def _plain(path: StrPath) -> str:
    text = os.fspath(path).rstrip("/")
    return os.path.realpath(text or "/") if os.path.basename(text) in ("", ".", "..") else text


def sign_path(
    path: StrPath,
    key: SigningKey,
    *,
    name: str | None = None,
    expires_days: int | None = None,
    ignore: Sequence[str] = (),
    ignore_paths: Sequence[str] = (),
    follow_symlinks: bool = False,
    format: SignatureFormat = "bundle",
    progress: Advance | None = None,
    cache: "DigestCache | None" = None,
) -> ModelSignature:
    """Sign a file or a directory of any size, in constant memory; the signature is returned, not written.

    Args:
        name: the model's name, when `path` does not show it (an object of the store).
        expires_days: the signature is valid for so many days from now; None: it does not expire.
        ignore: globs of files that do not belong to the model; see `ignoring` for their rules. The paths that they
            name now are signed, not the globs.
        ignore_paths: relative paths to leave out besides, whether something is there or not: the place of the
            signature, when that is inside the model.
        follow_symlinks: read symbolic links to regular files; this is signed as well.
        format: "bundle", or "pacha1" for the Rust crate, which takes single files and binds their content only.
        cache: the digests of files that were read before; only other files are read.

    Raises:
        NotFoundError, OperationError, ChangedWhileReadError: the model cannot be read.
        InvalidInputError, UsageError: it is not something that can be signed like that.
    """
    check_globs(ignore)
    if format == "pacha1" and (ignore or ignore_paths):
        raise _not_in_pacha1(path)
    paths = topmost([*expand_ignored(path, ignore).paths, *ignore_paths])
    statement.check_ignored(paths)
    resources = hash_model(path, ignore=paths, follow_symlinks=follow_symlinks, advance=progress, cache=cache)
    return sign_resources(
        resources,
        model_name(path) if name is None else name,
        key,
        expires_days=expires_days,
        ignore_paths=paths,
        follow_symlinks=follow_symlinks,
        format=format,
    )


def sign_model(data: bytes, key: SigningKey, *, name: str = "model", expires_days: int | None = None) -> ModelSignature:
    """Sign a model in memory under the file name `name`."""
    resource = Resource(".", len(data), address_of_bytes(data).digest)
    return sign_resources([resource], name, key, expires_days=expires_days)


def sign_resources(
    resources: Sequence[Resource],
    name: str,
    key: SigningKey,
    *,
    expires_days: int | None = None,
    ignore_paths: Sequence[str] = (),
    follow_symlinks: bool = False,
    format: SignatureFormat = "bundle",
) -> ModelSignature:
    """Sign a model that is already hashed; see `sign_path`."""
    created = trust.now()
    if expires_days is not None and not 0 < expires_days <= _MAX_LIFETIME:
        raise UsageError(f"a signature can expire after 1 to {_MAX_LIFETIME:,} days, not {expires_days}")
    if format == "pacha1":
        return _sign_pacha1(resources, name, key, created, restricted=expires_days is not None or bool(ignore_paths))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{display(name)}: the name is not UTF-8, so it cannot be signed") from None
    stated = statement.build(
        name,
        resources,
        identity=key.identity,
        public_key=key.verifying_key,
        created=created,
        expires=None if expires_days is None else created + dt.timedelta(days=expires_days),
        allow_symlinks=follow_symlinks,
        ignore_paths=ignore_paths,
    )
    payload = stated.to_payload()
    public = key.verifying_key
    value = key.sign(pre_authentication_encoding(payload))
    envelope = Envelope(payload, (EnvelopeSignature(public.key_id, value),), public.hint)
    raw = envelope.to_json()
    if len(raw) > SIGNATURE_FILE_LIMIT:
        raise InvalidInputError(f"{display(name)}: the signature would be larger than {SIGNATURE_FILE_LIMIT:,} bytes")
    return ModelSignature(raw, SignedStatement(envelope, stated))


def _sign_pacha1(
    resources: Sequence[Resource], name: str, key: SigningKey, created: dt.datetime, *, restricted: bool
) -> ModelSignature:
    if restricted or len(resources) != 1 or resources[0].name != ".":
        raise _not_in_pacha1(name)
    signature = pacha1.sign(address_of(resources), key, int(created.timestamp()))
    return ModelSignature(signature.to_json(), signature)


def _not_in_pacha1(name: StrPath) -> UsageError:
    return UsageError(
        f"{display(name)}: the pacha1 format signs single files, without --expires or --ignore",
        hint="leave --format out",
    )
