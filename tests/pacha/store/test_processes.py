"""Several processes, kill -9, a full disk."""

import fcntl
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import (
    OperationError,
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
from tests.pacha.store.support import LLAMA, MIB, child, everything, finish, half_fed

# Several processes, kill -9, a full disk


def test_many_processes_add_the_same_and_different_files_at_once(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / f"m{number}" for number in range(3)]
    for path in paths:
        path.write_bytes(os.urandom(5 * MIB))
    addresses = [str(address_of_bytes(path.read_bytes())) for path in paths]
    processes = [child(store, path, name=f"n{i}") for i, path in enumerate(paths * 4)]
    outputs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [0] * 12
    assert outputs == addresses * 4
    report = verify(store)
    assert {str(address) for address in report.intact} == set(addresses)
    assert not (report.damaged or report.missing or report.unreadable or report.foreign)
    assert len(store.names()) == 12
    assert collect(store) == upkeep.Collected()


def test_kill_9_in_the_middle_of_an_addition_leaves_nothing(store: Store) -> None:
    process = half_fed(store, name="m")
    process.kill()
    finish(process)
    assert everything(store) == set()
    assert store.names() == {}
    assert verify(store) == upkeep.Report()


def test_without_unnamed_files_kill_9_leaves_what_the_next_collection_clears(store: Store) -> None:
    process = half_fed(store, hidden=True)
    assert len(everything(store)) == 1
    assert collect(store).temporaries == 0, "its writer lives"
    assert len(everything(store)) == 1
    process.kill()
    finish(process)
    assert verify(store) == upkeep.Report()
    assert collect(store).temporaries == 1
    assert everything(store) == set()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_collection_in_the_middle_of_an_addition_does_not_disturb_it(store: Store, hidden: bool) -> None:
    process = half_fed(store, name="m", hidden=hidden)
    collect(store)
    finish(process)
    assert process.returncode == 0
    assert verify(store).intact == (address_of_bytes(b"m" * (9 * MIB)),)
    assert collect(store) == upkeep.Collected()


def test_a_complete_object_that_waits_for_the_lock_is_not_abandoned(store: Store) -> None:
    process = half_fed(store, name="m")
    assert process.stdin is not None
    with store.locked():
        process.stdin.close()
        process.stdin = None
        while not everything(store):
            assert process.poll() is None
        assert upkeep._abandoned(store) == []
    finish(process)
    assert store.names().keys() == {StoreName("m")}


def test_collections_run_against_additions(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / f"m{number}" for number in range(6)]
    for path in paths:
        path.write_bytes(os.urandom(2 * MIB))
        add(store, path)  # unnamed: half of the additions find an object that a collection is about to delete
    processes = [child(store, path, name=f"n{i}") for i, path in enumerate(paths)]
    while any(process.poll() is None for process in processes):
        collect(store)
    assert [process.wait() for process in processes] == [0] * 6
    for process in processes:
        finish(process)
    assert len(verify(store).intact) == 6
    assert len(store.names()) == 6
    assert collect(store) == upkeep.Collected()


def _small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))


@pytest.mark.parametrize("hidden", [False, True])
def test_a_file_size_limit_leaves_nothing(store: Store, model: Path, hidden: bool) -> None:
    process = child(store, model, hidden=hidden, preexec=_small_files_only)
    assert "too large" in finish(process)
    assert process.returncode == 1
    assert everything(store) == set()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "tiny"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root with the right to mount can make a full disk here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_full_disk_leaves_nothing(tiny_disk: Path, model: Path) -> None:
    store = Store(tiny_disk / "store")
    with pytest.raises(OperationError, match="no space left"):
        add(store, model, name=LLAMA)
    assert everything(store) == set()
    assert store.names() == {}


def test_the_lock_is_not_held_while_a_model_is_read(store: Store) -> None:
    process = half_fed(store)
    with (store.root / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finish(process)
    assert process.returncode == 0
