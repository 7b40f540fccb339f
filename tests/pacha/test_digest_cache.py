"""The digest cache: each rule that keeps an old digest from standing for new content."""

import mmap
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from batuta_cli import paths
from batuta_cli.errors import DamagedStateError, UnsafeFileError
from batuta_cli.pacha import digest_cache
from batuta_cli.pacha.digest_cache import FILE_SYSTEMS, GRANULARITY, DigestCache, file_system
from batuta_cli.pacha.hashing import Resource, hash_model
from batuta_cli.pacha.scanning import FileEntry, scan

REAL_TIME = time.time_ns


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if file_system(tmp_path) not in FILE_SYSTEMS:
        pytest.skip(f"the digest cache is not used on {file_system(tmp_path)}")
    for kind in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files were changed a second before they are read, as far as the cache can tell."""
    monkeypatch.setattr("batuta_cli.pacha.digest_cache.time.time_ns", lambda: REAL_TIME() + 1_000_000_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name in ("a", "b", "c"):
        (path / name).write_bytes(f"weights {name}".encode())
    return path


def opened(model: Path) -> DigestCache:
    cache = DigestCache.open(model)
    assert cache is not None
    return cache


def read(model: Path) -> DigestCache:
    """Hash a model with the cache, and check that the digests are those of its content now."""
    cache = opened(model)
    for resource in hash_model(model, cache=cache):
        path = model if resource.name == "." else model / resource.name
        assert resource.digest == blake3(path.read_bytes()).digest()
    return cache


def known(model: Path) -> set[str]:
    """The files that are not read any more."""
    return {entry.name for entry in opened(model).lookup(scan(model))}


@pytest.mark.usefixtures("later")
def test_what_was_read_is_not_read_again_until_it_changes(model: Path) -> None:
    assert (read(model).found, known(model)) == (0, {"a", "b", "c"})
    assert (read(model).found, read(model).read) == (3, 0)
    (model / "b").write_bytes(b"WEIGHTS b")
    cache = read(model)
    assert (cache.found, cache.read) == (2, 1)
    assert known(model) == {"a", "b", "c"}


@pytest.mark.usefixtures("later")
def test_a_single_file_is_cached_too(model: Path) -> None:
    read(model / "a")
    assert known(model / "a") == {"."}


@pytest.mark.usefixtures("later")
def test_a_change_that_restores_size_and_modification_time_shows_by_the_change_time(model: Path) -> None:
    read(model)
    before = (model / "a").stat()
    (model / "a").write_bytes(b"WEIGHTS a")
    os.utime(model / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (model / "a").stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    assert known(model) == {"b", "c"}


@pytest.mark.usefixtures("later")
def test_another_file_moved_into_its_place_is_read(model: Path) -> None:
    read(model)
    before = (model / "a").stat()
    (model.parent / "new").write_bytes(b"WEIGHTS a")
    os.utime(model.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (model.parent / "new").rename(model / "a")
    assert known(model) == {"b", "c"}


def forged(model: Path, name: str, digest: bytes) -> None:
    """Write an entry for the file as it is now, as somebody could who can write the cache and has no key."""
    cache = opened(model)
    (entry,) = [entry for entry in scan(model) if entry.name == name]
    stated = digest_cache._identity(entry) + digest
    code = blake3(stated, key=bytes(32)).digest()
    cache.path.parent.mkdir(parents=True, exist_ok=True)
    cache.path.write_bytes(cache.header + stated + code)


def test_an_entry_that_was_made_without_the_key_is_ignored_with_a_warning_and_the_file_is_read(model: Path) -> None:
    good = blake3((model / "a").read_bytes()).digest()
    (model / "a").write_bytes(b"malware a")
    forged(model, "a", good)
    cache = read(model)
    assert (cache.found, cache.read) == (0, 3)
    assert len(cache.warnings) == 1
    assert (
        "1 entry of the digest cache was not made with this user's key; it is ignored and its file is read"
        in cache.warnings[0]
    )


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("place", ["identity", "digest", "code"])
def test_a_changed_entry_is_ignored_with_a_warning(model: Path, place: str) -> None:
    read(model / "a")
    path = opened(model / "a").path
    data = bytearray(path.read_bytes())
    data[{"identity": -104, "digest": -64, "code": -1}[place]] ^= 1
    path.write_bytes(data)
    cache = read(model / "a")
    assert cache.found == 0
    assert bool(cache.warnings) == (place != "identity")  # an entry of another file is none of this one


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("data", [b"", b"garbage", b"cut"])
def test_a_damaged_cache_costs_time_only(model: Path, data: bytes) -> None:
    read(model)
    path = opened(model).path
    path.write_bytes(path.read_bytes()[:-5] if data == b"cut" else data)
    cache = read(model)
    assert cache.found == (2 if data == b"cut" else 0)
    assert any("damaged" in warning for warning in cache.warnings) == (data == b"cut")
    assert known(model) == {"a", "b", "c"}


@pytest.mark.usefixtures("later")
def test_a_cache_of_another_user_or_machine_is_ignored_with_a_warning(model: Path) -> None:
    read(model)
    paths.digest_key_file().unlink()
    cache = read(model)
    assert cache.found == 0
    assert "3 entries" in cache.warnings[0]


def test_a_file_that_changed_within_the_tick_of_the_clock_is_not_recorded(model: Path) -> None:
    read(model)
    assert known(model) == set()


def _entry(**facts: Any) -> FileEntry:
    return FileEntry("a", "/m/a", 1, 2, 3, 4, 5_000_000_001)._replace(**facts)


def _recorded(cache: DigestCache, before: FileEntry, after: FileEntry) -> bool:
    cache._started = before.changed + GRANULARITY
    cache.record([before], [after], {before: Resource("a", 1, bytes(32))})
    return bool(cache._kept)


def _cache(tmp_path: Path) -> DigestCache:
    return DigestCache(4, tmp_path / "digests/4-2", bytes(32), b"header\n")


@pytest.mark.parametrize(
    ("facts", "after", "recorded"),
    [
        ({}, {}, True),
        ({}, {"changed": 5_000_000_002}, False),  # written to, or linked, while it was read
        ({"changed": 5_000_000_000}, {}, False),  # a file system that keeps whole seconds
        ({"device": 5}, {}, False),  # another file system, which was not looked up
        ({"others_write": True}, {}, False),  # another user can exchange its blocks without a trace
    ],
)
def test_only_a_file_whose_every_change_would_show_is_recorded(
    tmp_path: Path, facts: dict[str, int], after: dict[str, int], recorded: bool
) -> None:
    assert _recorded(_cache(tmp_path), _entry(**facts), _entry(**facts | after)) is recorded


def test_a_file_that_is_as_young_as_the_granularity_is_not_recorded(tmp_path: Path) -> None:
    cache, entry = _cache(tmp_path), _entry()
    cache._started = entry.changed + GRANULARITY - 1
    cache.record([entry], [entry], {entry: Resource("a", 1, bytes(32))})
    assert cache._kept == []


@pytest.mark.usefixtures("later")
def test_a_file_that_another_user_may_write_is_read_each_time_and_named(model: Path) -> None:
    (model / "a").chmod(0o664)
    cache = read(model)
    assert cache.warnings == [f"1 file is read each time, because another user may write to it: {model / 'a'}"]
    assert known(model) == {"b", "c"}


def test_a_file_of_another_user_is_one_that_another_user_may_write(model: Path) -> None:
    status = list((model / "a").stat())
    for mode, owner, others in (
        (0o644, 0, False),
        (0o644, os.geteuid(), False),
        (0o644, 12345, True),
        (0o646, 0, True),
    ):
        status[0], status[4] = stat.S_IFREG | mode, owner
        assert FileEntry.of("a", "a", os.stat_result(status)).others_write is others


@pytest.mark.usefixtures("later")
def test_a_second_write_through_a_mapping_shows_although_its_page_was_dirty_when_it_was_read(model: Path) -> None:
    with (model / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] = ord("x")  # sets the change time, and leaves the page writable until it is written back
        read(model)
        mapping[0] = ord("y")
        assert "a" not in known(model)


def test_file_systems_that_do_not_show_every_change_are_not_cached(model: Path) -> None:
    if file_system("/dev/shm") != "tmpfs":
        pytest.skip("there is no tmpfs at /dev/shm")
    shared = Path("/dev/shm") / f"batuta-test-{os.getpid()}"
    shared.write_bytes(b"weights")
    try:
        assert DigestCache.open(shared) is None
    finally:
        shared.unlink()
    assert {"tmpfs", "nfs", "nfs4", "cifs", "fuse", "9p", "vfat", "ramfs"}.isdisjoint(FILE_SYSTEMS)


@pytest.mark.usefixtures("later")
def test_entries_do_not_outlive_a_reboot(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(model)
    (tmp_path / "boot").write_text("00000000-0000-0000-0000-000000000000\n")
    monkeypatch.setattr(digest_cache, "_BOOT", tmp_path / "boot")
    assert known(model) == set()


def test_the_key_is_private_and_not_in_the_directory_of_the_cache(model: Path, tmp_path: Path) -> None:
    read(model)
    key = paths.digest_key_file()
    assert key.stat().st_mode & 0o777 == 0o600
    assert not key.is_relative_to(tmp_path / "cache")
    key.chmod(0o644)
    with pytest.raises(UnsafeFileError) as refused:
        DigestCache.open(model)
    assert refused.value.hint == f"chmod 600 {key}"  # and not to give it as a private key on stdin
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(DamagedStateError, match="damaged"):
        DigestCache.open(model)


@pytest.mark.usefixtures("later")
def test_a_cache_that_cannot_be_written_is_a_warning(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file in the place of the directory")
    assert any("was not written" in warning for warning in read(model).warnings)


@pytest.mark.usefixtures("later")
def test_a_fifo_in_the_place_of_the_entries_is_not_written_to(model: Path, tmp_path: Path) -> None:
    path = read(model).path
    path.unlink()
    os.mkfifo(path)  # without a reader, so that opening it to write would block
    assert any("was not written" in warning for warning in read(model).warnings)


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        b"27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        b"28 27 0:24 / /srv rw,relatime shared:1 - nfs4 host:/srv rw\n"
        b"29 28 0:25 / /srv/with\\040space rw - xfs /dev/vdb rw\n"
        b"30 27 0:26 / /srv2 rw - tmpfs none rw\n"
        b"31 27 0:27 / /srv2 rw - btrfs /dev/vdc rw\n"
    )
    (tmp_path / "mountinfo").write_bytes(table)
    monkeypatch.setattr(digest_cache, "_MOUNTS", tmp_path / "mountinfo")
    found = {place: file_system(place) for place in ("/home/a", "/srv/a", "/srv", "/srv/with space/a", "/srv2/a")}
    assert found == {
        "/home/a": "ext4",
        "/srv/a": "nfs4",
        "/srv": "nfs4",
        "/srv/with space/a": "xfs",
        "/srv2/a": "btrfs",
    }
    monkeypatch.setattr(digest_cache, "_MOUNTS", tmp_path / "none")
    assert file_system("/home/a") is None
