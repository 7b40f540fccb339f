"""Copying models out of the store."""

import os
import stat
from pathlib import Path

import pytest

from batuta_cli.errors import NotFoundError, OutputExistsError, VerificationError
from batuta_cli.pacha.hashing import address_of_bytes, content_address
from batuta_cli.pacha.store import Store, StoreName, add, retrieve, verify
from tests.pacha.store.support import LLAMA, damage

TINY = StoreName("tiny", "1b")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    for name, content in (("a", b"same"), ("sub/b", b"other")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_a_file_is_copied_with_its_signature_and_can_be_changed(store: Store, model: Path, tmp_path: Path) -> None:
    Path(f"{model}.sig").write_bytes(b"{}")
    added = add(store, model, name=LLAMA)
    got = retrieve(store, LLAMA, tmp_path / "copy")
    assert (got.address, got.files, got.size, got.kind) == (added.address, 1, added.size, "file")
    assert (tmp_path / "copy").read_bytes() == model.read_bytes()
    assert (tmp_path / "copy.sig").read_bytes() == b"{}"
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) & 0o200
    (tmp_path / "copy").write_bytes(b"mine now")
    assert verify(store).intact == (added.address,)


def test_a_directory_is_copied_whole(store: Store, tiny: Path, tmp_path: Path) -> None:
    address = add(store, tiny, name=TINY).address
    got = retrieve(store, address, tmp_path / "copy")
    assert (got.files, got.size, got.kind, got.signature) == (2, 9, "directory", None)
    assert content_address(tmp_path / "copy") == address


@pytest.mark.parametrize("place", ["copy", "copy.sig"])
def test_nothing_that_exists_is_overwritten(store: Store, tiny: Path, tmp_path: Path, place: str) -> None:
    Path(f"{tiny}.sig").write_bytes(b"{}")
    add(store, tiny, name=TINY)
    (tmp_path / place).write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=place):
        retrieve(store, TINY, tmp_path / "copy")
    assert (tmp_path / place).read_bytes() == b"precious"


def test_a_damaged_or_missing_object_leaves_nothing_behind(store: Store, tiny: Path, tmp_path: Path) -> None:
    add(store, tiny, name=TINY)
    before = sorted(os.listdir(tmp_path))
    damage(store.object_path(address_of_bytes(b"other")))
    with pytest.raises(VerificationError, match="is damaged, and has been set aside"):
        retrieve(store, TINY, tmp_path / "copy")
    with pytest.raises(NotFoundError, match="not in the store any more"):
        retrieve(store, TINY, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_damaged_file_is_not_copied(store: Store, model: Path, tmp_path: Path) -> None:
    damage(add(store, model, name=LLAMA).object_path)
    with pytest.raises(VerificationError):
        retrieve(store, LLAMA, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_a_killed_run_left_is_removed_by_the_next(store: Store, tiny: Path, tmp_path: Path) -> None:
    add(store, tiny, name=TINY)
    left = tmp_path / ".copy.batuta-999999"
    left.mkdir()
    (left / "a").write_bytes(b"half")
    retrieve(store, TINY, tmp_path / "copy")
    assert not left.exists()


def test_what_is_not_in_the_store_is_named(store: Store, tiny: Path, tmp_path: Path) -> None:
    add(store, tiny, name=TINY)
    for reference in (StoreName("nobody"), address_of_bytes(b"absent")):
        with pytest.raises(NotFoundError):
            retrieve(store, reference, tmp_path / "copy")
    os.unlink(store.manifest_path(store.names()[TINY].address))
    with pytest.raises(NotFoundError, match="manifest"):
        retrieve(store, TINY, tmp_path / "copy")
