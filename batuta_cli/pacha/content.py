"""Whether a model is what a statement says: every file by size, then by digest, and no file more or less."""

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batuta_cli.files import Advance, StrPath
from batuta_cli.pacha.hashing import Resource, hash_unknown
from batuta_cli.pacha.ignoring import files_left_out, matching_part
from batuta_cli.pacha.scanning import FileEntry, check_unchanged, scan
from batuta_cli.pacha.statement import Statement

if TYPE_CHECKING:
    from batuta_cli.pacha.digest_cache import DigestCache
    from batuta_cli.pacha.oms.manifest import OmsManifest

IS_FILE = "a file, and a directory was signed"
IS_DIRECTORY = "a directory, and a single file was signed"


@dataclass(frozen=True)
class Differences:
    """All that is wrong with a model's content; falsy when nothing is. Names are those inside the model."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    """Pairs (name that was signed, name it has now) of files whose content is the same."""
    other_kind: str | None = None
    """In words: a directory where a file was signed, or the reverse."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added or self.renamed or self.other_kind)

    def without_unsigned(self, globs: Sequence[str]) -> "tuple[Differences, tuple[str, ...]]":
        """The differences without the added files that globs name, and those files.

        A file that was signed under another name is a change of a signed one and stays.
        """
        unsigned = tuple(name for name in self.added if matching_part(globs, name) is not None)
        return replace(self, added=tuple(name for name in self.added if name not in set(unsigned))), unsigned

    def with_unusable(self, unusable: Sequence[str], signed: Container[str]) -> "Differences":
        """The differences and those of links and special files: changed in the place of a signed file, else added."""
        changed = [name for name in unusable if name in signed]
        return replace(
            self,
            changed=(*self.changed, *changed),
            missing=tuple(name for name in self.missing if name not in changed),
            added=(*self.added, *(name for name in unusable if name not in signed)),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "changed": list(self.changed),
            "missing": list(self.missing),
            "added": list(self.added),
            "renamed": [{"from": old, "to": new} for old, new in self.renamed],
        }


@dataclass
class ModelContent:
    """A model on disk. Each file is hashed once, for any number of statements."""

    path: StrPath
    progress: Advance | None = None
    cache: "DigestCache | None" = None
    _hashed: dict[FileEntry, Resource] = field(default_factory=dict)

    def scan(
        self, *, ignore: Sequence[str] = (), follow_symlinks: bool = False, unusable: list[str] | None = None
    ) -> list[FileEntry]:
        """The files of the model; see `hashing.scan`. A directory without files is an empty list."""
        return scan(self.path, ignore=ignore, follow_symlinks=follow_symlinks, allow_empty=True, unusable=unusable)

    def check_unchanged(
        self, entries: Sequence[FileEntry], *, ignore: Sequence[str] = (), follow_symlinks: bool = False
    ) -> list[FileEntry]:
        """Scan again. Raises `ChangedWhileReadError` unless the same files are found."""
        return check_unchanged(self.path, entries, ignore=ignore, follow_symlinks=follow_symlinks)

    def differences(self, statement: Statement) -> Differences:
        """Compare with a statement. Raises as `hashing.hash_model`."""
        ignore, follow = statement.ignore_paths, statement.allow_symlinks
        unusable: list[str] = []
        entries = self.scan(ignore=ignore, follow_symlinks=follow, unusable=unusable)
        single = len(entries) == 1 and entries[0].name == "."
        if single != statement.is_single_file:
            return Differences(other_kind=IS_FILE if single else IS_DIRECTORY)
        differences = self._compare({e.name: e for e in entries}, {r.name: r for r in statement.resources})
        self._check_unchanged(entries, ignore, follow)
        return differences.with_unusable(unusable, {r.name for r in statement.resources})

    def left_out(self, stated: "Statement | OmsManifest") -> tuple[str, ...]:
        """The files there are that a statement does not cover, because it says that they are ignored."""
        return files_left_out(self.path, stated.ignore_paths) if os.path.isdir(self.path) else ()

    def single_file(self) -> Resource | None:
        """The model hashed as one file; None when it is a directory. Raises as `differences`."""
        entries = self.scan()
        if len(entries) != 1 or entries[0].name != ".":
            return None
        self._hash(entries)
        self._check_unchanged(entries, (), False)
        return self._hashed[entries[0]]

    def _compare(self, found: dict[str, FileEntry], signed: dict[str, Resource]) -> Differences:
        both = [name for name in signed if name in found]
        missing = [name for name in signed if name not in found]
        added = [name for name in found if name not in signed]
        missing_sizes = {signed[name].size for name in missing}
        self._hash([found[name] for name in both if found[name].size == signed[name].size])
        self._hash([found[name] for name in added if found[name].size in missing_sizes])
        changed = [name for name in both if not self._is(found[name], signed[name])]
        renamed = self._renamed(missing, added, found, signed)
        old_names, new_names = {old for old, _ in renamed}, {new for _, new in renamed}
        return Differences(
            tuple(changed),
            tuple(name for name in missing if name not in old_names),
            tuple(name for name in added if name not in new_names),
            tuple(renamed),
        )

    def _renamed(
        self, missing: list[str], added: list[str], found: dict[str, FileEntry], signed: dict[str, Resource]
    ) -> list[tuple[str, str]]:
        """Pair each missing file with an added one of the same content."""
        by_digest: dict[bytes, list[str]] = {}
        for name in added:
            if resource := self._hashed.get(found[name]):
                by_digest.setdefault(resource.digest, []).append(name)
        return [(old, by_digest[digest].pop()) for old in missing if by_digest.get(digest := signed[old].digest)]

    def _hash(self, entries: Sequence[FileEntry]) -> None:
        fresh = [entry for entry in entries if entry not in self._hashed]
        self._hashed |= hash_unknown(fresh, self.cache, self.progress)

    def _check_unchanged(self, entries: Sequence[FileEntry], ignore: Sequence[str], follow: bool) -> None:
        if self.cache is not None and not self.cache.read:
            return  # nothing was read, so nothing can have changed meanwhile
        after = self.check_unchanged(entries, ignore=ignore, follow_symlinks=follow)
        if self.cache is not None:
            self.cache.record(entries, after, self._hashed)

    def _is(self, entry: FileEntry, signed: Resource) -> bool:
        resource = self._hashed.get(entry)
        return resource is not None and (resource.size, resource.digest) == (signed.size, signed.digest)


@dataclass(frozen=True)
class HashedModel:
    """A single file that has been hashed already: bytes in memory, or a pipe."""

    resource: Resource
    compared: "Mapping[OmsManifest, Differences]" = field(default_factory=dict)
    """How it differs from the manifests of other tools, for which it was hashed in other ways."""

    def differences(self, statement: Statement) -> Differences:
        """Compare with a statement."""
        if not statement.is_single_file:
            return Differences(other_kind=IS_FILE)
        signed = statement.resources[0]
        same = (signed.size, signed.digest) == (self.resource.size, self.resource.digest)
        return Differences() if same else Differences(changed=(".",))

    def left_out(self, stated: "Statement | OmsManifest") -> tuple[str, ...]:
        """Nothing: a single file is covered whole."""
        return ()
