"""Content addresses: the numbers of others, and everything that must not be given one."""

import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError, ChangedWhileReadError, InvalidInputError, NotFoundError, OperationError
from batuta_cli.pacha import hashing
from batuta_cli.pacha.hashing import (
    ContentAddress,
    Resource,
    address_of_bytes,
    content_address,
    directory_address,
    hash_descriptor,
    hash_entries,
    hash_stream,
    hash_stream_counting,
)
from batuta_cli.pacha.ignoring import expand_ignored
from batuta_cli.pacha.scanning import scan
from tests.conftest import NOBODY
from tests.pacha import forge

# https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json: input length, hash, derive_key
VECTORS = [
    (
        0,
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
    ),
    (
        1,
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c",
    ),
    (
        1023,
        "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        "74a16c1c3d44368a86e1ca6df64be6a2f64cce8f09220787450722d85725dea5",
    ),
    (
        1025,
        "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        "effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb",
    ),
    (
        7169,
        "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817",
        "554b0a5efea9ef183f2f9b931b7497995d9eb26f5c5c6dad2b97d62fc5ac31d9",
    ),
]
MIB = 1024 * 1024
WINDOW = 32 * MIB


def painted(length: int) -> bytes:
    """The input of the official vectors: 0, 1, …, 250, 0, 1, …"""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("length", "digest", "_derived"), VECTORS)
def test_a_file_has_the_official_blake3_digest_as_its_address(
    length: int, digest: str, _derived: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(painted(length))
    assert str(content_address(path)) == f"blake3:{digest}"
    assert str(address_of_bytes(painted(length))) == f"blake3:{digest}"


@pytest.mark.parametrize(("length", "_digest", "derived"), VECTORS)
def test_the_library_derives_keys_as_the_official_vectors_say(length: int, _digest: str, derived: str) -> None:
    hasher = blake3(painted(length), derive_key_context="BLAKE3 2019-12-27 16:29:52 test vectors context")
    assert hasher.hexdigest() == derived


@pytest.mark.parametrize("length", [4 * MIB - 1, 4 * MIB, WINDOW, WINDOW + 1])
def test_mapped_windows_give_the_same_digest_as_b3sum(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(painted(length))
    printed = subprocess.run(["b3sum", "--no-names", path], capture_output=True, text=True, check=True).stdout
    assert content_address(path).hex == printed.strip()


def test_a_directory_has_the_address_that_b3sum_derives_from_names_sizes_and_digests(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "weights/a.bin": b"abc", "weights-2.bin": b"", "zé.txt": b"x"}
    model = forge.write_model(tmp_path / "model", files)
    # Made with `b3sum --derive-key` over the encoding of docs/formats.md#content-address; the order is "-" before "/".
    expected = "e21e0dfd0385d9c4ab610fe02e429a59c9df230dfc8c4cbe9c301279f14d146e"
    assert content_address(model).hex == expected == forge.directory_address(files)


def test_names_are_ordered_by_code_points_and_not_by_utf_16(tmp_path: Path) -> None:
    files = {"\U0001f600": b"later", "\uff5e": b"earlier"}  # in UTF-16 the surrogates of the first come first
    model = forge.write_model(tmp_path / "model", files)
    assert [entry.name for entry in scan(model)] == ["\uff5e", "\U0001f600"]
    assert content_address(model).hex == forge.directory_address(files)


def test_modes_empty_directories_and_the_place_of_a_model_do_not_change_its_address(tmp_path: Path) -> None:
    first = forge.write_model(tmp_path / "first", {"a": b"1", "b/c": b"2"})
    second = forge.write_model(tmp_path / "elsewhere" / "second", {"a": b"1", "b/c": b"2"})
    (second / "empty").mkdir()
    (second / "a").chmod(0o400)
    assert content_address(first) == content_address(second)


@given(st.dictionaries(st.text("ab/", min_size=1, max_size=4), st.binary(max_size=3), min_size=1, max_size=4))
def test_the_directory_address_binds_every_name_size_and_digest(files: dict[str, bytes]) -> None:
    resources = [Resource(name, len(data), blake3(data).digest()) for name, data in files.items()]
    address = directory_address(resources)
    assert address.hex == forge.directory_address(files)
    assert directory_address(resources[::-1]) == address
    one = resources[0]
    for other in (
        Resource(one.name + "x", one.size, one.digest),
        Resource(one.name, one.size + 1, one.digest),
        Resource(one.name, one.size, blake3(one.digest).digest()),
    ):
        assert directory_address([other, *resources[1:]]) != address


def test_an_empty_file_has_an_address_and_an_empty_directory_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert content_address(tmp_path / "empty").hex == VECTORS[0][1]
    (tmp_path / "hollow" / "more").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="hollow: the directory has no file in it"):
        content_address(tmp_path / "hollow")


def test_nothing_is_skipped_silently_not_even_git_or_hidden_files(tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {".git/HEAD": b"ref", ".hidden": b"", "a": b"1"})
    assert [entry.name for entry in scan(model)] == [".git/HEAD", ".hidden", "a"]


def test_a_scan_leaves_out_paths_from_the_root_and_takes_no_globs_or_base_names(tmp_path: Path) -> None:
    files = {".git/HEAD": b"", "a.log": b"", "deep/.git/HEAD": b"", "deep/a.log": b"", "deep/keep": b"1", "*": b""}
    model = forge.write_model(tmp_path / "m", files)
    kept = ["a.log", "deep/.git/HEAD", "deep/keep"]
    assert [e.name for e in scan(model, ignore=[".git", "deep/a.log", "*", "dee", "deep/k"])] == kept


def test_an_address_with_globs_is_that_of_the_files_they_do_not_name(tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"a.log": b"", "deep/b.log": b"2", "keep": b"1"})
    expected = forge.directory_address({"deep/b.log": b"2", "keep": b"1"})
    assert content_address(model, ignore=["*.log"]).hex == expected
    assert content_address(model, ignore=["**/*.log"]).hex == forge.directory_address({"keep": b"1"})
    with pytest.raises(InvalidInputError, match="no file in it besides the ignored ones"):
        content_address(model, ignore=["*"])


@pytest.mark.parametrize("name", ["line\nbreak", "-rf", "--force", "tab\tbell\x07", "\u202egnp.exe", "a b", "%41"])
def test_awkward_but_legal_names_are_hashed_as_they_are(name: str, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {name: b"1"})
    assert content_address(model).hex == forge.directory_address({name: b"1"})


def test_a_name_that_is_not_utf8_is_refused_and_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/m/bad\xff\x1b.bin"))).write_bytes(b"1")
    with pytest.raises(InvalidInputError) as caught:
        content_address(tmp_path / "m")
    assert r"bad\xff\x1b.bin" in caught.value.message
    assert "not UTF-8" in caught.value.message


@pytest.mark.parametrize("target", ["inside", "../outside", "loop", "folder"])
def test_symbolic_links_inside_a_model_are_refused_by_name(target: str, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"inside": b"1", "folder/x": b"2"})
    (tmp_path / "outside").write_bytes(b"secret")
    (model / "loop").symlink_to(target)
    with pytest.raises(InvalidInputError, match="m/loop: is a symbolic link") as caught:
        content_address(model)
    assert caught.value.hint and "--follow-symlinks" in caught.value.hint


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_to_nowhere_is_refused_with_its_target(follow: bool, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"inside": b"1"})
    (model / "x").symlink_to("missing")
    with pytest.raises(InvalidInputError, match="m/x: is a link to missing, which does not exist"):
        content_address(model, follow_symlinks=follow)


def test_followed_links_to_files_count_with_what_they_point_to(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    model = forge.write_model(tmp_path / "m", {"config.json": b"{}"})
    (model / "model.bin").symlink_to("../blob")
    expected = forge.directory_address({"config.json": b"{}", "model.bin": b"weights"})
    assert content_address(model, follow_symlinks=True).hex == expected


@pytest.mark.parametrize("target", ["link", ".", "missing", "pipe"])
def test_followed_links_to_anything_but_files_are_refused(target: str, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"a": b"1"})
    os.mkfifo(model / "pipe")
    (model / "link").symlink_to(target)
    with pytest.raises((InvalidInputError, OperationError), match="m/link: "):
        content_address(model, follow_symlinks=True, ignore=["pipe"])


def test_a_model_that_is_itself_a_link_is_read_through_it(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model.gguf").symlink_to("blob")
    assert content_address(tmp_path / "model.gguf") == address_of_bytes(b"weights")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    place = os.open(path.parent, os.O_PATH)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{place}/{path.name}")
    os.close(place)


@pytest.mark.parametrize(("make", "kind"), [(make_fifo, "a FIFO"), (make_socket, "a socket")])
def test_special_files_are_refused_and_never_opened(make: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"a": b"1"})
    make(model / "special")
    for path in (model, model / "special"):
        with pytest.raises(InvalidInputError, match=f"special: is {kind}"):
            content_address(path)


def test_a_device_is_not_a_model() -> None:
    with pytest.raises(InvalidInputError, match="/dev/zero: is a character device"):
        content_address("/dev/zero")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.gguf: no such file"):
        content_address(tmp_path / "nothing.gguf")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Not root for the length of the block: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("barred", ["m/secret", "m/closed", "m"])
def test_what_may_not_be_read_is_an_error_that_names_it(barred: str, shared: Path) -> None:
    model = forge.write_model(shared / "m", {"a": b"1", "secret": b"2", "closed/b": b"3"})
    expected = forge.directory_address({"a": b"1", "secret": b"2", "closed/b": b"3"})
    with unprivileged():
        assert content_address(model).hex == expected
    (shared / barred).chmod(0)
    with unprivileged(), pytest.raises(OperationError, match=f"{barred}: permission denied") as caught:
        content_address(model)
    assert caught.value.exit_code == 1


def after_the_first(change: Callable[[], object]) -> Callable[[int], None]:
    """A progress callback that does something once, when the first piece has been read."""
    pending = [change]

    def advance(_count: int) -> None:
        if pending:
            pending.pop()()

    return advance


@pytest.mark.parametrize("size", [2 * MIB, WINDOW + MIB])
@pytest.mark.parametrize("change", ["truncate", "grow", "rewrite", "replace"])
def test_a_file_that_changes_while_it_is_read_has_no_address(size: int, change: str, tmp_path: Path) -> None:
    path, other = tmp_path / "model", tmp_path / "other"
    path.write_bytes(bytes(size))
    other.write_bytes(bytes(size))
    os.utime(path, ns=(1, 1))  # so that the change is a later one, however coarse the clock
    actions: dict[str, Callable[[], object]] = {
        "truncate": lambda: os.truncate(path, 10),
        "grow": lambda: os.truncate(path, size + 1),
        "rewrite": lambda: path.write_bytes(b"\1" * size),
        "replace": lambda: other.replace(path),
    }
    with pytest.raises(ChangedWhileReadError, match="model: changed while it was being read") as caught:
        content_address(path, progress=after_the_first(actions[change]))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("change", ["add", "remove", "rewrite an early one", "rename"])
def test_a_directory_that_changes_while_it_is_read_has_no_address(change: str, tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"a": b"1", "b": bytes(2 * MIB), "c": b"3"})
    os.utime(model / "a", ns=(1, 1))
    done = threading.Event()

    def advance(count: int) -> None:
        if count < MIB or done.is_set():  # not before the small files of the first thread can have been read
            return
        done.set()
        actions: dict[str, Callable[[], object]] = {
            "add": lambda: (model / "new").write_bytes(b"4"),
            "remove": lambda: (model / "a").unlink(missing_ok=True),
            "rewrite an early one": lambda: (model / "a").write_bytes(b"5"),
            "rename": lambda: (model / "a").rename(model / "z"),
        }
        actions[change]()

    with pytest.raises((ChangedWhileReadError, NotFoundError)):
        content_address(model, progress=advance)


@pytest.mark.parametrize("size", [2 * MIB, WINDOW + MIB])
@pytest.mark.parametrize("final", [10, WINDOW + 2 * MIB])
def test_an_open_file_that_shrinks_or_grows_while_it_is_hashed_has_no_digest(
    size: int, final: int, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(size))
    with opened(path) as descriptor, pytest.raises(ChangedWhileReadError):
        hash_descriptor(descriptor, path, after_the_first(lambda: os.truncate(path, final)))


def test_an_open_file_that_is_rewritten_while_it_is_hashed_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(2 * MIB))
    os.utime(path, ns=(1, 1))
    with opened(path) as descriptor, pytest.raises(ChangedWhileReadError):
        hash_descriptor(descriptor, path, after_the_first(lambda: path.write_bytes(b"\1" * 2 * MIB)))


def test_a_file_exchanged_for_a_link_between_the_scan_and_the_reading_is_not_hashed(tmp_path: Path) -> None:
    model = forge.write_model(tmp_path / "m", {"a": b"harmless"})
    (tmp_path / "secret").write_bytes(b"password")
    entries = scan(model)
    (model / "a").unlink()
    (model / "a").symlink_to("../secret")
    with pytest.raises(ChangedWhileReadError, match="m/a: changed"):
        hash_entries(entries)


def test_a_directory_of_many_small_and_some_large_files_has_the_same_address_as_by_hand(tmp_path: Path) -> None:
    files = {f"{i:04}": str(i).encode() for i in range(1500)} | {"0700": bytes(5 * MIB), "1499": b""}
    assert content_address(forge.write_model(tmp_path / "m", files)).hex == forge.directory_address(files)


def test_a_descriptor_is_hashed_from_the_beginning_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(painted(7169))
    with opened(path) as descriptor:
        os.lseek(descriptor, 100, os.SEEK_SET)
        assert hash_descriptor(descriptor, path).digest.hex() == VECTORS[-1][1]


def feed(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data)
    os.close(descriptor)


def test_a_stream_is_hashed_to_its_end_and_counted() -> None:
    reading, writing = os.pipe()
    writer = threading.Thread(target=feed, args=(writing, painted(7169)))
    writer.start()
    size, address = hash_stream_counting(reading, "stdin")
    writer.join()
    os.close(reading)
    assert (size, address.hex) == (7169, VECTORS[-1][1])


def test_a_pipe_with_nothing_in_it_yet_is_waited_for_and_not_taken_for_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)  # as ssh and node hand their pipes on
    writer = threading.Thread(target=feed, args=(writing, painted(1025)))
    wait = hashing._wait_for

    def write_and_wait(descriptor: int) -> None:
        if writer.ident is None:
            writer.start()
        wait(descriptor)

    monkeypatch.setattr(hashing, "_wait_for", write_and_wait)
    address = hash_stream(reading, "stdin")
    writer.join()
    os.close(reading)
    assert address.hex == VECTORS[3][1]


@given(st.binary(min_size=32, max_size=32))
def test_an_address_is_read_as_it_is_written(digest: bytes) -> None:
    assert ContentAddress.parse(str(ContentAddress(digest))) == ContentAddress(digest)


@given(st.text(max_size=80) | st.text("0123456789abcdefg", min_size=62, max_size=66).map("blake3:".__add__))
def test_only_64_hexadecimal_digits_are_an_address(text: str) -> None:
    if re.fullmatch("blake3:[0-9a-f]{64}", text):
        assert str(ContentAddress.parse(text)) == text
    else:
        with pytest.raises(InvalidInputError, match="not a content address"):
            ContentAddress.parse(text)


@given(st.lists(st.text(min_size=1, max_size=12), max_size=3))
def test_no_pattern_can_break_a_scan(tmp_path_factory: pytest.TempPathFactory, patterns: list[str]) -> None:
    model = tmp_path_factory.getbasetemp() / "patterns"
    forge.write_model(model, {"a": b"", "[b]": b"", "d/e": b""})
    try:
        names = {entry.name for entry in scan(model, ignore=expand_ignored(model, patterns).paths)}
    except BatutaError as error:
        assert "no file in it" in error.message or "--ignore" in error.message
    else:
        assert names <= {"a", "[b]", "d/e"}
