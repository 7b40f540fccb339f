"""The store keeps what it promises: whole objects, true addresses, nothing damaged served, nothing needed collected."""

import contextlib
import fcntl
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import (
    ChangedWhileReadError,
    DamagedStateError,
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UsageError,
    VerificationError,
)
from batuta_cli.files import Advance
from batuta_cli.pacha.hashing import ContentAddress, address_of_bytes
from batuta_cli.pacha.store import (
    Store,
    StoreName,
    add,
    add_stored,
    add_stream,
    collect,
    parse_reference,
    upkeep,
    verify,
)

MIB = 1024 * 1024
LLAMA = StoreName("llama", "8b")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + os.urandom(3 * MIB))
    return path


def everything(store: Store) -> set[str]:
    """All files in the store but those that every store has."""
    found = {str(p.relative_to(store.root)) for p in store.root.rglob("*") if not p.is_dir()}
    return found - {"lock", "names.toml"}


def object_name(address: ContentAddress) -> str:
    return f"blake3/{address.hex[:2]}/{address.hex[2:]}"


def damage(path: str) -> None:
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"BAD!")
    os.chmod(path, 0o444)


CHILD = """
import sys
from pathlib import Path
from batuta_cli import files
from batuta_cli.errors import BatutaError
from batuta_cli.pacha.store import Store, StoreName, add, add_stream
root, hidden, name, *paths = sys.argv[1:]
if hidden == "hidden":  # as on a file system without O_TMPFILE
    files.AtomicOutput._open_unnamed = lambda self: False
store, name = Store(Path(root)), StoreName.parse(name) if name else None
try:
    for path in paths:
        print(add(store, path, name=name).address)
    if not paths:
        print(add_stream(store, 0, "stdin", name=name).address)
except BatutaError as error:
    print(error.message)
    sys.exit(error.exit_code)
"""


def child(
    store: Store, *paths: Path, name: str = "", hidden: bool = False, preexec: Callable[[], None] | None = None
) -> subprocess.Popen[bytes]:
    """A process that adds files, or its standard input."""
    arguments = [str(store.root), "hidden" if hidden else "unnamed", name, *map(str, paths)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=None if paths else subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=preexec,  # noqa: PLW1509 - the tests have no threads
    )


def half_fed(store: Store, *, name: str = "", hidden: bool = False) -> subprocess.Popen[bytes]:
    """A process that has read and written 9 MiB and waits for more."""
    process = child(store, name=name, hidden=hidden)
    assert process.stdin is not None
    process.stdin.write(b"m" * (9 * MIB))  # returns when all but what fits in a pipe has been read
    process.stdin.flush()
    return process


def finish(process: subprocess.Popen[bytes]) -> str:
    output, _ = process.communicate()
    return output.decode().strip()


# Names


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("llama", "llama", "latest"),
        ("llama:8b", "llama", "8b"),
        ("meta/llama-3.1:8b_Q4.K", "meta/llama-3.1", "8b_Q4.K"),
    ],
)
def test_a_name_is_read(text: str, name: str, tag: str) -> None:
    assert parse_reference(text) == StoreName(name, tag)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "a:", ":b", ".a", "-a", "a:-b", "a:.b", "a..b", "a/../b", "/a", "a/", "a//b", "a/.b", "a b", "ä"),
        *("a\n", "a:b:c", "a:b/c", "blake3", "blake3:latest", "blake3:" + "0" * 63, "a" * 201, "a:" + "b" * 129),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text)


def test_an_address_is_read() -> None:
    address = address_of_bytes(b"x")
    assert parse_reference(str(address)) == address


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


def test_a_directory_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="the store keeps single files") as caught:
        add(store, tmp_path)
    assert caught.value.hint
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
    with pytest.raises(UsageError):
        add(store, "/dev/null", link=True)


@pytest.fixture
def reflinks(tmp_path: Path) -> Iterator[Path]:
    """A directory on an XFS that shares blocks."""
    image, mount = tmp_path / "xfs.img", tmp_path / "xfs"
    if shutil.which("mkfs.xfs") is None or os.geteuid() != 0:
        pytest.skip("needs root and mkfs.xfs")
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    mount.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True).returncode:
        pytest.skip("may not mount")
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
        pytest.skip("may not mount")
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
