"""The container of a signature: the published encoding, and files from strangers."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.pacha.envelope import (
    Envelope,
    EnvelopeSignature,
    load_json,
    parse_envelope,
    pre_authentication_encoding,
)
from tests.pacha.forge import ALICE, BOB, bundle, pae, statement

BUNDLE: dict[str, Any] = json.loads(bundle(statement(b"weights")))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The bundle with the field at `path` (`a.b.0.c`) replaced, or removed when `value` is ..."""
    document = json.loads(json.dumps(BUNDLE))
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = document
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document  # type: ignore[no-any-return]


def test_signed_bytes_are_the_pre_authentication_encoding_of_the_dsse_specification() -> None:
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, "Test Vectors"
    encoded = pre_authentication_encoding(b"hello world", "http://example.com/HelloWorld")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_in_toto_payloads_are_encoded_with_their_own_type() -> None:
    assert Envelope(b"", ()).signed_bytes() == b"DSSEv1 28 application/vnd.in-toto+json 0 "
    assert Envelope("é".encode(), ()).signed_bytes() == pae("é".encode())


@given(st.binary(), st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=70)), min_size=1, max_size=3))
def test_an_envelope_is_read_as_it_was_written(payload: bytes, rows: list[tuple[str, bytes]]) -> None:
    rows = [(keyid.encode(errors="replace").decode(), value) for keyid, value in rows]
    original = Envelope(payload, tuple(EnvelopeSignature(*row) for row in rows), "hint")
    assert parse_envelope(load_json(original.to_json(), "x")) == original


def test_a_bundle_has_the_fields_of_the_design_and_no_others() -> None:
    row = EnvelopeSignature(ALICE.key_id, b"s" * 64)
    assert json.loads(Envelope(b"payload", (row,), ALICE.hint).to_json()) == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ALICE.hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64.b64encode(b"payload").decode(),
            "signatures": [{"keyid": ALICE.key_id, "sig": base64.b64encode(b"s" * 64).decode()}],
        },
    }


@pytest.mark.parametrize(
    "material",
    [
        {"publicKey": {"rawBytes": base64.b64encode(ALICE.pem).decode()}, "tlogEntries": []},
        {"publicKey": {"hint": None}},
        {"x509CertificateChain": {"certificates": []}},
        None,
        [],
    ],
)
def test_older_verification_material_is_read_without_a_hint(material: Any) -> None:
    assert parse_envelope(changed("verificationMaterial", material)).hint == ""


def test_a_null_or_missing_keyid_is_read_as_none() -> None:
    for value in (None, ...):
        assert parse_envelope(changed("dsseEnvelope.signatures.0.keyid", value)).signatures[0].keyid == ""


@pytest.mark.parametrize("version", ["v0.3+json", "+json;version=0.1", "+json;version=0.2", "+json;version=0.3"])
def test_earlier_media_types_of_bundles_are_read(version: str) -> None:
    kind = "application/vnd.dev.sigstore.bundle." + version if version[0] == "v" else version
    kind = kind if kind.startswith("app") else "application/vnd.dev.sigstore.bundle" + kind
    assert parse_envelope(changed("mediaType", kind)).signatures


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mediaType", ...),
        ("mediaType", "application/json"),
        ("mediaType", "application/vnd.dev.sigstore.bundle.v9+json"),
        ("mediaType", 3),
        ("dsseEnvelope", ...),
        ("dsseEnvelope", []),
        ("dsseEnvelope.payloadType", "text/plain"),
        ("dsseEnvelope.payloadType", ...),
        ("dsseEnvelope.payload", ...),
        ("dsseEnvelope.payload", "not base64!"),
        ("dsseEnvelope.payload", "é"),
        ("dsseEnvelope.payload", "AA\nAA"),
        ("dsseEnvelope.signatures", ...),
        ("dsseEnvelope.signatures", []),
        ("dsseEnvelope.signatures", {}),
        ("dsseEnvelope.signatures", [{"sig": ""}] * 17),
        ("dsseEnvelope.signatures.0", "x"),
        ("dsseEnvelope.signatures.0.sig", ...),
        ("dsseEnvelope.signatures.0.sig", "*"),
        ("dsseEnvelope.signatures.0.keyid", 7),
    ],
)
def test_a_bundle_with_a_wrong_field_is_refused_with_the_name_of_the_field(path: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_envelope(changed(path, value))
    assert path.replace(".0", "[0]") in caught.value.message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\x80\x81\x00\xff", "not UTF-8"),
        (b"PACHAENC\x01", "not JSON"),
        (b"{", "not JSON"),
        (bundle(statement(b""))[:-100], "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": NaN}', "not readable"),
        (b'{"a": -Infinity}', "not readable"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not readable"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": {"\\uDFFF": 1}}', "surrogate"),
        (b'{"a": 1, "a": 1}', "'a' is in one JSON object twice"),
        (b'{"x": [{"y": {"b": 1, "b": 2}}]}', "'b' is in one JSON object twice"),
        (b'{"b": 1, "\\u0062": 2}', "'b' is in one JSON object twice"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason) as caught:
        load_json(data, "the signature")
    assert caught.value.exit_code == 2


def test_whole_surrogate_pairs_are_text_like_any_other() -> None:
    assert load_json(b'{"a": "\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}


@given(st.binary(max_size=100) | st.text(alphabet='{}[]",:0123eE-+.\\u dabf', max_size=40).map(str.encode))
@settings(max_examples=300)
def test_arbitrary_bytes_are_an_object_or_an_error(data: bytes) -> None:
    try:
        document = load_json(data, "x")
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert document == json.loads(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=2)
) | st.dictionaries(st.sampled_from(["sig", "keyid", "hint", "publicKey"]), st.text(max_size=8))
paths = st.sampled_from(
    [
        "mediaType",
        "verificationMaterial",
        "verificationMaterial.publicKey",
        "verificationMaterial.publicKey.hint",
        "dsseEnvelope",
        "dsseEnvelope.payload",
        "dsseEnvelope.payloadType",
        "dsseEnvelope.signatures",
        "dsseEnvelope.signatures.0",
        "dsseEnvelope.signatures.0.sig",
        "dsseEnvelope.signatures.0.keyid",
    ]
)


@given(paths, json_values)
@settings(max_examples=300)
def test_any_value_in_any_field_is_an_envelope_or_an_error(path: str, value: Any) -> None:
    try:
        read = parse_envelope(changed(path, value))
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert read.signatures and isinstance(read.hint, str)


def test_two_signatures_are_read_in_their_order() -> None:
    both = json.loads(bundle(statement(b""), BOB, ALICE))
    assert [s.keyid for s in parse_envelope(both).signatures] == [BOB.key_id, ALICE.key_id]
