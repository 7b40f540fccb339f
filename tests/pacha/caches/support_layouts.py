"""Caches made by hand, file by file as their documents describe them, with digests by hashlib."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batuta_cli.pacha.caches.checker import check_cache
from batuta_cli.pacha.caches.contents import CacheContents

REVISION = "0123456789abcdef0123456789abcdef01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def statuses(contents: CacheContents) -> dict[str, str]:
    """The result of each file by its first name."""
    return {file.file.uses[0].file: str(file.status) for finding in check_cache(contents) for file in finding.files}


def hf_file(hub: Path, name: str, data: bytes, *, repository: str = "models--acme--tiny", digest: str = "") -> Path:
    """A file of a repository: its blob, and the link in the snapshot; returns the blob."""
    blob = hub / repository / "blobs" / (digest or sha256(data))
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link = hub / repository / "snapshots" / REVISION / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(Path(*[".."] * len(link.relative_to(hub / repository).parts[:-1])) / "blobs" / blob.name)
    return blob


def ollama_model(
    root: Path, place: str, layers: Mapping[str, bytes], *, manifest: Mapping[str, Any] | None = None
) -> Path:
    """A model of Ollama's with one layer for each kind; returns its manifest."""

    def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
        blob = root / "blobs" / f"sha256-{sha256(data)}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
        "layers": [descriptor(f"application/vnd.ollama.image.{kind}", data) for kind, data in layers.items()],
    }
    path = root / "manifests" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | dict(manifest or {})))
    return path


def oci_blob(root: Path, data: bytes, algorithm: str = "sha256", **facts: Any) -> dict[str, Any]:
    """A blob of an OCI layout, and its descriptor."""
    digest = hashlib.new(algorithm, data).hexdigest()
    path = root / "blobs" / algorithm / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": "application/octet-stream", "digest": f"{algorithm}:{digest}", "size": len(data)} | facts


def oci_manifest(root: Path, *layers: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """A manifest over layers, and its descriptor."""
    document = {"schemaVersion": 2, "config": oci_blob(root, b"{}"), "layers": list(layers)}
    return oci_blob(root, json.dumps(document).encode(), **facts)


def oci_index(root: Path, *manifests: Any) -> Path:
    """Write `oci-layout` and `index.json`; returns the layout."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(manifests)}))
    return root
