"""Endorsements: an old key signs that a new key belongs to the same signer (docs/formats.md#endorsement).

An endorsement is a DSSE envelope with a separate payload type, so that it can never pass for a signature of a model,
nor the other way round. Reading one trusts nothing: `check_endorsement` judges it by the trust store, and only
`trust add --endorsed-by` acts on the result.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Self

from batuta_cli.errors import (
    ExpiredSignatureError,
    InvalidInputError,
    RevokedSignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.files import display
from batuta_cli.pacha.envelope import text_field
from batuta_cli.pacha.keys import SigningKey, VerifyingKey, check_identity
from batuta_cli.pacha.signed_document import SignedDocument
from batuta_cli.pacha.signer import CLOCK_TOLERANCE
from batuta_cli.pacha.statement import format_time, parse_time
from batuta_cli.pacha.trust import TrustedKey, TrustStore

PAYLOAD_TYPE = "application/vnd.batuta.key-endorsement.v1+json"
ENDORSEMENT_LIMIT = 64 * 1024
"""Bytes of an endorsement file; real ones have about 600."""

_FIELDS = ("name", "old_key", "new_key", "created")


@dataclass(frozen=True, kw_only=True)
class Endorsement:
    """The statement of an old key's owner; parsing it checks that `old_key` signed it, and nothing else."""

    name: str
    old_key: VerifyingKey
    new_key: VerifyingKey
    created: dt.datetime

    def sign(self, key: SigningKey) -> bytes:
        """The content of an endorsement file, signed with the private half of `old_key`."""
        fields = (self.name, self.old_key.inline, self.new_key.inline, str(format_time(self.created)))
        return SignedDocument.made(dict(zip(_FIELDS, fields, strict=True)), PAYLOAD_TYPE, key).to_json()

    @classmethod
    def parse(cls, data: bytes, source: str) -> Self:
        """Read an endorsement file.

        Raises `InvalidInputError` that names `source` and the field, `VerificationError` when its signature is wrong.
        """
        try:
            return cls._parse(data)
        except InvalidInputError as error:
            raise InvalidInputError(f"{source}: not an endorsement: {error.message}", hint=error.hint) from None
        except VerificationError as error:
            raise VerificationError(f"{source}: {error.message}") from None

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        document = SignedDocument.parse(data, PAYLOAD_TYPE)
        fields = document.fields(_FIELDS)
        name, old, new, created = (text_field(fields, field, "payload.") for field in _FIELDS)
        endorsement = cls(
            name=check_identity(name),
            old_key=VerifyingKey.parse(old.encode(), "payload.old_key"),
            new_key=VerifyingKey.parse(new.encode(), "payload.new_key"),
            created=_time(created),
        )
        if endorsement.old_key == endorsement.new_key:
            raise InvalidInputError("payload: the old key and the new key are the same")
        if not document.verified_by(endorsement.old_key, document.value):
            raise VerificationError("the signature is wrong: the old key did not make it")
        return endorsement


def _time(text: str) -> dt.datetime:
    time = parse_time(text, "payload.created")
    assert time is not None  # noqa: S101 - only None is read as None
    return time


def check_endorsement(endorsement: Endorsement, name: str, store: TrustStore, at: dt.datetime) -> TrustedKey:
    """The trusted entry of the old key, when that key may endorse a new one for `name` at the verifier's clock `at`.

    A retired key may not, regardless of the date that the endorsement claims, because a thief can backdate it.

    Raises `SignerError` when the old key is unknown, revoked, retired or not yet valid, or is trusted under another
    name; and when the endorsement is for another name or dated in the future.
    """
    old = endorsement.old_key
    if revocation := store.revocation_of(old):
        raise RevokedSignerError(
            f"the endorsement is by the key {old.key_id}, which was revoked on {revocation.at:%Y-%m-%d}"
        )
    trusted = store.find(old)
    if trusted is None:
        raise UnknownSignerError(
            f"the endorsement is by the unknown key {old.key_id}",
            hint="ask the owner to confirm the new key by another way, and trust it without --endorsed-by",
        )
    if not name == trusted.name == endorsement.name:
        raise WrongSignerError(
            f"the endorsement is for {display(endorsement.name)}, by a key of {display(trusted.name)}; not for"
            f" {display(name)}"
        )
    if trusted.valid_until and at >= trusted.valid_until:
        raise ExpiredSignatureError(
            f"the endorsement is by the key {old.key_id}, which was retired on {trusted.valid_until:%Y-%m-%d}"
        )
    if trusted.valid_from and at < trusted.valid_from:
        raise ExpiredSignatureError(
            f"the endorsement is by the key {old.key_id}, which counts from {trusted.valid_from:%Y-%m-%d} on"
        )
    if endorsement.created > at + CLOCK_TOLERANCE:
        raise ExpiredSignatureError(
            f"the endorsement is dated {format_time(endorsement.created)}, which is in the future",
            hint="check this machine's clock: date -u",
        )
    return trusted
