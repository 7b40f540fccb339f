"""Endorsements of new keys by old ones: what they say, whose count, and that they are no signatures of models."""

import base64
import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest

from batuta_cli.errors import (
    BatutaError,
    ExpiredSignatureError,
    InvalidInputError,
    RevokedSignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.pacha.endorsement import PAYLOAD_TYPE, Endorsement, check_endorsement
from batuta_cli.pacha.signing import ModelSignature
from tests.pacha.forge import ALICE, BOB, MALLORY, NOW, Person, trusting

SECOND = dt.timedelta(seconds=1)
TYPE = b"application/vnd.batuta.key-endorsement.v1+json"
STATED = Endorsement(name=ALICE.name, old_key=ALICE.verifying, new_key=BOB.verifying, created=NOW)


def payload(**changes: Any) -> dict[str, Any]:
    def inline(person: Person) -> str:
        return "ed25519:" + base64.b64encode(person.raw).decode()

    fields = {"name": ALICE.name, "old_key": inline(ALICE), "new_key": inline(BOB), "created": "2026-11-23T12:00:00Z"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def envelope(body: object, signer: Person = ALICE, kind: bytes = TYPE, **changes: Any) -> bytes:
    """An endorsement file made without batuta's code: the pre-authentication encoding is DSSE's, written out."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = b"DSSEv1 " + b" ".join((str(len(kind)).encode(), kind, str(len(raw)).encode(), raw))
    document = {
        "payloadType": kind.decode(),
        "payload": base64.b64encode(raw).decode(),
        "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signer.key.sign(signed)).decode()}],
    }
    return json.dumps(document | changes).encode()


def test_an_endorsement_is_read_as_it_was_written() -> None:
    assert Endorsement.parse(STATED.sign(ALICE.signing), "f") == STATED


def test_an_endorsement_made_without_this_code_is_read() -> None:
    assert Endorsement.parse(envelope(payload()), "f") == STATED


def test_what_is_written_has_the_documented_form() -> None:
    document = json.loads(STATED.sign(ALICE.signing))
    assert document["payloadType"] == PAYLOAD_TYPE == TYPE.decode()
    assert json.loads(base64.b64decode(document["payload"])) == payload()


@pytest.mark.parametrize("signer", [BOB, MALLORY])
def test_only_the_old_key_can_endorse(signer: Person) -> None:
    with pytest.raises(VerificationError, match="the old key did not make it"):
        Endorsement.parse(envelope(payload(), signer), "f")


def test_a_signature_for_another_payload_type_does_not_count() -> None:
    other = json.loads(envelope(payload(), kind=b"application/vnd.in-toto+json"))
    forged = json.dumps(other | {"payloadType": TYPE.decode()}).encode()
    with pytest.raises(VerificationError):
        Endorsement.parse(forged, "f")


def test_another_payload_type_is_refused_although_the_signature_is_right() -> None:
    document = json.loads(envelope(payload())) | {"payloadType": "application/vnd.in-toto+json"}
    with pytest.raises(InvalidInputError, match="payloadType"):
        Endorsement.parse(json.dumps(document).encode(), "f")


def test_an_endorsement_is_not_a_signature_of_a_model() -> None:
    raw = STATED.sign(ALICE.signing)
    with pytest.raises(InvalidInputError):
        ModelSignature.parse(raw)
    bundle = {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": json.loads(raw)}
    with pytest.raises(InvalidInputError, match=r"dsseEnvelope\.payloadType"):
        ModelSignature.parse(json.dumps(bundle).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        envelope(payload(name=None)),
        envelope(payload(extra="x")),
        envelope(payload(name="")),
        envelope(payload(name="a\u200bb")),
        envelope(payload(old_key="AAAA")),
        envelope(payload(new_key=payload()["old_key"])),
        envelope(payload(created="yesterday")),
        envelope(payload(created=1)),
        envelope(b'{"name": "a", "name": "b"}'),
        envelope(payload(), signatures=[]),
        envelope(payload(), signatures=[{}, {}]),
        envelope(payload(), signatures=[1]),
        envelope(payload(), payload="%"),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="f: not an endorsement: "):
        Endorsement.parse(data, "f")


def test_the_key_of_the_same_name_may_endorse() -> None:
    assert check_endorsement(STATED, ALICE.name, trusting(ALICE), NOW).key == ALICE.verifying
    later = ALICE.trusted(until=NOW + SECOND)
    assert check_endorsement(STATED, ALICE.name, trusting(later), NOW) == later


@pytest.mark.parametrize(
    ("stated", "name", "store", "error"),
    [
        (STATED, ALICE.name, trusting(), UnknownSignerError),
        (STATED, ALICE.name, trusting(BOB), UnknownSignerError),
        (STATED, ALICE.name, trusting(ALICE, revoked=[ALICE]), RevokedSignerError),
        (STATED, ALICE.name, trusting(revoked=[ALICE]), RevokedSignerError),
        (STATED, ALICE.name, trusting(ALICE.trusted(until=NOW)), ExpiredSignatureError),
        (
            replace(STATED, created=NOW - 365 * 86400 * SECOND),
            ALICE.name,
            trusting(ALICE.trusted(until=NOW)),
            BatutaError,
        ),
        (STATED, ALICE.name, trusting(ALICE.trusted(since=NOW + SECOND)), ExpiredSignatureError),
        (STATED, MALLORY.name, trusting(ALICE), WrongSignerError),
        (STATED, ALICE.name, trusting(ALICE.trusted("other")), WrongSignerError),
        (STATED, "other", trusting(ALICE.trusted("other")), WrongSignerError),
        (replace(STATED, created=NOW + 601 * SECOND), ALICE.name, trusting(ALICE), ExpiredSignatureError),
    ],
    ids=[
        "none",
        "unknown",
        "revoked",
        "only revoked",
        "retired",
        "backdated",
        "early",
        "asked",
        "trusted",
        "stated",
        "future",
    ],
)
def test_other_keys_and_names_do_not_count(
    stated: Endorsement, name: str, store: Any, error: type[BatutaError]
) -> None:
    with pytest.raises(error) as refused:
        check_endorsement(stated, name, store, NOW)
    assert refused.value.exit_code == 4
