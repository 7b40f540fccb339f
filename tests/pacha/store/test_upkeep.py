"""Verifying, removing, collecting: nothing damaged served, nothing needed collected."""

import os
from pathlib import Path

import pytest

from batuta_cli.errors import (
    NotFoundError,
    UsageError,
)
from batuta_cli.pacha.hashing import address_of_bytes
from batuta_cli.pacha.store import (
    Store,
    StoreName,
    add,
    collect,
    upkeep,
    verify,
)
from tests.pacha.store.support import LLAMA, MIB, damage, everything

# Verifying


def test_a_damaged_object_is_set_aside_and_not_served(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    damage(added.object_path)
    (found,) = verify(store).damaged
    assert (found.address, found.names) == (added.address, (LLAMA,))
    assert Path(found.set_aside).parent == store.root / "damaged"
    assert Path(found.set_aside).name.startswith(added.address.hex)
    assert not os.path.lexists(added.object_path)
    with pytest.raises(NotFoundError, match="is not in the store any more"):
        store.lookup(LLAMA)
    report = verify(store)
    assert (report.damaged, report.missing) == ((), ((LLAMA, added.address),))
    add(store, model)
    assert store.lookup(LLAMA)[1] == added.object_path, "the name means the object again"


def test_several_damaged_copies_are_kept_apart(store: Store, model: Path) -> None:
    for _ in range(3):
        damage(add(store, model).object_path)
        verify(store)
    assert len(list((store.root / "damaged").iterdir())) == 3


def test_a_link_in_the_place_of_an_object_is_set_aside(store: Store, model: Path) -> None:
    path = add(store, model).object_path
    os.unlink(path)
    os.symlink(model, path)
    (found,) = verify(store).damaged
    assert found.reason == "is a symbolic link"
    assert model.exists()


def test_an_intact_object_that_was_made_writable_is_made_read_only(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    os.chmod(added.object_path, 0o644)
    assert verify(store).made_read_only == (added.address,)
    assert store.lookup(LLAMA)[1] == added.object_path


def test_files_that_are_not_the_stores_are_reported_and_left(store: Store, model: Path) -> None:
    added = add(store, model)
    shard = Path(added.object_path).parent
    foreign = [store.root / "notes", store.root / "blake3" / "x", shard / "y", store.root / "signatures" / "z.sig"]
    for path in foreign:
        path.write_text("?")
    report = verify(store)
    assert set(report.foreign) == {str(path) for path in foreign}
    assert report.intact == (added.address,)
    collect(store)
    assert all(path.exists() for path in foreign)


def test_only_what_was_asked_for_is_hashed(store: Store, model: Path, tmp_path: Path) -> None:
    added = add(store, model, name=LLAMA)
    (tmp_path / "n").write_bytes(b"other")
    damage(add(store, tmp_path / "n").object_path)
    report = verify(store, [LLAMA, added.address])
    assert (report.intact, report.damaged) == ((added.address,), ())
    absent = address_of_bytes(b"absent")
    assert verify(store, [absent]).missing == ((None, absent),)
    with pytest.raises(NotFoundError):
        verify(store, [StoreName("nobody")])


# Removing and collecting


def test_a_name_is_removed_and_its_object_stays_until_collected(store: Store, model: Path) -> None:
    Path(f"{model}.sig").write_bytes(b"{}")
    added = add(store, model, name=LLAMA)
    assert store.remove(LLAMA) == (LLAMA,)
    assert os.path.exists(added.object_path)
    plan = collect(store, dry_run=True)
    assert os.path.exists(added.object_path)
    assert collect(store) == plan
    assert (plan.objects, plan.freed, plan.signatures) == (((added.address, added.size),), added.size, 1)
    assert everything(store) == set()


def test_an_object_in_use_is_removed_only_by_force(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    with pytest.raises(UsageError, match="in use as llama:8b"):
        store.remove(added.address)
    assert store.remove(added.address, force=True) == (LLAMA,)
    assert (everything(store), store.names()) == (set(), {})
    with pytest.raises(NotFoundError):
        store.remove(added.address, force=True)


def test_what_has_a_name_is_not_collected(store: Store, model: Path) -> None:
    Path(f"{model}.sig").write_bytes(b"{}")
    added = add(store, model, name=LLAMA)
    assert collect(store) == upkeep.Collected()
    assert verify(store).intact == (added.address,)
    assert os.path.exists(store.signature_path(added.address))


def test_what_was_set_aside_is_counted_and_not_collected(store: Store, model: Path) -> None:
    damage(add(store, model).object_path)
    verify(store)
    assert collect(store).set_aside == 3 * MIB + 4
    assert len(everything(store)) == 1
