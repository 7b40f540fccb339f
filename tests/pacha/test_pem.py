"""PEM texts that a CI system changed are restored; everything else is left alone."""

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.pacha.pem import restored

KEY = generate_private_key(SECP521R1())  # its PEM has several lines
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
LINES = PEM.strip().split(b"\n")

CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "unchanged": lambda pem: pem,
    "a byte order mark": lambda pem: b"\xef\xbb\xbf" + pem,
    "quotes": lambda pem: b'"' + pem.strip() + b'"',
    "single quotes and space around": lambda pem: b" '" + pem + b"' \n",
    "the characters \\n for line breaks": lambda pem: pem.replace(b"\n", b"\\n"),
    "the characters \\r\\n for line breaks": lambda pem: pem.replace(b"\n", b"\\r\\n"),
    "quotes and \\n, as in JSON": lambda pem: b'"' + pem.replace(b"\n", b"\\n") + b'"',
    "spaces for line breaks": lambda pem: pem.replace(b"\n", b" "),
    "CRLF": lambda pem: pem.replace(b"\n", b"\r\n"),
    "Base64 on one line": base64.b64encode,
    "Base64 in lines of 76": base64.encodebytes,
    "Base64 in quotes": lambda pem: b'"' + base64.b64encode(pem) + b'"',
    "Base64 of a text with \\n": lambda pem: base64.b64encode(pem.replace(b"\n", b"\\n")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_pem_is_the_same_key_again(change: Callable[[bytes], bytes]) -> None:
    text = restored(change(PEM))
    assert text.startswith(b"-----BEGIN PRIVATE KEY-----")
    found = load_pem_private_key(text, None)
    assert found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) == PEM


@pytest.mark.parametrize(
    "change", [lambda pem: pem.replace(b"\n", b" "), lambda pem: pem.replace(b"\n", b"\\n")], ids=["spaces", "\\n"]
)
def test_lines_are_those_of_rfc_7468_again(change: Callable[[bytes], bytes]) -> None:
    assert restored(change(PEM)) == PEM


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'"',
        b"\"-----BEGIN PRIVATE KEY-----'",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPs= alice",
        b"ed25519:AAAA",
        base64.b64encode(b"not a key at all"),
        b"-----END PRIVATE KEY-----",
        b"A" * 4097,
    ],
)
def test_other_inputs_are_left_as_they_are(data: bytes) -> None:
    assert restored(data) == data


@given(st.binary(max_size=300))
def test_any_bytes_come_back_unless_they_hold_a_pem(data: bytes) -> None:
    assert restored(data) == data or b"-----BEGIN " in data


def test_quotes_must_match_to_be_taken_off() -> None:
    assert restored(b'"' + PEM.strip() + b"'") == b'"' + PEM.strip() + b"'"


def test_a_header_that_does_not_match_its_end_is_not_put_into_lines() -> None:
    text = b" ".join((LINES[0], *LINES[1:-1], b"-----END PUBLIC KEY-----"))
    assert restored(text) == text + b"\n"
