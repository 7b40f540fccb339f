"""The signed statement: an in-toto Statement v1 with the OpenSSF Model Signing predicate.

It says which files a model has, their sizes and digests, who signed (by the signer's own claim), when, and until when.
Sources: https://github.com/in-toto/attestation/tree/main/spec/v1, https://github.com/ossf/model-signing-spec.

`parse` reads untrusted input: each limit and type is checked, an unknown method, hash or predicate is refused
rather than passed over, and an error names the field.
"""

import contextlib
import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batuta_cli import __version__
from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display
from batuta_cli.pacha.envelope import dict_field, load_json, text_field
from batuta_cli.pacha.hashing import ContentAddress, Resource, address_of
from batuta_cli.pacha.ignoring import check_ignored_path, is_beneath
from batuta_cli.pacha.keys import VerifyingKey, check_recorded_identity

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_RESOURCES = 1_000_000
MAX_IGNORED = 1_000_000
"""Paths of files and directories that do not belong to the model."""

SINGLE = "."
"""The name of the only resource of a single-file model, as model_signing has it."""
_IN = "predicate.serialization."
_DIGEST = re.compile("[0-9a-f]{64}")
_OUTSIDE = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|\0")  # a part of a path that is empty, . or .., or a NUL
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Statement:
    """What a signature says. Times are UTC; `None` where the signing tool did not say."""

    name: str
    """The model's file or directory name when it was signed."""
    resources: tuple[Resource, ...]
    address: ContentAddress
    identity: str | None = None
    created: dt.datetime | None = None
    expires: dt.datetime | None = None
    public_key: VerifyingKey | None = None
    tool: str | None = None
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()
    """Relative paths from the model's root, never globs: each leaves out itself and everything beneath it."""

    @property
    def is_single_file(self) -> bool:
        """Whether the model is one file and not a directory."""
        return len(self.resources) == 1 and self.resources[0].name == SINGLE

    def to_payload(self) -> bytes:
        """The JSON bytes that are signed."""
        optional = {
            "identity": self.identity,
            "created": format_time(self.created),
            "expires": format_time(self.expires),
            "keyType": "ed25519" if self.public_key else None,
            "publicKey": self.public_key.base64 if self.public_key else None,
            "tool": self.tool,
        }
        subject = {
            "name": self.name,
            "digest": {"sha256": oms_root(self.resources).hex(), "blake3": self.address.hex},
            "annotations": {key: value for key, value in optional.items() if value is not None},
        }
        predicate = {
            "serialization": {
                "method": "files",
                "hash_type": "blake3",
                "allow_symlinks": self.allow_symlinks,
                "ignore_paths": list(self.ignore_paths),
            },
            "resources": [
                {
                    "name": r.name,
                    "algorithm": "blake3",
                    "digest": r.digest.hex(),
                    "annotations": {"size": r.size},
                }
                for r in self.resources
            ],
        }
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
        return json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()


def build(
    name: str,
    resources: Sequence[Resource],
    *,
    identity: str | None,
    public_key: VerifyingKey,
    created: dt.datetime,
    expires: dt.datetime | None = None,
    allow_symlinks: bool = False,
    ignore_paths: Sequence[str] = (),
) -> Statement:
    """The statement for a model that has just been hashed.

    Raises `InvalidInputError` when a verifier would not accept it: no file or too many, an ignored path that is not a
    relative path in UTF-8.
    """
    check_ignored(ignore_paths)
    _check_apart(ignore_paths, resources, "the ignored paths")
    if not resources:
        raise InvalidInputError(f"{display(name)}: there is no file to sign")
    if len(resources) > MAX_RESOURCES:
        raise InvalidInputError(f"{display(name)}: {len(resources):,} files, at most {MAX_RESOURCES:,} can be signed")
    return Statement(
        name,
        tuple(resources),
        address_of(resources),
        identity,
        created,
        expires,
        public_key,
        f"batuta {__version__}",
        allow_symlinks,
        tuple(ignore_paths),
    )


def oms_root(resources: Sequence[Resource]) -> bytes:
    """OpenSSF Model Signing's root digest: SHA-256 over the raw digests in listed order."""
    hasher = hashlib.sha256()
    for resource in resources:
        hasher.update(resource.digest)
    return hasher.digest()


def parse(payload: bytes) -> Statement:
    """Read a statement. Raises `InvalidInputError` that names the field."""
    return parse_document(load_json(payload, "the statement"))


def is_own(document: dict[str, Any]) -> bool:
    """Whether a statement is in the form that `to_payload` writes, with BLAKE3 digests and its signer's key.

    Decided by what is signed alone, so that one signature never has two readings.
    """
    subjects, predicate = document.get("subject"), document.get("predicate")
    subject = subjects[0] if isinstance(subjects, list) and subjects else None
    notes = subject.get("annotations") if isinstance(subject, dict) else None
    if isinstance(notes, dict) and not {"keyType", "publicKey"}.isdisjoint(notes):
        return True
    rows = predicate.get("resources") if isinstance(predicate, dict) else None
    row = rows[0] if isinstance(rows, list) and rows else None
    notes = row.get("annotations") if isinstance(row, dict) else None
    return isinstance(notes, dict) and "size" in notes


def parse_document(document: dict[str, Any]) -> Statement:
    """Read a statement that `load_json` gave. Raises `InvalidInputError` that names the field."""
    expect(text_field(document, "_type", ""), STATEMENT_TYPE, "_type")
    expect(text_field(document, "predicateType", ""), PREDICATE_TYPE, "predicateType")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise InvalidInputError("subject: must be a list of one object")
    predicate = dict_field(document, "predicate", "")
    serialization = dict_field(predicate, "serialization", "predicate.")
    expect(text_field(serialization, "method", _IN), "files", f"{_IN}method")
    expect(text_field(serialization, "hash_type", _IN), "blake3", f"{_IN}hash_type")
    allow_symlinks = serialization.get("allow_symlinks", False)
    if not isinstance(allow_symlinks, bool):
        raise InvalidInputError(f"{_IN}allow_symlinks: is not true or false")
    ignore = serialization.get("ignore_paths", [])
    if not isinstance(ignore, list) or not all(isinstance(p, str) for p in ignore):
        raise InvalidInputError(f"{_IN}ignore_paths: is not a list of texts")
    resources = _resources(predicate.get("resources"))
    check_ignored(ignore, f"{_IN}ignore_paths")
    _check_apart(ignore, resources, f"{_IN}ignore_paths")
    return _with_subject(subjects[0], resources, allow_symlinks, tuple(ignore))


def _with_subject(
    subject: dict[str, Any], resources: tuple[Resource, ...], allow_symlinks: bool, ignore: tuple[str, ...]
) -> Statement:
    address = address_of(resources)
    digests = dict_field(subject, "digest", "subject[0].")
    expected = {"sha256": oms_root(resources).hex(), "blake3": address.hex}
    if "sha256" not in digests:
        raise InvalidInputError("subject[0].digest.sha256: is missing")
    for name, digest in digests.items():
        if name in expected and digest != expected[name]:
            raise InvalidInputError(f"subject[0].digest.{name}: is not the digest of the resources")
    notes = subject.get("annotations", {})
    if not isinstance(notes, dict):
        raise InvalidInputError("subject[0].annotations: is not an object")

    def optional(name: str) -> str | None:
        return text_field(notes, name, "subject[0].annotations.") if name in notes else None

    if "keyType" in notes:
        expect(str(optional("keyType")), "ed25519", "subject[0].annotations.keyType")
    identity, public_key = optional("identity"), optional("publicKey")
    if identity is not None:
        with _field("subject[0].annotations.identity"):
            check_recorded_identity(identity)
    with _field("subject[0].annotations.publicKey"):
        claimed = None if public_key is None else VerifyingKey.from_base64(public_key)
    return Statement(
        text_field(subject, "name", "subject[0]."),
        resources,
        address,
        identity,
        parse_time(optional("created"), "subject[0].annotations.created"),
        parse_time(optional("expires"), "subject[0].annotations.expires"),
        claimed,
        optional("tool"),
        allow_symlinks,
        ignore,
    )


def _resources(rows: Any) -> tuple[Resource, ...]:
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError("predicate.resources: is not a list of files")
    if len(rows) > MAX_RESOURCES:
        raise InvalidInputError(f"predicate.resources: {len(rows):,} files, at most {MAX_RESOURCES:,} are read")
    resources = tuple(_resource(row, i) for i, row in enumerate(rows))
    names = set()
    for i, resource in enumerate(resources):
        if resource.name in names:
            raise InvalidInputError(f"predicate.resources[{i}].name: {display(resource.name)} is listed twice")
        names.add(resource.name)
    if SINGLE in names and len(names) > 1:
        raise InvalidInputError("predicate.resources: a single file among others")
    return resources


def _resource(row: Any, index: int) -> Resource:
    where = f"predicate.resources[{index}]."
    if not isinstance(row, dict):
        raise InvalidInputError(f"{where[:-1]}: is not an object")
    name = text_field(row, "name", where)
    check_resource_name(name, where)
    if row.get("algorithm") != "blake3":
        expect(text_field(row, "algorithm", where), "blake3", f"{where}algorithm")
    digest = text_field(row, "digest", where)
    if not _DIGEST.fullmatch(digest):
        raise InvalidInputError(f"{where}digest: is not 64 lower-case hexadecimal digits")
    notes = row.get("annotations")
    size = notes.get("size") if isinstance(notes, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise InvalidInputError(f"{where}annotations.size: is not a size in bytes")
    return Resource(name, size, bytes.fromhex(digest))


def check_resource_name(name: str, where: str) -> None:
    """Raise `InvalidInputError` unless `name` is a path inside the model."""
    if name == SINGLE:
        return
    if _OUTSIDE.search(name):
        raise InvalidInputError(f"{where}name: {display(name[:200])!r} is not a name inside the model")
    if name.isascii():
        return
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{where}name: is not Unicode text") from None


def check_ignored(paths: Sequence[str], where: str = "the ignored paths") -> None:
    """Raise `InvalidInputError` unless a statement can record these paths: not too many, relative, and in UTF-8.

    `where` names their place in the error.
    """
    if len(paths) > MAX_IGNORED:
        raise InvalidInputError(f"{where}: {len(paths):,} paths, at most {MAX_IGNORED:,} are read")
    with _field(where):
        for path in paths:
            check_ignored_path(path)


def _check_apart(paths: Sequence[str], resources: Sequence[Resource], where: str) -> None:
    if not paths:
        return
    ignored = frozenset(paths)
    both = next((r.name for r in resources if r.name in ignored or is_beneath(r.name, ignored)), None)
    if both is not None:
        raise InvalidInputError(f"{where}: {display(both)} is listed as a file of the model as well")


@contextlib.contextmanager
def _field(where: str) -> Iterator[None]:
    """Put the field in front of an error inside the block."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error.message}", hint=error.hint) from None


def expect(value: str, wanted: str, where: str) -> None:
    """Raise `InvalidInputError` that names the field unless it has the only value that is supported."""
    if value != wanted:
        raise InvalidInputError(f"{where}: {display(value[:100])!r} is not supported, only {wanted!r}")


def format_time(time: dt.datetime | None) -> str | None:
    """RFC 3339 in UTC with `Z`, as in statements."""
    return None if time is None else time.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_time(text: str | None, where: str) -> dt.datetime | None:
    """Read RFC 3339 (section 5.6) with an offset. Raises `InvalidInputError`."""
    if text is None:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        return dt.datetime.fromisoformat(text.upper()).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(f"{where}: {display(text[:100])!r} is not a time as in RFC 3339") from None
