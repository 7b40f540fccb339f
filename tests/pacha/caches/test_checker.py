"""Files of caches against their digests."""

import hashlib
import os
from pathlib import Path

import pytest

from batuta_cli.pacha.caches.checker import check_cache, work_of
from batuta_cli.pacha.caches.contents import (
    CacheContents,
    CachedFile,
    CachedModel,
    ExpectedDigest,
    FileStatus,
    FileUse,
    Repair,
)

DATA = b"weights" * 1000


def _file(path: Path, algorithm: str = "sha256", data: bytes = DATA, size: int | None = None) -> CachedFile:
    if algorithm == "git-sha1":
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:
        digest = hashlib.new(algorithm, data).hexdigest()
    return CachedFile(str(path), (FileUse(path.name),), ExpectedDigest(algorithm, digest), Repair(), size)


def _contents(*files: CachedFile) -> CacheContents:
    return CacheContents((CachedModel("model", files),))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "git-sha1"])
def test_a_file_is_intact_when_its_digest_is_the_expected_one(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    (finding,) = check_cache(_contents(_file(path, algorithm)))
    assert finding.intact
    path.write_bytes(DATA[:-1] + b"S")
    (finding,) = check_cache(_contents(_file(path, algorithm)))
    assert finding.files[0].status is FileStatus.DAMAGED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (DATA[:-5000] + bytes(5000), "its last 5,000 bytes are zero"),
        (bytes(7000), "all its bytes are zero"),
        (DATA[:500], "has 500 bytes instead of 7,000"),
        (b"", "has 0 bytes instead of 7,000"),
        (DATA[:500] + bytes(6000), "has 6,500 bytes instead of 7,000; its last 6,000 bytes are zero"),
        (DATA[:-1] + b"S", "its content is sha256:"),
    ],
)
def test_what_is_wrong_is_said_as_far_as_it_shows(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "blob"
    path.write_bytes(content)
    (finding,) = check_cache(_contents(_file(path, size=len(DATA))))
    assert finding.files[0].status is FileStatus.DAMAGED
    assert reason in finding.files[0].reason


def test_a_device_in_the_place_of_a_blob_is_damage_and_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    os.mkfifo(path)
    (finding,) = check_cache(_contents(_file(path)))
    assert finding.files[0].status is FileStatus.DAMAGED


def test_a_file_that_vanishes_before_its_turn_is_missing(tmp_path: Path) -> None:
    (finding,) = check_cache(_contents(_file(tmp_path / "none")))
    assert finding.files[0].status is FileStatus.MISSING


def test_each_file_is_read_once_and_each_model_reported_when_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    models = tuple(CachedModel(name, (_file(path),)) for name in ("a", "b"))
    seen: list[str] = []
    read: list[int] = []
    contents = CacheContents(models)
    check_cache(contents, read.append, lambda finding: seen.append(f"{finding.model.name} after {sum(read)}"))
    assert seen == [f"a after {len(DATA)}", f"b after {len(DATA)}"]
    assert work_of(contents) == (len(DATA), 1)
