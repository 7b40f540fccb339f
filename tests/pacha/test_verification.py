"""Verifying models: success only when everything was checked, and the worst news first."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from batuta_cli.errors import (
    BatutaError,
    ChangedWhileReadError,
    InvalidInputError,
    NotFoundError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    UsageError,
    VerificationError,
    WrongSignerError,
    worst,
)
from batuta_cli.pacha import ModelSignature, Policy, Verification, sign_model, sign_path, verify_model, verify_path
from batuta_cli.pacha.content import HashedModel
from batuta_cli.pacha.hashing import Resource
from batuta_cli.pacha.trust import TrustStore
from batuta_cli.pacha.verification import verify_all
from tests.pacha.forge import (
    ALICE,
    BOB,
    MALLORY,
    NOW,
    Person,
    bundle,
    rust_signature,
    statement,
    trusting,
    write_model,
)

FILES = {"config.json": b"{}", "weights/a.bin": b"abc"}


def parsed(raw: bytes) -> ModelSignature:
    return ModelSignature.parse(raw)


def signed(content: Any, person: Person = ALICE, **notes: Any) -> ModelSignature:
    return parsed(bundle(statement(content, person, **notes), person))


def policy(store: TrustStore, **asked: Any) -> Policy:
    return Policy(store, at=NOW, **asked)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_an_intact_file_by_a_trusted_signer_is_verified(model: Path) -> None:
    verified = verify_path(model, signed(b"weights"), policy(trusting(ALICE)))
    assert verified
    assert verified.as_dict() == {
        "address": "blake3:" + blake3(b"weights").hexdigest(),
        "signers": [
            {"name": ALICE.name, "name_is_claimed": False, "key_id": ALICE.key_id, "public_key": ALICE.verifying.inline}
        ],
        "binds": ["content", "name", "identity", "time"],
        "created": "2026-11-20T10:00:00Z",
        "expires": None,
        "ignored": [],
        "unsigned": [],
        "unknown_signatures": [],
        "warnings": [],
    }


def test_what_is_signed_here_is_verified_here_files_directories_and_bytes(tmp_path: Path, model: Path) -> None:
    directory = write_model(tmp_path / "dir", FILES | {"run.log": b""})
    store = policy(trusting(ALICE)).trust
    assert verify_path(model, sign_path(model, ALICE.signing), Policy(store))
    verified = verify_path(directory, sign_path(directory, ALICE.signing, ignore=["*.log"]), Policy(store))
    assert verified and verified.as_dict()["ignored"] == ["run.log"]
    assert verify_model(b"weights", sign_model(b"weights", ALICE.signing), trust=store)
    assert verify_model(b"", sign_model(b"", ALICE.signing), key=ALICE.verifying)


@pytest.mark.parametrize("content", [b"weightS", b"", b"weights\0", b"weight"])
def test_changed_content_is_never_verified(content: bytes, model: Path) -> None:
    model.write_bytes(content)
    for raw in (bundle(statement(b"weights")), rust_signature(b"weights")):
        with pytest.raises(VerificationError, match="the content is not what was signed") as caught:
            verify_path(model, parsed(raw), policy(trusting(ALICE), allow_pacha1=True))
        assert caught.value.exit_code == 3
        with pytest.raises(VerificationError):
            verify_model(content, parsed(raw), trust=trusting(ALICE), allow_pacha1=True)
        with pytest.raises(VerificationError):
            verify_model(content, parsed(raw), allow_pacha1=True)


def test_the_signature_of_another_model_is_refused(model: Path) -> None:
    with pytest.raises(VerificationError):
        verify_path(model, signed(b"other weights"), policy(trusting(ALICE)))
    with pytest.raises(VerificationError, match="is a file, and a directory was signed"):
        verify_path(model, signed(FILES), policy(trusting(ALICE)))
    with pytest.raises(VerificationError, match="is a directory, and a single file was signed"):
        verify_path(model.parent, signed(b"weights"), policy(trusting(ALICE)))
    with pytest.raises(VerificationError, match="is a directory"):
        verify_path(model.parent, parsed(rust_signature(b"weights")), policy(trusting(ALICE), allow_pacha1=True))


def test_every_difference_of_a_directory_is_in_the_message_and_in_the_result(tmp_path: Path) -> None:
    found = {"config.json": b"[]", "moved.bin": b"abc", "new\n\x1b[31m": b""}
    with pytest.raises(VerificationError) as caught:
        directory = write_model(tmp_path / "m", found)
        verify_path(directory, signed(FILES | {"gone": b"9"}), policy(trusting(ALICE)))
    assert caught.value.result == {
        "path": str(directory),
        "changed": ["config.json"],
        "missing": ["gone"],
        "added": ["new\n\x1b[31m"],
        "renamed": [{"from": "weights/a.bin", "to": "moved.bin"}],
    }
    assert caught.value.message.splitlines()[1:] == [
        "  changed: config.json",
        "  missing: gone",
        r"  added: new\n\x1b[31m",
        "  renamed: weights/a.bin is now moved.bin",
    ]


def test_a_long_list_of_differences_is_cut_in_the_message_only(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(VerificationError, match="missing: and 90 more") as caught:
        verify_path(tmp_path / "m", signed({f"{i:03}": b"" for i in range(100)}), policy(trusting(ALICE)))
    assert len(caught.value.result["missing"]) == 100


@pytest.mark.parametrize("store", [TrustStore(), trusting(ALICE, revoked=[ALICE]), trusting(ALICE.trusted("eve"))])
def test_a_changed_file_is_worse_news_than_any_signer(store: TrustStore, model: Path) -> None:
    signature = signed(b"weights")
    with pytest.raises(SignerError):
        verify_path(model, signature, policy(store))
    model.write_bytes(b"changed")
    for require in (None, 1):
        with pytest.raises(VerificationError):
            verify_path(model, signature, policy(store), require=require)


def test_a_missing_model_does_not_hide_a_bad_signer(tmp_path: Path) -> None:
    with pytest.raises(UnknownSignerError):
        verify_path(tmp_path / "none", signed(b"weights"), policy(TrustStore()))
    with pytest.raises(NotFoundError):
        verify_path(tmp_path / "none", signed(b"weights"), policy(trusting(ALICE)))


def test_a_model_that_changes_while_it_is_verified_is_never_a_success(tmp_path: Path) -> None:
    size = 2 * 1024 * 1024
    for number, raw in enumerate((bundle(statement(bytes(size))), rust_signature(bytes(size)))):
        path = tmp_path / str(number)
        path.write_bytes(bytes(size))
        with pytest.raises(ChangedWhileReadError) as caught:
            verify_path(
                path,
                parsed(raw),
                policy(trusting(ALICE), allow_pacha1=True),
                progress=lambda _, path=path: os.truncate(path, 10),  # type: ignore[misc]
            )
        assert caught.value.exit_code == 1


def test_a_file_under_another_name_is_a_warning_and_with_a_name_asked_for_an_error(model: Path) -> None:
    renamed = model.rename(model.with_name("renamed.gguf"))
    verified = verify_path(renamed, signed(b"weights"), policy(trusting(ALICE)))
    assert verified.warnings == ("renamed.gguf was signed under another name, model.gguf",)
    with pytest.raises(VerificationError, match=r"signed as model\.gguf, not as renamed\.gguf"):
        verify_path(renamed, signed(b"weights"), policy(trusting(ALICE), name="renamed.gguf"))
    assert not verify_path(renamed, signed(b"weights"), policy(trusting(ALICE), name="model.gguf")).warnings


def test_the_rust_format_binds_the_content_only_and_no_name(model: Path) -> None:
    allowed = policy(trusting(ALICE), allow_pacha1=True)
    verified = verify_path(model, parsed(rust_signature(b"weights")), allowed)
    assert (verified.binds, verified.statement, verified.as_dict()["created"]) == (("content",), None, None)
    with pytest.raises(VerificationError, match="does not sign a name"):
        asked = policy(trusting(ALICE), allow_pacha1=True, name="model.gguf")
        verify_path(model, parsed(rust_signature(b"weights")), asked)


def test_without_trust_or_key_the_content_is_checked_and_the_answer_is_not_yes() -> None:
    verified = verify_model(b"weights", sign_model(b"weights", MALLORY.signing))
    assert (verified.signers, verified.binds) == ((), ("content",))
    with pytest.raises(TypeError, match="the signer was not checked"):
        bool(verified)
    with pytest.raises(TypeError):
        assert not verified


def test_without_trust_or_key_a_signature_that_is_wrong_in_itself_is_refused() -> None:
    raw = bundle(statement(b"weights"), MALLORY)
    with pytest.raises(VerificationError):
        verify_model(b"weights", parsed(raw))
    with pytest.raises(UsageError, match="identity"):
        verify_model(b"weights", signed(b"weights"), identity=ALICE.name)


def test_the_rust_format_needs_leave_even_when_no_signer_is_checked() -> None:
    signature = parsed(rust_signature(b"weights"))
    with pytest.raises(SignerError):
        verify_model(b"weights", signature)
    assert verify_model(b"weights", signature, allow_pacha1=True).signers == ()


def test_an_empty_trust_store_is_a_trust_store() -> None:
    with pytest.raises(UnknownSignerError):
        verify_model(b"weights", signed(b"weights"), trust=TrustStore())


def test_no_signature_at_all_verifies_nothing(model: Path) -> None:
    for require in (None, 1):
        with pytest.raises(VerificationError, match="there is no signature"):
            verify_path(model, [], policy(trusting(ALICE)), require=require)


@pytest.mark.parametrize("require", [0, -1])
def test_requiring_nobody_is_wrong_usage(require: int, model: Path) -> None:
    with pytest.raises(UsageError):
        verify_path(model, signed(b"weights"), policy(trusting(ALICE)), require=require)


def test_every_signature_given_must_be_acceptable_unless_a_number_is_asked_for(model: Path) -> None:
    both = [signed(b"weights"), signed(b"weights", MALLORY)]
    with pytest.raises(UnknownSignerError):
        verify_path(model, both, policy(trusting(ALICE)))
    assert verify_path(model, both, policy(trusting(ALICE)), require=1)


def test_distinct_keys_are_counted_and_not_signatures(model: Path) -> None:
    twice = [signed(b"weights"), signed(b"weights", tool="again")]
    with pytest.raises(UnknownSignerError, match="1 of the 2 signers") as caught:
        verify_path(model, twice, policy(trusting(ALICE, BOB)), require=2)
    assert caught.value.exit_code == 4
    verified = verify_path(model, [*twice, signed(b"weights", BOB)], policy(trusting(ALICE, BOB)), require=2)
    assert [signer.name for signer in verified.signers] == [ALICE.name, BOB.name]


def test_two_keys_under_one_name_are_two_signers(model: Path) -> None:
    store = trusting(ALICE, BOB.trusted(ALICE.name))
    both = [signed(b"weights"), signed(b"weights", BOB, identity=ALICE.name)]
    assert len(verify_path(model, both, policy(store), require=2).signers) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_stranger_adds_nothing_to_what_is_reported(order: int, model: Path) -> None:
    stranger = signed(b"weights", MALLORY, created="1999-01-01T00:00:00Z")
    verified = verify_path(
        model,
        [stranger, parsed(rust_signature(b"weights"))][::order],
        policy(trusting(ALICE), allow_pacha1=True),
        require=1,
    )
    assert (verified.statement, verified.binds) == (None, ("content",))
    other = signed(b"something else", MALLORY)
    found = verify_path(model, [other, signed(b"weights")][::order], policy(trusting(ALICE)), require=1)
    assert str(found.address) == "blake3:" + blake3(b"weights").hexdigest()


def test_a_number_of_signers_does_not_excuse_a_revoked_a_wrong_or_a_forged_one(model: Path) -> None:
    good = signed(b"weights")
    revoked = policy(trusting(ALICE, revoked=[MALLORY]))
    with pytest.raises(RevokedSignerError):
        verify_path(model, [good, signed(b"weights", MALLORY)], revoked, require=1)
    with pytest.raises(WrongSignerError):
        verify_path(model, [good, signed(b"weights", BOB, identity="carol")], policy(trusting(ALICE, BOB)), require=1)
    forged = parsed(bundle(statement(b"weights"), MALLORY))
    with pytest.raises(VerificationError):
        verify_path(model, [good, forged], policy(trusting(ALICE)), require=1)


def test_an_accepted_signature_over_other_content_is_not_excused_by_a_second_one(model: Path) -> None:
    for order in (1, -1):
        both = [signed(b"weights"), signed(b"something else", BOB)][::order]
        with pytest.raises(VerificationError):
            verify_path(model, both, policy(trusting(ALICE, BOB)), require=1)


def test_files_that_any_accepted_signature_leaves_out_are_shown(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", FILES | {"run.log": b""})
    everything = statement(FILES | {"run.log": b""}, BOB)
    without_logs = statement(FILES)
    without_logs["predicate"]["serialization"]["ignore_paths"] = ["run.log", "gone.log"]
    both = [parsed(bundle(everything, BOB)), parsed(bundle(without_logs))]
    assert verify_path(directory, both, policy(trusting(ALICE, BOB))).ignored == ("run.log",)


def test_a_mixture_of_formats_binds_only_what_all_of_them_bind(model: Path) -> None:
    both = [signed(b"weights"), parsed(rust_signature(b"weights", BOB))]
    verified = verify_path(model, both, policy(trusting(ALICE, BOB), allow_pacha1=True))
    assert (verified.binds, len(verified.signers)) == (("content",), 2)


def test_unsorted_resources_and_older_bundles_are_verified(tmp_path: Path) -> None:
    stated = statement({"z": b"1", "a": b"2"})
    del stated["predicate"]["serialization"]["ignore_paths"]
    document = json.loads(bundle(stated))
    document["verificationMaterial"] = {"publicKey": {"rawBytes": "AAAA"}}
    document["dsseEnvelope"]["signatures"][0]["keyid"] = None
    directory = write_model(tmp_path / "m", {"z": b"1", "a": b"2"})
    assert verify_path(directory, parsed(json.dumps(document).encode()), policy(trusting(ALICE)))


def test_a_pipe_is_verified_by_what_came_through_it() -> None:
    came = HashedModel(Resource(".", 7, blake3(b"weights").digest()))
    for raw in (bundle(statement(b"weights")), rust_signature(b"weights")):
        allowed = policy(trusting(ALICE), allow_pacha1=True)
        assert verify_all(came, [parsed(raw)], allowed, label="-", actual_name=None)


def test_the_worst_of_several_errors_decides() -> None:
    ranked: list[BatutaError] = [
        VerificationError("3"),
        SignerError("4"),
        InvalidInputError("2"),
        NotFoundError("1"),
    ]
    for start in range(4):
        assert worst(reversed(ranked[start:])) is ranked[start]


def test_a_verification_of_nothing_cannot_be_true() -> None:
    with pytest.raises(TypeError):
        bool(Verification(signed(b"").address))
