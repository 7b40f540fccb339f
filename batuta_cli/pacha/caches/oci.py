"""OCI image layouts: `index.json` and `blobs/<algorithm>/<hex>`.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md. An index is followed to manifests, and each
manifest to its config and layers, once its own digest was found right. An index inside the layout may name manifests
of other platforms that the layout does not hold; they are listed and are no fault, as long as one is there.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from batuta_cli.errors import BatutaError, InvalidInputError, NotFoundError
from batuta_cli.files import display, read_limited
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
from batuta_cli.pacha.caches.trees import (
    DOCUMENT_LIMIT,
    entries_of,
    left_over,
    parse_blob_digest,
    parse_document,
    read_document,
)

LAYOUT = "oci"
TITLE = "OCI image layout"

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_REFERENCE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_DEPTH = 8
"""Indexes within indexes; real layouts have two."""
_NODES = 100_000
"""Descriptors of a layout; more is an attack on memory."""


def default_roots(environment: Mapping[str, str]) -> list[str]:
    """None: layouts lie where their users want them."""
    return []


def root_at(path: str) -> str | None:
    """`path`, when it is a layout."""
    marked = os.path.isfile(os.path.join(path, "oci-layout"))
    parts = os.path.isfile(os.path.join(path, "index.json")) and os.path.isdir(os.path.join(path, "blobs"))
    return path if marked or parts else None


def scan(root: str, environment: Mapping[str, str]) -> CacheContents:
    """What a layout holds. Raises `InvalidInputError` when its index is damaged, `NotFoundError`, `OperationError`."""
    index = os.path.join(root, "index.json")
    document = read_document(index)
    if not isinstance(document.get("manifests"), list):
        raise InvalidInputError(f"{display(index)}: has no list of manifests")
    layout = _Layout(os.path.abspath(root))
    models = [layout.model(descriptor) for descriptor in document["manifests"]]
    unused, unverifiable = layout.unused({file.path for model in models for file in model.files})
    if unused:
        models.append(CachedModel("blobs that no manifest names", tuple(unused)))
    return CacheContents(tuple(models), (), tuple(unverifiable), tuple(layout.absent))


class _Layout:
    """A layout that is followed from its index to its blobs."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._nodes = 0
        self.absent: list[str] = []

    def model(self, descriptor: Any) -> CachedModel:
        """The image that an entry of `index.json` leads to."""
        annotations = descriptor.get("annotations") if isinstance(descriptor, dict) else None
        facts = annotations if isinstance(annotations, dict) else {}
        name = next((str(facts[key]) for key in _NAMES if facts.get(key)), None)
        repair = self._repair(name)
        shown = name or str(descriptor.get("digest") if isinstance(descriptor, dict) else "an entry without a digest")
        return CachedModel(shown, tuple(self._follow(descriptor, "manifest", repair, 0)))

    def _repair(self, name: str | None) -> Repair:
        if name is not None and _REFERENCE.fullmatch(name):
            target = f"oci:{self._root}:{name}"
            return Repair(("skopeo", "copy", f"docker://{name}", target), remove_first=True)
        advice = "copy it here again from its registry; tools keep an existing blob even when its content is wrong"
        return Repair(remove_first=True, advice=advice)

    def _follow(self, descriptor: Any, role: str, repair: Repair, depth: int) -> Iterator[CachedFile]:
        self._nodes += 1
        if self._nodes > _NODES or depth > _DEPTH:
            raise InvalidInputError(f"{display(self._root)}: more than {_NODES:,} blobs, or indexes {_DEPTH} deep")
        digest = parse_blob_digest(descriptor.get("digest")) if isinstance(descriptor, dict) else None
        if digest is None:
            index = os.path.join(self._root, "index.json")
            reason = f"an entry for {role} has no digest"
            yield CachedFile(index, (FileUse(role),), None, repair, None, FileStatus.DAMAGED, reason)
            return
        expected, size = ExpectedDigest(*digest), descriptor.get("size")
        path = os.path.join(self._root, "blobs", *digest)
        use = (FileUse(f"{role} {expected}"),)
        file = CachedFile(path, use, expected, repair, size if type(size) is int else None)
        if not os.path.exists(path):
            yield CachedFile(path, use, expected, repair, file.size, FileStatus.MISSING)
            return
        yield file
        if role == "manifest":
            yield from self._below(file, repair, depth)

    def _below(self, manifest: CachedFile, repair: Repair, depth: int) -> Iterator[CachedFile]:
        """The blobs that a manifest or an index names, when it is intact."""
        try:
            data = read_limited(manifest.path, DOCUMENT_LIMIT)
        except BatutaError:
            return  # reported when the blob itself is read
        expected = manifest.expected
        if expected is None or hashlib.new(expected.algorithm, data).hexdigest() != expected.hex:
            return  # what it names is not to be believed; the blob itself is reported
        try:
            document = parse_document(data, str(expected))
        except InvalidInputError:
            return  # an artifact that is no manifest
        children = document.get("manifests")
        if isinstance(children, list):
            yield from self._platforms(children, repair, depth)
            return
        layers = document.get("layers")
        parts = [("config", document.get("config"))]
        parts += [("layer", layer) for layer in layers] if isinstance(layers, list) else []
        for role, descriptor in parts:
            external = isinstance(descriptor, dict) and descriptor.get("urls")
            if descriptor is not None and not external:  # a layer with URLs is kept elsewhere
                yield from self._follow(descriptor, role, repair, depth + 1)

    def _platforms(self, children: list[Any], repair: Repair, depth: int) -> Iterator[CachedFile]:
        found = [list(self._follow(child, "manifest", repair, depth + 1)) for child in children]
        here = [files for files in found if files[0].known is not FileStatus.MISSING]
        for files in found:
            if files[0].known is FileStatus.MISSING and here:
                self.absent.append(files[0].uses[0].file)
            else:
                yield from files

    def unused(self, used: set[str]) -> tuple[list[CachedFile], list[LeftOver]]:
        """The blobs that no image leads to: those that are named by a digest, and the others."""
        named: list[CachedFile] = []
        others: list[LeftOver] = []
        try:
            folders = entries_of(os.path.join(self._root, "blobs"))
        except NotFoundError:
            return named, others
        for folder in folders:
            for entry in entries_of(folder.path) if folder.is_dir() else ():
                digest = parse_blob_digest(f"{folder.name}:{entry.name}")
                if digest is None:
                    others.append(left_over(entry.path, "its name is not a digest"))
                elif entry.path not in used:
                    repair = Repair(("rm", "-f", entry.path), advice="no manifest that can be read names it; delete it")
                    use = (FileUse(f"blobs/{folder.name}/{entry.name}"),)
                    named.append(CachedFile(entry.path, use, ExpectedDigest(*digest), repair))
        return named, others
