"""Hugging Face's cache: `models--OWNER--NAME/{blobs,snapshots/REVISION,refs,trees}`, also of datasets and spaces.

A blob is named by its ETag: the SHA-256 of a file in LFS or Xet (64 digits), git's SHA-1 of another (40 digits). A
snapshot consists of links to blobs. Since huggingface_hub 2.4 a blob may be a link into `blobs/<2 hex>/<xet hash>`,
which several repositories share; a Xet hash is not a digest of the content, so the ETag's name counts.
`trees/REVISION.json` lists the files of a revision with their digests; it serves caches without links, which have no
other digest. https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from batuta_cli.errors import BatutaError, InvalidInputError, NotFoundError
from batuta_cli.files import dangling, display
from batuta_cli.pacha.caches.contents import (
    CacheContents,
    CachedFile,
    CachedModel,
    ExpectedDigest,
    FileStatus,
    FileUse,
    LeftOver,
    Repair,
)
from batuta_cli.pacha.caches.trees import entries_of, files_below, from_home, left_over, read_document, unreadable

LAYOUT = "hf"
TITLE = "Hugging Face cache"

_REPOSITORY = re.compile(r"(model|dataset|space)s--(.+)")
_DIGITS = re.compile(r"[0-9a-f]+")
_ALGORITHMS = {64: "sha256", 40: "git-sha1"}  # by the digits of an ETag
_SHARED = re.compile(r"[0-9a-f]{64}")
_MARKER = ".huggingface-shared-blobs"
IGNORED = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that desktops leave in directories."""

Tree = Mapping[str, tuple[ExpectedDigest, int | None]]
"""The digest and the size in bytes of each file of a revision."""


def default_roots(environment: Mapping[str, str]) -> list[str]:
    """Where huggingface_hub keeps its cache: HF_HUB_CACHE, else below HF_HOME, XDG_CACHE_HOME or the home."""
    for variable, below in (
        ("HF_HUB_CACHE", ()),
        ("HUGGINGFACE_HUB_CACHE", ()),
        ("HF_HOME", ("hub",)),
        ("XDG_CACHE_HOME", ("huggingface", "hub")),
    ):
        if value := environment.get(variable):
            return [os.path.join(os.path.expanduser(os.path.expandvars(value)), *below)]
    return from_home(environment, ".cache", "huggingface", "hub")


def root_at(path: str) -> str | None:
    """The root of the cache at `path`: a `hub` directory, the one it is in, or one repository of it."""
    for candidate in (path, os.path.join(path, "hub")):
        if not os.path.isdir(candidate):
            continue
        if _is_repository(candidate) or any(_is_repository(entry.path) for entry in entries_of(candidate)):
            return candidate
    return None


def _is_repository(path: str) -> bool:
    name = os.path.basename(os.path.abspath(path))
    parts = (os.path.join(path, part) for part in ("blobs", "snapshots", "refs"))
    return _REPOSITORY.fullmatch(name) is not None and any(map(os.path.isdir, parts))


def scan(root: str, environment: Mapping[str, str]) -> CacheContents:
    """What a Hugging Face cache, or one repository of it, holds. Raises `NotFoundError`, `OperationError`."""
    if _is_repository(root):
        hub, repositories = os.path.dirname(os.path.abspath(root)), [os.path.abspath(root)]
    else:
        hub = os.path.abspath(root)
        repositories = [os.path.join(hub, e.name) for e in entries_of(root) if _is_repository(e.path)]
    custom = () if _same(hub, default_roots(environment)) else ("--cache-dir", hub)
    found = [_Repository(path, custom) for path in repositories]
    models = tuple(repository.model() for repository in found)
    used = {os.path.realpath(file.path) for model in models for file in model.files}
    shared = [] if _is_repository(root) else _unused_shared(hub, used)
    unverifiable = [item for repository in found for item in repository.unverifiable] + shared
    incomplete = [item for repository in found for item in repository.incomplete]
    return CacheContents(models, tuple(incomplete), tuple(unverifiable))


def _same(hub: str, defaults: list[str]) -> bool:
    return any(os.path.realpath(hub) == os.path.realpath(default) for default in defaults)


def _unused_shared(hub: str, used: set[str]) -> list[LeftOver]:
    """Entries of the shared store that no repository links to."""
    store = os.path.join(hub, "blobs")
    if not os.path.lexists(os.path.join(store, _MARKER)):
        return []
    reason = "no repository links to it, and a Xet hash is not a digest of the content; `hf cache prune` deletes it"
    return [
        left_over(path, reason)
        for name, path in files_below(store)
        if _SHARED.fullmatch(os.path.basename(name)) and os.path.realpath(path) not in used
    ]


class _Repository:
    """One repository of the cache, read file by file; a part that cannot be read does not hide the others."""

    def __init__(self, path: str, custom: tuple[str, ...]) -> None:
        self._kind, self._id = _identity(path)
        self._path, self._custom = path, custom
        self._blobs = os.path.join(path, "blobs")
        self.incomplete: list[LeftOver] = []
        self.unverifiable: list[LeftOver] = []

    def model(self) -> CachedModel:
        """The files of all its revisions, and the blobs that no revision has."""
        files: dict[tuple[str, ExpectedDigest | None], CachedFile] = {}
        for file in [*self._of_snapshots(), *self._of_blobs()]:
            earlier = files.setdefault((file.path, file.expected), file)
            if earlier is not file and file.uses[0].revision is not None:
                uses = (*earlier.uses, *file.uses)
                files[file.path, file.expected] = replace(earlier, uses=uses, size=earlier.size or file.size)
        return CachedModel(self._id if self._kind == "model" else f"{self._kind}s/{self._id}", tuple(files.values()))

    def _of_snapshots(self) -> list[CachedFile]:
        snapshots = os.path.join(self._path, "snapshots")
        try:
            revisions = [entry for entry in entries_of(snapshots) if entry.is_dir(follow_symlinks=False)]
        except NotFoundError:
            return []
        except BatutaError as error:
            return [unreadable(snapshots, FileUse("snapshots"), error)]
        return [file for revision in revisions for file in self._of_revision(revision.path, revision.name)]

    def _of_revision(self, directory: str, revision: str) -> list[CachedFile]:
        tree = self._tree(revision)
        try:
            names = [item for item in files_below(directory) if os.path.basename(item[0]) not in IGNORED]
        except BatutaError as error:
            return [unreadable(directory, FileUse("snapshot", revision), error)]
        return [self._file(name, path, revision, tree) for name, path in names]

    def _of_blobs(self) -> list[CachedFile]:
        try:
            entries = entries_of(self._blobs)
        except NotFoundError:
            return []
        except BatutaError as error:
            return [unreadable(self._blobs, FileUse("blobs"), error)]
        found = []
        for entry in entries:
            expected = by_etag(entry.name)
            if expected is not None:
                repair = Repair(("rm", "-f", entry.path), advice="no revision that can be read uses it; delete it")
                found.append(CachedFile(entry.path, (FileUse(f"blobs/{entry.name}"),), expected, repair))
            elif entry.name.endswith(".incomplete"):
                self.incomplete.append(left_over(entry.path, f"a part of a download of {self._id}"))
            elif entry.name not in IGNORED and not entry.name.endswith(".lock"):
                self.unverifiable.append(left_over(entry.path, "its name is not a digest"))
        return found

    def _file(self, name: str, path: str, revision: str, tree: Tree) -> CachedFile:
        listed, size = tree.get(name, (None, None))
        use, repair = (FileUse(name, revision),), self._repair(name, revision)
        if not os.path.islink(path):
            known = None if listed else FileStatus.UNVERIFIABLE
            return CachedFile(path, use, listed, repair, size, known, "" if listed else _NO_LINK)
        target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        is_blob = os.path.realpath(os.path.dirname(target)) == os.path.realpath(self._blobs)
        named = by_etag(os.path.basename(target)) if is_blob else None
        blob = os.path.join(self._blobs, os.path.basename(target)) if is_blob else path
        if not os.path.exists(path):
            return CachedFile(blob, use, named or listed, repair, size, FileStatus.MISSING, dangling(path))
        if named and listed and named != listed:
            reason = f"is a link to {named}, and the file of this revision is {listed}"
            return CachedFile(blob, use, listed, repair, size, FileStatus.DAMAGED, reason)
        if named is None and listed is None:
            reason = f"is a link to {display(os.readlink(path))}, whose name is not a digest"
            return CachedFile(blob, use, None, repair, size, FileStatus.UNVERIFIABLE, reason)
        return CachedFile(blob, use, named or listed, repair, size)

    def _repair(self, name: str, revision: str) -> Repair:
        kind = () if self._kind == "model" else ("--repo-type", self._kind)
        options = ("--revision", revision, *kind, *self._custom, "--force-download")
        names = (self._id, name)
        return Repair(("hf", "download", *((*options, "--", *names) if name.startswith("-") else (*names, *options))))

    def _tree(self, revision: str) -> Tree:
        try:
            return parse_tree(os.path.join(self._path, "trees", f"{revision}.json"))
        except BatutaError:
            return {}  # as huggingface_hub does, which fetches a listing again that it cannot read


_NO_LINK = "is a copy and not a link to a blob, and the cache has no digest of it"


def _identity(path: str) -> tuple[str, str]:
    """The type and the id of the repository in a directory of the cache."""
    kind, _, name = os.path.basename(path).partition("s--")
    return kind, name.replace("--", "/")


def parse_tree(path: str) -> Tree:
    """The digests of a revision's files from `trees/REVISION.json` (format version 1).

    Raises `NotFoundError`, `OperationError`, `InvalidInputError`.
    """
    document = read_document(path)
    files = document.get("files")
    if document.get("format_version") != 1 or not isinstance(files, dict):
        raise InvalidInputError(f"{display(path)}: is not a listing of format version 1")
    found = {}
    for name, facts in files.items():
        if not isinstance(facts, dict):
            raise InvalidInputError(f"{display(path)}: an entry is not an object")
        expected = by_etag(facts.get("lfs_sha256") or facts.get("blob_id"))
        size = facts.get("lfs_size") if facts.get("lfs_sha256") else facts.get("size")
        if expected is not None:
            found[name] = (expected, size if type(size) is int else None)
    return found


def by_etag(name: object) -> ExpectedDigest | None:
    """The digest that an ETag is: SHA-256 of 64 hexadecimal digits, git's SHA-1 of 40."""
    if not isinstance(name, str) or not _DIGITS.fullmatch(name) or len(name) not in _ALGORITHMS:
        return None
    return ExpectedDigest(_ALGORITHMS[len(name)], name)
