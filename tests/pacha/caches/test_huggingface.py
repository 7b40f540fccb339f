"""Hugging Face's cache, in cases that `hf download` does not make; tests/real/test_caches.py has those that it does."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from batuta_cli.errors import InvalidInputError, OperationError
from batuta_cli.pacha.caches import huggingface
from batuta_cli.pacha.caches.checker import check_cache
from batuta_cli.pacha.caches.huggingface import default_roots, parse_tree, root_at, scan
from batuta_cli.pacha.caches.trees import entries_of
from tests.pacha.caches.support_layouts import REVISION, hf_file, sha256, statuses


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache/huggingface/hub"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/c", "HF_HOME": "/hf"}, "/hf/hub"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old"}, "/old"),
        ({"HF_HOME": "/hf", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/hub"}, "/hub"),
    ],
)
def test_the_cache_is_looked_for_where_huggingface_hub_keeps_it(variables: dict[str, str], root: str) -> None:
    assert default_roots(variables) == [root]


def test_a_link_into_nothing_is_a_missing_file_of_its_revision(tmp_path: Path) -> None:
    hf_file(tmp_path, "a.bin", b"a").unlink()
    hf_file(tmp_path, "b.bin", b"b")
    (finding,) = check_cache(scan(str(tmp_path), {}))
    missing = {file.file.uses[0]: file for file in finding.files}
    (file,) = [file for use, file in missing.items() if use.file == "a.bin"]
    assert file.status == "missing"
    assert file.file.uses[0].revision == REVISION
    assert "which does not exist" in file.reason


def test_a_link_to_another_file_of_the_cache_than_the_revision_has_is_damage(tmp_path: Path) -> None:
    hf_file(tmp_path, "a.bin", b"a")
    hf_file(tmp_path, "b.bin", b"b")
    repository = tmp_path / "models--acme--tiny"
    files = {
        name: {"size": 1, "blob_id": "0" * 40, "lfs_sha256": sha256(name[:1].encode()), "lfs_size": 1}
        for name in ("a.bin", "b.bin")
    }
    (repository / "trees").mkdir()
    (repository / "trees" / f"{REVISION}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    assert set(statuses(scan(str(tmp_path), {})).values()) == {"intact"}
    link = repository / "snapshots" / REVISION / "a.bin"
    link.unlink()
    link.symlink_to(f"../../blobs/{sha256(b'b')}")
    assert statuses(scan(str(tmp_path), {}))["a.bin"] == "damaged"


def test_a_link_that_leaves_the_cache_is_not_verifiable_whatever_its_target_is_called(tmp_path: Path) -> None:
    hf_file(tmp_path / "hub", "a.bin", b"a")
    outside = tmp_path / "elsewhere" / sha256(b"x")
    outside.parent.mkdir()
    outside.write_bytes(b"x")
    link = tmp_path / "hub/models--acme--tiny/snapshots" / REVISION / "b.bin"
    link.symlink_to(outside)
    assert statuses(scan(str(tmp_path / "hub"), {}))["b.bin"] == "unverifiable"


def test_a_blob_that_no_revision_uses_is_checked_too_because_a_download_would_use_it(tmp_path: Path) -> None:
    hf_file(tmp_path, "a.bin", b"a")
    unused = tmp_path / "models--acme--tiny/blobs" / sha256(b"unused")
    unused.write_bytes(b"UNUSED")
    assert statuses(scan(str(tmp_path), {})) == {"a.bin": "intact", f"blobs/{unused.name}": "damaged"}


def test_a_blob_is_not_called_unused_when_a_revision_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = hf_file(tmp_path, "a.bin", b"a")
    blob.write_bytes(b"b")

    def refuse(directory: str) -> list[os.DirEntry[str]]:
        if os.path.basename(directory) == "snapshots":
            raise OperationError("permission denied")
        return entries_of(directory)

    monkeypatch.setattr(huggingface, "entries_of", refuse)
    (finding,) = check_cache(scan(str(tmp_path), {}))
    assert [str(file.status) for file in finding.files] == ["unreadable", "damaged"]
    assert finding.files[1].file.repair.advice == "no revision that can be read uses it; delete it"


def test_one_blob_of_two_revisions_is_one_finding_with_both_names(tmp_path: Path) -> None:
    hf_file(tmp_path, "a.bin", b"a")
    other = tmp_path / "models--acme--tiny/snapshots" / ("f" * 40)
    other.mkdir()
    (other / "renamed.bin").symlink_to(f"../../blobs/{sha256(b'a')}")
    (finding,) = check_cache(scan(str(tmp_path), {}))
    assert [[use.file for use in file.file.uses] for file in finding.files] == [["a.bin", "renamed.bin"]]


def test_files_that_are_no_blobs_are_told_apart(tmp_path: Path) -> None:
    hf_file(tmp_path, "a.bin", b"a")
    blobs = tmp_path / "models--acme--tiny/blobs"
    for name in (f"{sha256(b'b')}.incomplete", f"{sha256(b'b')}.lock", ".DS_Store", "odd-etag"):
        (blobs / name).write_bytes(b"?")
    contents = scan(str(tmp_path), {})
    assert statuses(contents) == {"a.bin": "intact"}
    assert [os.path.basename(item.path) for item in contents.incomplete] == [f"{sha256(b'b')}.incomplete"]
    assert [os.path.basename(item.path) for item in contents.unverifiable] == ["odd-etag"]


def test_the_command_names_type_cache_and_a_file_that_looks_like_an_option(tmp_path: Path) -> None:
    data = b"x"
    sha1 = hashlib.sha1(b"blob 1\0x", usedforsecurity=False).hexdigest()
    hf_file(tmp_path, "-x", data, repository="datasets--acme--tiny", digest=sha1).write_bytes(b"y")
    (finding,) = check_cache(scan(str(tmp_path), {"HF_HUB_CACHE": "/elsewhere"}))
    assert finding.files[0].commands == (
        (
            "hf",
            "download",
            "--revision",
            REVISION,
            "--repo-type",
            "dataset",
            "--cache-dir",
            str(tmp_path),
            "--force-download",
            "--",
            "acme/tiny",
            "-x",
        ),
    )


def test_a_hub_a_home_of_hf_and_a_single_repository_are_caches_and_other_directories_are_not(tmp_path: Path) -> None:
    hf_file(tmp_path / "hub", "a.bin", b"a")
    assert root_at(str(tmp_path)) == str(tmp_path / "hub")
    assert root_at(str(tmp_path / "hub")) == str(tmp_path / "hub")
    assert root_at(str(tmp_path / "hub/models--acme--tiny")) == str(tmp_path / "hub/models--acme--tiny")
    assert root_at(str(tmp_path / "hub/models--acme--tiny/blobs")) is None
    (tmp_path / "models--empty").mkdir()
    assert root_at(str(tmp_path / "models--empty")) is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format_version": 2, "files": {}}', '{"format_version": 1, "files": {"a": 1}}']
)
def test_a_listing_that_cannot_be_read_is_an_error_of_its_own_and_the_blobs_names_count(
    tmp_path: Path, text: str
) -> None:
    hf_file(tmp_path, "a.bin", b"a")
    tree = tmp_path / "models--acme--tiny/trees" / f"{REVISION}.json"
    tree.parent.mkdir()
    tree.write_text(text)
    with pytest.raises(InvalidInputError):
        parse_tree(str(tree))
    assert statuses(scan(str(tmp_path), {})) == {"a.bin": "intact"}
