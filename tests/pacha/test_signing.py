"""Making signatures, and `.sig` files as files."""

import base64
import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import (
    BatutaError,
    ChangedWhileReadError,
    InvalidInputError,
    NotFoundError,
    OutputExistsError,
    UsageError,
)
from batuta_cli.pacha import ModelSignature, sign_model, sign_path, signing
from batuta_cli.pacha.hashing import Resource
from batuta_cli.pacha.signing import model_name, sign_resources, signature_path
from tests.pacha.forge import ALICE, BOB, bundle, directory_address, pae, rust_signature, statement, write_model

MIB = 1024 * 1024


def opened(signature: ModelSignature) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bundle and the statement of a signature, once its Ed25519 signature has been found good."""
    document = json.loads(signature.raw)
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    ALICE.key.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), pae(payload))
    return document, json.loads(payload)


def test_the_signature_of_a_file_is_over_the_statement_that_describes_it(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"weights")
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    document, stated = opened(sign_path(tmp_path / "model.gguf", ALICE.signing))
    subject = stated["subject"][0]
    assert subject["name"] == "model.gguf"
    assert subject["digest"]["blake3"] == blake3(b"weights").hexdigest()
    assert stated["predicate"]["resources"] == statement(b"weights")["predicate"]["resources"]
    notes = subject["annotations"]
    assert (notes["identity"], notes["publicKey"]) == (ALICE.name, base64.b64encode(ALICE.raw).decode())
    assert before <= dt.datetime.fromisoformat(notes["created"]) <= dt.datetime.now(dt.UTC)
    assert document["verificationMaterial"]["publicKey"]["hint"] == ALICE.hint
    assert [row["keyid"] for row in document["dsseEnvelope"]["signatures"]] == [ALICE.key_id]


def test_a_directory_is_signed_with_its_options(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", {"b": b"2", "a/x": b"1", "run.log": b"noise"})
    (model / "link").symlink_to("b")
    signature = sign_path(model, ALICE.signing, ignore=["*.log"], follow_symlinks=True, expires_days=30)
    _, stated = opened(signature)
    assert [r["name"] for r in stated["predicate"]["resources"]] == ["a/x", "b", "link"]
    serialization = stated["predicate"]["serialization"]
    assert (serialization["allow_symlinks"], serialization["ignore_paths"]) == (True, ["run.log"])
    assert str(signature.address) == "blake3:" + directory_address({"a/x": b"1", "b": b"2", "link": b"2"})
    notes = stated["subject"][0]["annotations"]
    lifetime = dt.datetime.fromisoformat(notes["expires"]) - dt.datetime.fromisoformat(notes["created"])
    assert lifetime == dt.timedelta(days=30)


def test_an_empty_file_can_be_signed(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    _, stated = opened(sign_path(tmp_path / "empty", ALICE.signing))
    assert stated["predicate"]["resources"][0]["annotations"]["size"] == 0


def test_an_empty_directory_cannot(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no file in it"):
        sign_path(tmp_path, ALICE.signing)


def test_bytes_in_memory_are_signed_like_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"weights")
    _, from_memory = opened(sign_model(b"weights", ALICE.signing, name="m.bin"))
    _, from_disk = opened(sign_path(tmp_path / "m.bin", ALICE.signing))
    for stated in (from_memory, from_disk):
        del stated["subject"][0]["annotations"]["created"]
    assert from_memory == from_disk


def test_a_model_that_changes_while_it_is_signed_gets_no_signature(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(2 * MIB))
    with pytest.raises(ChangedWhileReadError):
        sign_path(path, ALICE.signing, progress=lambda _: os.truncate(path, 5))
    model = write_model(tmp_path / "directory", {"a": b"1"})
    with pytest.raises(ChangedWhileReadError, match="directory/new"):
        sign_path(model, ALICE.signing, progress=lambda _: (model / "new").touch())


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_a_lifetime_that_makes_no_sense_is_refused(days: int) -> None:
    with pytest.raises(UsageError, match="days"):
        sign_model(b"", ALICE.signing, expires_days=days)


def test_a_model_whose_own_name_is_not_utf8_is_refused_by_a_readable_name(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/model\xff.gguf")
    Path(path).write_bytes(b"1")
    with pytest.raises(InvalidInputError, match=r"model\\xff\.gguf: the name is not UTF-8"):
        sign_path(path, ALICE.signing)


def test_what_is_signed_is_what_the_globs_name_and_where_the_signature_goes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", {"a.log": b"", "b/c.log": b"", "logs/d.log": b"", "w": b"1"})
    _, stated = opened(sign_path(model, ALICE.signing, ignore=["**/*.log", "logs/"], ignore_paths=["model.sig"]))
    assert stated["predicate"]["serialization"]["ignore_paths"] == ["a.log", "b/c.log", "logs", "model.sig"]
    assert [r["name"] for r in stated["predicate"]["resources"]] == ["w"]


@pytest.mark.parametrize("pattern", ["\udcff", "", ".", "/", "/a", "..", "a/..", "../m/a"])
def test_a_pattern_that_cannot_be_signed_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="ignore"):
        sign_path(write_model(tmp_path, {"a": b""}), ALICE.signing, ignore=[pattern])


def test_the_rust_format_binds_the_content_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"weights")
    document = json.loads(sign_path(tmp_path / "m", ALICE.signing, format="pacha1").raw)
    expected = json.loads(rust_signature(b"weights"))
    assert document | {"timestamp": 0} == expected | {"timestamp": 0}


def test_the_rust_format_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", {"a": b""})
    for path, options in ((model, {}), (model / "a", {"expires_days": 1}), (model / "a", {"ignore": ["x"]})):
        with pytest.raises(UsageError, match="pacha1 format signs single files"):
            sign_path(path, ALICE.signing, format="pacha1", **options)


def test_a_signature_too_large_to_be_read_again_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "SIGNATURE_FILE_LIMIT", 1000)
    with pytest.raises(InvalidInputError, match="larger than 1,000 bytes"):
        sign_resources([Resource("f" * 1000, 0, bytes(32))], "m", ALICE.signing)


def test_a_saved_signature_is_loaded_and_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "m.sig"
    signature = sign_model(b"weights", ALICE.signing)
    signature.save(path)
    assert ModelSignature.load(path) == signature
    with pytest.raises(OutputExistsError):
        signature.save(path)
    other = sign_model(b"weights", BOB.signing)
    other.save(path, force=True)
    assert ModelSignature.load(path) == other


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (bytes(range(64, 256)), "not JSON"),
        (bundle(statement(b"weights"))[:200], "not JSON"),
        (b"untrusted comment: minisign", "not JSON"),
        (b"{}", "mediaType: is missing"),
        (b'{"content_hash": 1}', "algorithm: is missing"),
        (b'{"mediaType": "a", "mediaType": "b"}', "twice"),
    ],
)
def test_a_sig_file_that_is_none_is_refused_with_its_name_and_the_reason(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.sig"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=reason) as caught:
        ModelSignature.load(path)
    assert caught.value.message.startswith(str(path))


def test_duplicate_keys_are_found_inside_the_signed_payload_too() -> None:
    payload = json.dumps(statement(b"weights")).replace('"size": 7', '"size": 7, "size": 8').encode()
    row = {"sig": base64.b64encode(ALICE.key.sign(pae(payload))).decode()}
    document = json.loads(bundle(statement(b"weights")))
    document["dsseEnvelope"] |= {"payload": base64.b64encode(payload).decode(), "signatures": [row]}
    with pytest.raises(InvalidInputError, match="'size' is in one JSON object twice"):
        ModelSignature.parse(json.dumps(document).encode())


def test_a_sig_file_of_65_mib_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.sig"
    with path.open("wb") as file:
        file.truncate(65 * MIB)
    with pytest.raises(InvalidInputError, match="larger than 67,108,864 bytes"):
        ModelSignature.load(path)
    with pytest.raises(InvalidInputError, match="larger than 67,108,864 bytes"):
        ModelSignature.parse(b" " * (64 * MIB + 1))


def test_a_missing_sig_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"m\.sig"):
        ModelSignature.load(tmp_path / "m.sig")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_a_sig_that_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.sig"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(InvalidInputError, match=f"is a {kind}".replace("fifo", "FIFO")):
        ModelSignature.load(path)


ORIGINALS = [bundle(statement({"a": b"1", "b": b"2"}), ALICE, BOB), rust_signature(b"weights")]


@given(st.sampled_from(ORIGINALS), st.integers(0, 2000), st.integers(0, 30), st.binary(max_size=20))
@settings(max_examples=400)
def test_no_damage_to_a_sig_file_gives_anything_but_a_signature_or_an_error(
    original: bytes, start: int, length: int, inserted: bytes
) -> None:
    raw = original[:start] + inserted + original[start + length :]
    try:
        signature = ModelSignature.parse(raw)
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert signature.address is None or len(signature.address.digest) == 32


def test_the_signature_stands_beside_the_model_whatever_way_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model", {"sub/a": b""})
    monkeypatch.chdir(model)
    assert signature_path("model.gguf") == "model.gguf.sig"
    for spelling in (f"{model}", f"{model}/", f"{model}//", ".", "./", "sub/..", f"{model}/sub/../."):
        assert signature_path(spelling) == str(tmp_path / "model.sig")
        assert model_name(spelling) == "model"


def test_a_link_is_signed_under_its_own_name_and_dots_after_it_are_resolved(tmp_path: Path) -> None:
    write_model(tmp_path / "real", {"inner/a": b""})
    (tmp_path / "link").symlink_to("real/inner")
    assert (signature_path(tmp_path / "link"), model_name(tmp_path / "link")) == (f"{tmp_path}/link.sig", "link")
    dots = f"{tmp_path}/link/.."
    assert (signature_path(dots), model_name(dots)) == (f"{tmp_path}/real.sig", "real")
