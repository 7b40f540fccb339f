"""Adding: whole objects under true addresses, shared where the file system can."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import (
    ChangedWhileReadError,
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UsageError,
    VerificationError,
)
from batuta_cli.files import Advance
from batuta_cli.pacha.hashing import address_of_bytes
from batuta_cli.pacha.store import (
    Store,
    StoreName,
    add,
    add_stored,
    add_stream,
    collect,
    verify,
)
from tests import unpacked
from tests.pacha.store.support import LLAMA, MIB, child, damage, everything, finish, object_name

# Adding


def test_an_object_lies_read_only_under_the_address_of_its_bytes(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    assert added.address == address_of_bytes(model.read_bytes())
    assert everything(store) == {object_name(added.address)}
    assert Path(added.object_path).read_bytes() == model.read_bytes()
    assert stat.S_IMODE(os.stat(added.object_path).st_mode) == 0o444
    assert stat.S_IMODE(os.stat(store.root).st_mode) == 0o700
    assert store.lookup(LLAMA)[1] == added.object_path == store.lookup(added.address)[1]


def test_the_source_is_left_as_it_was_and_may_change_afterwards(store: Store, model: Path) -> None:
    before = model.stat()
    added = add(store, model)
    assert (model.stat().st_mode, model.stat().st_nlink) == (before.st_mode, 1)
    model.write_bytes(b"another version")
    assert verify(store).intact == (added.address,)


def test_an_object_is_never_more_readable_than_its_source(store: Store, model: Path) -> None:
    model.chmod(0o600)
    assert stat.S_IMODE(os.stat(add(store, model).object_path).st_mode) == 0o400


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 9 * MIB + 1])
def test_files_of_all_sizes(store: Store, tmp_path: Path, size: int) -> None:
    (tmp_path / "m").write_bytes(b"\1" * size)
    added = add(store, tmp_path / "m", name=LLAMA)
    assert (added.size, added.address) == (size, address_of_bytes(b"\1" * size))
    assert add(store, tmp_path / "m", name=LLAMA).sharing == "present"
    assert verify(store).intact == (added.address,)


def test_adding_twice_is_adding_once(store: Store, model: Path) -> None:
    first = add(store, model)
    inode = os.stat(first.object_path).st_ino
    again = add(store, model, name=LLAMA)
    assert (again.address, again.sharing) == (first.address, "present")
    assert os.stat(first.object_path).st_ino == inode
    assert everything(store) == {object_name(first.address)}
    assert store.lookup(LLAMA)[0] == first.address


def test_another_file_of_the_same_size_is_a_second_object(store: Store, tmp_path: Path) -> None:
    for content in (b"aaaa", b"bbbb"):
        (tmp_path / "m").write_bytes(content)
        assert Path(add(store, tmp_path / "m").object_path).read_bytes() == content
    assert len(store.objects()) == 2


def test_a_symbolic_link_is_read_and_keeps_its_own_name(store: Store, model: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").symlink_to(model)
    added = add(store, tmp_path / "blob", name=LLAMA)
    assert added.address == address_of_bytes(model.read_bytes())
    assert store.names()[LLAMA].file == "blob"


def test_a_file_name_that_is_not_utf8(store: Store, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/m\xff")
    Path(path).write_bytes(b"x")
    add(store, path, name=LLAMA)
    assert store.names()[LLAMA].file is None


def test_a_directory_cannot_be_linked_and_an_empty_one_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidInputError, match="no file in it"):
        add(store, tmp_path / "model")
    with pytest.raises(UsageError, match="only a regular file can be linked"):
        add(store, tmp_path / "model", link=True)
    assert not store.root.exists()


def test_a_missing_file_makes_no_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        add(store, tmp_path / "none")
    assert not store.root.exists()


def test_a_descriptor_is_read_from_its_position(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"headbody")
    with open(tmp_path / "m", "rb", buffering=0) as file:
        file.seek(4)
        assert add_stream(store, file.fileno(), "stdin").address == address_of_bytes(b"body")


def test_a_fifo_is_read_to_its_end(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = child(store, tmp_path / "fifo")
    (tmp_path / "fifo").write_bytes(b"through a pipe")
    assert finish(process) == str(address_of_bytes(b"through a pipe"))


def test_a_pipe_that_does_not_block_is_waited_for(store: Store) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    program = "import os, sys; os.write(1, b'one'); sys.stdin.read(); os.write(1, b'two')"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=writer)
    os.close(writer)
    assert process.stdin is not None
    stdin = process.stdin

    @contextlib.contextmanager
    def letting_go(label: str, total: int | None) -> Iterator[Advance | None]:
        yield lambda count: stdin.close()

    try:
        assert add_stream(store, reader, "stdin", progress=letting_go).address == address_of_bytes(b"onetwo")
    finally:
        os.close(reader)
        process.wait()


@pytest.mark.parametrize("known", [False, True])
def test_a_source_that_changes_while_it_is_read_is_never_a_success(store: Store, tmp_path: Path, known: bool) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"a" * (5 * MIB))
    if known:
        add(store, model, name=LLAMA)
    before = everything(store)

    @contextlib.contextmanager
    def writing(label: str, total: int | None) -> Iterator[Advance | None]:
        def advance(count: int) -> None:
            with model.open("ab") as file:
                file.write(b"more")

        yield advance

    with pytest.raises(ChangedWhileReadError):
        add(store, model, progress=writing)
    assert everything(store) == before


def test_a_name_is_moved_only_by_force(store: Store, model: Path, tmp_path: Path) -> None:
    first = add(store, model, name=LLAMA)
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(OutputExistsError, match="is the name of another object"):
        add(store, tmp_path / "other", name=LLAMA)
    assert everything(store) == {object_name(first.address)}, "nothing is added under a name that is refused"
    with pytest.raises(OutputExistsError), open(tmp_path / "other", "rb") as file:
        add_stream(store, file.fileno(), "stdin", name=LLAMA)
    assert everything(store) == {object_name(first.address)}
    moved = add(store, tmp_path / "other", name=LLAMA, force=True)
    assert store.lookup(LLAMA)[0] == moved.address


def test_a_stored_object_gets_a_further_name(store: Store, model: Path) -> None:
    added = add(store, model, name=LLAMA)
    add_stored(store, added.address, name=StoreName("prod"))
    assert store.names()[StoreName("prod")] == store.names()[LLAMA]
    damage(added.object_path)
    with pytest.raises(VerificationError, match="damaged"):
        add_stored(store, added.address, name=StoreName("third"))
    assert StoreName("third") not in store.names()


def test_adding_over_a_damaged_object_replaces_it(store: Store, model: Path) -> None:
    first = add(store, model, name=LLAMA)
    damage(first.object_path)
    again = add(store, model, name=LLAMA)
    assert again.address == first.address
    assert again.replaced is not None and Path(again.replaced).read_bytes().startswith(b"BAD!")
    assert verify(store).intact == (first.address,)


def test_adding_a_stream_over_a_damaged_object_replaces_it(store: Store, model: Path) -> None:
    first = add(store, model)
    damage(first.object_path)
    with model.open("rb") as file:
        assert add_stream(store, file.fileno(), "stdin").replaced
    assert Path(first.object_path).read_bytes() == model.read_bytes()


def test_adding_over_a_cut_object_replaces_it(store: Store, model: Path) -> None:
    first = add(store, model)
    os.truncate(first.object_path, 100)
    assert add(store, model).replaced
    assert verify(store).intact == (first.address,)


def test_the_signature_beside_a_file_is_kept(store: Store, model: Path) -> None:
    signature = Path(f"{model}.sig")
    signature.write_bytes(b"{}")
    added = add(store, model, name=LLAMA)
    assert added.has_signature
    assert Path(store.signature_path(added.address)).read_bytes() == b"{}"
    signature.write_bytes(b"{1}")
    with pytest.raises(OutputExistsError, match="another signature"):
        add(store, model, name=LLAMA)
    assert Path(store.signature_path(added.address)).read_bytes() == b"{}"
    add(store, model, name=LLAMA, force=True)
    assert Path(store.signature_path(added.address)).read_bytes() == b"{1}"
    signature.unlink()
    assert add(store, model).has_signature, "a file without a signature takes none away"


# Sharing


def test_linking_makes_the_file_itself_the_object(store: Store, model: Path) -> None:
    model.chmod(0o640)
    added = add(store, model, link=True)
    assert added.sharing == "link"
    assert os.path.samefile(added.object_path, model)
    assert stat.S_IMODE(model.stat().st_mode) == 0o440
    assert collect(store).freed == 0, "the user's file keeps the blocks"
    assert model.exists()


def test_linking_reads_through_a_symbolic_link(store: Store, model: Path, tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to(model)
    assert os.path.samefile(add(store, tmp_path / "l", link=True).object_path, model)


def test_a_file_that_is_there_already_is_not_linked_and_not_touched(store: Store, model: Path) -> None:
    add(store, model)
    mode = model.stat().st_mode
    assert add(store, model, link=True).sharing == "present"
    assert (model.stat().st_mode, model.stat().st_nlink) == (mode, 1)


def test_a_link_to_another_file_system_is_an_error_that_leaves_the_file_as_it_was(store: Store) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == store.root.parent.stat().st_dev:
        pytest.skip("needs a second file system")
    model = shm / f"batuta-test-{os.getpid()}"
    model.write_bytes(b"x")
    mode = model.stat().st_mode
    try:
        with pytest.raises(OperationError, match="cannot be linked") as caught:
            add(store, model, link=True)
        assert caught.value.hint and "--link" in caught.value.hint
        assert model.stat().st_mode == mode
        assert everything(store) == set()
    finally:
        model.unlink()


def test_only_a_file_can_be_linked(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    with pytest.raises(UsageError, match="only a regular file"):
        add(store, tmp_path / "fifo", link=True)
    os.close(writer)


def test_a_device_that_never_ends_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="/dev/zero: is a character device, which may never end"):
        add(store, "/dev/zero")
    assert everything(store) == set()


@pytest.fixture
def reflinks(tmp_path: Path) -> Iterator[Path]:
    """A directory on an XFS that shares blocks."""
    image, mount = tmp_path / "xfs.img", tmp_path / "xfs"
    if os.geteuid() != 0:
        pytest.skip("only root can mount the XFS image that this test makes")
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not installed; `make test` brings it where there is apt")
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    mount.mkdir()
    make = ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)]
    subprocess.run(make, env=os.environ | unpacked.libraries("mkfs.xfs"), check=True)
    tried = subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"an XFS image cannot be mounted here: {tried.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def test_blocks_are_shared_where_the_file_system_can(reflinks: Path) -> None:
    model = reflinks / "model"
    model.write_bytes(os.urandom(5 * MIB))
    store = Store(reflinks / "store")
    added = add(store, model, name=LLAMA)
    assert added.sharing == "reflink"
    assert added.address == address_of_bytes(model.read_bytes())
    assert os.stat(added.object_path).st_ino != model.stat().st_ino
    model.write_bytes(b"new")
    assert verify(store).intact == (added.address,)
