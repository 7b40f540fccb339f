"""What is read of other tools' statements, and what is refused with the name of the field."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from batuta_cli.errors import InvalidInputError
from batuta_cli.pacha import ModelSignature
from batuta_cli.pacha.oms.manifest import OmsManifest
from batuta_cli.pacha.oms.signature import OmsSignature
from tests.pacha.oms.forge import Signatory, bundle, resources, shards, statement, statement_02

SIGNER = Signatory()
FILES = {"b": b"2", "a/x": b"1"}


def parsed(signed: dict[str, Any], **options: Any) -> OmsManifest:
    body = ModelSignature.parse(bundle(signed, SIGNER, **options)).body
    assert isinstance(body, OmsSignature)
    return body.statement


def test_files_are_read_in_listed_order_which_need_not_be_sorted() -> None:
    rows = resources(FILES)
    found = parsed(statement(rows, ignore_paths=[".git", "./logs", "cache/"]))
    assert [(file.name, file.pieces[0].digest.hex()) for file in found.files] == [
        ("b", hashlib.sha256(b"2").hexdigest()),
        ("a/x", hashlib.sha256(b"1").hexdigest()),
    ]
    assert found.root == hashlib.sha256(hashlib.sha256(b"2").digest() + hashlib.sha256(b"1").digest()).digest()
    assert found.ignore_paths == (".git", "logs", "cache")


def test_shards_are_put_in_order_and_their_size_may_be_a_float() -> None:
    rows = shards({"m": b"0123456789"}, 4)
    found = parsed(statement(rows[::-1], method="shards", shard_size=4.0))
    [file] = found.files
    assert (file.name, file.size, [(p.start, p.end) for p in file.pieces]) == ("m", 10, [(0, 4), (4, 8), (8, 10)])
    plain = [row | {"algorithm": "sha256"} for row in rows]  # as the specification's schema has it
    assert parsed(statement(plain, method="shards", shard_size=4)).files == found.files


def test_a_colon_in_a_name_belongs_to_the_name() -> None:
    [file] = parsed(statement(shards({"a:1:2": b"12"}, 4), method="shards", shard_size=4)).files
    assert file.name == "a:1:2"


def test_what_old_statements_leave_out_has_its_default() -> None:
    found = parsed(statement(resources(FILES), ignore_paths=None, allow_symlinks=None), keyid=None)
    assert (found.ignore_paths, found.allow_symlinks) == ((), False)


Change = Callable[[dict[str, Any]], Any]


def settings(**changes: Any) -> Change:
    return lambda s: s["predicate"]["serialization"].update(changes)


def row(**changes: Any) -> Change:
    """Change the first resource, and the root with it."""

    def change(s: dict[str, Any]) -> None:
        s["predicate"]["resources"][0].update(changes)

    return change


def shard_rows(rows: list[dict[str, Any]], size: int = 4) -> Change:
    return lambda s: s.update(statement(rows, method="shards", shard_size=size))


TEN = shards({"m": b"0123456789"}, 4)

REFUSED: list[tuple[str, Change]] = [
    ("_type", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    ("predicateType", lambda s: s.update(predicateType="https://model_signing/signature/v1.1")),
    ("predicateType", lambda s: s.update(predicateType="https://model_signing/DigestOfShardDigests/v0.1")),
    ("subject", lambda s: s["subject"].append(s["subject"][0])),
    ("subject[0].digest.sha256: is missing", lambda s: s["subject"][0].update(digest={"sha512": "00"})),
    ("subject[0].digest.sha256: is not the digest", lambda s: s["subject"][0]["digest"].update(sha256="00" * 32)),
    ("subject[0].name", lambda s: s["subject"][0].pop("name")),
    ("predicate.serialization.method", settings(method="tensors")),
    ("predicate.serialization.hash_type", settings(hash_type="md5")),
    ("predicate.serialization.hash_type", settings(hash_type="blake2")),
    ("predicate.serialization.follow", settings(follow=True)),
    ("predicate.serialization.shard_size", settings(shard_size=4)),  # not with whole files
    ("predicate.serialization.allow_symlinks", settings(allow_symlinks="false")),
    ("predicate.serialization.ignore_paths", settings(ignore_paths="logs")),
    *(
        ("predicate.serialization.ignore_paths", settings(ignore_paths=[path]))
        for path in ("", ".", "./", "..", "/etc", "a/../b", "../x", "a//b", "a\0", 3)
    ),
    ("predicate.serialization.ignore_paths: a/x is listed as a file", settings(ignore_paths=["a"])),
    ("predicate.serialization.ignore_paths: a/x is listed as a file", settings(ignore_paths=["a/x"])),
    ("predicate.resources", lambda s: s["predicate"].update(resources=[])),
    ("predicate.resources", lambda s: s["predicate"].pop("resources")),
    ("predicate.resources[0]", lambda s: s["predicate"].update(resources=["b"])),
    *(
        ("predicate.resources[0].name", row(name=name))
        for name in ("", "/etc/passwd", "../b", "a/../b", "a//b", "./b", "a\0b", "b/", 3)
    ),
    ("predicate.resources[0].algorithm", row(algorithm="blake3")),
    ("predicate.resources[0].algorithm", row(algorithm="sha256-sharded-4")),
    ("predicate.resources[0].digest", row(digest="00" * 31)),
    ("predicate.resources[0].digest", row(digest="00" * 33)),
    ("predicate.resources[0].digest", row(digest="00 " * 32)),
    ("twice", lambda s: s.update(statement(resources({"b": b"1"}) * 2))),
    ("single file", lambda s: s.update(statement(resources({".": b"1", "b": b"2"})))),
    ("predicate.serialization.shard_size", lambda s: s.update(statement(TEN, method="shards", shard_size=4.5))),
    ("predicate.serialization.shard_size", lambda s: s.update(statement(TEN, method="shards", shard_size=0))),
    ("predicate.serialization.shard_size", lambda s: s.update(statement(TEN, method="shards", shard_size=None))),
    ("do not follow one another", shard_rows(TEN[1:])),
    ("do not follow one another", shard_rows([TEN[0], TEN[2]])),
    ("do not follow one another", shard_rows([*TEN, TEN[2]])),
    ("do not follow one another", shard_rows([TEN[0], TEN[1] | {"name": "m:4:7"}, TEN[2] | {"name": "m:7:10"}])),
    ("do not follow one another", shard_rows([TEN[0], TEN[1] | {"name": "m:4:9"}])),
    *(
        ("predicate.resources[2].name", shard_rows([*TEN[:2], TEN[2] | {"name": name}]))
        for name in ("m", "m:8", "m:8:", "m:-8:10", "m:8:+10", "m:8:1e1", "m:08:10", ":8:10", "m:8:٣")
    ),
    *(
        ("predicate.resources[0].name", shard_rows(shards({name: b"0123456789"}, 4)))
        for name in ("../m", "/m", "a//m", "./m", "a/../m", "m\0")
    ),
    ("single file", shard_rows(shards({".": b"0123456789", "m": b"0123456789"}, 4))),
    ("predicate.resources[0].algorithm", shard_rows([TEN[0] | {"algorithm": "sha256-sharded-5"}, *TEN[1:]])),
]


@pytest.mark.parametrize(("field", "change"), REFUSED, ids=[f"{i}-{field}" for i, (field, _) in enumerate(REFUSED)])
def test_an_unknown_or_contradictory_statement_is_refused_with_the_field(field: str, change: Change) -> None:
    signed = statement(resources(FILES))
    change(signed)
    with pytest.raises(InvalidInputError) as refusal:
        parsed(signed)
    assert field in refusal.value.message


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("MAX_RESOURCES", "predicate.resources: 2 entries, at most 1 are read"),
        ("MAX_IGNORED", "predicate.serialization.ignore_paths: 2 paths, at most 1 are read"),
    ],
)
def test_a_statement_over_a_limit_is_refused(monkeypatch: pytest.MonkeyPatch, limit: str, told: str) -> None:
    signed = statement(resources(FILES), ignore_paths=["c", "d"])
    assert parsed(signed)
    monkeypatch.setattr(f"batuta_cli.pacha.oms.manifest.{limit}", 1)
    with pytest.raises(InvalidInputError) as refusal:
        parsed(signed)
    assert refusal.value.message == told


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("subject[0].digest.sha256", lambda s: s["subject"][0]["digest"].pop("sha256")),
        ("subject[0].name", lambda s: s["subject"][0].update(name="../x")),
        ("actual_hash_algorithm", lambda s: s["subject"][0]["annotations"].update(actual_hash_algorithm="sha256-4")),
        ("subject", lambda s: s.update(subject=[])),
        ("twice", lambda s: s["subject"].append(s["subject"][0])),
    ],
)
def test_a_statement_of_version_0_2_is_read_as_strictly(field: str, change: Change) -> None:
    signed = statement_02(FILES)
    assert [file.name for file in parsed(signed).files] == ["b", "a/x"]
    change(signed)
    with pytest.raises(InvalidInputError) as refusal:
        parsed(signed)
    assert field in refusal.value.message


def test_which_form_a_statement_has_is_decided_by_what_is_signed() -> None:
    signed = statement(resources(FILES, "blake3"), hash_type="blake3")
    assert parsed(signed).algorithm == "blake3"
    signed["subject"][0]["annotations"] = {"keyType": "ed25519", "publicKey": base64.b64encode(b"x" * 32).decode()}
    with pytest.raises(InvalidInputError):  # batuta's own form, whose resources have sizes
        ModelSignature.parse(bundle(signed, SIGNER))
