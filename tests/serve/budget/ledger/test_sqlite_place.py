"""A ledger that is removed, replaced or cannot be written is noticed: it is an error, never a fresh budget."""

import contextlib
import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import LedgerError, MissingLedgerError
from batuta_cli.serve.budget.ledger import Moment, ReservationRow, Use
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.serve.budget.ledger.support import rows

NOW = Moment(1_700_000_000_000, dt.date(2023, 11, 14))
ROOT = str(Path(__file__).resolve().parents[4])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    """A ledger in which 7 are spent, held open by this process."""
    made = SqliteLedger(str(path), patience=0.5)
    made.record(NOW, 7, Use("m", "B"))
    yield made
    made.close()


def refuses(ledger: SqliteLedger, match: str) -> None:
    for use in (
        lambda: ledger.day_status(NOW),
        lambda: ledger.reserve(NOW, ReservationRow("x", 1, "me"), 100),
        lambda: ledger.record(NOW, 1, Use()),
        lambda: ledger.settle(NOW, "r", 1, Use()),
        lambda: ledger.history(dt.date.min),
    ):
        with pytest.raises(LedgerError, match=match) as refused:
            use()
        assert refused.value.hint and refused.value.exit_code == 1


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


# Under a running process.


def test_a_ledger_removed_under_a_running_process_is_noticed(ledger: SqliteLedger, path: Path) -> None:
    remove(path)
    refuses(ledger, "was removed while this process used it")
    assert not path.exists()


def test_so_it_is_when_the_whole_directory_is_removed(ledger: SqliteLedger, path: Path) -> None:
    shutil.rmtree(path.parent)
    refuses(ledger, "was removed while this process used it")
    assert not path.parent.exists()


def test_a_ledger_replaced_by_a_fresh_one_is_noticed(ledger: SqliteLedger, path: Path) -> None:
    shutil.rmtree(path.parent)
    other = SqliteLedger(str(path))
    other.record(NOW, 2, Use())
    refuses(ledger, "was replaced while this process used it")
    assert other.day_status(NOW).spent == 2
    other.close()


def test_a_ledger_replaced_by_its_own_older_copy_is_noticed(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    ledger.close()
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    ledger.record(NOW, 50, Use())
    ledger.close()
    os.replace(copy, path)
    refuses(ledger, "was replaced")


def test_a_ledger_put_back_is_used_again(ledger: SqliteLedger, path: Path) -> None:
    away = path.parent.with_name("away")
    path.parent.rename(away)
    refuses(ledger, "was removed")
    away.rename(path.parent)
    ledger.record(NOW, 1, Use())
    assert ledger.day_status(NOW).spent == 8


def test_a_removed_journal_is_noticed(ledger: SqliteLedger, path: Path) -> None:
    Path(f"{path}-wal").unlink()
    refuses(ledger, "ledger-wal: was removed or replaced while")


# Python 3.12 warns of what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_knows_the_file_of_its_parent(ledger: SqliteLedger, path: Path) -> None:
    shutil.rmtree(path.parent)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                ledger.record(NOW, 1, Use())
            except LedgerError:
                status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert not path.exists()


# Since the last process.


def test_a_ledger_missing_beside_its_marker_is_an_error(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    remove(path)
    later = SqliteLedger(str(path))
    refuses(later, "is missing")
    with pytest.raises(MissingLedgerError, match=r"ledger\.recorded"):
        later.rezone(NOW, "Asia/Tokyo")
    assert not path.exists()


def test_reset_begins_a_new_ledger_in_its_place(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    path.unlink()
    later = SqliteLedger(str(path))
    assert later.reset(NOW).forgiven == 0
    later.record(NOW, 2, Use())
    assert later.day_status(NOW).spent == 2
    later.close()
    path.unlink()
    refuses(SqliteLedger(str(path)), "is missing")


def test_a_journal_left_by_a_removed_ledger_is_no_part_of_the_new_one(path: Path) -> None:
    script = (
        "import sys, os, signal, datetime as dt; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\n"
        "l = open_ledger('sqlite:///' + sys.argv[1])\n"
        "l.record(Moment(1700000000000, dt.date(2023, 11, 14)), 1, Use()); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path), ROOT])
    assert Path(f"{path}-wal").stat().st_size
    path.unlink()
    later = SqliteLedger(str(path))
    later.reset(NOW)
    later.record(NOW, 3, Use())
    later.close()
    assert rows(path, "SELECT spent, forgiven FROM day") == [(3, 0)]


@pytest.mark.parametrize("kind", ["directory", "dangling link", "empty file"])
def test_whatever_has_the_markers_name_counts_as_the_marker(path: Path, kind: str) -> None:
    path.parent.mkdir()
    marker = Path(f"{path}.recorded")
    if kind == "directory":
        marker.mkdir()
    elif kind == "dangling link":
        marker.symlink_to("nowhere")
    else:
        marker.touch()
    refuses(SqliteLedger(str(path)), "is missing")


def test_a_moved_directory_takes_its_ledger_along(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    moved = path.parent.with_name("moved")
    path.parent.rename(moved)
    there = SqliteLedger(str(moved / path.name))
    assert there.day_status(NOW).spent == 7
    there.close()
    (moved / path.name).unlink()
    refuses(SqliteLedger(str(moved / path.name)), "is missing")


def test_a_ledger_of_the_first_version_gets_its_marker_with_its_first_use(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    marker = Path(f"{path}.recorded")
    marker.unlink()
    later = SqliteLedger(str(path))
    later.day_status(NOW)
    assert not marker.exists()  # reading writes nothing
    later.record(NOW, 1, Use())
    assert marker.exists() and marker.stat().st_mode & 0o777 == 0o600
    later.close()


@pytest.mark.parametrize("function", ["rename", "unlink", "open", "fsync"])
def test_a_process_killed_while_it_makes_a_ledger_leaves_one_that_can_be_used(path: Path, function: str) -> None:
    """Killed before and after each call of a function that makes a file, until it gets through."""
    script = (
        "import sys, os, signal, datetime as dt; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\nfrom batuta_cli.serve.budget.ledger import sqlite\n"
        "left, after, real = int(sys.argv[4]), int(sys.argv[5]), getattr(os, sys.argv[3])\n"
        "def counted(*a, **k):\n"
        "    global left\n    left -= 1\n"
        "    if left == 0 and not after: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done = real(*a, **k)\n"
        "    if left == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return done\n"
        "setattr(os, sys.argv[3], counted)\n"
        "open_ledger('sqlite:///' + sys.argv[1]).record(Moment(1700000000000, dt.date(2023, 11, 14)), 1, Use())\n"
    )
    killed = 0
    for call in range(1, 10):
        for after in "01":
            shutil.rmtree(path.parent, ignore_errors=True)
            command = [sys.executable, "-c", script, str(path), ROOT, function, str(call), after]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                assert killed
                return
            assert done.returncode == -signal.SIGKILL, done.stderr
            killed += 1
            later = SqliteLedger(str(path))
            assert later.day_status(NOW).spent == 0
            later.record(NOW, 3, Use())
            assert later.day_status(NOW).spent == 3
            later.close()
            path.unlink()
            refuses(SqliteLedger(str(path)), "is missing")
    raise AssertionError(f"os.{function} is called more often than this test looks")


# Where nothing could be written, reading tells.


def standing_without_privileges(path: Path, unprivileged: Callable[[], None]) -> str:
    script = (
        "import sys, datetime as dt; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\nfrom batuta_cli.errors import LedgerError\n"
        "try: print(open_ledger('sqlite:///' + sys.argv[1]).day_status(Moment(1700000000000, dt.date(2023, 11, 14))))\n"
        "except LedgerError as error: print('REFUSED', error, error.hint)\n"
    )
    command = [sys.executable, "-c", script, str(path), ROOT]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=unprivileged, check=True).stdout


@pytest.mark.parametrize("suffix", ["", ".lock", "-wal", "-shm"])
def test_a_file_that_may_not_be_written_is_told_before_a_request(
    ledger: SqliteLedger, path: Path, unprivileged: Callable[[], None], suffix: str
) -> None:
    assert "spent=7" in standing_without_privileges(path, unprivileged)
    Path(f"{path}{suffix}").chmod(0o400)
    said = standing_without_privileges(path, unprivileged)
    assert "REFUSED" in said and "cannot be written" in said


@pytest.mark.parametrize("below", ["", "a/b/"])
def test_a_directory_that_may_not_be_written_is_told_before_a_ledger_is_made(
    tmp_path: Path, unprivileged: Callable[[], None], below: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    said = standing_without_privileges(closed / f"{below}ledger", unprivileged)
    assert "REFUSED" in said and "cannot be written" in said
    closed.chmod(0o000)
    assert "REFUSED" in standing_without_privileges(closed / f"{below}ledger", unprivileged)
    closed.chmod(0o700)
    assert "spent=0" in standing_without_privileges(closed / f"{below}ledger", unprivileged)


@pytest.mark.parametrize("kind", ["file", "dangling link", "device"])
def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path, kind: str) -> None:
    in_the_way = tmp_path / "state"
    if kind == "file":
        in_the_way.touch()
    elif kind == "device":
        in_the_way.symlink_to("/dev/null")
    else:
        in_the_way.symlink_to("nowhere")
    for name in ("ledger", "deeper/ledger"):
        ledger = SqliteLedger(str(in_the_way / name))
        with pytest.raises(LedgerError) as reading:
            ledger.day_status(NOW)
        with pytest.raises(LedgerError) as writing:
            ledger.record(NOW, 1, Use())
        assert reading.value.hint and writing.value.hint


@pytest.mark.parametrize("suffix", [".lock", "-wal", "-shm"])
def test_a_directory_in_the_place_of_a_companion_is_told(path: Path, suffix: str) -> None:
    path.parent.mkdir()
    Path(f"{path}{suffix}").mkdir()
    with pytest.raises(LedgerError, match="directory"):
        SqliteLedger(str(path)).day_status(NOW)
