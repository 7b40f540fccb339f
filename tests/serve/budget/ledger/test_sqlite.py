"""The ledger in a SQLite file: who may read it, several processes, and files that are not what they should be."""

import contextlib
import datetime as dt
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger import Moment, ReservationRow, Use, open_ledger
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from tests.serve.budget.ledger.support import change, rows

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
    ledger.record(NOW, 7, Use("m", "B"))
    ledger.reserve(NOW, ReservationRow("r", 5, "me"), 100)
    ledger.close()
    return path


def test_sqlite_itself_can_read_it_and_finds_it_in_order(kept: Path) -> None:
    assert rows(kept, "PRAGMA integrity_check") == [("ok",)]
    assert rows(kept, "SELECT day, spent, reserved FROM day") == [("2023-11-14", 7, 5)]
    assert rows(kept, "PRAGMA journal_mode") == [("wal",)]
    assert rows(kept, "PRAGMA application_id") == [(int.from_bytes(b"BTBL"),)]


@pytest.mark.parametrize("name", ["with space", "percent%20", "ümläut", "semi;colon"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/{name}")
    ledger.record(NOW, 7, Use())
    ledger.close()
    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.lock", f"{name}.recorded"]


# Files that are not what they should be.


def test_on_a_disk_that_takes_no_more_bytes_what_was_there_stays(kept: Path) -> None:
    script = (
        "import sys, datetime as dt, resource, signal; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.ledger import *\nfrom batuta_cli.errors import LedgerError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))\n"
        "ledger, done = open_ledger('sqlite:///' + sys.argv[1]), 0\n"
        "try:\n"
        "    while True: ledger.record(Moment(1700000000000, dt.date(2023, 11, 14)), 1, Use()); done += 1\n"
        "except LedgerError as error: print(done, error)\n"
    )
    command = [sys.executable, "-c", script, str(kept), str(Path(__file__).resolve().parents[4])]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    noted, _, said = done.partition(" ")
    assert "failed" in said or "full" in said
    assert rows(kept, "SELECT spent, reserved FROM day") == [(7 + int(noted), 5)]


# Several at once.


@contextlib.contextmanager
def write_locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def test_a_ledger_that_another_program_keeps_locked_is_an_error_that_names_it(ledger: SqliteLedger, kept: Path) -> None:
    with write_locked(kept):
        with pytest.raises(LedgerError, match=r"another program has held the lock for 0\.2 seconds") as refused:
            ledger.reserve(NOW, ReservationRow("x", 1, "me"), 100)
        assert str(kept) in refused.value.message and str(kept) in str(refused.value.hint)
        assert ledger.day_status(NOW).spent == 7  # readers do not wait
    assert ledger.reserve(NOW, ReservationRow("x", 1, "me"), 100)[0]


def test_threads_share_a_ledger(ledger: SqliteLedger) -> None:
    accepted: list[bool] = []

    def reserve(number: int) -> None:
        for step in range(25):
            accepted.append(ledger.reserve(NOW, ReservationRow(f"{number}-{step}", 1, "me"), 60)[0])

    patient = SqliteLedger(ledger.path)
    ledger, alone = patient, ledger
    threads = [threading.Thread(target=reserve, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(accepted), len(accepted)) == (60, 100)
    assert alone.day_status(NOW).reserved == 60
    patient.close()


# Python 3.12 warns of what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_opens_the_file_again_and_leaves_the_parents_connection_alone(ledger: SqliteLedger) -> None:
    ledger.record(NOW, 7, Use())
    before = ledger._connection
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            ledger.record(NOW, 5, Use())
            status = 0 if ledger._connection is not before else 2
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert ledger._connection is before
    ledger.record(NOW, 1, Use())
    assert ledger.day_status(NOW).spent == 13


def test_two_processes_that_begin_a_ledger_at_once_begin_one(tmp_path: Path) -> None:
    script = (
        "import sys, datetime as dt; sys.path.insert(0, sys.argv[2]); sys.stdin.read()\n"
        "from batuta_cli.serve.budget.ledger import *\n"
        "open_ledger('sqlite:///' + sys.argv[1]).record(Moment(1, dt.date(2023, 1, 1)), 1, Use())\n"
    )
    for number in range(3):
        path = tmp_path / f"new{number}" / "ledger"
        command = [sys.executable, "-c", script, str(path), str(Path(__file__).resolve().parents[4])]
        children = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(4)]
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        assert [child.wait() for child in children] == [0] * 4
        assert rows(path, "SELECT spent FROM day") == [(4,)]


@pytest.mark.parametrize("column", ["requests", "input_tokens", "output_tokens"])
def test_a_count_that_no_integer_holds_is_refused_and_changes_nothing(
    ledger: SqliteLedger, kept: Path, column: str
) -> None:
    change(kept, f"UPDATE history SET {column} = {2**63 - 1}")  # noqa: S608
    with pytest.raises(LedgerError):
        ledger.record(NOW, 1, Use("m", "B", 1, 1))
    assert rows(kept, "SELECT spent, cost FROM day JOIN history USING (day)") == [(7, 7)]
    assert ledger.day_status(NOW).spent == 7
