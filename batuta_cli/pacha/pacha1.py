"""The Rust crate's `.sig`: a JSON object that binds a model's content and nothing else.

`signature` is Ed25519 over the 64 ASCII characters of `content_hash`; the signer's name and the time are not
signed, so they are claims that can be edited without invalidating the signature.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.envelope import text_field
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.keys import SigningKey, VerifyingKey

if TYPE_CHECKING:
    from batuta_cli.pacha.oms.eckeys import AnyKey

ALGORITHM = "ed25519-blake3"


@dataclass(frozen=True)
class Pacha1Signature:
    """A signature in the Rust crate's format. `signer_id` and `timestamp` (Unix seconds) are unsigned claims."""

    content: ContentAddress
    value: bytes
    signer_key: VerifyingKey
    signer_id: str | None
    timestamp: int

    def signed_bytes(self) -> bytes:
        """The bytes that are signed."""
        return self.content.hex.encode()

    def verified_by(self, key: "AnyKey", value: bytes) -> bool:
        """Whether `value` is a signature by `key`; the format knows Ed25519 keys only."""
        return isinstance(key, VerifyingKey) and key.verifies(value, self.signed_bytes())

    def to_json(self) -> bytes:
        """The file's bytes, as the Rust crate writes them: two spaces, this order, no newline at the end."""
        fields = {
            "content_hash": self.content.hex,
            "signature": self.value.hex(),
            "signer_key": self.signer_key.raw.hex(),
            "signer_id": self.signer_id,
            "timestamp": self.timestamp,
            "algorithm": ALGORITHM,
        }
        return json.dumps(fields, indent=2, ensure_ascii=False).encode()


def sign(content: ContentAddress, key: SigningKey, timestamp: int) -> Pacha1Signature:
    """Sign a content address. The key's identity is written as an unsigned claim."""
    value = key.sign(content.hex.encode())
    return Pacha1Signature(content, value, key.verifying_key, key.identity, timestamp)


def parse(document: dict[str, Any]) -> Pacha1Signature:
    """Read the object that `load_json` gave. Raises `InvalidInputError` that names the field."""
    algorithm = text_field(document, "algorithm", "")
    if algorithm != ALGORITHM:
        raise InvalidInputError(f"algorithm: {algorithm[:100]!r} is not supported, only {ALGORITHM!r}")
    signer_id = document.get("signer_id")
    if signer_id is not None and not isinstance(signer_id, str):
        raise InvalidInputError("signer_id: is not text")
    timestamp = document.get("timestamp")
    if not isinstance(timestamp, int) or isinstance(timestamp, bool) or not 0 <= timestamp < 2**63:
        raise InvalidInputError("timestamp: is not a time in Unix seconds")
    return Pacha1Signature(
        ContentAddress(_hex(document, "content_hash", 32)),
        _hex(document, "signature", 64),
        VerifyingKey(_hex(document, "signer_key", 32)),
        signer_id,
        timestamp,
    )


def _hex(document: dict[str, Any], name: str, size: int) -> bytes:
    text = text_field(document, name, "")
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
        raise InvalidInputError(f"{name}: is not {2 * size} lower-case hexadecimal digits")
    return bytes.fromhex(text)
