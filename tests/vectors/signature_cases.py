"""Vectors of `.sig` files (docs/formats.md#signature)."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.pacha import forge
from tests.pacha.forge import ALICE, BOB, MALLORY
from tests.vectors.case import AT, FILES, WEIGHTS, Case, changed


def _signature(
    name: str,
    purpose: str,
    exit: int,
    signature: bytes,
    *,
    model: bytes | Mapping[str, bytes] = WEIGHTS,
    options: tuple[str, ...] = (),
    key: forge.Person = ALICE,
) -> Case:
    single = isinstance(model, bytes)
    path = "model.gguf" if single else "model"
    files = {path: model} if isinstance(model, bytes) else {f"model/{part}": data for part, data in model.items()}
    run = ("verify", path, "--signature", "model.sig", "--key", "signer.pub", "--at", AT, *options)
    return Case("signature", name, purpose, {**files, "model.sig": signature, "signer.pub": key.pem}, run, exit)


def _document(raw: bytes, *path: str | int, to: Any) -> bytes:
    return json.dumps(changed(json.loads(raw), *path, to=to)).encode()


def signatures() -> Iterator[Case]:
    one, many = forge.statement(WEIGHTS), forge.statement(FILES)
    good = forge.bundle(one)
    payload = json.dumps(one).encode()
    row = forge.signature_row(ALICE, payload)
    flipped = base64.b64encode(bytes([ALICE.key.sign(forge.pae(payload))[0] ^ 1, *base64.b64decode(row["sig"])[1:]]))
    yield _signature("valid-file", "a file and its signature", 0, good)
    yield _signature("valid-directory", "a directory and its signature", 0, forge.bundle(many), model=FILES)
    yield _signature("valid-empty-file", "a file of no bytes", 0, forge.bundle(forge.statement(b"")), model=b"")
    spaced = json.dumps(one, indent=3).encode()
    yield _signature(
        "valid-any-json",
        "the payload is signed as bytes, so its spaces do not matter",
        0,
        forge.bundle_of(spaced, [forge.signature_row(ALICE, spaced)]),
    )
    yield _signature(
        "valid-no-keyid",
        "keyid and hint only order the attempts",
        0,
        forge.bundle_of(payload, [{"sig": row["sig"]}], {"publicKey": {"hint": "0" * 64}}),
    )
    yield _signature(
        "valid-unlisted-order",
        "resources in another order than that of code points",
        0,
        forge.bundle(forge.statement(dict(reversed(FILES.items())))),
        model=FILES,
    )
    ignoring = changed(many, "predicate", "serialization", "ignore_paths", to=["notes", "sub/x"])
    extra = {"notes/a": b"a", "notes/b/c": b"c", "sub/x": b"x"}
    yield _signature(
        "valid-ignored-paths",
        "files beneath ignored paths are not covered",
        0,
        forge.bundle(ignoring),
        model=FILES | extra,
    )
    yield _signature(
        "ignored-paths-are-no-globs",
        "an ignored path is no pattern and no base name",
        3,
        forge.bundle(changed(many, "predicate", "serialization", "ignore_paths", to=["*.md", "x"])),
        model=FILES | {"a.md": b"a", "sub/x": b"x"},
    )
    two = forge.bundle(one, ALICE, BOB)
    yield _signature("valid-one-of-two-signatures", "one signature by the key, one by another", 0, two)
    yield _signature(
        "changed-byte", "one bit of the file is another", 3, good, model=bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    )
    yield _signature("changed-shorter", "the last byte of the file is missing", 3, good, model=WEIGHTS[:-1])
    yield _signature("changed-longer", "one byte was appended", 3, good, model=WEIGHTS + b"\n")
    of_directory = forge.bundle(many)
    for name, purpose, files in (
        (
            "directory-changed",
            "one file has other bytes of the same number",
            FILES | {"config.json": b'{"layers": 31}\n'},
        ),
        ("directory-missing", "a file is missing", {k: v for k, v in FILES.items() if k != "config.json"}),
        ("directory-added", "a file was added", FILES | {"extra.txt": b"more\n"}),
        ("directory-hidden-added", "a hidden file was added", FILES | {".hidden/config": b"[core]\n"}),
        ("directory-renamed", "a file has another name", {k.replace("config", "Config"): v for k, v in FILES.items()}),
        (
            "directory-exchanged",
            "two files have exchanged their contents",
            FILES | {"config.json": FILES["sub/tokenizer.json"], "sub/tokenizer.json": FILES["config.json"]},
        ),
    ):
        yield _signature(name, purpose, 3, of_directory, model=files)
    yield _signature("file-for-directory", "a file in the place of a directory", 3, of_directory)
    yield _signature("directory-for-file", "a directory in the place of a file", 3, good, model={"model.gguf": WEIGHTS})
    yield _signature(
        "unknown-key",
        "a good signature by a key that is not accepted",
        4,
        forge.bundle(forge.statement(WEIGHTS, MALLORY), MALLORY),
    )
    yield _signature(
        "identity-of-another",
        "signed by the key, and it says it was another's",
        4,
        forge.bundle(forge.statement(WEIGHTS, BOB), ALICE),
    )
    yield _signature(
        "identity-asked-for",
        "the identity that is required is not the one stated",
        4,
        good,
        options=("--identity", BOB.name),
    )
    yield _signature(
        "signature-flipped",
        "one bit of the signature is another",
        3,
        forge.bundle_of(payload, [row | {"sig": flipped.decode()}]),
    )
    yield _signature(
        "payload-replaced",
        "the statement is that of a changed file, under the old signature",
        3,
        forge.bundle_of(json.dumps(forge.statement(b"malware")).encode(), [row]),
        model=b"malware",
    )
    yield _signature(
        "signed-without-pae",
        "the signature is over the payload instead of its pre-authentication encoding",
        3,
        forge.bundle_of(payload, [row | {"sig": base64.b64encode(ALICE.key.sign(payload)).decode()}]),
    )
    late = "2026-11-23T23:59:59Z"
    yield _signature("expired", "it expired a second before", 4, forge.bundle(forge.statement(WEIGHTS, expires=late)))
    yield _signature(
        "not-yet-expired",
        "it expires a second later",
        0,
        forge.bundle(forge.statement(WEIGHTS, expires="2026-11-24T00:00:01Z")),
    )
    yield _signature(
        "created-ahead",
        "created more than 10 minutes after it is judged",
        4,
        forge.bundle(forge.statement(WEIGHTS, created="2026-11-24T00:10:01Z")),
    )
    yield _signature(
        "created-a-little-ahead",
        "clocks may differ by 10 minutes",
        0,
        forge.bundle(forge.statement(WEIGHTS, created="2026-11-24T00:09:59Z")),
    )
    malformed: list[tuple[str, str, bytes]] = [
        ("empty", "no bytes at all", b""),
        ("not-json", "not JSON", b"untrusted comment: signature\n"),
        ("not-utf-8", "not UTF-8", good[:-1] + b"\xff}"),
        ("not-an-object", "a JSON list", b"[]"),
        ("cut", "the second half is missing", good[: len(good) // 2]),
        ("duplicate-key", "one JSON object has a key twice", good[:-1] + b', "mediaType": "x"}'),
        ("nan", "a number that JSON does not have", good[:-1] + b', "x": NaN}'),
        ("deep", "lists within lists", good[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("media-type", "another media type", _document(good, "mediaType", to="application/json")),
        ("payload-type", "another type of payload", _document(good, "dsseEnvelope", "payloadType", to="text/plain")),
        ("no-signatures", "an envelope without signatures", _document(good, "dsseEnvelope", "signatures", to=[])),
        ("payload-not-base64", "a payload that is not Base64", _document(good, "dsseEnvelope", "payload", to="%%%")),
    ]
    resource = ("predicate", "resources", 0)
    for name, purpose, stated in (
        ("predicate-type", "an unknown predicate", changed(one, "predicateType", to="https://slsa.dev/provenance/v1")),
        ("statement-type", "another type of statement", changed(one, "_type", to="https://in-toto.io/Statement/v0.1")),
        ("no-resources", "a statement about no file", changed(one, "predicate", "resources", to=[])),
        ("two-subjects", "two subjects", changed(one, "subject", to=one["subject"] * 2)),
        ("algorithm", "an unknown digest algorithm", changed(one, *resource, "algorithm", to="md5")),
        ("hash-type", "an unknown hash type", changed(one, "predicate", "serialization", "hash_type", to="md5")),
        ("method", "an unknown method", changed(one, "predicate", "serialization", "method", to="tar")),
        ("digest-short", "a digest of 63 digits", changed(one, *resource, "digest", to="0" * 63)),
        ("size-negative", "a negative size", changed(one, *resource, "annotations", "size", to=-1)),
        (
            "root-of-another",
            "subject.digest.sha256 is not that of the resources",
            changed(one, "subject", 0, "digest", "sha256", to="0" * 64),
        ),
        (
            "address-of-another",
            "subject.digest.blake3 is not that of the resources",
            changed(one, "subject", 0, "digest", "blake3", to="0" * 64),
        ),
        ("ignored-dot", "everything is ignored", changed(one, "predicate", "serialization", "ignore_paths", to=["."])),
        (
            "ignored-outside",
            "an ignored path leads outside",
            changed(one, "predicate", "serialization", "ignore_paths", to=["../x"]),
        ),
        (
            "created-without-zone",
            "a time without an offset",
            changed(one, "subject", 0, "annotations", "created", to="2026-11-20T10:00:00"),
        ),
        *(
            (f"name-{label}", f"the name {text!r}", forge.statement({text: WEIGHTS, "b": b"b"}))
            for label, text in (
                ("parent", "../model.gguf"),
                ("absolute", "/model.gguf"),
                ("empty", ""),
                ("dot", "a/./b"),
                ("nul", "a\0b"),
            )
        ),
        (
            "name-twice",
            "one name twice",
            changed(many, "predicate", "resources", 1, "name", to=many["predicate"]["resources"][0]["name"]),
        ),
    ):
        malformed.append((f"statement-{name}", purpose, forge.bundle(stated)))
    for name, purpose, raw in malformed:
        yield _signature(f"malformed-{name}", purpose, 2, raw)
    rust = forge.rust_signature(WEIGHTS)
    allow = ("--allow-pacha1",)
    yield _signature("pacha1-valid", "the Rust crate's format", 0, rust, options=allow)
    yield _signature("pacha1-not-allowed", "the Rust crate's format without leave", 4, rust)
    yield _signature(
        "pacha1-changed", "the Rust crate's format over a changed file", 3, rust, model=b"x", options=allow
    )
    other = forge.rust_signature(WEIGHTS, content_hash="0" * 64)
    yield _signature("pacha1-hash-replaced", "its content_hash is not what was signed", 3, other, options=allow)
    yield _signature(
        "pacha1-unknown-key",
        "the Rust crate's format by another key",
        4,
        forge.rust_signature(WEIGHTS, MALLORY),
        options=allow,
    )
    yield _signature(
        "pacha1-algorithm", "an unknown algorithm", 2, forge.rust_signature(WEIGHTS, algorithm="rsa"), options=allow
    )
