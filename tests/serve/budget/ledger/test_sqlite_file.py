"""The file of a SQLite ledger: who may read it, and files that are not what they should be."""

import datetime as dt
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger import Moment, ReservationRow, Use
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.serve.budget.ledger.support import become_version_2, change, rows

NOW = Moment(1_700_000_000_000, dt.date(2023, 11, 14))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(str(path), patience=0.2)
    yield made
    made.close()


@pytest.fixture
def kept(ledger: SqliteLedger, path: Path) -> Path:
    """A ledger in which 7 are spent and 5 reserved, and nobody has it open."""
    ledger.record(NOW, 7, Use("m", "B", client="ci"))
    ledger.reserve(NOW, ReservationRow("r", 5, "me", client="ci"), 100, 12)
    ledger.close()
    return path


def every_use(ledger: SqliteLedger) -> list[Callable[[], object]]:
    return [
        lambda: ledger.day_status(NOW),
        lambda: ledger.reserve(NOW, ReservationRow("x", 1, "me"), 100),
        lambda: ledger.record(NOW, 1, Use()),
        lambda: ledger.settle(NOW, "r", 1, Use()),
        lambda: ledger.history(dt.date.min),
        lambda: ledger.reset(NOW),
    ]


def refuses_everything(ledger: SqliteLedger, match: str) -> None:
    for use in every_use(ledger):
        with pytest.raises(LedgerError, match=match) as refused:
            use()
        assert refused.value.hint and refused.value.exit_code == 1


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    script = (
        "import os, sys, datetime as dt; os.umask(0); sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\n"
        "l = open_ledger('sqlite:///' + sys.argv[1]); l.record(Moment(1, dt.date(2023, 1, 1)), 1, Use())\n"
        "for n in sorted(os.listdir(os.path.dirname(sys.argv[1]))): print(n, oct(os.stat(os.path.dirname(sys.argv[1])"
        " + '/' + n).st_mode & 0o777))\n"
    )
    path = tmp_path / "a" / "b" / "ledger"
    root = str(Path(__file__).resolve().parents[4])
    done = subprocess.run([sys.executable, "-c", script, path, root], capture_output=True, text=True, check=True)
    names = ["ledger", "ledger-shm", "ledger-wal", "ledger.lock", "ledger.recorded"]
    assert done.stdout.split("\n")[:-1] == [f"{name} 0o600" for name in names]
    for directory in (path.parent, path.parent.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_durability_is_how_sqlite_synchronises(path: Path, durability: str, level: int) -> None:
    ledger = SqliteLedger(str(path), durability=durability)
    ledger.record(NOW, 1, Use())
    assert ledger._connection is not None
    assert ledger._connection.execute("PRAGMA synchronous").fetchone() == (level,)
    ledger.close()


def test_garbage_is_refused_and_left_as_it_is(ledger: SqliteLedger, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"This is no database. " * 500)
    before = path.read_bytes()
    refuses_everything(ledger, "the ledger is damaged")
    assert path.read_bytes() == before


@pytest.mark.parametrize("keep", [16, 100, 4096, 0.5, 0.9])
def test_a_truncated_ledger_is_refused(ledger: SqliteLedger, kept: Path, keep: float) -> None:
    os.truncate(kept, int(keep if keep > 1 else kept.stat().st_size * keep))
    refuses_everything(ledger, "the ledger is damaged")


@pytest.mark.parametrize("filling", [b"\xff", b"\0"])
def test_a_ledger_with_an_overwritten_page_is_refused(ledger: SqliteLedger, kept: Path, filling: bytes) -> None:
    content = kept.read_bytes()
    pages = len(content) // 4096
    assert pages >= 5
    for page in range(pages):
        kept.write_bytes(content[: 4096 * page] + filling * 4096 + content[4096 * (page + 1) :])
        refuses_everything(ledger, "damaged|not a ledger|database of another program|is empty")


def test_the_database_of_another_program_is_refused_and_left_as_it_is(ledger: SqliteLedger, path: Path) -> None:
    path.parent.mkdir()
    change(path, "CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    refuses_everything(ledger, "database of another program")
    assert path.read_bytes() == before


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(ledger: SqliteLedger, kept: Path) -> None:
    change(kept, "PRAGMA user_version = 4")
    before = kept.read_bytes()
    refuses_everything(ledger, "newer batuta")
    assert kept.read_bytes() == before


@pytest.mark.parametrize("table", ["day", "hold", "tombstone", "history", "zone", "client_day"])
def test_a_ledger_without_one_of_its_tables_is_refused(ledger: SqliteLedger, kept: Path, table: str) -> None:
    change(kept, f"DROP TABLE {table}")
    refuses_everything(ledger, "tables are missing")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE day SET reserved = 0",
        "UPDATE day SET spent = 0",
        "DELETE FROM hold",
        "DELETE FROM day",
        "UPDATE history SET cost = 6",
        "UPDATE client_day SET reserved = 4",
        "UPDATE client_day SET spent = 6",
        "DELETE FROM client_day",
        "INSERT INTO history VALUES ('2023-11-13', 'm', 'B', '', 1, 0, 0, 9)",
    ],
)
def test_a_ledger_whose_sums_are_not_those_of_its_rows_is_refused(
    ledger: SqliteLedger, kept: Path, statement: str
) -> None:
    change(kept, statement)
    refuses_everything(ledger, "sums differ from its rows")


def test_a_day_that_is_none_is_damage(ledger: SqliteLedger, kept: Path) -> None:
    change(kept, *("UPDATE day SET day = 'x'", "UPDATE hold SET day = 'x'", "UPDATE history SET day = 'x'"))
    with pytest.raises(LedgerError, match="damaged"):
        ledger.day_status(NOW)


def test_an_empty_file_is_damaged_not_new(ledger: SqliteLedger, kept: Path) -> None:
    os.truncate(kept, 0)
    refuses_everything(ledger, "damaged")


def test_what_a_killed_process_left_of_a_new_ledger_is_in_nobodys_way(ledger: SqliteLedger, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / f"{path.name}.new").write_bytes(b"half")
    assert ledger.day_status(NOW).spent == 0
    ledger.record(NOW, 3, Use())
    ledger.close()
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.lock", f"{path.name}.recorded"]


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling link"])
def test_what_is_no_regular_file_is_refused(ledger: SqliteLedger, path: Path, kind: str) -> None:
    path.parent.mkdir()
    target = path.parent / "target"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link":
            target.write_bytes(b"somebody's file")
        path.symlink_to(target)
    refuses_everything(ledger, "not a ledger")
    assert target.exists() == (kind == "link")


def test_a_ledger_that_cannot_be_written_is_refused_for_reading_too(
    kept: Path, unprivileged: Callable[[], None], tmp_path: Path
) -> None:
    script = (
        "import sys, datetime as dt; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\nfrom batuta_cli.errors import LedgerError\n"
        "try: print(open_ledger('sqlite:///' + sys.argv[1]).day_status(Moment(1700000000000, dt.date(2023, 11, 14))))\n"
        "except LedgerError as error: print('REFUSED', error)\n"
    )
    root = str(Path(__file__).resolve().parents[4])

    def day_status() -> str:
        command = [sys.executable, "-c", script, str(kept), root]
        return subprocess.run(command, capture_output=True, text=True, preexec_fn=unprivileged).stdout

    assert "spent=7" in day_status()
    kept.chmod(0o400)
    assert "REFUSED" in day_status() and "cannot be written" in day_status()
    kept.chmod(0o600)
    kept.parent.chmod(0o500)
    assert "REFUSED" in day_status() and "cannot be written" in day_status()
    kept.parent.chmod(0o700)
    assert "spent=7" in day_status()


def test_on_a_full_disk_nothing_is_written_and_the_error_says_so(ledger: SqliteLedger, kept: Path) -> None:
    ledger.day_status(NOW)
    assert ledger._connection is not None
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="disk is full"):
        for number in range(1000):
            ledger.record(NOW, 1, Use(f"{number}{'x' * 190}", "B"))
    spent = ledger.day_status(NOW).spent
    assert spent == sum(entry.cost for entry in ledger.history(dt.date.min)) < 1007
    assert ledger.settle(NOW, "r", 4, Use()) is not None


def test_a_ledger_of_version_2_is_read_as_it_is_and_upgraded_by_the_first_write(
    ledger: SqliteLedger, kept: Path
) -> None:
    ledger.reserve(at_later(0), ReservationRow("gone", 3, "me", "m", "B", dispatched=True), 100)
    ledger.day_status(NOW)
    ledger.close()
    become_version_2(kept)
    before = kept.read_bytes()
    found = ledger.day_status(NOW, "ci")
    assert (found.spent, found.reserved, found.client_spent, found.client_reserved) == (7, 8, 0, 0)
    assert [(line.model, line.cost, line.client) for line in ledger.history(dt.date.min)] == [("m", 7, "")]
    ledger.close()
    assert kept.read_bytes() == before
    assert ledger.reserve(NOW, ReservationRow("x", 4, "me", client="ci"), 100, 4)[0]
    assert not ledger.reserve(NOW, ReservationRow("y", 1, "me", client="ci"), 100, 4)[0]
    settled = ledger.settle(NOW, "r", 6, Use())  # reserved by the version that knew no clients
    assert settled is not None
    late = ledger.day_status(at_later(61_000))  # the other one expires
    assert (late.spent, late.reserved) == (16, 0)
    ledger.record(at_later(61_000), 1, Use("m", "B", client="ci"))
    assert ledger.settle(at_later(61_000), "gone", 2, Use()) is not None
    ledger.close()
    assert rows(kept, "PRAGMA user_version") == [(3,)]
    assert rows(kept, "PRAGMA integrity_check") == [("ok",)]
    found = ledger.day_status(at_later(61_000), "ci")
    assert (found.spent, found.client_spent, found.client_reserved) == (16, 1, 0)


def test_an_upgrade_that_fails_leaves_the_old_ledger(ledger: SqliteLedger, kept: Path) -> None:
    become_version_2(kept)
    change(kept, "CREATE TABLE client_day (x)")
    with pytest.raises(LedgerError):
        ledger.record(NOW, 1, Use())
    ledger.close()
    change(kept, "DROP TABLE client_day")
    assert rows(kept, "PRAGMA user_version") == [(2,)]
    assert rows(kept, "SELECT cost FROM history") == [(7,)]
    ledger.record(NOW, 1, Use())
    assert ledger.day_status(NOW).spent == 8


def at_later(milliseconds: int) -> Moment:
    return NOW._replace(time=NOW.time + milliseconds)
