"""Small JSON documents that an own key signs: endorsements of keys, seals of audit logs.

A DSSE envelope (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md) with a payload type for each kind
of document, so that none can pass for another, or for the signature of a model.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from batuta_cli.errors import ExpiredSignatureError, InvalidInputError, UnknownSignerError
from batuta_cli.files import display
from batuta_cli.pacha.envelope import decode_base64, load_json, pre_authentication_encoding, text_field
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.oms.eckeys import AnyKey
from batuta_cli.pacha.signer import Policy, Signer, acceptable_keys, check_identity_asked, refuse_revoked


@dataclass(frozen=True)
class SignedDocument:
    """A document that was parsed; parsing it proves nothing."""

    payload_type: str
    payload: bytes
    keyid: str
    value: bytes
    """The signature."""

    @classmethod
    def made(cls, fields: Mapping[str, Any], payload_type: str, key: SigningKey) -> Self:
        """A document with these fields, signed by `key`."""
        payload = json.dumps(fields).encode()
        value = key.sign(pre_authentication_encoding(payload, payload_type))
        return cls(payload_type, payload, key.verifying_key.key_id, value)

    @classmethod
    def parse(cls, data: bytes, payload_type: str) -> Self:
        """Read a document of one type. Raises `InvalidInputError` that names the field."""
        document = load_json(data, "the file")
        found = text_field(document, "payloadType", "")
        if found != payload_type:
            raise InvalidInputError(f"payloadType: {display(found[:100])} is not {payload_type}")
        payload = decode_base64(text_field(document, "payload", ""), "payload")
        rows = document.get("signatures")
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
            raise InvalidInputError("signatures: is not a list of one signature")
        value = decode_base64(text_field(rows[0], "sig", "signatures[0]."), "signatures[0].sig")
        keyid = rows[0].get("keyid")
        return cls(payload_type, payload, keyid if isinstance(keyid, str) else "", value)

    def fields(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The fields of the payload. Raises `InvalidInputError` unless they are exactly those of `names`."""
        fields = load_json(self.payload, "payload")
        if set(fields) != set(names):
            raise InvalidInputError(f"payload: must have the fields {', '.join(names)} and no others")
        return fields

    def to_json(self) -> bytes:
        """The content of a file."""
        envelope = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [{"keyid": self.keyid, "sig": base64.b64encode(self.value).decode()}],
        }
        return json.dumps(envelope, indent=2).encode() + b"\n"

    def verified_by(self, key: AnyKey, value: bytes) -> bool:
        """Whether `value` is a signature by `key` over this document."""
        return key.verifies(value, pre_authentication_encoding(self.payload, self.payload_type))


def signer_of(document: SignedDocument, policy: Policy) -> Signer:
    """The signer of a document, by the keys and names of `policy`, at its clock.

    Raises `SignerError` when no acceptable key made the signature, or the key is revoked, retired, not yet valid, or of
    another name than asked for.
    """
    refuse_revoked(document.value, document, policy)
    key = next((key for key in acceptable_keys(policy) if document.verified_by(key, document.value)), None)
    if key is None:
        raise UnknownSignerError(
            f"no trusted key signed this; it names the key {display(document.keyid[:64]) or 'of no id'}",
            hint="--key FILE accepts a public key, batuta pacha trust add NAME FILE permanently",
        )
    trusted = policy.trust.find(key)
    name = None if policy.keys or trusted is None else trusted.name
    check_identity_asked(name, key, policy)
    signed = f"signed by the key {key.key_id}"
    if trusted and trusted.valid_until and policy.at >= trusted.valid_until:
        raise ExpiredSignatureError(f"{signed}, which was retired on {trusted.valid_until:%Y-%m-%d}")
    if trusted and trusted.valid_from and policy.at < trusted.valid_from:
        raise ExpiredSignatureError(f"{signed}, which counts from {trusted.valid_from:%Y-%m-%d} on")
    return Signer(key, name)
