"""Verifies a model: who signed it, when, and every file.

The signer is judged first (`signer.py`), then every file of the model. A changed model is reported also when the signer
is refused, because a changed file is the more serious finding.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batuta_cli.errors import (
    BatutaError,
    SignerError,
    UnknownSignerError,
    UsageError,
    VerificationError,
    worst,
)
from batuta_cli.files import Advance, StrPath, display
from batuta_cli.pacha.content import Differences, HashedModel, ModelContent
from batuta_cli.pacha.hashing import (
    ContentAddress,
    Resource,
    address_of_bytes,
    content_address,
    hash_stream_counting,
)
from batuta_cli.pacha.ignoring import check_globs, is_glob
from batuta_cli.pacha.pacha1 import Pacha1Signature
from batuta_cli.pacha.signer import Policy, Signer, check_own_signature, judge_signer, refuse_pacha1
from batuta_cli.pacha.signing import ModelSignature, SignedStatement, model_name
from batuta_cli.pacha.statement import Statement, format_time
from batuta_cli.pacha.trust import TrustStore

if TYPE_CHECKING:
    from batuta_cli.pacha.digest_cache import DigestCache
    from batuta_cli.pacha.oms.comparison import StreamComparison
    from batuta_cli.pacha.oms.eckeys import AnyKey
    from batuta_cli.pacha.oms.manifest import OmsManifest


@dataclass(frozen=True)
class Verification:
    """The content holds. `signers` says who signed it; it is empty when no signer was checked.

    `bool()` of a result without signers raises `TypeError`, because `if verify_model(...)` would accept a signature by
    any key.
    """

    address: ContentAddress | None
    """None when only signatures of other tools were checked, which are over other digests."""
    signers: tuple[Signer, ...] = ()
    binds: tuple[str, ...] = ()
    """What all the signatures cover: content, and for bundles name, identity and time too."""
    statement: Statement | None = None
    """The statement of the first accepted bundle that batuta made."""
    manifest: "OmsManifest | None" = None
    """The manifest of the first accepted bundle of another tool."""
    ignored: tuple[str, ...] = ()
    """Names of the files in the model that one accepted signature or another does not cover."""
    unknown_keys: tuple[str, ...] = ()
    """Ids, as the file names them, of further signatures that no acceptable key made."""
    warnings: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    """Names of the files in the model that are tolerated though no signature mentions them."""

    def __bool__(self) -> bool:
        if not self.signers:
            raise TypeError("the signer was not checked: pass trust= or key=")
        return True

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        stated = self.statement
        root = self.manifest.root if self.manifest else None
        return ({"oms_root": f"sha256:{root.hex()}"} if root else {}) | {
            "address": None if self.address is None else str(self.address),
            "signers": [_signer_dict(signer) for signer in self.signers],
            "binds": list(self.binds),
            "created": format_time(stated.created) if stated else None,
            "expires": format_time(stated.expires) if stated else None,
            "ignored": list(self.ignored),
            "unsigned": list(self.unsigned),
            "unknown_signatures": list(self.unknown_keys),
            "warnings": list(self.warnings),
        }


def _signer_dict(signer: Signer) -> dict[str, Any]:
    key = signer.key
    known = {"name": signer.name, "name_is_claimed": signer.claimed, "key_id": key.key_id, "public_key": key.inline}
    certificate = signer.certificate
    if certificate is None:
        return known
    facts = {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "not_before": format_time(certificate.not_before),
        "not_after": format_time(certificate.not_after),
        "judged_at": format_time(certificate.judged_at),
        "oidc_issuer": certificate.oidc_issuer,
    }
    return known | {"certificate": facts}


_Comparable = ModelContent | HashedModel


def read_stream(
    descriptor: int,
    name: StrPath,
    signatures: Sequence[ModelSignature],
    advance: Advance | None = None,
    *,
    also: Sequence[Callable[[memoryview], object]] = (),
) -> HashedModel:
    """Hash a pipe for BLAKE3 and for every signature of another tool, reading it once and in constant memory.

    `also` are called with all the bytes, part by part.

    Raises as `hashing.hash_stream`.
    """
    comparisons = _comparisons(signatures)
    size, address = hash_stream_counting(
        descriptor, name, advance, also=[*also, *(comparison.update for comparison in comparisons.values())]
    )
    return _hashed(size, address, comparisons)


def hashed_bytes(data: bytes, signatures: Sequence[ModelSignature]) -> HashedModel:
    """A model in memory, hashed for all the signatures that it will be compared with."""
    comparisons = _comparisons(signatures)
    for comparison in comparisons.values():
        comparison.update(data)
    return _hashed(len(data), address_of_bytes(data), comparisons)


def _comparisons(signatures: Sequence[ModelSignature]) -> "dict[OmsManifest, StreamComparison]":
    manifests = _manifests(signatures)
    if not manifests:
        return {}
    from batuta_cli.pacha.oms.comparison import StreamComparison

    return {manifest: StreamComparison(manifest) for manifest in manifests}


def _manifests(signatures: Sequence[ModelSignature]) -> "list[OmsManifest]":
    """The manifests of the signatures that other tools made."""
    bodies = [signature.body for signature in signatures]
    return [body.statement for body in bodies if not isinstance(body, SignedStatement | Pacha1Signature)]


def _hashed(size: int, address: ContentAddress, comparisons: "Mapping[OmsManifest, StreamComparison]") -> HashedModel:
    compared = {manifest: comparison.differences() for manifest, comparison in comparisons.items()}
    return HashedModel(Resource(".", size, address.digest), compared)


def check_content(
    model: _Comparable, signature: ModelSignature, label: StrPath, allow_unsigned: Sequence[str] = ()
) -> tuple[str, ...]:
    """Raise `VerificationError` that tells all differences at once, unless the model is what was signed.

    Returns the unsigned files that the globs `allow_unsigned` name.
    """
    body = signature.body
    if isinstance(body, Pacha1Signature):
        differences = _pacha1_differences(model, body)
    elif isinstance(body, SignedStatement):
        differences = model.differences(body.statement)
    else:
        differences = _oms_differences(model, body.statement)
    differences, unsigned = differences.without_unsigned(allow_unsigned)
    if not differences:
        return unsigned
    raise VerificationError(
        f"{display(label)}: {_in_words(differences)}",
        hint=_hint_about_globs(body.statement, differences) if isinstance(body, SignedStatement) else None,
        result=differences.as_dict() | {"path": os.fspath(label)},
    )


def _hint_about_globs(stated: Statement, differences: Differences) -> str | None:
    """What to say of globs that earlier versions recorded: they are read as paths now, and the files count as added."""
    if not differences.added or not any(map(is_glob, stated.ignore_paths)):
        return None
    return (
        "the signature leaves out "
        + ", ".join(display(path) for path in stated.ignore_paths[:_SHOWN])
        + ", which is read as a path and not as a pattern; if these files may be left out, have the model signed again"
    )


def _pacha1_differences(model: _Comparable, signature: Pacha1Signature) -> Differences:
    resource = model.resource if isinstance(model, HashedModel) else None
    if isinstance(model, ModelContent):
        resource = model.single_file()
    if resource is None:
        return Differences(other_kind="a directory, and a single file was signed")
    return Differences() if resource.digest == signature.content.digest else Differences(changed=(".",))


def _oms_differences(model: _Comparable, manifest: "OmsManifest") -> Differences:
    if isinstance(model, HashedModel):
        return model.compared[manifest]
    from batuta_cli.pacha.oms.comparison import differences_from

    return differences_from(model, manifest)


_SHOWN = 10  # names of each kind in a message; the JSON has all


def _in_words(differences: Differences) -> str:
    if differences.other_kind:
        return f"is {differences.other_kind}"
    if differences.changed == (".",):
        return "the content is not what was signed"
    lines = ["the content is not what was signed"]
    renamed = [f"{old} is now {new}" for old, new in differences.renamed]
    kinds = (
        ("changed", differences.changed),
        ("missing", differences.missing),
        ("added", differences.added),
        ("renamed", renamed),
    )
    for kind, names in kinds:
        lines += [f"  {kind}: {display(name)}" for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f"  {kind}: and {len(names) - _SHOWN:,} more")
    return "\n".join(lines)


def _check_name(signature: ModelSignature, actual: str | None, policy: Policy) -> tuple[str, ...]:
    """Warnings about the model's name. Raises `VerificationError` when another one was asked for than was signed."""
    if isinstance(signature.body, Pacha1Signature):
        if policy.name is not None:
            raise VerificationError("the Rust crate's format does not sign a name, so --name cannot be checked")
        return ()
    stated = signature.body.statement
    if stated.name is None:
        if policy.name is not None:
            raise VerificationError("model_signing 0.2 did not sign a name, so --name cannot be checked")
        return ()
    if policy.name is not None and stated.name != policy.name:
        raise VerificationError(f"signed as {display(stated.name)}, not as {display(policy.name)}")
    single = stated.is_single_file if isinstance(stated, Statement) else stated.single() is not None
    if policy.name is None and single and actual is not None and actual != stated.name:
        return (f"{display(actual)} was signed under another name, {display(stated.name)}",)
    return ()


def verify_all(
    model: _Comparable,
    signatures: Sequence[ModelSignature],
    policy: Policy,
    *,
    label: StrPath,
    actual_name: str | None,
    require: int | None = None,
    allow_unsigned: Sequence[str] = (),
) -> Verification:
    """Check a model against one or several signatures; see `verify_path`."""
    check_globs(allow_unsigned)
    if not signatures:
        raise VerificationError(f"{display(label)}: there is no signature")
    if require is not None and require < 1:
        raise UsageError(f"at least one signer must be required, not {require}")
    signers: dict[object, Signer] = {}
    unknown: list[str] = []
    warnings: list[str] = []
    accepted: list[ModelSignature] = []
    strangers: list[BatutaError] = []
    fatal: list[BatutaError] = []
    for signature in signatures:
        try:
            found, others = judge_signer(signature, policy)
            warnings += _check_name(signature, actual_name, policy)
        except (SignerError, VerificationError) as error:
            tolerated = require is not None and isinstance(error, UnknownSignerError)
            (strangers if tolerated else fatal).append(error)
            continue
        accepted.append(signature)
        signers |= {signer.distinct: signer for signer in found if signer.distinct not in signers}
        unknown += others
    short = require is not None and len(signers) < require
    if short:
        needed = f"{len(signers)} of the {require} signers that are required"
        fatal.append(
            strangers[0] if require == 1 and strangers else UnknownSignerError(needed, hint="batuta pacha trust list")
        )
    try:
        # Content is not compared with signatures of unknown keys, unless the result is a failure anyway.
        unsigned = [
            name
            for signature in (signatures if fatal else accepted)
            for name in check_content(model, signature, label, allow_unsigned)
        ]
    except BatutaError as error:
        raise worst([error, *fatal]) from None
    if fatal:
        raise worst(fatal)
    verified = _verified(model, accepted, tuple(signers.values()), unknown, warnings)
    return replace(verified, unsigned=tuple(sorted(set(unsigned))))


def _verified(
    model: _Comparable,
    accepted: Sequence[ModelSignature],
    signers: tuple[Signer, ...],
    unknown: list[str],
    warnings: list[str],
) -> Verification:
    statements = [s.body.statement for s in accepted if isinstance(s.body, SignedStatement)]
    manifests = _manifests(accepted)
    stated: list[Statement | OmsManifest] = [*statements, *manifests]
    return Verification(
        next((s.address for s in accepted if s.address is not None), None),
        signers,
        tuple(what for what in _BINDABLE if all(what in _binds(s) for s in accepted)),
        statements[0] if statements else None,
        manifests[0] if manifests else None,
        tuple(sorted({name for each in stated for name in model.left_out(each)})),
        tuple(unknown),
        tuple(dict.fromkeys(warnings)),
    )


_BINDABLE = ("content", "name", "identity", "time")


def _binds(signature: ModelSignature) -> tuple[str, ...]:
    """What a signature covers."""
    body = signature.body
    if isinstance(body, SignedStatement):
        return _BINDABLE
    if isinstance(body, Pacha1Signature):
        return ("content",)
    named = () if body.statement.name is None else ("name",)
    return ("content", *named, *(() if body.material.method == "key" else ("identity",)))


def whole_address(path: StrPath, verified: Verification, advance: Advance | None = None) -> ContentAddress:
    """The address of all that lies at `path`, which a signature that leaves files out does not vouch for."""
    stated = verified.statement or verified.manifest
    left_out = verified.ignored or verified.unsigned
    if verified.address is not None and (not left_out or stated is None):
        return verified.address
    return content_address(path, follow_symlinks=stated is not None and stated.allow_symlinks, progress=advance)


def verify_path(
    path: StrPath,
    signatures: ModelSignature | Sequence[ModelSignature],
    policy: Policy,
    *,
    label: StrPath | None = None,
    require: int | None = None,
    actual_name: str | None = None,
    allow_unsigned: Sequence[str] = (),
    progress: Advance | None = None,
    cache: "DigestCache | None" = None,
) -> Verification:
    """Verify a file or directory of any size against its signature or signatures.

    Args:
        policy: who may have signed, under which name, and the clock.
        label: what to call the model in messages; `path` by default.
        require: at least so many distinct keys must have signed; unknown others do not matter then. By default every
            signature given must be by an acceptable signer.
        actual_name: the model's own name, when `path` does not show it (an object of the store).
        allow_unsigned: globs of files that may be there without being signed; see `ignoring` for their rules.
        cache: the digests of files that were read before; only other files are read.

    Raises:
        VerificationError: the content is not what was signed, or a signature is wrong. `result` lists what.
        SignerError: the signer is unknown, revoked, expired, or not the one asked for.
        NotFoundError, OperationError, InvalidInputError: the model cannot be read.
    """
    many = [signatures] if isinstance(signatures, ModelSignature) else list(signatures)
    name = model_name(path) if actual_name is None else actual_name
    return verify_all(
        ModelContent(path, progress, cache),
        many,
        policy,
        label=label or path,
        actual_name=name,
        require=require,
        allow_unsigned=allow_unsigned,
    )


def verify_model(
    data: bytes,
    signature: ModelSignature,
    *,
    trust: TrustStore | None = None,
    key: "AnyKey | Sequence[AnyKey] | None" = None,
    identity: str | Sequence[str] | None = None,
    allow_pacha1: bool = False,
) -> Verification:
    """Verify a model in memory.

    Without `trust` and `key` only the content and the file's own signature are checked, by any key; the result
    then has no signers, and `bool()` of it raises.

    Raises `VerificationError`, `SignerError` as `verify_path`.
    """
    model = hashed_bytes(data, [signature])
    if trust is None and key is None:
        if identity is not None:
            raise UsageError("an identity can only be checked against trust= or key=")
        if not allow_pacha1:
            refuse_pacha1(signature)
        check_own_signature(signature)
        check_content(model, signature, "the model")
        statement = signature.body.statement if isinstance(signature.body, SignedStatement) else None
        return Verification(signature.address, binds=("content",), statement=statement)
    policy = Policy(trust or TrustStore(), key, identity, allow_pacha1=allow_pacha1)
    return verify_all(model, [signature], policy, label="the model", actual_name=None)
