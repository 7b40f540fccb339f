"""Looking up: what cannot be the object is not served, and damaged names are an error."""

import os
from pathlib import Path

import pytest

from batuta_cli.errors import (
    DamagedStateError,
    NotFoundError,
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
from tests.pacha.store.support import LLAMA, MIB

# Looking up


def test_nothing_is_found_in_a_store_that_is_not_there_and_none_is_made(store: Store) -> None:
    for reference in (LLAMA, address_of_bytes(b"x")):
        with pytest.raises(NotFoundError):
            store.lookup(reference)
        with pytest.raises(NotFoundError):
            store.remove(reference)
    assert store.objects() == []
    assert verify(store) == upkeep.Report()
    assert collect(store) == upkeep.Collected()
    assert not store.root.exists()


@pytest.mark.parametrize("wrong", ["writable", "cut", "link", "directory"])
def test_what_cannot_be_the_object_is_not_served(store: Store, model: Path, wrong: str) -> None:
    path = add(store, model, name=LLAMA).object_path
    if wrong == "writable":
        os.chmod(path, 0o644)
    elif wrong == "cut":
        os.truncate(path, 10)
    else:
        os.unlink(path)
        if wrong == "link":
            os.symlink(model, path)
        else:
            os.mkdir(path)
    with pytest.raises(DamagedStateError) as caught:
        store.lookup(LLAMA)
    assert caught.value.hint == "batuta pacha store verify llama:8b"


def test_objects_are_listed_with_all_their_names(store: Store, model: Path, tmp_path: Path) -> None:
    add(store, model, name=LLAMA)
    add(store, model, name=StoreName("prod"))
    (tmp_path / "n").write_bytes(b"n")
    add(store, tmp_path / "n")
    assert {(o.size, o.names) for o in store.objects()} == {(1, ()), (3 * MIB + 4, (LLAMA, StoreName("prod")))}


# Names that were damaged


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0",
        "names = 3",
        "[names",
        "[names.llama]\naddress = 3",
        "[names]\n[other]",
        '[names]\n"../x" = {}',
        '[names]\nllama = {address = "blake3:00", size = 1}',
    ],
)
def test_damaged_names_are_an_error_and_nothing_is_deleted(store: Store, model: Path, content: str) -> None:
    added = add(store, model, name=LLAMA)
    store.names_path.write_text(content)
    for work in (store.names, lambda: collect(store), lambda: verify(store), lambda: add(store, model)):
        with pytest.raises(DamagedStateError):
            work()
    assert store.names_path.read_text() == content
    assert os.path.exists(added.object_path)


def test_lost_names_are_an_error_and_nothing_is_deleted(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    store.names_path.unlink()
    with pytest.raises(DamagedStateError, match="lost"):
        collect(store)
    assert os.path.exists(added.object_path)
    store.names_path.write_text("[names]\n")
    assert collect(store).objects == ((added.address, added.size),), "as the hint says"
