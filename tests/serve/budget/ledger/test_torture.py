"""Processes that reserve, dispatch, settle and release, killed with `kill -9` at random, while somebody watches.

Judged at every moment, from snapshots that SQLite itself takes, for the day and for each client: spent + reserved ≤
budget, reserved is the sum of the reservations, spent is the sum of the history. Judged at the end, when the leases
have run out: whatever a process had reported as settled is spent, to the nano-dollar, and of those that were cut off,
each counts as one of the outcomes that were possible then.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import LEASE, open_ledger
from tests.serve.budget.ledger.support import rows

ROOT = Path(__file__).resolve().parents[4]
SECONDS = 4
WORKERS = 4

WORKER = """
import json, os, random, sys
from batuta_cli.errors import DailyBudgetExceeded
from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker
from batuta_cli.serve.budget.ledger import open_ledger
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount
from batuta_cli.serve.money import to_nano

url, journal, seed, budget = sys.argv[1:]
chance = random.Random(int(seed))
config = CircuitBreakerConfig(daily_budget_usd=budget)
breaker = CostCircuitBreaker(config, open_ledger(url), on_alert=lambda alert: None)
clients = (ANY_CLIENT, ClientAccount("small", daily_budget=to_nano(budget) // 3), ClientAccount("free"))
log = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def say(**what):
    os.write(log, json.dumps(what).encode() + b"\\n")

while True:
    amount = f"0.{chance.randrange(1, 10**6):06d}"
    try:
        reservation = breaker.reserve(amount, model=f"m{chance.randrange(3)}", client=chance.choice(clients))
    except DailyBudgetExceeded:
        say(step="refused")
        continue
    say(step="reserved", id=reservation.id, amount=to_nano(amount))
    if chance.random() < 0.1:
        reservation.release()
        say(step="over", id=reservation.id, cost=0)
        continue
    say(step="dispatching", id=reservation.id)
    reservation.dispatched()
    say(step="dispatched", id=reservation.id)
    # Answers cost about a thousandth of their bound, so that the budget is scarce but not gone at once.
    cost = to_nano(amount) // chance.randrange(800, 1200)
    say(step="settling", id=reservation.id, cost=cost)
    reservation.settle(f"{cost / 10**9:.9f}", input_tokens=1)
    say(step="over", id=reservation.id, cost=cost)
"""


def snapshot(path: Path) -> tuple[list[Any], ...]:
    """All sums in one read transaction: days, reservations and history; and the same by client."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN")
        return (
            connection.execute("SELECT day, spent, reserved FROM day").fetchall(),
            connection.execute("SELECT day, SUM(amount) FROM hold GROUP BY day").fetchall(),
            connection.execute("SELECT day, SUM(cost) FROM history GROUP BY day").fetchall(),
            connection.execute("SELECT client, spent, reserved FROM client_day").fetchall(),
            connection.execute("SELECT client, SUM(amount) FROM hold GROUP BY client").fetchall(),
            connection.execute("SELECT client, SUM(cost) FROM history GROUP BY client").fetchall(),
        )


@pytest.mark.parametrize("budget", ["3.00", "1000"])
def test_killed_processes_lose_nothing_and_the_budget_holds_at_every_moment(tmp_path: Path, budget: str) -> None:
    path, limit = tmp_path / "ledger", int(float(budget) * 10**9)
    config = CircuitBreakerConfig(daily_budget_usd=budget)
    CostCircuitBreaker(config, open_ledger(f"sqlite:///{path}")).record("0")
    chance, killed = random.Random(20261123), 0  # noqa: S311 - it chooses victims
    journals: list[Path] = []

    def start() -> "subprocess.Popen[bytes]":
        journals.append(tmp_path / f"journal-{len(journals)}")
        arguments = [f"sqlite:///{path}", str(journals[-1]), str(len(journals)), budget]
        return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], cwd=ROOT)

    workers = [start() for _ in range(WORKERS)]
    running = list(journals)
    snapshots, end = 0, time.monotonic() + SECONDS
    next_kill = time.monotonic() + 0.5
    try:
        while time.monotonic() < end:
            days, holds, history, clients, client_holds, client_history = snapshot(path)
            for client, spent, reserved in clients:
                assert spent + reserved <= (limit // 3 if client == "small" else limit)
                assert reserved == dict(client_holds).get(client, 0)
                assert spent == dict(client_history).get(client, 0)
            for day, spent, reserved in days:
                assert spent + reserved <= limit
                assert reserved == dict(holds).get(day, 0)
                assert spent == dict(history).get(day, 0)
            assert {day for day, _ in holds + history} <= {day for day, _, _ in days}
            snapshots += 1
            at_work = [n for n in range(WORKERS) if running[n].exists() and running[n].stat().st_size]
            if time.monotonic() > next_kill and at_work:
                next_kill = time.monotonic() + chance.uniform(0.02, 0.2)
                victim = chance.choice(at_work)
                workers[victim].kill()
                assert workers[victim].wait() == -signal.SIGKILL
                killed += 1
                workers[victim] = start()
                running[victim] = journals[-1]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert snapshots > 20 and killed > 3
    assert {client for client, _, _ in clients} == {"small", "free"}

    later = CostCircuitBreaker(config, open_ledger(f"sqlite:///{path}"), now=lambda: time.time() + LEASE / 1000)
    status = later.status()
    assert status.reserved == 0
    certain, least, most, over, cut_off = judge(journals)
    spent = sum(cost for _, cost in rows(path, "SELECT day, spent FROM day"))
    held = rows(path, "SELECT id, amount, dispatched FROM hold")
    assert certain + least <= spent + sum(amount for _, amount, dispatched in held if dispatched) <= certain + most
    assert not over & {id for id, _, _ in held}
    # Killed between the reservation and its line in the journal: such a request was never sent.
    assert not any(dispatched for id, _, dispatched in held if id not in cut_off)
    later.reset()  # sweeps
    assert rows(path, "SELECT COUNT(*) FROM hold") == [(0,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    swept = sum(cost for _, cost in rows(path, "SELECT day, spent FROM day"))
    assert certain + least <= swept <= certain + most
    assert sum(cost for (cost,) in rows(path, "SELECT cost FROM history")) == swept


def judge(journals: list[Path]) -> tuple[int, int, int, set[str], set[str]]:
    """What was settled for certain, the least and the most that requests which were cut off may have cost, and the ids
    of the former and of the latter."""
    certain = least = most = 0
    over: set[str] = set()
    cut_off: set[str] = set()
    for journal in journals:
        last: dict[str, Any] = {}
        amounts: dict[str, int] = {}
        for line in journal.read_text().splitlines() if journal.exists() else ():
            step = json.loads(line)
            if "amount" in step:
                amounts[step["id"]] = step["amount"]
            if step["step"] == "over":
                certain += step["cost"]
                over.add(step["id"])
                last = {}
            elif step["step"] != "refused":
                last = step
        if last:
            amount = amounts[last["id"]]
            cut_off.add(last["id"])
            possible = {
                "reserved": (0, 0),
                "dispatching": (0, amount),
                "dispatched": (amount, amount),
                "settling": (last.get("cost", 0), amount),
            }[last["step"]]
            least, most = least + possible[0], most + possible[1]
    return certain, least, most, over, cut_off


def test_the_journal_of_a_killed_process_ends_with_a_whole_line(tmp_path: Path) -> None:
    """What the judgement above rests upon: one `write` to the end of a file is there whole, or not at all."""
    journal = tmp_path / "journal"
    code = "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
    code += "while True: os.write(f, line)"
    code = code.replace("line", repr(b"x" * 99 + b"\n"))
    child = subprocess.Popen([sys.executable, "-c", code, journal])
    while not journal.exists() or os.path.getsize(journal) < 10_000:
        assert child.poll() is None
    child.kill()
    child.wait()
    assert set(journal.read_bytes().split(b"\n")) == {b"x" * 99, b""}
