"""The ledger in memory: separate for each object and each process, shared by threads."""

import os
import threading

from batuta_cli.serve.budget.ledger import ReservationRow, Use, open_ledger
from tests.serve.budget.ledger.support import START, at


def test_every_ledger_in_memory_is_another() -> None:
    one, other = open_ledger("memory:"), open_ledger("memory:")
    one.record(at(START), 5, Use())
    assert other.day_status(at(START)).spent == 0


def test_threads_share_it_and_lose_nothing() -> None:
    ledger = open_ledger("memory:")

    def work(name: int) -> None:
        for number in range(200):
            id = f"{name}-{number}"
            assert ledger.reserve(at(START), ReservationRow(id, 3, "me"), 10**9)[0]
            assert ledger.settle(at(START), id, 2, Use()) is not None

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ledger.day_status(at(START))
    assert (found.spent, found.reserved) == (4 * 200 * 2, 0)


def test_a_child_process_has_a_copy() -> None:
    ledger = open_ledger("memory:")
    ledger.record(at(START), 5, Use())
    child = os.fork()
    if child == 0:
        ledger.record(at(START), 100, Use())
        os._exit(0 if ledger.day_status(at(START)).spent == 105 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ledger.day_status(at(START)).spent == 5
