"""The Rust crate's signature format, to the byte."""

import json
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.pacha import pacha1
from batuta_cli.pacha.hashing import address_of_bytes
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import ModelSignature
from tests.pacha.forge import ALICE, rust_signature


def test_a_signature_is_written_as_the_crate_writes_it() -> None:
    signature = pacha1.sign(address_of_bytes(b"weights"), ALICE.signing, 1795000000)
    digits = blake3(b"weights").hexdigest()
    expected = (
        "{\n"
        f'  "content_hash": "{digits}",\n'
        f'  "signature": "{ALICE.key.sign(digits.encode()).hex()}",\n'
        f'  "signer_key": "{ALICE.raw.hex()}",\n'
        '  "signer_id": "alice@example.com",\n'
        '  "timestamp": 1795000000,\n'
        '  "algorithm": "ed25519-blake3"\n'
        "}"
    )
    assert signature.to_json().decode() == expected == rust_signature(b"weights").decode()


def test_without_an_identity_the_signer_is_null() -> None:
    signature = pacha1.sign(address_of_bytes(b""), SigningKey(ALICE.key), 0)
    assert json.loads(signature.to_json())["signer_id"] is None
    assert pacha1.parse(json.loads(signature.to_json())) == signature


def test_what_the_crate_wrote_is_read_back_to_the_byte() -> None:
    for raw in (rust_signature(b"weights", signer_id="石田 \u007f"), rust_signature(b"", signer_id=None)):
        body = ModelSignature.parse(raw).body
        assert isinstance(body, pacha1.Pacha1Signature)
        assert body.to_json() == raw


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("algorithm", "ed25519"),
        ("algorithm", None),
        ("content_hash", "ab" * 31),
        ("content_hash", "AB" * 32),
        ("content_hash", 5),
        ("signature", "00" * 63),
        ("signature", "0" * 127 + "g"),
        ("signer_key", "00" * 33),
        ("signer_key", None),
        ("signer_id", 5),
        ("timestamp", "now"),
        ("timestamp", -1),
        ("timestamp", 1.5),
        ("timestamp", True),
        ("timestamp", 2**63),
        ("timestamp", None),
    ],
)
def test_a_wrong_field_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field}: "):
        ModelSignature.parse(rust_signature(b"weights", **{field: value}))


FIELDS = ["content_hash", "signature", "signer_key", "signer_id", "timestamp", "algorithm"]
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.sampled_from(FIELDS), values | st.text("0123456789abcdef", min_size=64, max_size=64))
@settings(max_examples=300)
def test_any_value_in_any_field_is_a_signature_or_an_error(field: str, value: Any) -> None:
    try:
        signature = pacha1.parse(json.loads(rust_signature(b"weights")) | {field: value})
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert json.loads(signature.to_json())[field] == value
