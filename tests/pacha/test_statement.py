"""The signed statement: the fields of DESIGN §4, and every limit a hostile one meets."""

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli import __version__
from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.pacha import statement
from batuta_cli.pacha.hashing import Resource
from batuta_cli.pacha.statement import Statement, build, format_time, parse, parse_time
from tests.pacha import forge
from tests.pacha.forge import ALICE, BOB, NOW

FILES = {"config.json": b"{}", "weights/a.bin": b"abc"}


def payload(stated: dict[str, Any]) -> bytes:
    return json.dumps(stated).encode()


def with_change(change: Callable[[dict[str, Any]], object]) -> bytes:
    stated = forge.statement(FILES)
    change(stated)
    return payload(stated)


def of_resources(resources: list[Any]) -> bytes:
    """A statement whose resources are these and whose digests fit as far as they can."""
    stated = forge.statement(FILES)
    stated["predicate"]["resources"] = resources
    digests = (bytes.fromhex(r["digest"]) for r in resources if isinstance(r, dict))
    stated["subject"][0]["digest"] = {"sha256": hashlib.sha256(b"".join(digests)).hexdigest()}
    return payload(stated)


def resource(name: str, **changes: Any) -> dict[str, Any]:
    digest = blake3(b"x").hexdigest()
    return {"name": name, "algorithm": "blake3", "digest": digest, "annotations": {"size": 1}} | changes


def test_a_statement_has_the_fields_of_the_design() -> None:
    digest = blake3(b"weights").digest()
    stated = build(
        "model.gguf",
        [Resource(".", 7, digest)],
        identity="alice",
        public_key=ALICE.verifying,
        created=NOW,
        expires=NOW + dt.timedelta(days=1),
        ignore_paths=[".git"],
    )
    assert json.loads(stated.to_payload()) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "model.gguf",
                "digest": {"sha256": hashlib.sha256(digest).hexdigest(), "blake3": digest.hex()},
                "annotations": {
                    "identity": "alice",
                    "created": "2026-11-23T12:00:00Z",
                    "expires": "2026-11-24T12:00:00Z",
                    "keyType": "ed25519",
                    "publicKey": base64.b64encode(ALICE.raw).decode(),
                    "tool": f"batuta {__version__}",
                },
            }
        ],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "blake3",
                "allow_symlinks": False,
                "ignore_paths": [".git"],
            },
            "resources": [
                {"name": ".", "algorithm": "blake3", "digest": digest.hex(), "annotations": {"size": 7}},
            ],
        },
    }


def test_the_statement_of_a_directory_names_its_address_and_root() -> None:
    read = parse(payload(forge.statement(FILES, expires="2027-01-01T00:00:00Z")))
    assert read.address.hex == forge.directory_address(FILES)
    assert [(r.name, r.size, r.digest) for r in read.resources] == [
        (name, len(data), blake3(data).digest()) for name, data in FILES.items()
    ]
    assert (read.name, read.identity, read.public_key) == ("model", ALICE.name, ALICE.verifying)
    assert (read.created, read.expires) == (
        dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC),
        dt.datetime(2027, 1, 1, tzinfo=dt.UTC),
    )
    assert not read.is_single_file


def test_what_another_tool_leaves_out_is_not_demanded() -> None:
    stated = forge.statement(b"weights", signer=None, created=None, tool=None)
    del stated["predicate"]["serialization"]["ignore_paths"]
    del stated["subject"][0]["digest"]["blake3"]
    del stated["subject"][0]["annotations"]
    stated["predicate"]["comment"] = "fields that the specification does not know are passed over"
    read = parse(payload(stated))
    assert read.is_single_file and read.address.hex == blake3(b"weights").hexdigest()
    assert (read.identity, read.created, read.expires, read.public_key, read.ignore_paths) == (
        None,
        None,
        None,
        None,
        (),
    )


def test_resources_need_not_be_sorted_and_the_root_is_over_their_listed_order() -> None:
    files = {"z": b"1", "a": b"2", "m": b"3"}
    read = parse(payload(forge.statement(files)))
    assert [r.name for r in read.resources] == ["z", "a", "m"]
    assert read.address.hex == forge.directory_address(files)


def set_root(stated: dict[str, Any]) -> None:
    stated["subject"][0]["digest"]["sha256"] = "0" * 64


def reorder(stated: dict[str, Any]) -> None:
    stated["predicate"]["resources"].reverse()


WRONG: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("_type", lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")),
    ("predicateType", lambda s: s.update(predicateType="https://model_signing/signature/v2.0")),
    ("predicateType", lambda s: s.pop("predicateType")),
    ("subject", lambda s: s.update(subject=[])),
    ("subject", lambda s: s["subject"].append(s["subject"][0])),
    ("subject", lambda s: s.update(subject={"name": "x"})),
    ("subject[0].name", lambda s: s["subject"][0].pop("name")),
    ("subject[0].digest", lambda s: s["subject"][0].pop("digest")),
    ("subject[0].digest.sha256", lambda s: s["subject"][0]["digest"].pop("sha256")),
    ("subject[0].digest.sha256", set_root),
    ("subject[0].digest.sha256", reorder),
    ("subject[0].digest.blake3", lambda s: s["subject"][0]["digest"].update(blake3="0" * 64)),
    ("subject[0].annotations", lambda s: s["subject"][0].update(annotations=[])),
    ("subject[0].annotations.identity", lambda s: s["subject"][0]["annotations"].update(identity=5)),
    ("subject[0].annotations.identity", lambda s: s["subject"][0]["annotations"].update(identity="a\x1b[2Jb")),
    ("subject[0].annotations.identity", lambda s: s["subject"][0]["annotations"].update(identity="a\u202eb")),
    ("subject[0].annotations.publicKey", lambda s: s["subject"][0]["annotations"].update(publicKey="AAAA")),
    ("subject[0].annotations.publicKey", lambda s: s["subject"][0]["annotations"].update(publicKey="*")),
    ("subject[0].annotations.keyType", lambda s: s["subject"][0]["annotations"].update(keyType="ecdsa")),
    ("subject[0].annotations.created", lambda s: s["subject"][0]["annotations"].update(created="yesterday")),
    ("subject[0].annotations.created", lambda s: s["subject"][0]["annotations"].update(created=1795000000)),
    ("subject[0].annotations.expires", lambda s: s["subject"][0]["annotations"].update(expires="2027-01-01")),
    ("subject[0].annotations.expires", lambda s: s["subject"][0]["annotations"].update(expires=None)),
    ("predicate", lambda s: s.update(predicate=[])),
    ("predicate.serialization", lambda s: s["predicate"].pop("serialization")),
    ("predicate.serialization.method", lambda s: s["predicate"]["serialization"].update(method="shards")),
    ("predicate.serialization.hash_type", lambda s: s["predicate"]["serialization"].update(hash_type="sha256")),
    ("predicate.serialization.hash_type", lambda s: s["predicate"]["serialization"].pop("hash_type")),
    ("predicate.serialization.allow_symlinks", lambda s: s["predicate"]["serialization"].update(allow_symlinks="no")),
    ("predicate.serialization.ignore_paths", lambda s: s["predicate"]["serialization"].update(ignore_paths="*")),
    ("predicate.serialization.ignore_paths", lambda s: s["predicate"]["serialization"].update(ignore_paths=[1])),
    ("predicate.serialization.ignore_paths", lambda s: s["predicate"]["serialization"].update(ignore_paths=[""])),
    (
        "predicate.serialization.ignore_paths",
        lambda s: s["predicate"]["serialization"].update(ignore_paths=["a"] * 1_000_001),
    ),
    (
        "predicate.serialization.ignore_paths",
        lambda s: s["predicate"]["serialization"].update(ignore_paths=[s["predicate"]["resources"][0]["name"]]),
    ),
    *(
        (
            "predicate.serialization.ignore_paths",
            lambda s, path=path: s["predicate"]["serialization"].update(ignore_paths=["ok", path]),
        )
        for path in (".", "..", "/", "/etc", "a/../b", "a/..", "./a", "a/", "a//b", "a\0b")
    ),
    ("predicate.resources", lambda s: s["predicate"].pop("resources")),
    ("predicate.resources", lambda s: s["predicate"].update(resources={})),
]


@pytest.mark.parametrize(("field", "change"), WRONG)
def test_an_unknown_or_inconsistent_statement_is_refused_with_the_name_of_the_field(
    field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    assert parse(with_change(lambda stated: None))
    with pytest.raises(InvalidInputError) as caught:
        parse(with_change(change))
    assert caught.value.message.startswith(f"{field}: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([], ""),
        (["x"], "[0]"),
        ([resource("/etc/passwd")], "[0].name"),
        ([resource("a/../../b")], "[0].name"),
        ([resource("..")], "[0].name"),
        ([resource("./a")], "[0].name"),
        ([resource("a//b")], "[0].name"),
        ([resource("a/")], "[0].name"),
        ([resource("")], "[0].name"),
        ([resource("a\0b")], "[0].name"),
        ([resource("a"), resource("b"), resource("a")], "[2].name"),
        ([resource("."), resource("a")], ""),
        ([resource("a", algorithm="sha256")], "[0].algorithm"),
        ([resource("a", algorithm=None)], "[0].algorithm"),
        ([resource("a"), resource("b", digest="ab" * 31)], "[1].digest"),
        ([resource("a", digest="AB" * 32)], "[0].digest"),
        ([resource("a", annotations={})], "[0].annotations.size"),
        ([resource("a", annotations=None)], "[0].annotations.size"),
        ([resource("a", annotations={"size": -1})], "[0].annotations.size"),
        ([resource("a", annotations={"size": 2**63})], "[0].annotations.size"),
        ([resource("a", annotations={"size": True})], "[0].annotations.size"),
        ([resource("a", annotations={"size": "1"})], "[0].annotations.size"),
    ],
)
def test_a_file_that_no_model_can_have_is_refused_with_the_name_of_the_field(rows: list[Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(of_resources(rows))
    assert caught.value.message.startswith(f"predicate.resources{field}: ")


@pytest.mark.parametrize("name", ["a\nb", "-rf", "...", "a..b", ".git/HEAD", "\u202egpj", "C:\\x", "a b"])
def test_names_that_are_only_awkward_are_read_as_they_are(name: str) -> None:
    assert parse(of_resources([resource(name)])).resources[0].name == name


def test_more_than_a_million_files_are_refused_by_signer_and_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    assert statement.MAX_RESOURCES == 1_000_000
    rows = ",".join(["0"] * 1_000_001)
    stated = payload(forge.statement(FILES)).decode()
    start, end = stated.index('"resources": [') + len('"resources": ['), stated.rindex("]")
    with pytest.raises(InvalidInputError, match=r"^predicate\.resources: 1,000,001 files, at most 1,000,000"):
        parse((stated[:start] + rows + stated[end:]).encode())
    with pytest.raises(InvalidInputError, match="1,000,001 files, at most 1,000,000"):
        build("m", [Resource("a", 0, b"")] * 1_000_001, identity=None, public_key=ALICE.verifying, created=NOW)


def test_a_statement_about_no_file_is_not_made() -> None:
    with pytest.raises(InvalidInputError, match="there is no file to sign"):
        build("m", [], identity=None, public_key=ALICE.verifying, created=NOW)


@pytest.mark.parametrize("pattern", ["", "\udcff", ".", "/a", "a/../b", "a"])
def test_nothing_is_signed_with_ignored_paths_that_a_verifier_would_refuse(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match="the ignored paths"):
        build(
            "m",
            [Resource("a", 0, bytes(32))],
            identity=None,
            public_key=ALICE.verifying,
            created=NOW,
            ignore_paths=[pattern],
        )


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-23T12:00:00Z", NOW),
        ("2026-11-23t12:00:00z", NOW),
        ("2026-11-23T13:30:00+01:30", NOW),
        ("2026-11-23T07:00:00.000000000-05:00", NOW),
        ("0001-01-01T00:00:00Z", dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_times_are_read_as_rfc_3339_writes_them(text: str, utc: dt.datetime) -> None:
    assert parse_time(text, "x") == utc


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T12:00:00",
        "2026-11-23 12:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23T24:00:01Z",
        "2026-W48-1T12:00:00Z",
        "20261123T120000Z",
        "2026-11-23T12:00:00+0100",
        "2026-11-23T12:00:00+24:00",
        "0001-01-01T00:00:00+01:00",
        "\u0662\u0660\u0662\u0666-11-23T12:00:00Z",
        "2026-11-23T12:00:00Z\n",
    ],
)
def test_other_spellings_of_time_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^expires: .* is not a time"):
        parse_time(text, "expires")


@given(st.datetimes(timezones=st.just(dt.UTC)).map(lambda time: time.replace(microsecond=0)))
def test_a_time_is_read_as_it_was_written(time: dt.datetime) -> None:
    assert parse_time(format_time(time), "x") == time


segments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=6).filter(
    lambda segment: segment not in (".", "..")
)
inner_names = st.lists(segments, min_size=1, max_size=3).map("/".join)
resources = st.builds(Resource, inner_names, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
moments = st.datetimes(timezones=st.just(dt.UTC)).map(lambda time: time.replace(microsecond=0))


@given(
    resources=st.lists(resources, min_size=1, max_size=4, unique_by=lambda r: r.name),
    name=segments,
    identity=st.none() | st.sampled_from(["alice", "石田", "a/b"]),
    created=moments,
    expires=st.none() | moments,
    links=st.booleans(),
    ignore=st.lists(segments, max_size=2),
)
def test_every_statement_is_read_as_it_was_written(
    resources: list[Resource],
    name: str,
    identity: str | None,
    created: dt.datetime,
    expires: dt.datetime | None,
    links: bool,
    ignore: list[str],
) -> None:
    names = {resource.name for resource in resources}
    ignore = [path for path in ignore if not any(f"{name}/".startswith(f"{path}/") for name in names)]
    stated = build(
        name,
        resources,
        identity=identity,
        public_key=BOB.verifying,
        created=created,
        expires=expires,
        allow_symlinks=links,
        ignore_paths=ignore,
    )
    assert parse(stated.to_payload()) == stated


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["name", "size"]), scalars)


def places(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values in a JSON document."""
    found = [path] if path else []
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    for key, value in inner:
        found += places(value, (*path, key))
    return found


@given(st.data(), values)
@settings(max_examples=400)
def test_any_value_in_any_field_is_a_statement_or_an_error(data: st.DataObject, value: Any) -> None:
    stated = forge.statement(FILES)
    *parents, last = data.draw(st.sampled_from(places(stated)))
    place: Any = stated
    for parent in parents:
        place = place[parent]
    place[last] = value
    try:
        read = parse(payload(stated))
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert isinstance(read, Statement) and read.resources
