"""What an OpenSSF Model Signing statement of another tool says about a model's files.

Two predicates are read: version 1 (https://github.com/ossf/model-signing-spec), by whole files or by shards, and the
one of model_signing 0.2, which lists the files as subjects. An unknown method, hash or setting of the serialization is
an `InvalidInputError` that names the field, because ignoring it could check less than was signed.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display
from batuta_cli.pacha.envelope import dict_field, text_field
from batuta_cli.pacha.ignoring import check_ignored_path, is_beneath
from batuta_cli.pacha.statement import (
    MAX_IGNORED,
    MAX_RESOURCES,
    PREDICATE_TYPE,
    SINGLE,
    STATEMENT_TYPE,
    check_resource_name,
    expect,
)

PREDICATE_V02 = "https://model_signing/Digests/v0.1"
"""Of model_signing 0.2, https://github.com/sigstore/model-transparency/tree/v0.2.0."""

DIGEST_SIZES = {"sha256": 32, "blake2b": 64, "blake3": 32}
"""Hash functions of the algorithm registry that are computed, and the bytes of their digests."""

_IN = "predicate.serialization."
_KNOWN = {
    "files": {"method", "hash_type", "allow_symlinks", "ignore_paths"},
    "shards": {"method", "hash_type", "allow_symlinks", "ignore_paths", "shard_size"},
}
_LARGEST = 2**63
_SHARD_NAME = re.compile(r"(.+):(0|[1-9]\d{0,18}):([1-9]\d{0,18})", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class SignedPart:
    """Bytes `start` to `end` (exclusive) of a file, and their digest. `end` is None for a whole file."""

    start: int
    end: int | None
    digest: bytes


@dataclass(frozen=True)
class SignedFile:
    """One file of a model: its `/`-separated name inside the model, and the pieces that make it up, in their order."""

    name: str
    pieces: tuple[SignedPart, ...]

    @property
    def size(self) -> int | None:
        """Bytes; None when the statement does not tell, which only shards do."""
        return self.pieces[-1].end


@dataclass(frozen=True)
class OmsManifest:
    """What was signed: the files of a model and how they are digested."""

    name: str | None
    """The model's name; None in statements of model_signing 0.2."""
    method: Literal["files", "shards"]
    algorithm: str
    """One of `DIGEST_SIZES`."""
    files: tuple[SignedFile, ...]
    root: bytes | None
    """SHA-256 over the digests in listed order; None in statements of model_signing 0.2."""
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()
    """Relative paths from the model's directory; each leaves out the file, or the directory with all in it."""
    old: bool = False
    """Written by model_signing 0.2."""

    # An OMS statement says neither who signed nor when.
    identity = None
    created = None
    expires = None
    public_key = None

    def single(self) -> SignedFile | None:
        """The file, when the model may be a single one: named `.`, or by the model's own name."""
        only = self.files[0] if len(self.files) == 1 else None
        return only if only is not None and only.name in (SINGLE, self.name) else None


def parse_manifest(document: dict[str, Any]) -> OmsManifest:
    """Read a statement that `load_json` gave. Raises `InvalidInputError` that names the field."""
    expect(text_field(document, "_type", ""), STATEMENT_TYPE, "_type")
    predicate_type = text_field(document, "predicateType", "")
    if predicate_type == PREDICATE_V02:
        return _version_02(document)
    expect(predicate_type, PREDICATE_TYPE, "predicateType")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise InvalidInputError("subject: must be a list of one object")
    predicate = dict_field(document, "predicate", "")
    serialization = dict_field(predicate, "serialization", "predicate.")
    method = text_field(serialization, "method", _IN)
    if method not in _KNOWN:
        raise InvalidInputError(f"{_IN}method: {display(method[:100])!r} is not supported, only 'files' and 'shards'")
    if unknown := sorted(serialization.keys() - _KNOWN[method]):
        raise InvalidInputError(f"{_IN}{display(unknown[0][:100])}: a setting that is not known for method {method!r}")
    algorithm = text_field(serialization, "hash_type", _IN)
    if algorithm not in DIGEST_SIZES:
        raise InvalidInputError(
            f"{_IN}hash_type: {display(algorithm[:100])!r} is not supported, only {', '.join(DIGEST_SIZES)}"
        )
    allow_symlinks = serialization.get("allow_symlinks", False)
    if not isinstance(allow_symlinks, bool):
        raise InvalidInputError(f"{_IN}allow_symlinks: is not true or false")
    rows = _rows(predicate.get("resources"), "predicate.resources")
    digests: list[bytes] = []
    if method == "files":
        files = _whole_files(rows, algorithm, digests)
    else:
        files = _shards(rows, algorithm, _shard_size(serialization.get("shard_size")), digests)
    root = hashlib.sha256(b"".join(digests)).digest()
    stated = text_field(dict_field(subjects[0], "digest", "subject[0]."), "sha256", "subject[0].digest.")
    if stated.lower() != root.hex():
        raise InvalidInputError("subject[0].digest.sha256: is not the digest of the resources")
    return OmsManifest(
        text_field(subjects[0], "name", "subject[0]."),
        "files" if method == "files" else "shards",
        algorithm,
        files,
        root,
        allow_symlinks,
        _ignored(serialization.get("ignore_paths", []), files),
    )


def _version_02(document: dict[str, Any]) -> OmsManifest:
    files = []
    for i, row in enumerate(_rows(document.get("subject"), "subject")):
        where = f"subject[{i}]."
        notes = row.get("annotations") or {}
        hashed = notes.get("actual_hash_algorithm", "file-sha256") if isinstance(notes, dict) else None
        if hashed != "file-sha256":
            raise InvalidInputError(f"{where}annotations.actual_hash_algorithm: only 'file-sha256' is supported")
        digests = dict_field(row, "digest", where)
        name = text_field(row, "name", where)
        check_resource_name(name, where)
        digest = _digest(text_field(digests, "sha256", f"{where}digest."), "sha256", f"{where}digest.sha256")
        files.append(SignedFile(name, (SignedPart(0, None, digest),)))
    _check_distinct(files)
    return OmsManifest(None, "files", "sha256", tuple(files), None, old=True)


def _rows(rows: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError(f"{where}: is not a list of files, or an empty one")
    if len(rows) > MAX_RESOURCES:
        raise InvalidInputError(f"{where}: {len(rows):,} entries, at most {MAX_RESOURCES:,} are read")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInputError(f"{where}[{i}]: is not an object")
    return rows


def _whole_files(rows: list[dict[str, Any]], algorithm: str, digests: list[bytes]) -> tuple[SignedFile, ...]:
    files = []
    for i, row in enumerate(rows):
        where = f"predicate.resources[{i}]."
        name = text_field(row, "name", where)
        check_resource_name(name, where)
        expect(text_field(row, "algorithm", where), algorithm, f"{where}algorithm")
        digests.append(_digest(text_field(row, "digest", where), algorithm, f"{where}digest"))
        files.append(SignedFile(name, (SignedPart(0, None, digests[-1]),)))
    _check_distinct(files)
    return tuple(files)


def _shards(
    rows: list[dict[str, Any]], algorithm: str, shard_size: int, digests: list[bytes]
) -> tuple[SignedFile, ...]:
    pieces: dict[str, list[tuple[int, int, bytes]]] = {}
    for i, row in enumerate(rows):
        where = f"predicate.resources[{i}]."
        text = text_field(row, "name", where)
        match = _SHARD_NAME.fullmatch(text)
        if match is None:
            raise InvalidInputError(f"{where}name: {display(text[:200])!r} is not PATH:START:END")
        name, start, end = match[1], int(match[2]), int(match[3])
        check_resource_name(name, where)
        stated = text_field(row, "algorithm", where)
        if stated not in (algorithm, f"{algorithm}-sharded-{shard_size}"):  # model_signing writes the latter
            expect(stated, algorithm, f"{where}algorithm")
        digests.append(_digest(text_field(row, "digest", where), algorithm, f"{where}digest"))
        pieces.setdefault(name, []).append((start, end, digests[-1]))
    files = [SignedFile(name, _contiguous(name, found, shard_size)) for name, found in pieces.items()]
    _check_distinct(files)
    return tuple(files)


def _contiguous(name: str, found: list[tuple[int, int, bytes]], shard_size: int) -> tuple[SignedPart, ...]:
    """The shards of one file in order; each byte of it must be in exactly one of them."""
    ordered = sorted(found)
    position = 0
    for number, (start, end, _) in enumerate(ordered, start=1):
        full = end - start == shard_size
        if start != position or not (full or (number == len(ordered) and 0 < end - start < shard_size)):
            raise InvalidInputError(
                f"predicate.resources: the shards of {display(name[:200])!r} do not follow one another"
                f" from 0 on in steps of {shard_size:,} bytes"
            )
        position = end
    return tuple(SignedPart(*shard) for shard in ordered)


def _shard_size(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():  # protobuf's JSON writes every number as a float
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LARGEST:
        raise InvalidInputError(f"{_IN}shard_size: is not a size in bytes")
    return value


def _check_distinct(files: Sequence[SignedFile]) -> None:
    names = set()
    for file in files:
        if file.name in names:
            raise InvalidInputError(f"the file {display(file.name[:200])!r} is listed twice")
        names.add(file.name)
    if SINGLE in names and len(names) > 1:
        raise InvalidInputError("predicate.resources: a single file (named '.') among others")


def _digest(text: str, algorithm: str, where: str) -> bytes:
    size = DIGEST_SIZES[algorithm]
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * size}}}", text):
        raise InvalidInputError(f"{where}: is not {2 * size} hexadecimal digits")
    return bytes.fromhex(text)


def _ignored(value: Any, files: Sequence[SignedFile]) -> tuple[str, ...]:
    where = f"{_IN}ignore_paths"
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise InvalidInputError(f"{where}: is not a list of paths")
    if len(value) > MAX_IGNORED:
        raise InvalidInputError(f"{where}: {len(value):,} paths, at most {MAX_IGNORED:,} are read")
    paths = tuple(path.removeprefix("./").removesuffix("/") for path in value)
    for path in paths:
        try:
            check_ignored_path(path)
        except InvalidInputError as error:
            raise InvalidInputError(f"{where}: {error.message}") from None
    ignored = frozenset(paths)
    both = next((file.name for file in files if file.name in ignored or is_beneath(file.name, ignored)), None)
    if both is not None:
        raise InvalidInputError(f"{where}: {display(both[:200])} is listed as a file of the model as well")
    return paths
