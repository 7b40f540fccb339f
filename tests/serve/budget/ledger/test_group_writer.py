"""Group commit: callers share transactions, and each one gets its own outcome."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger.base import Moment, ReservationRow, Use
from batuta_cli.serve.budget.ledger.file_lock import file_lock
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from batuta_cli.serve.budget.ledger.stored_rows import LedgerRows
from tests.serve.budget.ledger.support import START, at, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(path: Path) -> SqliteLedger:
    made = SqliteLedger(str(path), patience=30)
    made.record(at(START), 0, Use())
    return made


def together(
    ledger: SqliteLedger,
    path: Path,
    calls: list[Callable[[], object]],
    meanwhile: Callable[[], object] = lambda: None,
) -> list[object]:
    """Let callers wait for the lock of the file, then run; their results or errors."""
    outcomes: list[object] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            outcomes[number] = calls[number]()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    with file_lock(f"{path}.lock"):
        for number, thread in enumerate(threads):
            thread.start()
            while len(ledger._writer._waiting) <= number:  # so that they are in this order
                assert thread.is_alive()
        meanwhile()
    for thread in threads:
        thread.join()
    return outcomes


def commits(path: Path) -> int:
    """Frames of SQLite's journal that end a transaction: https://www.sqlite.org/fileformat2.html#walformat."""
    journal = Path(f"{path}-wal").read_bytes()
    page_size = int.from_bytes(journal[8:12], "big")
    frames = range(32, len(journal), 24 + page_size)
    return sum(journal[at + 4 : at + 8] != bytes(4) for at in frames)


def test_callers_that_wait_share_one_transaction_and_none_exceeds_the_limit(ledger: SqliteLedger, path: Path) -> None:
    before = commits(path)

    def reserve(number: int) -> bool:
        return ledger.reserve(at(START), ReservationRow(f"r{number}", 10, "o", "m", "B"), 95)[0]

    outcomes = together(ledger, path, [lambda n=n: reserve(n) for n in range(20)])  # type: ignore[misc]
    assert outcomes == [True] * 9 + [False] * 11
    assert commits(path) - before == 1
    assert rows(path, "SELECT spent, reserved FROM day") == [(0, 90)]
    assert rows(path, "SELECT COUNT(*), SUM(amount) FROM hold") == [(9, 90)]


def test_a_reservation_and_its_settlement_in_one_transaction_leave_the_cost(ledger: SqliteLedger, path: Path) -> None:
    row, use = ReservationRow("r", 10, "o", "m", "B"), Use("m", "B", 3, 4)
    first, settled, again = together(
        ledger,
        path,
        [
            lambda: ledger.reserve(at(START), row, 100)[0],
            lambda: ledger.settle(at(START), "r", 7, use),
            lambda: ledger.settle(at(START), "r", 7, use),
        ],
    )
    assert first is True and settled is not None and again is None
    assert rows(path, "SELECT spent, reserved FROM day") == [(7, 0)]
    assert rows(path, "SELECT * FROM hold") == []
    assert rows(path, "SELECT model, requests, input_tokens, output_tokens, cost FROM history WHERE cost > 0") == [
        ("m", 1, 3, 4, 7)
    ]


def test_an_operation_that_fails_changes_nothing_and_the_others_are_committed(ledger: SqliteLedger, path: Path) -> None:
    def half_done(rows: LedgerRows) -> None:
        day = rows.newest()
        assert day is not None
        rows.put_day(day._replace(spent=999))
        raise KeyError("a bug")

    unwritable = ReservationRow("\ud800", 1, "o")
    huge = 2**63
    one, two, three, four, five = together(
        ledger,
        path,
        [
            lambda: ledger.record(at(START), 5, Use("m")).spent,
            lambda: ledger.write(half_done),
            lambda: ledger.record(at(START), huge, Use("m")),
            lambda: ledger.reserve(at(START), unwritable, 100),
            lambda: ledger.record(at(START), 6, Use("m")).spent,
        ],
    )
    assert (one, five) == (5, 11)
    assert isinstance(two, KeyError) and isinstance(three, LedgerError) and isinstance(four, Exception)
    assert rows(path, "SELECT spent, reserved FROM day") == [(11, 0)]


def test_every_caller_is_told_when_the_ledger_cannot_be_used(ledger: SqliteLedger, path: Path) -> None:
    calls = [lambda: ledger.record(at(START), 5, Use("m")) for _ in range(4)]
    outcomes = together(ledger, path, list(calls), meanwhile=lambda: path.rename(path.with_name("moved")))
    assert [type(outcome) for outcome in outcomes] == [LedgerError] * 4
    assert len({id(outcome) for outcome in outcomes}) == 4
    assert all("removed while this process used it" in str(outcome) for outcome in outcomes)
    path.with_name("moved").rename(path)
    assert rows(path, "SELECT spent FROM day") == [(0,)]


def test_a_caller_that_has_waited_too_long_is_told_and_its_operation_is_never_run(path: Path) -> None:
    ledger = SqliteLedger(str(path), patience=0.05)
    ledger.record(at(START), 1, Use("m"))
    with file_lock(f"{path}.lock"):
        with pytest.raises(LedgerError, match=r"held the lock for 0\.05 seconds"):
            ledger.record(at(START), 10, Use("m"))
        with pytest.raises(LedgerError, match=r"held the lock for 0\.05 seconds"):
            ledger.reserve(at(START), ReservationRow("r", 5, "o"), 100)
    assert ledger.record(at(START), 100, Use("m")).spent == 101
    assert rows(path, "SELECT * FROM hold") == []


def test_another_process_that_changes_the_file_is_seen_at_once(ledger: SqliteLedger, path: Path) -> None:
    other = SqliteLedger(str(path))
    for number in range(20):
        assert ledger.reserve(at(START), ReservationRow(f"a{number}", 1, "o"), 10**6)[1].reserved == 2 * number + 1
        assert other.reserve(at(START), ReservationRow(f"b{number}", 1, "o"), 10**6)[1].reserved == 2 * number + 2
    # A reservation of one is settled by the other, and not twice.
    assert other.settle(at(START), "a3", 7, Use()) is not None
    assert ledger.settle(at(START), "a3", 7, Use()) is None
    other.close()


def test_an_interrupted_caller_leaves_no_reservation(path: Path) -> None:
    script = (
        "import os, signal, sys, threading, time; sys.path.insert(0, sys.argv[2])\n"
        "from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker\n"
        "from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger\n"
        "from batuta_cli.serve.budget.ledger.file_lock import file_lock\n"
        "ledger = SqliteLedger(sys.argv[1])\n"
        "breaker = CostCircuitBreaker(CircuitBreakerConfig(), ledger)\n"
        "breaker.record('0')\n"
        "def interrupt():\n"
        "    while not ledger._writer._waiting: pass\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "lock = file_lock(sys.argv[1] + '.lock'); lock.__enter__()\n"
        "threading.Thread(target=interrupt).start()\n"
        "threading.Timer(0.5, lambda: lock.__exit__(None, None, None)).start()\n"
        "try: breaker.reserve('0.5', dispatched=True)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
        "print(breaker.status().reserved)\n"
    )
    root = str(Path(__file__).resolve().parents[4])
    done = subprocess.run([sys.executable, "-c", script, str(path), root], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n0\n", done.stderr


# Python 3.12 warns of what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_while_operations_wait_has_an_empty_queue(ledger: SqliteLedger, path: Path) -> None:
    call = threading.Thread(target=lambda: ledger.record(at(START), 5, Use("m")))
    with file_lock(f"{path}.lock"):
        call.start()
        while not ledger._writer._waiting:
            assert call.is_alive()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if ledger.day_status(at(START)).spent == 0 and not ledger._writer._waiting else 1)
        assert os.waitpid(child, 0)[1] == 0
    call.join()
    assert ledger.day_status(at(START)).spent == 5


def test_a_dispatched_reservation_that_expires_is_charged_in_full_and_another_costs_nothing(
    ledger: SqliteLedger, path: Path
) -> None:
    ledger.reserve(at(START), ReservationRow("sent", 10, "o", "m", "B", dispatched=True), 100)
    ledger.reserve(at(START), ReservationRow("unsent", 20, "o", "m", "B"), 100)
    later = at(START + 61_000)
    assert ledger.day_status(later)[1:3] == (10, 0)
    ledger.record(later, 0, Use())
    ledger.reserve(later, ReservationRow("next", 1, "o"), 100)
    assert rows(path, "SELECT spent, reserved FROM day") == [(10, 1)]
    assert ledger.settle(later, "sent", 4, Use("m", "B")) is not None
    assert rows(path, "SELECT spent, reserved FROM day") == [(4, 1)]


def test_renewals_and_resets_are_seen_by_reservations_in_memory(ledger: SqliteLedger, path: Path) -> None:
    ledger.reserve(at(START), ReservationRow("r", 10, "o", "m", "B"), 100)
    ledger.renew(at(START + 50_000), "o")
    assert ledger.reserve(at(START + 100_000), ReservationRow("s", 1, "o"), 100)[1].reserved == 11
    assert ledger.dispatch(at(START + 101_000), "r")
    reset = ledger.reset(at(START + 102_000))
    assert reset.forgiven == 0
    settled = ledger.settle(at(START + 103_000), "r", 9, Use("m", "B"))
    assert settled is not None and not settled.late and settled.day_status.spent == 9


def test_the_thread_ends_when_there_is_nothing_to_do(ledger: SqliteLedger, monkeypatch: Any) -> None:
    monkeypatch.setattr("batuta_cli.serve.budget.ledger.group_writer._IDLE", 0.01)
    calls = [threading.Thread(target=lambda: ledger.record(Moment(1, at(START).day), 1, Use())) for _ in range(8)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    for thread in [thread for thread in threading.enumerate() if thread.name == "batuta-ledger-writer"]:
        thread.join(30)
        assert not thread.is_alive()
    assert ledger.record(at(START), 1, Use()).spent == 9
