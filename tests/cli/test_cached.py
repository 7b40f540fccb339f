"""`--cached` of verify and sign."""

import os
from pathlib import Path

import pytest

from batuta_cli.pacha.digest_cache import FILE_SYSTEMS, file_system
from tests.cli.support import own_key, result
from tests.conftest import Run


@pytest.fixture
def model(work: Path, home: Path, batuta: Run) -> Path:
    """A signed directory of three files, which has been verified with --cached once."""
    if file_system(work) not in FILE_SYSTEMS:
        pytest.skip(f"--cached is not used on {file_system(work)}")
    own_key(home)
    path = work / "model"
    path.mkdir()
    for name in ("a", "b", "c"):
        (path / name).write_bytes(f"weights {name}".encode())
    batuta("pacha", "sign", "model", code=0)
    done = batuta("pacha", "verify", "model", "--cached", code=0)
    assert done.stdout.endswith("  0 of 3 files were not read again: unchanged in the digest cache (--cached)\n")
    return path


def test_files_that_did_not_change_are_not_read_again_and_the_output_says_so(batuta: Run, model: Path) -> None:
    done = batuta("pacha", "verify", "model", "--cached", code=0)
    assert "3 of 3 files were not read again: unchanged in the digest cache (--cached)" in done.stdout
    assert result(batuta("pacha", "verify", "model", "--cached", "--json", code=0))[0]["cached"] == {
        "unchanged": 3,
        "read": 0,
    }
    assert "cached" not in batuta("pacha", "verify", "model", code=0).stdout


def test_a_change_that_keeps_size_and_modification_time_is_found(batuta: Run, model: Path) -> None:
    before = (model / "b").stat()
    (model / "b").write_bytes(b"malware b")
    os.utime(model / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "changed: b" in batuta("pacha", "verify", "model", "--cached", code=3).stderr
    (model / "d").write_bytes(b"one more")
    assert "added: d" in batuta("pacha", "verify", "model", "--cached", code=3).stderr


def test_a_poisoned_cache_is_told_and_does_not_count(batuta: Run, home: Path, model: Path) -> None:
    (file,) = (home / "cache/batuta/digests").iterdir()
    data = bytearray(file.read_bytes())
    for start in range(len(data) - 3 * 104, len(data), 104):
        data[start + 40] ^= 1  # in the digest
    file.write_bytes(data)
    done = batuta("pacha", "verify", "model", "--cached", code=0)
    assert "warning: model: " in done.stderr
    assert "3 entries of the digest cache were not made with this user's key" in done.stderr
    assert "0 of 3 files were not read again" in done.stdout


def test_signing_again_after_one_change_reads_that_file_alone(batuta: Run, model: Path) -> None:
    (model / "c").write_bytes(b"new weights")
    answer = result(batuta("pacha", "sign", "model", "--cached", "--force", "--json", code=0))[0]
    assert answer["cached"] == {"unchanged": 2, "read": 1}
    batuta("pacha", "verify", "model", code=0)


def test_a_file_system_that_hides_changes_is_told_and_everything_is_read(batuta: Run, model: Path) -> None:
    if file_system("/dev/shm") != "tmpfs":
        pytest.skip("there is no tmpfs at /dev/shm")
    shared = Path("/dev/shm") / f"batuta-test-{os.getpid()}"
    try:
        shared.write_bytes(b"weights")
        batuta("pacha", "sign", shared, "--output", "shared.sig", code=0)
        for _ in range(2):
            done = batuta("pacha", "verify", shared, "--signature", "shared.sig", "--cached", "--json", code=0)
            assert "--cached is not used on tmpfs" in done.stderr
            assert result(done)[0]["cached"] is None
    finally:
        shared.unlink()


def test_without_a_place_for_its_key_everything_is_read_with_a_warning(batuta: Run, home: Path, model: Path) -> None:
    (home / "file").write_text("in the place of a directory")
    where = {"XDG_STATE_HOME": str(home / "file/state")}
    done = batuta("pacha", "verify", "model", "--cached", "--json", env=where, code=0)
    assert "warning: model: --cached is not used: " in done.stderr
    assert result(done)[0]["cached"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "model", "--cached", "--digest", f"blake3:{'0' * 64}"),
        ("verify", "-", "--signature", "model.sig", "--cached"),
        ("sign", "model", "--cached", "--oms-key", "none.pem"),
    ],
)
def test_what_cannot_be_cached_is_refused(batuta: Run, model: Path, arguments: tuple[str, ...]) -> None:
    assert "--cached" in batuta("pacha", *arguments, code=2).stderr
