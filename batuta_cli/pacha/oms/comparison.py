"""Whether a model is what an OpenSSF Model Signing manifest says: every file by its digests, no file more or less."""

from collections.abc import Mapping, Sequence

from batuta_cli.files import Advance
from batuta_cli.pacha.content import IS_DIRECTORY, IS_FILE, Differences, ModelContent
from batuta_cli.pacha.oms.digests import Part, StreamDigests, digest_parts
from batuta_cli.pacha.oms.manifest import OmsManifest, SignedFile
from batuta_cli.pacha.scanning import FileEntry


def differences_from(model: ModelContent, manifest: OmsManifest) -> Differences:
    """Compare a model with a manifest. Raises as `hashing.hash_model`."""
    advance = model.progress
    ignore, follow = manifest.ignore_paths, manifest.allow_symlinks
    unusable: list[str] = []
    entries = model.scan(ignore=ignore, follow_symlinks=follow, unusable=unusable)
    if [entry.name for entry in entries] == ["."]:
        file = manifest.single()
        if file is None:
            return Differences(other_kind=IS_FILE)
        differences = _compare({file.name: entries[0]}, {file.name: file}, manifest.algorithm, advance)
        if differences.changed:
            differences = Differences(changed=(".",))
    elif manifest.files[0].name == ".":
        return Differences(other_kind=IS_DIRECTORY)
    else:
        signed = {file.name: file for file in manifest.files}
        differences = _compare({entry.name: entry for entry in entries}, signed, manifest.algorithm, advance)
        differences = differences.with_unusable(unusable, signed)
    model.check_unchanged(entries, ignore=ignore, follow_symlinks=follow)
    return differences


def _compare(
    found: Mapping[str, FileEntry], signed: Mapping[str, SignedFile], algorithm: str, advance: Advance | None
) -> Differences:
    both = [name for name in signed if name in found]
    missing = [name for name in signed if name not in found]
    added = [name for name in found if name not in signed]
    # What may be a signed file under another name is hashed as that file was.
    shapes = {_shape(signed[name]): signed[name] for name in missing}
    candidates = [(name, file) for name in added for file in shapes.values() if file.size in (None, found[name].size)]
    comparable = [(name, signed[name]) for name in both if signed[name].size in (None, found[name].size)]
    digests = _digests_of([(found[name], file) for name, file in [*comparable, *candidates]], algorithm, advance)
    same = {name for (name, file), actual in zip(comparable, digests, strict=False) if actual == _stated(file)}
    by_content: dict[tuple[bytes, ...], list[str]] = {}
    for (name, _), actual in zip(candidates, digests[len(comparable) :], strict=True):
        by_content.setdefault(actual, []).append(name)
    renamed = []
    for old in missing:
        if (names := by_content.get(_stated(signed[old]))) is not None and names:
            renamed.append((old, names.pop()))
    old_names, new_names = {old for old, _ in renamed}, {new for _, new in renamed}
    return Differences(
        tuple(name for name in both if name not in same),
        tuple(name for name in missing if name not in old_names),
        tuple(name for name in added if name not in new_names),
        tuple(renamed),
    )


def _shape(file: SignedFile) -> tuple[int | None, ...]:
    return tuple(piece.end for piece in file.pieces)


def _stated(file: SignedFile) -> tuple[bytes, ...]:
    return tuple(piece.digest for piece in file.pieces)


def _digests_of(
    work: Sequence[tuple[FileEntry, SignedFile]], algorithm: str, advance: Advance | None
) -> list[tuple[bytes, ...]]:
    """The digests of files, cut into pieces as the signed files beside them are."""
    parts = [
        Part(entry, piece.start, entry.size if piece.end is None else piece.end)
        for entry, file in work
        for piece in file.pieces
    ]
    digests = iter(digest_parts(parts, algorithm, advance))
    return [tuple(next(digests) for _ in file.pieces) for _, file in work]


class StreamComparison:
    """Compares a stream, read once and given in parts, with a manifest of a single file."""

    def __init__(self, manifest: OmsManifest) -> None:
        self._file = manifest.single()
        ends = [piece.end for piece in self._file.pieces if piece.end is not None] if self._file else []
        self._digests = StreamDigests(manifest.algorithm, ends)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if self._file is not None:
            self._digests.update(data)

    def differences(self) -> Differences:
        """What is wrong, when all has been read."""
        if self._file is None:
            return Differences(other_kind=IS_FILE)
        same = tuple(self._digests.digests()) == _stated(self._file) and self._file.size in (None, self._digests.size)
        return Differences() if same else Differences(changed=(".",))
