"""Ollama's models: `manifests/REGISTRY/NAMESPACE/NAME/TAG`, which are OCI manifests, and `blobs/sha256-<hex>`.

`ollama pull` keeps an existing blob even when its content is wrong and reports success (https://github.com/ollama/ollama/issues/17520),
so a damaged blob has to be deleted before it is pulled again.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from batuta_cli.errors import BatutaError, InvalidInputError
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
    entries_of,
    files_below,
    from_home,
    left_over,
    parse_blob_digest,
    read_document,
    unreadable,
)

LAYOUT = "ollama"
TITLE = "Ollama models"

_SERVICE = "/usr/share/ollama/.ollama/models"
"""Where the models are when Ollama's installer has made it a systemd service under its own user."""
_MEDIA_TYPE = "application/vnd.ollama.image."
"""Before the kind of a layer: model, template, system, params, license, …"""
_REGISTRY, _NAMESPACE = "registry.ollama.ai", "library"


def default_roots(environment: Mapping[str, str]) -> list[str]:
    """OLLAMA_MODELS, else the user's models, else those of the service."""
    if value := environment.get("OLLAMA_MODELS"):
        return [value]
    return [*from_home(environment, ".ollama", "models"), _SERVICE]


def root_at(path: str) -> str | None:
    """The directory that holds `manifests` and `blobs`: `path`, or `models` in it."""
    for candidate in (path, os.path.join(path, "models")):
        if all(os.path.isdir(os.path.join(candidate, part)) for part in ("manifests", "blobs")):
            return candidate
    return None


def scan(root: str, environment: Mapping[str, str]) -> CacheContents:
    """What Ollama's models consist of. Raises `NotFoundError`, `OperationError`."""
    root = os.path.abspath(root)
    blobs = {entry.name: entry.path for entry in entries_of(os.path.join(root, "blobs"))}
    models = [_model(name, path, root) for name, path in files_below(os.path.join(root, "manifests"))]
    used = {file.path for model in models for file in model.files}
    unused: list[CachedFile] = []
    incomplete: list[LeftOver] = []
    unverifiable: list[LeftOver] = []
    for name, path in blobs.items():
        digest = parse_blob_digest(name)
        if "-partial" in name:
            incomplete.append(left_over(path, "a part of a download; `ollama pull` continues it"))
        elif digest is None:
            unverifiable.append(left_over(path, "its name is not a digest"))
        elif path not in used:
            repair = Repair(("rm", "-f", path), advice="no manifest that can be read names it; delete it")
            unused.append(CachedFile(path, (FileUse(f"blobs/{name}"),), ExpectedDigest(*digest), repair))
    if unused:
        models.append(CachedModel("blobs that no manifest names", tuple(unused)))
    return CacheContents(tuple(models), tuple(incomplete), tuple(unverifiable))


def _model(place: str, path: str, root: str) -> CachedModel:
    name = _name(place)
    pull = Repair(("ollama", "pull", name))
    manifest = FileUse("manifest")
    try:
        files = list(_files(read_document(path), pull, root))
    except InvalidInputError as error:
        damaged = CachedFile(path, (manifest,), None, pull, None, FileStatus.DAMAGED, error.message)
        return CachedModel(name, (damaged,))
    except BatutaError as error:
        return CachedModel(name, (unreadable(path, manifest, error),))
    return CachedModel(name, tuple(files))


def _name(place: str) -> str:
    """A model's name as Ollama shows it: `llama3.2:3b`, `user/model:tag`, `hf.co/owner/model:tag`."""
    parts = place.split("/")
    if len(parts) < 2:
        return place
    *path, tag = parts
    for default in (_REGISTRY, _NAMESPACE):
        if len(path) > 1 and path[0] == default:
            path = path[1:]
        else:
            break
    return f"{'/'.join(path)}:{tag}"


def _files(document: Mapping[str, Any], pull: Repair, root: str) -> Iterator[CachedFile]:
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise InvalidInputError("the manifest has no layers")
    for role, descriptor in [("config", document.get("config")), *(("layer", layer) for layer in layers)]:
        digest = parse_blob_digest(descriptor.get("digest")) if isinstance(descriptor, dict) else None
        if digest is None:
            raise InvalidInputError("an entry of the manifest has no digest")
        media_type = str(descriptor.get("mediaType", ""))
        kind = media_type.removeprefix(_MEDIA_TYPE) if media_type.startswith(_MEDIA_TYPE) else role
        size = descriptor.get("size")
        yield _blob(root, ExpectedDigest(*digest), kind, size if type(size) is int else None, pull)


def _blob(root: str, expected: ExpectedDigest, kind: str, size: int | None, pull: Repair) -> CachedFile:
    names = [f"{expected.algorithm}{separator}{expected.hex}" for separator in "-:"]  # : before Ollama 0.1.34
    paths = [os.path.join(root, "blobs", name) for name in names]
    path = next(filter(os.path.lexists, paths), paths[0])
    use = (FileUse(f"{kind} {expected}"),)
    repair = Repair(pull.fetch, remove_first=True)
    if not os.path.exists(path):
        return CachedFile(path, use, expected, repair, size, FileStatus.MISSING)
    return CachedFile(path, use, expected, repair, size)
