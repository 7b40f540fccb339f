"""The `.sig` container: a Sigstore bundle v0.3 that holds a DSSE envelope.

Sources: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md (envelope and pre-authentication encoding),
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto (bundle).

The file is untrusted input: every limit and type is checked before its content is used, and an error names the field.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from batuta_cli.errors import InvalidInputError

SIGNATURE_FILE_LIMIT = 64 * 1024 * 1024
"""Bytes; a `.sig` above that is refused unread."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_MAX_SIGNATURES = 16  # each is tried under every trusted and revoked key
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that may be a lone surrogate, which UTF-8 cannot represent
# What sigstore's own libraries and older releases of model_signing wrote; the fields read here are the same in all.
_MEDIA_TYPES = (MEDIA_TYPE, *(f"application/vnd.dev.sigstore.bundle+json;version=0.{n}" for n in (1, 2, 3)))


@dataclass(frozen=True)
class EnvelopeSignature:
    """One signature over a payload. `keyid` is unauthenticated: it only orders the attempts."""

    keyid: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload as it was signed, the signatures over it, and the bundle's unauthenticated key hint."""

    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]
    hint: str = ""

    def signed_bytes(self) -> bytes:
        """The bytes that are signed."""
        return pre_authentication_encoding(self.payload)

    def to_json(self) -> bytes:
        """The bundle as a JSON document."""
        bundle = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(self.payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": s.keyid, "sig": base64.b64encode(s.value).decode()} for s in self.signatures],
            },
        }
        return json.dumps(bundle).encode() + b"\n"


def pre_authentication_encoding(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's PAE(type, body): lengths in front of both, so that no two pairs encode alike."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def parse_envelope(bundle: dict[str, Any]) -> Envelope:
    """Read a bundle that `load_json` gave. Raises `InvalidInputError`."""
    media_type = text_field(bundle, "mediaType", "")
    if media_type not in _MEDIA_TYPES:
        raise InvalidInputError(f"mediaType: {media_type[:100]!r} is not a Sigstore bundle that batuta reads")
    envelope = dict_field(bundle, "dsseEnvelope", "")
    payload_type = text_field(envelope, "payloadType", "dsseEnvelope.")
    if payload_type != PAYLOAD_TYPE:
        raise InvalidInputError(f"dsseEnvelope.payloadType: {payload_type[:100]!r} is not {PAYLOAD_TYPE}")
    payload = decode_base64(text_field(envelope, "payload", "dsseEnvelope."), "dsseEnvelope.payload")
    rows = envelope.get("signatures")
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError("dsseEnvelope.signatures: there is no signature")
    if len(rows) > _MAX_SIGNATURES:
        raise InvalidInputError(f"dsseEnvelope.signatures: {len(rows)}, at most {_MAX_SIGNATURES} are read")
    return Envelope(payload, tuple(_signature(row, i) for i, row in enumerate(rows)), _hint(bundle))


def _signature(row: Any, index: int) -> EnvelopeSignature:
    where = f"dsseEnvelope.signatures[{index}]"
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where}: is not an object")
    keyid = row.get("keyid")
    if keyid is not None and not isinstance(keyid, str):
        raise InvalidInputError(f"{where}.keyid: is not text")
    return EnvelopeSignature(keyid or "", decode_base64(text_field(row, "sig", f"{where}."), f"{where}.sig"))


def _hint(bundle: dict[str, Any]) -> str:
    material = bundle.get("verificationMaterial")
    public_key = material.get("publicKey") if isinstance(material, dict) else None
    hint = public_key.get("hint") if isinstance(public_key, dict) else None
    return hint if isinstance(hint, str) else ""


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no duplicate keys, no NaN or Infinity (RFC 8259), no half characters.

    `what` names the document in errors. Raises `InvalidInputError`.
    """
    if not data.strip():
        raise InvalidInputError(f"{what}: is empty")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
        if _SURROGATE.search(data):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{what}: not JSON (not UTF-8 text)") from None
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what}: not readable (half of a surrogate pair)") from None
    except RecursionError:
        raise InvalidInputError(f"{what}: not readable (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{what}: not JSON (line {error.lineno}, column {error.colno})") from None
    except ValueError:  # _constant, or an integer of more digits than Python reads
        raise InvalidInputError(f"{what}: not readable (NaN, Infinity or a number of thousands of digits)") from None
    if not isinstance(document, dict):
        raise InvalidInputError(f"{what}: not a JSON object")
    return document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"the key {twice[:100]!r} is in one JSON object twice")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(name)


def text_field(table: dict[str, Any], name: str, prefix: str) -> str:
    """A required text. Raises `InvalidInputError` that names the field."""
    value = table.get(name)
    if not isinstance(value, str):
        raise InvalidInputError(f"{prefix}{name}: {'is missing' if value is None else 'is not text'}")
    return value


def dict_field(table: dict[str, Any], name: str, prefix: str) -> dict[str, Any]:
    """A required object. Raises `InvalidInputError` that names the field."""
    value = table.get(name)
    if not isinstance(value, dict):
        raise InvalidInputError(f"{prefix}{name}: {'is missing' if value is None else 'is not an object'}")
    return value


def decode_base64(text: str, where: str) -> bytes:
    """Strict Base64. Raises `InvalidInputError` that names the field."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"{where}: is not Base64") from None
