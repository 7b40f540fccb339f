"""Directories in the store: their manifests, and the objects that they need."""

import os
import struct
from pathlib import Path

import pytest

from batuta_cli.errors import DamagedStateError, InvalidInputError, NotFoundError, OutputExistsError
from batuta_cli.pacha.hashing import ContentAddress, address_of_bytes, content_address
from batuta_cli.pacha.scanning import check_unchanged
from batuta_cli.pacha.store import Store, StoreName, add, add_directory, collect, read_manifest, verify
from batuta_cli.pacha.store.directories import parse_manifest
from tests.pacha.store.support import damage

TINY = StoreName("tiny", "1b")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    for name, content in (("a", b"same"), ("sub/b", b"same"), ("c", b"other")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def _row(name: bytes, size: int = 1, digest: bytes = bytes(32)) -> bytes:
    """A row of a manifest as docs/formats.md#content-address has it."""
    return struct.pack(">I", len(name)) + name + struct.pack(">Q", size) + digest


def test_a_directory_has_its_content_address_and_equal_files_are_one_object(store: Store, tiny: Path) -> None:
    added = add_directory(store, tiny, name=TINY)
    assert (added.address, added.size) == (content_address(tiny), 13)
    assert [(row.name, row.size) for row in read_manifest(store, added.address)] == [("a", 4), ("c", 5), ("sub/b", 4)]
    assert set(store.contents().objects) == {address_of_bytes(b"same"), address_of_bytes(b"other")}
    assert store.names()[TINY].directory
    assert add(store, tiny).sharing == "present"


def test_the_manifest_is_the_very_bytes_that_the_address_is_over(store: Store, tiny: Path) -> None:
    added = add_directory(store, tiny)
    rows = [(b"a", 4, b"same"), (b"c", 5, b"other"), (b"sub/b", 4, b"same")]
    expected = b"".join(_row(name, size, address_of_bytes(data).digest) for name, size, data in rows)
    assert Path(store.manifest_path(added.address)).read_bytes() == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        _row(b"a")[:-1],
        _row(b"a") + b"x",
        _row(b"a")[:4] + b"\xff" + _row(b"a")[5:],
        _row(b"b") + _row(b"a"),
        _row(b"a") + _row(b"a"),
        _row(b".."),
        _row(b"/etc/passwd"),
        _row(b"a/../../b"),
        _row(b"."),
        struct.pack(">I", 2**32 - 1),
    ],
)
def test_a_manifest_that_is_cut_out_of_order_or_leads_outside_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_manifest(data)


def test_a_changed_manifest_is_not_believed_and_set_aside_by_verify(store: Store, tiny: Path) -> None:
    added = add_directory(store, tiny, name=TINY)
    path = Path(store.manifest_path(added.address))
    path.chmod(0o644)
    path.write_bytes(_row(b"a", 4, address_of_bytes(b"other").digest))
    with pytest.raises(DamagedStateError, match="is damaged"):
        read_manifest(store, added.address)
    with pytest.raises(DamagedStateError):
        collect(store)
    assert len(store.contents().objects) == 2
    (damaged,) = verify(store).damaged
    assert (damaged.address, damaged.names) == (added.address, (TINY,))
    assert not path.exists()


def test_a_named_directory_without_its_manifest_keeps_every_object(store: Store, tiny: Path) -> None:
    added = add_directory(store, tiny, name=TINY)
    os.unlink(store.manifest_path(added.address))
    with pytest.raises(NotFoundError):
        read_manifest(store, added.address)
    with pytest.raises(DamagedStateError, match="manifest of the directory is missing"):
        collect(store)
    assert verify(store).missing == ((TINY, added.address),)
    add_directory(store, tiny, name=TINY)
    assert collect(store).objects == ()


def test_damage_of_an_object_names_the_directories_that_have_it(store: Store, tiny: Path) -> None:
    add_directory(store, tiny, name=TINY)
    damage(store.object_path(address_of_bytes(b"same")))
    (damaged,) = verify(store, [TINY]).damaged
    assert (damaged.address, damaged.names) == (address_of_bytes(b"same"), (TINY,))
    assert verify(store, [TINY]).missing == ((TINY, address_of_bytes(b"same")),)
    add_directory(store, tiny, name=TINY)
    assert len(verify(store, [TINY]).intact) == 3


def test_files_that_two_directories_have_are_deleted_with_the_last_of_them(store: Store, tiny: Path) -> None:
    first = add_directory(store, tiny, name=TINY)
    (tiny / "c").unlink()
    add_directory(store, tiny, name=StoreName("other"))
    store.remove(TINY)
    collected = collect(store)
    assert collected.directories == (first.address,)
    assert [address for address, _ in collected.objects] == [address_of_bytes(b"other")]
    store.remove(StoreName("other"))
    collect(store)
    assert (dict(store.contents().objects), store.contents().manifests) == ({}, ())


def test_objects_that_are_collected_during_an_addition_are_added_again(
    store: Store, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def collected_meanwhile(*arguments: object, **options: object) -> object:
        runs.append(1)
        if len(runs) == 1:
            assert len(collect(store).objects) == 2
        return check_unchanged(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("batuta_cli.pacha.store.directories.check_unchanged", collected_meanwhile)
    add_directory(store, tiny, name=TINY)
    assert len(verify(store, [TINY]).intact) == 3


def test_a_name_of_another_model_is_kept_unless_forced(store: Store, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    add(store, tmp_path / "file", name=TINY)
    with pytest.raises(OutputExistsError, match="name of another object"):
        add_directory(store, tiny, name=TINY)
    assert len(store.contents().objects) == 1
    add_directory(store, tiny, name=TINY, force=True)
    assert isinstance(store.names()[TINY].address, ContentAddress)
