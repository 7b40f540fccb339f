"""Who signed, and when: the rules that decide whose signature counts."""

import base64
import datetime as dt
import json
from typing import Any

import pytest

from batuta_cli.errors import (
    BatutaError,
    ExpiredSignatureError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    UsageError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.pacha.signer import Policy, Signer, check_may_sign, check_own_signature, judge_signer
from batuta_cli.pacha.signing import ModelSignature
from batuta_cli.pacha.trust import TrustStore
from tests.pacha.forge import (
    ALICE,
    BOB,
    MALLORY,
    NOW,
    Person,
    bundle,
    bundle_of,
    rust_signature,
    signature_row,
    statement,
    trusting,
)

DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)


def text(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def judge(raw: bytes, store: TrustStore, **asked: Any) -> tuple[tuple[Signer, ...], tuple[str, ...]]:
    return judge_signer(ModelSignature.parse(raw), Policy(store, at=NOW, **asked))


def signers(raw: bytes, store: TrustStore, **asked: Any) -> list[tuple[bytes, str | None]]:
    return [(base64.b64decode(signer.key.base64), signer.name) for signer in judge(raw, store, **asked)[0]]


Made = tuple[Person, str | None] | dict[str, Any]


def rows(stated: dict[str, Any], *made: Made) -> bytes:
    """A bundle with signatures by (person, keyid as it claims) or with rows as they are."""
    payload = json.dumps(stated).encode()
    return bundle_of(payload, [r if isinstance(r, dict) else signature_row(r[0], payload, r[1]) for r in made])


BAD = base64.b64encode(bytes(64)).decode()
GOOD = bundle(statement(b"weights"))


def test_a_signature_by_a_trusted_key_is_by_the_name_in_the_trust_store() -> None:
    assert signers(GOOD, trusting(BOB, ALICE)) == [(ALICE.raw, ALICE.name)]


def test_a_statement_without_a_signer_counts_under_the_name_in_the_trust_store() -> None:
    anonymous = bundle(statement(b"weights", signer=None))
    assert signers(anonymous, trusting(ALICE)) == [(ALICE.raw, ALICE.name)]
    assert signers(anonymous, trusting(ALICE), identity=ALICE.name) == [(ALICE.raw, ALICE.name)]


def test_an_unknown_key_is_refused_with_the_line_that_would_trust_it() -> None:
    with pytest.raises(UnknownSignerError, match=ALICE.key_id) as caught:
        judge(GOOD, trusting(BOB))
    assert caught.value.exit_code == 4
    assert caught.value.hint and f"batuta pacha trust add {ALICE.name} {ALICE.verifying.inline}" in caught.value.hint


def test_the_line_that_would_trust_a_key_cannot_be_made_to_run_anything_else() -> None:
    with pytest.raises(UnknownSignerError) as caught:
        judge(bundle(statement(b"", identity="x; rm -rf ~ $(id)")), TrustStore())
    assert caught.value.hint and "trust add 'x; rm -rf ~ $(id)' ed25519:" in caught.value.hint


def test_an_unknown_signer_that_does_not_name_a_key_is_refused_too() -> None:
    with pytest.raises(UnknownSignerError):
        judge(bundle(statement(b"", signer=None), MALLORY), trusting(ALICE))


def test_a_changed_statement_is_a_wrong_signature_whether_its_key_is_known_or_not() -> None:
    payload = json.dumps(statement(b"weights")).encode()
    row = signature_row(ALICE, payload)
    changed = bundle_of(payload.replace(b"model.gguf", b"other.gguf"), [row])
    for store in (trusting(ALICE), trusting(BOB), TrustStore()):
        with pytest.raises(VerificationError, match="signature is wrong") as caught:
            judge(changed, store)
        assert caught.value.exit_code == 3


def test_the_signature_must_be_over_the_encoding_and_not_over_the_bare_payload() -> None:
    payload = json.dumps(statement(b"weights")).encode()
    bare = {"keyid": ALICE.key_id, "sig": base64.b64encode(ALICE.key.sign(payload)).decode()}
    with pytest.raises(VerificationError):
        judge(bundle_of(payload, [bare]), trusting(ALICE))


def test_the_key_that_a_file_brings_along_proves_nothing() -> None:
    forged = statement(b"weights", signer=MALLORY, identity=ALICE.name)
    with pytest.raises(UnknownSignerError):
        judge(rows(forged, (MALLORY, MALLORY.key_id)), trusting(ALICE))
    with pytest.raises(VerificationError):
        judge(rows(forged, (MALLORY, ALICE.key_id)), trusting(ALICE))


def test_one_trusted_key_cannot_sign_in_the_name_of_another() -> None:
    for notes in ({"identity": ALICE.name}, {"identity": ALICE.name, "publicKey": None, "keyType": None}):
        with pytest.raises(WrongSignerError, match=r"signed by bob@.*says that alice@") as caught:
            judge(rows(statement(b"", signer=BOB, **notes), (BOB, None)), trusting(ALICE, BOB))
        assert caught.value.exit_code == 4


def test_one_trusted_key_cannot_sign_with_the_key_of_another_in_the_statement() -> None:
    with pytest.raises(WrongSignerError, match=f"names {ALICE.key_id} as its signer"):
        judge(rows(statement(b"", signer=ALICE, identity=None), (BOB, None)), trusting(BOB))
    with pytest.raises(WrongSignerError):
        judge(rows(statement(b"", signer=ALICE, identity=None), (BOB, None)), TrustStore(), key=BOB.verifying)


@pytest.mark.parametrize("keyid", ["", "wrong", BOB.key_id, MALLORY.key_id, "0" * 10_000])
def test_a_wrong_keyid_on_a_good_signature_does_not_matter(keyid: str) -> None:
    assert signers(rows(statement(b""), (ALICE, keyid)), trusting(BOB, ALICE)) == [(ALICE.raw, ALICE.name)]


def test_a_null_keyid_and_raw_bytes_for_a_hint_do_not_matter() -> None:
    payload = json.dumps(statement(b"")).encode()
    row = signature_row(ALICE, payload) | {"keyid": None}
    material = {"publicKey": {"rawBytes": base64.b64encode(MALLORY.pem).decode()}, "tlogEntries": []}
    assert judge(bundle_of(payload, [row], material), trusting(ALICE))[0][0].key == ALICE.verifying


@pytest.mark.parametrize("order", [1, -1])
def test_a_further_signature_by_an_unknown_key_is_listed(order: int) -> None:
    both = [(ALICE, None), (MALLORY, "mallory-key")][::order]
    found, unknown = judge(rows(statement(b""), *both), trusting(ALICE))
    assert ([signer.key for signer in found], unknown) == ([ALICE.verifying], ("mallory-key",))


@pytest.mark.parametrize("order", [1, -1])
def test_a_further_signature_of_another_kind_of_key_is_listed(order: int) -> None:
    ecdsa: Made = {"keyid": "an EC key", "sig": base64.b64encode(b"0" * 71).decode()}
    both: list[Made] = [(ALICE, None), ecdsa]
    assert judge(rows(statement(b""), *both[::order]), trusting(ALICE))[1] == ("an EC key",)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("named", [ALICE, BOB])
def test_a_signature_that_names_an_acceptable_key_and_fails_spoils_the_good_one(order: int, named: Person) -> None:
    both: list[Made] = [(ALICE, None), {"keyid": named.key_id, "sig": BAD}]
    with pytest.raises(VerificationError, match=f"names the key {named.key_id}") as caught:
        judge(rows(statement(b""), *both[::order]), trusting(ALICE, BOB))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("keyid", [None, "", ALICE.key_id])
def test_a_further_signature_by_a_revoked_key_spoils_the_good_one(order: int, keyid: str | None) -> None:
    both = [(ALICE, None), (MALLORY, keyid)][::order]
    with pytest.raises(RevokedSignerError, match="laptop stolen") as caught:
        judge(rows(statement(b""), *both), trusting(ALICE, revoked=[MALLORY]))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("created", ["2020-01-01T00:00:00Z", "2026-11-23T12:00:00Z", None])
def test_a_signature_by_a_revoked_key_is_refused_whatever_its_date(created: str | None) -> None:
    raw = bundle(statement(b"", created=created))
    for store in (trusting(ALICE, revoked=[ALICE]), trusting(revoked=[ALICE])):
        with pytest.raises(RevokedSignerError, match="revoked on 2026-11-23"):
            judge(raw, store)


def test_a_revoked_key_is_refused_even_when_it_is_given_on_the_command_line() -> None:
    with pytest.raises(RevokedSignerError):
        judge(GOOD, trusting(revoked=[ALICE]), key=ALICE.verifying)
    with pytest.raises(RevokedSignerError):
        judge(rust_signature(b""), trusting(revoked=[ALICE]), key=ALICE.verifying, allow_pacha1=True)


def test_naming_a_revoked_key_without_its_signature_does_not_hurt_anybody() -> None:
    both = rows(statement(b""), (ALICE, None), {"keyid": MALLORY.key_id, "sig": BAD})
    assert judge(both, trusting(ALICE, revoked=[MALLORY]))[1] == (MALLORY.key_id,)


def test_two_trusted_signers_of_one_statement_both_count_once_each() -> None:
    raw = rows(statement(b"", signer=None), (ALICE, None), (BOB, None), (ALICE, "again"))
    assert signers(raw, trusting(ALICE, BOB)) == [(ALICE.raw, ALICE.name), (BOB.raw, BOB.name)]


def test_a_trusted_second_signer_does_not_count_for_a_statement_in_the_name_of_the_first() -> None:
    assert signers(bundle(statement(b""), BOB, ALICE), trusting(ALICE, BOB)) == [(ALICE.raw, ALICE.name)]


@pytest.mark.parametrize(("ahead", "accepted"), [(-DAY, True), (600 * SECOND, True), (601 * SECOND, False)])
def test_a_signature_may_be_dated_ten_minutes_ahead_and_no_more(ahead: dt.timedelta, accepted: bool) -> None:
    raw = bundle(statement(b"", created=text(NOW + ahead)))
    if accepted:
        assert judge(raw, trusting(ALICE))
        return
    for asked in ({}, {"key": ALICE.verifying}):
        with pytest.raises(ExpiredSignatureError, match="in the future") as caught:
            judge(raw, trusting(ALICE), **asked)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(("left", "accepted"), [(SECOND, True), (0 * SECOND, False), (-DAY, False)])
def test_a_signature_expires_by_the_clock_of_the_verifier(left: dt.timedelta, accepted: bool) -> None:
    raw = bundle(statement(b"", expires=text(NOW + left)))
    if accepted:
        assert judge(raw, trusting(ALICE))
        return
    for asked in ({}, {"key": ALICE.verifying}):
        with pytest.raises(ExpiredSignatureError, match="expired on"):
            judge(raw, trusting(ALICE), **asked)


def test_the_verifiers_clock_is_the_real_one_unless_another_is_given() -> None:
    assert abs(Policy().at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("signed", "accepted"), [(NOW - 11 * DAY, False), (NOW - 10 * DAY, True), (NOW - 2 * DAY, True), (NOW - DAY, False)]
)
def test_a_key_counts_for_what_it_signed_while_it_was_valid(signed: dt.datetime, accepted: bool) -> None:
    store = trusting(ALICE.trusted(since=NOW - 10 * DAY, until=NOW - DAY))  # retired yesterday, judged today
    raw = bundle(statement(b"", created=text(signed)))
    if accepted:
        assert judge(raw, store)
        return
    with pytest.raises(ExpiredSignatureError, match="the key counts"):
        judge(raw, store)


@pytest.mark.parametrize("limits", [{"since": NOW - DAY}, {"until": NOW + DAY}])
def test_a_signature_without_a_signed_time_does_not_count_for_a_key_with_limits(limits: dict[str, Any]) -> None:
    with pytest.raises(ExpiredSignatureError, match="no signed time"):
        judge(bundle(statement(b"", created=None)), trusting(ALICE.trusted(**limits)))
    with pytest.raises(ExpiredSignatureError, match="no signed time"):
        judge(rust_signature(b""), trusting(ALICE.trusted(**limits)), allow_pacha1=True)
    assert judge(bundle(statement(b"", created=None)), trusting(ALICE))


def test_the_identity_asked_for_is_compared_with_the_trust_store() -> None:
    assert judge(GOOD, trusting(ALICE), identity=ALICE.name)
    with pytest.raises(WrongSignerError, match="not by bob@") as caught:
        judge(GOOD, trusting(ALICE, BOB), identity=BOB.name)
    assert caught.value.exit_code == 4


def test_with_a_key_the_identity_asked_for_is_compared_with_the_statement() -> None:
    renamed = trusting(ALICE.trusted("work laptop"))
    assert signers(GOOD, renamed, key=ALICE.verifying, identity=ALICE.name) == [(ALICE.raw, ALICE.name)]
    with pytest.raises(WrongSignerError):
        judge(GOOD, renamed, key=ALICE.verifying, identity="work laptop")
    with pytest.raises(WrongSignerError, match="a key without a name"):
        judge(bundle(statement(b"", signer=None)), TrustStore(), key=ALICE.verifying, identity=ALICE.name)


def test_with_a_key_no_other_key_counts_however_trusted() -> None:
    with pytest.raises(WrongSignerError, match="another key than the one given"):
        judge(GOOD, trusting(ALICE, BOB), key=BOB.verifying)
    with pytest.raises(BatutaError):
        judge(bundle(statement(b"", signer=None)), trusting(ALICE), key=BOB.verifying)
    assert judge(GOOD, TrustStore(), key=ALICE.verifying)


def test_the_rust_format_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(SignerError) as caught:
        judge(rust_signature(b""), trusting(ALICE))
    assert caught.value.exit_code == 4
    assert caught.value.hint and "--allow-pacha1" in caught.value.hint
    assert signers(rust_signature(b""), trusting(ALICE), allow_pacha1=True) == [(ALICE.raw, ALICE.name)]


def test_the_name_in_the_rust_format_is_a_claim_that_counts_for_nothing() -> None:
    raw = rust_signature(b"", BOB, signer_id=ALICE.name)
    assert signers(raw, trusting(ALICE, BOB), allow_pacha1=True) == [(BOB.raw, BOB.name)]
    assert signers(raw, TrustStore(), key=BOB.verifying, allow_pacha1=True) == [(BOB.raw, None)]
    for asked in ({}, {"key": BOB.verifying}):
        with pytest.raises(WrongSignerError):
            judge(raw, trusting(ALICE, BOB), identity=ALICE.name, allow_pacha1=True, **asked)


def test_the_rust_format_needs_a_good_signature_by_an_acceptable_key() -> None:
    with pytest.raises(VerificationError):
        judge(rust_signature(b"", signature="00" * 64), trusting(ALICE), allow_pacha1=True)
    with pytest.raises(VerificationError):
        judge(rust_signature(b"", MALLORY, signer_key=ALICE.raw.hex()), trusting(ALICE), allow_pacha1=True)
    with pytest.raises(UnknownSignerError):
        judge(rust_signature(b"", MALLORY), trusting(ALICE), allow_pacha1=True)
    with pytest.raises(RevokedSignerError):
        judge(rust_signature(b""), trusting(ALICE, revoked=[ALICE]), allow_pacha1=True)


def test_a_file_is_consistent_when_the_key_it_names_signed_it() -> None:
    for raw in (GOOD, rust_signature(b"")):
        check_own_signature(ModelSignature.parse(raw))
    for raw in (
        rows(statement(b""), (MALLORY, ALICE.key_id)),
        bundle(statement(b"", signer=None)),
        rust_signature(b"", signature="00" * 64),
    ):
        with pytest.raises(VerificationError):
            check_own_signature(ModelSignature.parse(raw))


def test_a_lone_signature_that_names_an_acceptable_key_only_by_its_hint_and_fails_is_wrong() -> None:
    payload = json.dumps(statement(b"", signer=None)).encode()
    material = {"publicKey": {"hint": ALICE.hint}, "tlogEntries": []}
    with pytest.raises(VerificationError, match=f"names the key {ALICE.key_id}"):
        judge(bundle_of(payload, [signature_row(MALLORY, payload)], material), trusting(ALICE))


@pytest.mark.parametrize(
    ("since", "until", "allowed"),
    [
        (None, None, True),
        (None, NOW, False),
        (None, NOW - SECOND, False),
        (None, NOW + SECOND, True),
        (NOW, None, True),
        (NOW + SECOND, None, False),
        (NOW - DAY, NOW + DAY, True),
        (NOW - DAY, NOW, False),
    ],
)
def test_a_key_signs_only_while_its_signatures_count_here(
    since: dt.datetime | None, until: dt.datetime | None, allowed: bool
) -> None:
    store = trusting(ALICE.trusted(since=since, until=until), BOB)
    check_may_sign(BOB.verifying, store, NOW)
    if allowed:
        check_may_sign(ALICE.verifying, store, NOW)
    else:
        with pytest.raises(ExpiredSignatureError, match=rf"{ALICE.key_id} of alice@example\.com .* does not sign"):
            check_may_sign(ALICE.verifying, store, NOW)


def test_a_revoked_key_does_not_sign_whether_it_is_trusted_or_not_and_a_stranger_s_does() -> None:
    check_may_sign(ALICE.verifying, TrustStore(), NOW)
    for store in (trusting(revoked=[ALICE]), trusting(ALICE, revoked=[ALICE])):
        with pytest.raises(RevokedSignerError, match="was revoked on 2026-11-23: laptop stolen"):
            check_may_sign(ALICE.verifying, store, NOW)


@pytest.mark.parametrize("asked", [{"key": ()}, {"key": []}, {"identity": ()}])
def test_an_empty_sequence_of_keys_or_identities_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is an empty sequence"):
        Policy(**asked)
