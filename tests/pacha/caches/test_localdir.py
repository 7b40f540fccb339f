"""A directory of `hf download --local-dir`, in cases that it does not make itself."""

from pathlib import Path

from batuta_cli.pacha.caches.localdir import default_roots, root_at, scan
from tests.pacha.caches.support_layouts import REVISION, sha256, statuses


def _downloaded(root: Path, name: str, data: bytes, metadata: str) -> None:
    for path, content in ((root / name, data), (root / f".cache/huggingface/download/{name}.metadata", metadata)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_directory_with_metadata_is_one_and_there_is_no_usual_place(tmp_path: Path) -> None:
    assert root_at(str(tmp_path)) is None
    _downloaded(tmp_path, "a.bin", b"a", f"{REVISION}\n{sha256(b'a')}\n0.0\n")
    assert root_at(str(tmp_path)) == str(tmp_path)
    assert default_roots({"HOME": str(tmp_path)}) == []


def test_the_etag_of_the_metadata_decides_and_without_one_nothing_is_said_of_the_content(tmp_path: Path) -> None:
    _downloaded(tmp_path, "a.bin", b"a", f"{REVISION}\n{sha256(b'a')}\n0.0\n")
    _downloaded(tmp_path, "sub/b.bin", b"B", f"{REVISION}\n{sha256(b'b')}\n0.0\n")
    _downloaded(tmp_path, "c.bin", b"c", "")
    _downloaded(tmp_path, "d.bin", b"d", f"{REVISION}\nodd-etag\n0.0\n")
    assert statuses(scan(str(tmp_path), {})) == {
        "a.bin": "intact",
        "sub/b.bin": "damaged",
        "c.bin": "unverifiable",
        "d.bin": "unverifiable",
    }
