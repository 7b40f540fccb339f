"""Small signed documents: a type each, and by whose keys they count."""

import base64
import datetime as dt
import json

import pytest

from batuta_cli.errors import (
    ExpiredSignatureError,
    InvalidInputError,
    RevokedSignerError,
    UnknownSignerError,
    WrongSignerError,
)
from batuta_cli.pacha import Policy
from batuta_cli.pacha.signed_document import SignedDocument, signer_of
from tests.pacha.forge import ALICE, BOB, MALLORY, NOW, Person, trusting

TYPE = "application/vnd.example.v1+json"
DAY = dt.timedelta(days=1)


def made(by: Person = ALICE, payload_type: str = TYPE) -> SignedDocument:
    return SignedDocument.made({"a": 1}, payload_type, by.signing)


def by_hand(by: Person, payload: bytes, signed_as: str = TYPE) -> bytes:
    """Made from the specification of DSSE, without the code under test."""
    encoded = b"DSSEv1 %d %s %d %s" % (len(signed_as), signed_as.encode(), len(payload), payload)
    signature = base64.b64encode(by.key.sign(encoded)).decode()
    return json.dumps(
        {
            "payloadType": TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": by.key_id, "sig": signature}],
        }
    ).encode()


def test_a_document_made_by_the_specification_is_read_and_its_signer_found() -> None:
    document = SignedDocument.parse(by_hand(ALICE, b'{"a": 1}'), TYPE)
    assert document.fields(("a",)) == {"a": 1}
    assert signer_of(document, Policy(trusting(ALICE, BOB), at=NOW)).name == ALICE.name


def test_what_is_written_is_read_again() -> None:
    assert SignedDocument.parse(made().to_json(), TYPE) == made()


def test_a_signature_over_another_type_does_not_count() -> None:
    document = SignedDocument.parse(by_hand(ALICE, b'{"a": 1}', "application/vnd.other+json"), TYPE)
    with pytest.raises(UnknownSignerError):
        signer_of(document, Policy(trusting(ALICE), at=NOW))


def test_a_document_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="payloadType"):
        SignedDocument.parse(made(payload_type="application/vnd.other+json").to_json(), TYPE)


@pytest.mark.parametrize("names", [("a", "b"), (), ("b",)])
def test_a_payload_has_exactly_the_fields_that_are_expected(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="payload: must have the fields"):
        made().fields(names)


@pytest.mark.parametrize("change", ["payload", "sig"])
def test_a_changed_document_has_no_signer(change: str) -> None:
    document = json.loads(made().to_json())
    if change == "payload":
        document["payload"] = base64.b64encode(b'{"a": 2}').decode()
    else:
        document["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    with pytest.raises(UnknownSignerError):
        signer_of(SignedDocument.parse(json.dumps(document).encode(), TYPE), Policy(trusting(ALICE), at=NOW))


def test_only_acceptable_keys_count() -> None:
    with pytest.raises(UnknownSignerError):
        signer_of(made(MALLORY), Policy(trusting(ALICE), at=NOW))
    assert signer_of(made(MALLORY), Policy(key=MALLORY.verifying, at=NOW)).name is None
    with pytest.raises(UnknownSignerError):
        signer_of(made(ALICE), Policy(trusting(ALICE), MALLORY.verifying, at=NOW))


def test_a_revoked_key_counts_nothing_even_when_it_is_given() -> None:
    store = trusting(revoked=[ALICE])
    with pytest.raises(RevokedSignerError):
        signer_of(made(), Policy(store, ALICE.verifying, at=NOW))


def test_a_key_counts_in_its_period_at_the_verifier_s_clock() -> None:
    for entry in (ALICE.trusted(until=NOW), ALICE.trusted(since=NOW + DAY)):
        with pytest.raises(ExpiredSignatureError):
            signer_of(made(), Policy(trusting(entry), at=NOW))
    assert signer_of(made(), Policy(trusting(ALICE.trusted(since=NOW, until=NOW + DAY)), at=NOW))


def test_another_name_than_asked_for_is_refused() -> None:
    with pytest.raises(WrongSignerError):
        signer_of(made(), Policy(trusting(ALICE, BOB), identity=BOB.name, at=NOW))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"payloadType": 3}', b'{"payloadType": "x"}', b"\xff", b"[" * 100_000]
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        SignedDocument.parse(data, TYPE)
