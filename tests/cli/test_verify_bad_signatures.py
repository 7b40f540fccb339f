"""`.sig` files from strangers: damaged, forged, by the wrong key, at the wrong time. None of them is ever exit 0."""

import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha import trust
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from tests.cli.support import answer, bundle, own_key, result, revoke_key, signed_model, trust_key
from tests.conftest import Run

ALICE = "alice@example.com"
LONG_AGO = dt.timedelta(days=400)


@pytest.fixture
def alice(home: Path, work: Path) -> SigningKey:
    """A trusted key, and a file `model` with its signature."""
    key = own_key(home)
    signed_model(work, key)
    return key


def edited(work: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON of `model.sig`."""
    document = json.loads((work / "model.sig").read_text())
    change(document)
    (work / "model.sig").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (bytes(range(256)), "not JSON"),
        (b"\x00" * 100, "not JSON"),
        (b"not json", "not JSON (line 1"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"{}", "mediaType"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"mediaType": "x"}', "mediaType"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
        (b'{"mediaType": "\\u001b[31m"}', "mediaType"),
    ],
)
def test_a_file_that_is_no_signature_is_exit_2_and_is_named(
    batuta: Run, work: Path, alice: SigningKey, content: bytes, words: str
) -> None:
    (work / "model.sig").write_bytes(content)
    done = batuta("pacha", "verify", "model", code=2)
    assert done.stderr.startswith("error: model.sig: ")
    assert words in done.stderr
    assert "\x1b" not in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_signature_that_is_cut_anywhere_is_exit_2(batuta: Run, work: Path, alice: SigningKey) -> None:
    whole = (work / "model.sig").read_bytes()
    copies = []
    for size in (1, 50, len(whole) // 2, len(whole) - 2):
        signed_model(work, alice, f"m{size}")
        (work / f"m{size}.sig").write_bytes(whole[:size])
        copies.append(f"m{size}")
    done = batuta("pacha", "verify", *copies, code=2)
    assert done.stderr.count("not JSON") == len(copies)


def test_a_signature_of_65_mib_is_refused_unread(batuta: Run, work: Path, alice: SigningKey) -> None:
    with open(work / "model.sig", "r+b") as file:
        file.truncate(65 << 20)
    done = batuta("pacha", "verify", "model", code=2)
    assert "model.sig: larger than 67,108,864 bytes" in done.stderr


def test_another_model_s_signature_is_exit_3(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "other").write_bytes(b"other weights")
    sign_path(work / "other", alice).save(work / "model.sig", force=True)
    assert "the content is not what was signed" in batuta("pacha", "verify", "model", code=3).stderr


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"hash_type":"blake3"', '"hash_type":"sha256"', 2),
        ('"method":"files"', '"method":"shards"', 2),
        ('"algorithm":"blake3"', '"algorithm":"md5"', 2),
        ("https://model_signing/signature/v1.0", "https://model_signing/signature/v9", 2),
        ('"keyType":"ed25519"', '"keyType":"rsa"', 2),
        ('"name":"."', '"name":"../etc/passwd"', 2),
        ('"name":"."', '"name":"/etc/passwd"', 2),
        (ALICE, "mallory@example.com", 3),
        ('"name":"model"', '"name":"other"', 3),
    ],
)
def test_an_edited_statement_is_refused(
    batuta: Run, work: Path, alice: SigningKey, old: str, new: str, code: int
) -> None:
    def change(document: dict[str, Any]) -> None:
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"]).decode()
        assert old in payload
        envelope["payload"] = base64.b64encode(payload.replace(old, new).encode()).decode()

    edited(work, change)
    batuta("pacha", "verify", "model", code=code)


def test_an_edited_envelope_is_refused(batuta: Run, work: Path, alice: SigningKey) -> None:
    original = (work / "model.sig").read_bytes()
    changes: list[tuple[Callable[[dict[str, Any]], Any], int]] = [
        (lambda d: d["dsseEnvelope"].update(payloadType="text/plain"), 2),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), 2),
        (lambda d: d["dsseEnvelope"].pop("signatures"), 2),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="!"), 2),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()), 3),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(bytes(63)).decode()), 3),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid="0" * 32), 0),  # a hint, which proves nothing
        (lambda d: d["verificationMaterial"]["publicKey"].update(hint="x"), 0),
    ]
    for change, code in changes:
        (work / "model.sig").write_bytes(original)
        edited(work, change)
        batuta("pacha", "verify", "model", code=code)


def test_a_bundle_with_two_signatures_is_judged_by_both(batuta: Run, home: Path, work: Path, alice: SigningKey) -> None:
    bob, eve = SigningKey.generate("bob"), SigningKey.generate("eve")
    trust_key(home, bob, "bob")
    model = work / "model"
    good = bundle(model, alice, eve, identity=ALICE)
    forged = bundle(model, alice, eve, keyids=[alice.verifying_key.key_id, bob.verifying_key.key_id], identity=ALICE)
    for sig, code in ((good, 0), (forged, 3), (bundle(model, eve, alice, identity=ALICE), 4)):
        (work / "model.sig").write_bytes(sig)
        done = batuta("pacha", "verify", "model", code=code)
    (work / "model.sig").write_bytes(good)
    done = batuta("pacha", "verify", "model", code=0)
    assert f"also signed by unknown keys: {eve.verifying_key.key_id}" in done.stdout
    [found] = result(batuta("pacha", "verify", "model", "--json"))
    assert found["unknown_signatures"] == [eve.verifying_key.key_id]
    revoke_key(home, eve, "stolen")
    done = batuta("pacha", "verify", "model", code=4)
    assert "was revoked" in done.stderr and "stolen" in done.stderr


@pytest.mark.parametrize(
    ("created", "expires", "code", "words"),
    [
        (-LONG_AGO, dt.timedelta(days=-1), 4, "expired on"),
        (-LONG_AGO, dt.timedelta(days=1), 0, ""),
        (dt.timedelta(minutes=5), None, 0, ""),
        (dt.timedelta(minutes=20), None, 4, "in the future"),
        (dt.timedelta(days=3650), None, 4, "date -u"),
    ],
)
def test_a_signature_counts_from_its_date_to_its_expiry(
    batuta: Run,
    work: Path,
    alice: SigningKey,
    created: dt.timedelta,
    expires: dt.timedelta | None,
    code: int,
    words: str,
) -> None:
    now = trust.now()
    until = None if expires is None else now + expires
    (work / "model.sig").write_bytes(
        bundle(work / "model", alice, identity=ALICE, created=now + created, expires=until)
    )
    assert words in batuta("pacha", "verify", "model", code=code).stderr
    pinned = batuta("pacha", "verify", "model", "--key", alice.verifying_key.inline, "--json", code=code)
    if code:
        assert answer(pinned)["error"]["kind"] == "not_valid_now"
        (work / "model").write_bytes(b"x")  # the worse news
        batuta("pacha", "verify", "model", code=3)


def test_expiry_is_written_by_sign_and_shown_by_verify(batuta: Run, work: Path, alice: SigningKey) -> None:
    batuta("pacha", "sign", "model", "--force", "--expires", "1", code=0)
    [found] = result(batuta("pacha", "verify", "model", "--json", code=0))
    created, expires = (dt.datetime.fromisoformat(found[name]) for name in ("created", "expires"))
    assert expires - created == dt.timedelta(days=1)


def test_one_trusted_signer_cannot_sign_in_another_s_name(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    bob = SigningKey.generate("bob")
    trust_key(home, bob, "bob")
    (work / "model.sig").write_bytes(bundle(work / "model", bob, identity=ALICE))
    for asked in ([], ["--identity", ALICE], ["--identity", "bob"]):
        done = batuta("pacha", "verify", "model", *asked, "--json", code=4)
        assert answer(done)["error"]["kind"] == "wrong_signer"
    done = batuta("pacha", "verify", "model", code=4)
    assert "bob" in done.stderr and ALICE in done.stderr
    (work / "model.sig").write_bytes(bundle(work / "model", bob))  # names nobody: the trust store's name stands
    batuta("pacha", "verify", "model", "--identity", "bob", code=0)


def test_an_unknown_signer_s_name_never_drives_the_terminal_nor_the_shell(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    for name in ("\x1b[2J", "\u202egpj"):
        (work / "model.sig").write_bytes(bundle(work / "model", SigningKey.generate(), identity=name))
        done = batuta("pacha", "verify", "model", code=2)
        assert "\x1b" not in done.stderr and "\u202e" not in done.stderr
    (work / "model.sig").write_bytes(bundle(work / "model", SigningKey.generate(), identity="a; rm -rf ~"))
    assert "trust add 'a; rm -rf ~' ed25519:" in batuta("pacha", "verify", "model", code=4).stderr


def test_the_rust_crate_s_format_counts_only_when_it_is_allowed(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    sign_path(work / "model", alice, format="pacha1").save(work / "model.sig", force=True)
    done = batuta("pacha", "verify", "model", code=4)
    assert "--allow-pacha1" in done.stderr
    done = batuta("pacha", "verify", "model", "--allow-pacha1", code=0)
    assert "binds the content only" in done.stdout
    [found] = result(batuta("pacha", "verify", "model", "--allow-pacha1", "--json", code=0))
    assert found["binds"] == ["content"] and found["created"] is None
    batuta("pacha", "verify", "model", code=0, env={"BATUTA_PACHA_ALLOW_PACHA1": "true"})
    batuta("config", "set", "pacha.allow_pacha1", "true", code=0)
    batuta("pacha", "verify", "model", "--identity", ALICE, code=0)
    batuta("pacha", "verify", "model", "--identity", "bob", code=4)
    assert "--name cannot be checked" in batuta("pacha", "verify", "model", "--name", "model", code=3).stderr
    edited(work, lambda d: d.update(signer_id="bob"))  # unsigned, so it changes nothing
    [found] = result(batuta("pacha", "verify", "model", "--json", code=0))
    assert found["signers"][0]["name"] == ALICE
    (work / "model").write_bytes(b"x")
    batuta("pacha", "verify", "model", code=3)


def test_a_damaged_or_foreign_signature_in_the_rust_crate_s_format_is_refused(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    sign_path(work / "model", alice, format="pacha1").save(work / "model.sig", force=True)
    original = (work / "model.sig").read_bytes()
    changes: list[tuple[dict[str, Any], int]] = [
        ({"algorithm": "rsa"}, 2),
        ({"content_hash": "00"}, 2),
        ({"signature": "0" * 128}, 3),
        ({"signer_key": SigningKey.generate().verifying_key.raw.hex()}, 0),  # the trusted key verifies, this is a claim
        ({"content_hash": "0" * 64}, 3),
        ({"timestamp": -1}, 2),
        ({"timestamp": "now"}, 2),
        ({"signer_id": 3}, 2),
    ]
    for fields, code in changes:
        (work / "model.sig").write_bytes(original)
        edited(work, lambda d, fields=fields: d.update(fields))  # type: ignore[misc]
        batuta("pacha", "verify", "model", "--allow-pacha1", code=code)
    sign_path(work / "model", SigningKey.generate("eve"), format="pacha1").save(work / "model.sig", force=True)
    assert "trust add eve" in batuta("pacha", "verify", "model", "--allow-pacha1", code=4).stderr
    (work / "model.sig").write_bytes(original)
    revoke_key(home, alice)
    batuta("pacha", "verify", "model", "--allow-pacha1", code=4)
