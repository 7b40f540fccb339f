"""A directory of `hf download --local-dir`: the files themselves, and `.cache/huggingface/` with their ETags.

`.cache/huggingface/download/NAME.metadata` has three lines: revision, ETag, and when they were right;
`.cache/huggingface/trees/REVISION.json` is the listing of `huggingface.py`. Neither records which repository it was.
"""

import os
from collections.abc import Mapping

from batuta_cli.errors import BatutaError
from batuta_cli.files import read_limited
from batuta_cli.pacha.caches.contents import (
    CacheContents,
    CachedFile,
    CachedModel,
    FileStatus,
    FileUse,
    LeftOver,
    Repair,
)
from batuta_cli.pacha.caches.huggingface import IGNORED, Tree, by_etag, parse_tree
from batuta_cli.pacha.caches.trees import entries_of, files_below, left_over, unreadable

LAYOUT = "hf-local-dir"
TITLE = "directory of hf download --local-dir"

_METADATA = ".metadata"
_METADATA_LIMIT = 64 * 1024  # bytes


def default_roots(environment: Mapping[str, str]) -> list[str]:
    """None: such a directory lies where its user wanted it."""
    return []


def root_at(path: str) -> str | None:
    """`path`, when `hf download` has left its metadata in it."""
    return path if os.path.isdir(os.path.join(path, ".cache", "huggingface", "download")) else None


def scan(root: str, environment: Mapping[str, str]) -> CacheContents:
    """What such a directory holds. Raises `NotFoundError`, `OperationError`."""
    own = os.path.join(root, ".cache", "huggingface")
    trees = _trees(os.path.join(own, "trees"))
    files: list[CachedFile] = []
    incomplete: list[LeftOver] = []
    for name, path in files_below(os.path.join(own, "download")):
        if name.endswith(".incomplete"):
            incomplete.append(left_over(path, "a part of a download"))
        elif name.endswith(_METADATA):
            files.append(_file(root, name.removesuffix(_METADATA), path, trees))
    known = {file.uses[0].file for file in files}
    others = [
        left_over(path, "hf download did not write it, or lost its record of it")
        for name, path in files_below(root)
        if name not in known and not name.startswith(".cache/") and os.path.basename(name) not in IGNORED
    ]
    name = os.path.basename(os.path.abspath(root))
    return CacheContents((CachedModel(name, tuple(files)),), tuple(incomplete), tuple(others))


def _file(root: str, name: str, metadata: str, trees: Mapping[str, Tree]) -> CachedFile:
    path = os.path.join(root, *name.split("/"))
    try:
        lines = read_limited(metadata, _METADATA_LIMIT).decode().splitlines()
    except BatutaError as error:
        return unreadable(metadata, FileUse(name), error)
    except UnicodeDecodeError:
        lines = []
    revision = lines[0] if lines else None
    listed, size = trees.get(revision or "", {}).get(name, (None, None))
    expected = by_etag(lines[1] if len(lines) > 1 else None) or listed
    arguments = (name, "--revision", revision, "--local-dir", root, "--force-download") if revision else ()
    repair = Repair(
        ("hf", "download", "OWNER/NAME", *arguments) if arguments else (),
        advice="the directory does not record the OWNER/NAME that it was downloaded from",
    )
    use = (FileUse(name, revision),)
    if not os.path.lexists(path):
        return CachedFile(path, use, expected, repair, size, FileStatus.MISSING)
    if expected is None:
        reason = "its metadata has no digest"
        return CachedFile(path, use, None, repair, size, FileStatus.UNVERIFIABLE, reason)
    return CachedFile(path, use, expected, repair, size)


def _trees(directory: str) -> dict[str, Tree]:
    found: dict[str, Tree] = {}
    try:
        for entry in entries_of(directory):
            found[entry.name.removesuffix(".json")] = parse_tree(entry.path)
    except BatutaError:
        return found  # the metadata of each file has its digest as well
    return found
