"""Judges who signed and when, before the model is read.

The signer is the public key that verifies, never a key or a name from the file. The signer's name is the one in the
trust store. The expiry is compared with the verifier's clock, a key's period of validity with the signed time.
"""

import datetime as dt
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

from batuta_cli.errors import (
    ExpiredSignatureError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    UsageError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.files import StrPath, display
from batuta_cli.pacha.envelope import EnvelopeSignature
from batuta_cli.pacha.keys import AUTHORITY_TYPE, has_invisible
from batuta_cli.pacha.pacha1 import Pacha1Signature
from batuta_cli.pacha.signing import ModelSignature, SignedStatement
from batuta_cli.pacha.statement import Statement, format_time
from batuta_cli.pacha.trust import TrustedKey, TrustStore, now

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from batuta_cli.pacha.oms.certificates import CertificateFacts
    from batuta_cli.pacha.oms.eckeys import AnyKey
    from batuta_cli.pacha.oms.manifest import OmsManifest
    from batuta_cli.pacha.oms.signature import OmsSignature

    class _Signed(Protocol):
        def verified_by(self, key: "AnyKey", value: bytes) -> bool: ...


CLOCK_TOLERANCE = dt.timedelta(minutes=10)
"""How far ahead of the verifier's clock a signature may be dated."""

_USE_ANOTHER_KEY = "sign with another key, or make one: batuta pacha keygen --identity NAME"


@dataclass(frozen=True)
class Policy:
    """What a signature must satisfy.

    With `key` only a signature by that key, or by one of several, is accepted, and never by a revoked one. Without it,
    the keys of the trust store are accepted. An empty sequence of keys or identities is a `UsageError`, because it
    would accept any.
    """

    trust: TrustStore = field(default_factory=TrustStore)
    key: "AnyKey | Sequence[AnyKey] | None" = None
    identity: str | Sequence[str] | None = None
    """The required name of the signer; of several, any is accepted."""
    name: str | None = None
    """The model's name that is asked for."""
    allow_pacha1: bool = False
    at: dt.datetime = field(default_factory=now)
    """The verifier's clock."""
    authorities: tuple["Certificate", ...] = ()
    """Certificate authorities whose certificates count, for signatures of other tools. Without any, and without `key`,
    those of the trust store count."""
    trusted_root: StrPath | None = None
    """A Sigstore instance's trusted root file, for keyless signatures."""
    issuer: str | None = None
    """The OpenID Connect issuer that is asked for in keyless signatures."""

    def __post_init__(self) -> None:
        for name, value in (("key", self.key), ("identity", self.identity)):
            if isinstance(value, Sequence) and not isinstance(value, str) and not value:
                raise UsageError(f"{name} is an empty sequence, which would accept any {name}")

    @property
    def keys(self) -> "tuple[AnyKey, ...]":
        """The keys given; empty when those of the trust store are accepted."""
        return () if self.key is None else tuple(self.key) if isinstance(self.key, Sequence) else (self.key,)

    @property
    def identities(self) -> tuple[str, ...]:
        """The names of which the signer must have one; empty when any name is accepted."""
        return (
            ()
            if self.identity is None
            else (self.identity,)
            if isinstance(self.identity, str)
            else tuple(self.identity)
        )

    def accepted_authorities(self) -> tuple["Certificate", ...]:
        """The authorities given, else those of the trust store whose period of validity includes `at`."""
        if self.authorities or self.keys:
            return self.authorities
        from batuta_cli.pacha.oms.authority import AuthorityCertificate

        return tuple(
            entry.key.certificate
            for entry in self.trust.keys
            if isinstance(entry.key, AuthorityCertificate)
            and (entry.valid_from is None or entry.valid_from <= self.at)
            and (entry.valid_until is None or self.at < entry.valid_until)
        )

    @property
    def wanted(self) -> str:
        """The names in `identities`, for messages."""
        return " or ".join(map(display, self.identities))


@dataclass(frozen=True)
class Signer:
    """Who signed: a key that verified, and the name it is known by (None when only a key was given)."""

    key: "AnyKey"
    name: str | None
    claimed: bool = False
    """The name is the signer's own claim, because the key was given without a name."""
    certificate: "CertificateFacts | None" = None
    """The certificate that ties the key to the name."""

    @property
    def distinct(self) -> object:
        """The identity that counts as one signer: the key, or the name when a certificate ties changing keys to it."""
        if self.certificate is None:
            return self.key
        return (self.certificate.oidc_issuer, self.name)


def judge_signer(signature: ModelSignature, policy: Policy) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    """Who signed (at least one), and the ids of further signatures by unknown keys.

    Raises:
        VerificationError: a signature that names an acceptable key is wrong.
        SignerError: the key is unknown, revoked, another than asked for, or not valid at the time.
    """
    if isinstance(signature.body, Pacha1Signature):
        if not policy.allow_pacha1:
            refuse_pacha1(signature)
        return (_judge_pacha1(signature.body, policy),), ()
    if not isinstance(signature.body, SignedStatement) and signature.body.material.method != "key":
        from batuta_cli.pacha.oms.judgement import judge_certificate  # loads much that keys do without

        return (judge_certificate(signature.body, signature.raw, policy),), ()
    return _judge_bundle(signature.body, policy)


def _judge_bundle(
    signed: "SignedStatement | OmsSignature", policy: Policy
) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    verified: dict[AnyKey, None] = {}  # in the order of the signatures
    unknown: list[str] = []
    for value in signed.envelope.signatures:
        refuse_revoked(value.value, signed, policy)
        key = _key_that_verifies(value, signed, policy)
        if key is not None:
            verified[key] = None
        elif (named := _named_key(value, signed, policy)) is not None:
            raise VerificationError(
                f"the signature is wrong: it names the key {named.key_id}, but does not verify under that key"
            )
        else:
            unknown.append(value.keyid)
    if not verified:
        _refuse_unknown(signed, policy)
    signers: list[Signer] = []
    refusals: list[SignerError] = []
    for key in verified:
        try:
            signers.append(_accept(key, signed.statement, policy))
        except SignerError as error:
            refusals.append(error)
    if not signers:
        raise refusals[0]
    return tuple(signers), tuple(unknown)


def acceptable_keys(policy: Policy) -> "list[AnyKey]":
    """The keys given, else those of the trust store."""
    trusted = (entry.key for entry in policy.trust.keys)
    return list(policy.keys) or [key for key in trusted if key.key_type != AUTHORITY_TYPE]


def refuse_revoked(value: bytes, signed: "_Signed", policy: Policy) -> None:
    """Raise `RevokedSignerError` when a revoked key made the signature `value`."""
    for revocation in policy.trust.revoked:
        if signed.verified_by(revocation.key, value):
            raise RevokedSignerError(
                f"signed by the key {revocation.key.key_id}, which was revoked on {revocation.at:%Y-%m-%d}"
                + (f": {display(revocation.reason)}" if revocation.reason else "")
            )


def _key_that_verifies(signature: EnvelopeSignature, signed: "_Signed", policy: Policy) -> "AnyKey | None":
    likely_first = sorted(acceptable_keys(policy), key=lambda key: key.key_id != signature.keyid)
    return next((key for key in likely_first if signed.verified_by(key, signature.value)), None)


def _named_key(
    signature: EnvelopeSignature, signed: "SignedStatement | OmsSignature", policy: Policy
) -> "AnyKey | None":
    """The acceptable key that a signature names, in its `keyid` or (a single signature) in the bundle's hint."""
    alone = len(signed.envelope.signatures) == 1
    for key in acceptable_keys(policy):
        if signature.keyid == key.key_id:
            return key
        if alone and signed.envelope.hint == key.hint:
            return key
    return None


def _refuse_unknown(signed: "SignedStatement | OmsSignature", policy: Policy) -> NoReturn:
    claimed: AnyKey | None = signed.statement.public_key
    if not isinstance(signed, SignedStatement):
        from batuta_cli.pacha.oms.material import old_public_key

        claimed = old_public_key(signed.material)
    if claimed is None:
        if policy.keys:
            given = ", ".join(key.key_id for key in policy.keys)
            raise WrongSignerError(f"signed by another key than {_given(policy)}, {given}")
        if not isinstance(signed, SignedStatement):
            raise UnknownSignerError(
                "no trusted key made this signature, and it does not say which key did",
                hint="ask the publisher for the public key:\n  --key FILE accepts it once,"
                " batuta pacha trust add NAME FILE permanently",
            )
        raise UnknownSignerError("no trusted key made this signature", hint="batuta pacha trust list")
    if not any(signed.verified_by(claimed, s.value) for s in signed.envelope.signatures):
        raise VerificationError("the signature is wrong: it does not verify even under the key the file names")
    _refuse_key(claimed, signed.statement.identity, policy)


def _refuse_key(claimed: "AnyKey", identity: str | None, policy: Policy) -> NoReturn:
    """The error for a valid signature by a key that is not acceptable; the hint trusts that key."""
    calling = f", which calls itself {display(identity)}" if identity else ""
    if policy.keys:
        raise WrongSignerError(f"signed by another key than {_given(policy)}: {claimed.key_id}{calling}")
    name = shlex.quote("NAME" if not identity or has_invisible(identity) else display(identity))
    if name.startswith("-"):
        name = f"-- {name}"  # a leading dash would be read as an option
    raise UnknownSignerError(
        f"signed by the unknown key {claimed.key_id}{calling}",
        hint="if its owner confirms this key by another way, trust it:\n"
        f"  batuta pacha trust add {name} {claimed.inline}",
    )


def _given(policy: Policy) -> str:
    return "the one given" if len(policy.keys) == 1 else "those given"


def _accept(key: "AnyKey", stated: "Statement | OmsManifest", policy: Policy) -> Signer:
    """The signer when name and times are in order; raises `SignerError` otherwise."""
    trusted = policy.trust.find(key)
    name = stated.identity if policy.keys else trusted.name if trusted else None
    if stated.public_key is not None and stated.public_key != key:
        raise WrongSignerError(f"signed by the key {key.key_id}, but it names {stated.public_key.key_id} as its signer")
    if not policy.keys and stated.identity is not None and stated.identity != name:
        raise WrongSignerError(
            f"signed by {display(name)} (key {key.key_id}), but it says that {display(stated.identity)} signed"
        )
    if not policy.keys and name is not None and has_invisible(name):
        raise WrongSignerError(
            f"signed by {display(name)} (key {key.key_id}), a name with invisible characters, which matches no other",
            hint=f"trust the key under a name without them, after batuta pacha trust remove {key.key_id}",
        )
    check_identity_asked(name, key, policy)
    _check_times(stated, trusted, policy)  # a key given with --key that is retired here stays retired
    return Signer(key, name, claimed=bool(policy.keys) and name is not None)


def check_identity_asked(name: str | None, key: "AnyKey", policy: Policy) -> None:
    """Raise `WrongSignerError` when another name was asked for."""
    if policy.identities and (name not in policy.identities or has_invisible(name)):
        who = display(name) if name else "a key without a name"
        raise WrongSignerError(f"signed by {who} (key {key.key_id}), not by {policy.wanted}")


def _check_times(stated: "Statement | OmsManifest", trusted: TrustedKey | None, policy: Policy) -> None:
    created = stated.created
    if created and created > policy.at + CLOCK_TOLERANCE:
        raise ExpiredSignatureError(
            f"dated {format_time(created)}, which is in the future", hint="check this machine's clock: date -u"
        )
    if stated.expires and stated.expires <= policy.at:
        raise ExpiredSignatureError(f"the signature expired on {format_time(stated.expires)}")
    if trusted is None or not (trusted.valid_from or trusted.valid_until):
        return
    if created is None:
        raise ExpiredSignatureError(
            f"the signature has no signed time, and the key of {display(trusted.name)} counts for a limited time only"
        )
    if trusted.valid_from and created < trusted.valid_from:
        raise ExpiredSignatureError(
            f"signed on {format_time(created)}; the key counts from {format_time(trusted.valid_from)} on"
        )
    if trusted.valid_until and created >= trusted.valid_until:
        raise ExpiredSignatureError(
            f"signed on {format_time(created)}; the key counts until {format_time(trusted.valid_until)} only"
        )


def refuse_pacha1(signature: ModelSignature) -> None:
    """Raise `SignerError` for the Rust crate's format, which is accepted only with `allow_pacha1`."""
    if isinstance(signature.body, Pacha1Signature):
        raise SignerError(
            "this is the Rust crate's signature format, which binds the content but neither name, signer nor time",
            hint="accept it once with --allow-pacha1, or always: batuta config set pacha.allow_pacha1 true",
        )


def _judge_pacha1(signature: Pacha1Signature, policy: Policy) -> Signer:
    refuse_revoked(signature.value, signature, policy)
    key = next((k for k in acceptable_keys(policy) if signature.verified_by(k, signature.value)), None)
    if key is None:
        own = signature.verified_by(signature.signer_key, signature.value)
        if signature.signer_key in acceptable_keys(policy) or not own:
            raise VerificationError(f"the signature is wrong: it is not by the key {signature.signer_key.key_id}")
        _refuse_key(signature.signer_key, signature.signer_id, policy)
    trusted = policy.trust.find(key)
    name = None if policy.keys or trusted is None else trusted.name  # never the name in the file, which is unsigned
    check_identity_asked(name, key, policy)
    if not policy.keys and trusted and (trusted.valid_from or trusted.valid_until):
        raise ExpiredSignatureError(
            f"the signature has no signed time, and the key of {display(trusted.name)} counts for a limited time only"
        )
    return Signer(key, name)


def check_may_sign(key: "AnyKey", store: TrustStore, at: dt.datetime) -> None:
    """Raise `SignerError` when this trust store would refuse a signature that `key` makes at `at`.

    A revoked key never signs. A key that is trusted for a limited time signs from `valid_from` on, until `valid_until`:
    one that is to be retired at a later date signs until then. A key that is not in the store signs.
    """
    if revocation := store.revocation_of(key):
        because = f": {display(revocation.reason)}" if revocation.reason else ""
        raise RevokedSignerError(
            f"the key {key.key_id} was revoked on {revocation.at:%Y-%m-%d}{because}; it does not sign any more",
            hint=_USE_ANOTHER_KEY,
        )
    trusted = store.find(key)
    if trusted is None:
        return
    who = f"the key {key.key_id} of {display(trusted.name)}"
    if trusted.valid_until and at >= trusted.valid_until:
        raise ExpiredSignatureError(
            f"{who} was retired: it counts until {format_time(trusted.valid_until)} only, so it does not sign any more",
            hint=_USE_ANOTHER_KEY,
        )
    if trusted.valid_from and at < trusted.valid_from:
        raise ExpiredSignatureError(
            f"{who} counts from {format_time(trusted.valid_from)} on, so it does not sign yet",
            hint="check this machine's clock: date -u",
        )


def check_own_signature(signature: ModelSignature) -> None:
    """Raise `VerificationError` unless the signature verifies under the key that the file names."""
    body = signature.body
    if not isinstance(body, SignedStatement | Pacha1Signature):
        raise UsageError("another tool made the signature, and the file has no key in it: pass trust= or key=")
    if isinstance(body, Pacha1Signature):
        good = body.verified_by(body.signer_key, body.value)
    else:
        claimed = body.statement.public_key
        good = claimed is not None and any(body.verified_by(claimed, s.value) for s in body.envelope.signatures)
    if not good:
        raise VerificationError("the signature is not by the key that the file names")
