"""Who signed, and when: judging the signer of a signature before the model is read.

*Who* is the public key that verifies, never a key or a name that the file brings along; its name is the one in the
trust store. *When* is judged by the verifier's clock; a key's period of validity by the signed time.
"""

import datetime as dt
import shlex
from dataclasses import dataclass, field
from typing import NoReturn

from batuta_cli.errors import (
    ExpiredSignatureError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.files import display
from batuta_cli.pacha.envelope import EnvelopeSignature, is_ed25519
from batuta_cli.pacha.keys import VerifyingKey, has_invisible
from batuta_cli.pacha.pacha1 import Pacha1Signature
from batuta_cli.pacha.signing import ModelSignature, SignedStatement
from batuta_cli.pacha.statement import Statement, format_time
from batuta_cli.pacha.trust import TrustedKey, TrustStore, now

CLOCK_TOLERANCE = dt.timedelta(minutes=10)
"""How far ahead of the verifier's clock a signature may be dated."""

_USE_ANOTHER_KEY = "sign with another key, or make one: batuta pacha keygen --identity NAME"


@dataclass(frozen=True)
class Policy:
    """What a signature must satisfy. With `key` only that key counts, revocations apart; else the trust store's do."""

    trust: TrustStore = field(default_factory=TrustStore)
    key: VerifyingKey | None = None
    identity: str | None = None
    """The signer's name that is asked for."""
    name: str | None = None
    """The model's name that is asked for."""
    allow_pacha1: bool = False
    at: dt.datetime = field(default_factory=now)
    """The verifier's clock."""


@dataclass(frozen=True)
class Signer:
    """Who signed: a key that verified, and the name it is known by (None when only a key was given)."""

    key: VerifyingKey
    name: str | None
    claimed: bool = False
    """The name is what the signer calls himself: the key was given without one."""


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
    return _judge_bundle(signature.body, policy)


def _judge_bundle(signed: SignedStatement, policy: Policy) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    message = signed.envelope.signed_bytes()
    verified: dict[VerifyingKey, None] = {}  # in the order of the signatures
    unknown: list[str] = []
    for value in signed.envelope.signatures:
        _refuse_revoked(value.value, message, policy)
        key = _key_that_verifies(value, message, policy)
        if key is not None:
            verified[key] = None
        elif (named := _named_key(value, signed, policy)) is not None:
            raise VerificationError(f"the signature is wrong: it names the key {named.key_id}, and is not its")
        else:
            unknown.append(value.keyid)
    if not verified:
        _refuse_unknown(signed, message, policy)
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


def _acceptable(policy: Policy) -> list[VerifyingKey]:
    return [policy.key] if policy.key else [trusted.key for trusted in policy.trust.keys]


def _refuse_revoked(signature: bytes, message: bytes, policy: Policy) -> None:
    for revocation in policy.trust.revoked:
        if revocation.key.verifies(signature, message):
            raise RevokedSignerError(
                f"signed by the key {revocation.key.key_id}, which was revoked on {revocation.at:%Y-%m-%d}"
                + (f": {display(revocation.reason)}" if revocation.reason else "")
            )


def _key_that_verifies(signature: EnvelopeSignature, message: bytes, policy: Policy) -> VerifyingKey | None:
    if not is_ed25519(signature):
        return None
    likely_first = sorted(_acceptable(policy), key=lambda key: key.key_id != signature.keyid)
    return next((key for key in likely_first if key.verifies(signature.value, message)), None)


def _named_key(signature: EnvelopeSignature, signed: SignedStatement, policy: Policy) -> VerifyingKey | None:
    """The acceptable key that a signature claims to be by; a lone one may name it in the bundle's hint."""
    alone = len(signed.envelope.signatures) == 1
    for key in _acceptable(policy):
        if signature.keyid == key.key_id:
            return key
        if alone and signed.envelope.hint == key.hint:
            return key
    return None


def _refuse_unknown(signed: SignedStatement, message: bytes, policy: Policy) -> NoReturn:
    claimed = signed.statement.public_key
    if claimed is None:
        raise UnknownSignerError("no trusted key made this signature", hint="batuta pacha trust list")
    own = (s for s in signed.envelope.signatures if is_ed25519(s))
    if not any(claimed.verifies(s.value, message) for s in own):
        raise VerificationError("the signature is wrong: it does not verify even under the key the file names")
    _refuse_key(claimed, signed.statement.identity, policy)


def _refuse_key(claimed: VerifyingKey, identity: str | None, policy: Policy) -> NoReturn:
    """A good signature by a key that is not acceptable: say which, and what would make it so."""
    calling = f", which calls itself {display(identity)}" if identity else ""
    if policy.key:
        raise WrongSignerError(f"signed by another key than the one given: {claimed.key_id}{calling}")
    name = shlex.quote("NAME" if not identity or has_invisible(identity) else display(identity))
    if name.startswith("-"):
        name = f"-- {name}"  # or it would be taken for an option
    raise UnknownSignerError(
        f"signed by the unknown key {claimed.key_id}{calling}",
        hint="if its owner confirms this key by another way, trust it:\n"
        f"  batuta pacha trust add {name} {claimed.inline}",
    )


def _accept(key: VerifyingKey, stated: Statement, policy: Policy) -> Signer:
    """The signer when name and times are in order; raises `SignerError` otherwise."""
    trusted = policy.trust.find(key)
    name = stated.identity if policy.key else trusted.name if trusted else None
    if stated.public_key is not None and stated.public_key != key:
        raise WrongSignerError(f"signed by the key {key.key_id}, but it names {stated.public_key.key_id} as its signer")
    if not policy.key and stated.identity is not None and stated.identity != name:
        raise WrongSignerError(
            f"signed by {display(name)} (key {key.key_id}), but it says that {display(stated.identity)} signed"
        )
    if not policy.key and name is not None and has_invisible(name):
        raise WrongSignerError(
            f"signed by {display(name)} (key {key.key_id}), a name with invisible characters, which matches no other",
            hint=f"trust the key under a name without them, after batuta pacha trust remove {key.key_id}",
        )
    _check_identity(name, key, policy)
    _check_times(stated, trusted, policy)  # a key given by hand that is retired here stays retired
    return Signer(key, name, claimed=policy.key is not None and name is not None)


def _check_identity(name: str | None, key: VerifyingKey, policy: Policy) -> None:
    if policy.identity is not None and (policy.identity != name or has_invisible(name)):
        who = display(name) if name else "a key without a name"
        raise WrongSignerError(f"signed by {who} (key {key.key_id}), not by {display(policy.identity)}")


def _check_times(stated: Statement, trusted: TrustedKey | None, policy: Policy) -> None:
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
    """Raise `SignerError` for the Rust crate's format, which is read only by those who ask for it."""
    if isinstance(signature.body, Pacha1Signature):
        raise SignerError(
            "this is the Rust crate's signature format, which binds the content but neither name, signer nor time",
            hint="--allow-pacha1 accepts it, or for good: batuta config set pacha.allow_pacha1 true",
        )


def _judge_pacha1(signature: Pacha1Signature, policy: Policy) -> Signer:
    message = signature.signed_bytes()
    _refuse_revoked(signature.value, message, policy)
    key = next((k for k in _acceptable(policy) if k.verifies(signature.value, message)), None)
    if key is None:
        if signature.signer_key in _acceptable(policy) or not signature.signer_key.verifies(signature.value, message):
            raise VerificationError(f"the signature is wrong: it is not by the key {signature.signer_key.key_id}")
        _refuse_key(signature.signer_key, signature.signer_id, policy)
    trusted = policy.trust.find(key)
    name = None if policy.key or trusted is None else trusted.name  # never the file's own, which is unsigned
    _check_identity(name, key, policy)
    if not policy.key and trusted and (trusted.valid_from or trusted.valid_until):
        raise ExpiredSignatureError(
            f"the signature has no signed time, and the key of {display(trusted.name)} counts for a limited time only"
        )
    return Signer(key, name)


def check_may_sign(key: VerifyingKey, store: TrustStore, at: dt.datetime) -> None:
    """Raise `SignerError` unless a signature that `key` makes at `at` could count by this trust store.

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
    """That the file is consistent in itself: signed by the key that it names."""
    body = signature.body
    if isinstance(body, Pacha1Signature):
        good = body.signer_key.verifies(body.value, body.signed_bytes())
    else:
        claimed, message = body.statement.public_key, body.envelope.signed_bytes()
        own = [s for s in body.envelope.signatures if is_ed25519(s)]
        good = claimed is not None and any(claimed.verifies(s.value, message) for s in own)
    if not good:
        raise VerificationError("the signature is not by the key that the file names")
