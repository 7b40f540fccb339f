"""Git LFS pointers are told from real files."""

import os
from pathlib import Path

import pytest

from batuta_cli.pacha.pointers import lfs_pointers

POINTER = (  # the example of git-lfs' specification
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


@pytest.mark.parametrize(
    "content",
    [
        POINTER,
        POINTER.replace(b"\n", b"\r\n"),
        POINTER.replace(b"git-lfs.github.com", b"hawser.github.com"),
        b"version http://git-media.io/v/2\noid sha256:00\n",
    ],
    ids=["v1", "CRLF", "hawser", "git-media"],
)
def test_a_pointer_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert lfs_pointers(tmp_path / "model.safetensors") == ["."]
    assert lfs_pointers(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize(
    "content",
    [b"", b"version 1\n", b"x" + POINTER, POINTER + b"x" * 1024, b"version https://example.com/spec/v1\n"],
    ids=["empty", "other", "later", "long", "another site"],
)
def test_other_files_are_not_pointers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    assert lfs_pointers(tmp_path) == []


def test_pointers_in_directories_are_named_by_their_path_and_ignored_ones_are_not(tmp_path: Path) -> None:
    for name in ("a/x.bin", "b/y.bin"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(POINTER)
    assert lfs_pointers(tmp_path) == ["a/x.bin", "b/y.bin"]
    assert lfs_pointers(tmp_path, ignore=["a"]) == ["b/y.bin"]


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "blob").write_bytes(POINTER)
    (tmp_path / "m/link").symlink_to("../blob")
    assert lfs_pointers(tmp_path / "m") == []
    assert lfs_pointers(tmp_path / "m", follow_symlinks=True) == ["link"]


def test_what_cannot_be_read_is_left_to_the_reading_of_the_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert lfs_pointers(tmp_path) == []
    assert lfs_pointers(tmp_path / "missing") == []
