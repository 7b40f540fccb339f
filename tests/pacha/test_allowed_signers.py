"""OpenSSH `allowed_signers` files: what is read, and what is refused because batuta could not keep to it."""

import datetime as dt
import os
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha.allowed_signers import parse_allowed_signers
from tests.pacha.forge import ALICE, BOB, NOW

A = ALICE.verifying.to_openssh().decode().strip()
B = BOB.verifying.to_openssh().decode().strip()


def openssh(key: object) -> str:
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return key.public_bytes(*form).decode()  # type: ignore[attr-defined, no-any-return]


def test_names_and_keys_are_read() -> None:
    text = f'# team\n\nalice@example.com {A} laptop of alice\n  "bob smith"\t{B}\r\n'
    store = parse_allowed_signers(text, "f", NOW)
    assert [(entry.name, entry.key, entry.added) for entry in store.keys] == [
        ("alice@example.com", ALICE.verifying, NOW),
        ("bob smith", BOB.verifying, NOW),
    ]
    assert store.revoked == ()


def test_an_ecdsa_key_is_read() -> None:
    line = openssh(ec.generate_private_key(ec.SECP256R1()).public_key())
    [entry] = parse_allowed_signers(f"alice {line}\n", "f", NOW).keys
    assert entry.key.inline.startswith("ecdsa-p256:")


def test_periods_of_validity_are_read() -> None:
    text = f'alice valid-after="20260102Z",valid-before="20270304050607Z" {A}\nbob valid-before=202701020304Z {B}\n'
    alice, bob = parse_allowed_signers(text, "f", NOW).keys
    assert alice.valid_from == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert alice.valid_until == dt.datetime(2027, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    assert (bob.valid_from, bob.valid_until) == (None, dt.datetime(2027, 1, 2, 3, 4, tzinfo=dt.UTC))


def test_a_time_without_z_is_in_the_system_s_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TZ", "UTC-5")  # POSIX: five hours east of Greenwich
    time.tzset()
    try:
        [entry] = parse_allowed_signers(f'alice valid-after="202601021200" {A}', "f", NOW).keys
    finally:
        monkeypatch.undo()
        time.tzset()
    assert entry.valid_from == dt.datetime(2026, 1, 2, 7, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"*@example.com {A}", "is a pattern"),
        (f"* {A}", "is a pattern"),
        (f"alic? {A}", "is a pattern"),
        (f"!mallory,alice {A}", "is a pattern"),
        (f"alice,bob {A}", "several principals"),
        (f"alice cert-authority {A}", "an SSH certificate authority"),
        (f"alice CERT-AUTHORITY {A}", "an SSH certificate authority"),
        (f'alice valid-after="20260101Z",cert-authority {A}', "cert-authority"),
        (f'alice namespaces="git" {A}', "namespaces: the key is limited to git"),
        (f"alice no-touch-required {A}", "unknown option no-touch-required"),
        (f'alice valid-after="2026-01-01" {A}', "valid-after: 2026-01-01 is not a time"),
        (f'alice valid-before="20261301Z" {A}', "is not a time"),
        (f'alice valid-after="20270101Z",valid-before="20260101Z" {A}', "ends before it begins"),
        (f'alice valid-after="20260101Z {A}', "not a line"),
        (A, "not a line"),
        ("alice", "not a line"),
        ("alice ssh-ed25519", "not a line"),
        ("alice ssh-ed25519 AAAA", "damaged or unknown public key"),
        ("ali\u200bce " + A, "invisible characters"),
        (f"alice {openssh(rsa.generate_private_key(65537, 2048).public_key())}", "not an Ed25519 key"),
        ("alice sk-ssh-ed25519@openssh.com AAAA", "not an Ed25519 key"),
    ],
)
def test_a_line_that_trusts_more_than_one_name_and_key_is_refused(line: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match="f: line 2: ") as refused:
        parse_allowed_signers(f"# first\n{line}\n", "f", NOW)
    assert words in refused.value.message


def test_one_key_in_two_lines_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="line 2: the key is in an earlier line"):
        parse_allowed_signers(f"alice {A}\nbob {A}\n", "f", NOW)
