"""Claim: the ledger reserves and settles more than 15,000 requests a second for 16 callers in one process, and with
eight processes no caller waits longer than 50 ms. Compared with plain SQLite, which stores the same sums without leases
and history, and commits each step alone.

    python -m benchmarks.bench_ledger [--seconds 2] [--runs 5] [--callers 1,16] [--processes 2,8] [--dir DIR] [--json]

A pair is one reservation and its settlement. Callers are threads of one process. With several processes, each has one
caller. The longest wait is the longest single step of all callers. The contestants take turns; --size is not used.
"""

import argparse
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batuta_cli.serve.budget.breaker import CircuitBreakerConfig, CostCircuitBreaker, Reservation
from batuta_cli.serve.budget.ledger import Durability
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger
from benchmarks.compare import BenchmarkError, Report, Spread, benchmark, parser
from benchmarks.programs import Programs

Step = Callable[[], object]
"""One transaction."""

_BUDGET = 10**9  # dollars, which no run spends


@dataclass(frozen=True)
class Result:
    """What all processes of one run did together."""

    pairs_per_second: float
    longest_wait: float
    """Seconds."""


def batuta(path: Path, durability: Durability) -> Callable[[], Iterator[Step]]:
    """Reserve and settle through one breaker, as the gateway does."""
    ledger = SqliteLedger(str(path), durability=durability, patience=60)
    breaker = CostCircuitBreaker(CircuitBreakerConfig(daily_budget_usd=_BUDGET), ledger)

    def steps() -> Iterator[Step]:
        reservations: list[Reservation] = []
        while True:
            yield lambda: reservations.append(breaker.reserve("0.01", model="m", backend="B", dispatched=True))
            yield lambda: reservations.pop().settle("0.004", input_tokens=10, output_tokens=10)

    return steps


def plain(path: Path, durability: Durability) -> Callable[[], Iterator[Step]]:
    """A sum and its reservations, one connection a caller, with SQLite's way of waiting."""
    return lambda: _plain_steps(path, durability)


def _plain_steps(path: Path, durability: Durability) -> Iterator[Step]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.execute("CREATE TABLE IF NOT EXISTS day (day TEXT PRIMARY KEY, spent INTEGER, reserved INTEGER)")
    connection.execute("CREATE TABLE IF NOT EXISTS hold (id TEXT PRIMARY KEY, amount INTEGER)")
    connection.execute("INSERT OR IGNORE INTO day VALUES ('today', 0, 0)")
    limit = _BUDGET * 10**9

    def reserve(id: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE day SET reserved = reserved + 10 WHERE day = 'today' AND spent + reserved + 10 <= ?", (limit,)
        )
        connection.execute("INSERT INTO hold VALUES (?, 10)", (id,))
        connection.execute("COMMIT")

    def settle(id: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM hold WHERE id = ?", (id,))
        connection.execute("UPDATE day SET reserved = reserved - 10, spent = spent + 4 WHERE day = 'today'")
        connection.execute("COMMIT")

    while True:
        id = os.urandom(16).hex()
        yield lambda id=id: reserve(id)  # type: ignore[misc]
        yield lambda id=id: settle(id)  # type: ignore[misc]


CONTESTANTS: dict[str, Callable[[Path, Durability], Callable[[], Iterator[Step]]]] = {
    "batuta": batuta,
    "plain SQLite": plain,
}


def _work(
    name: str, path: Path, durability: Durability, seconds: float, callers: int, barrier: Any, results: Any
) -> None:
    contestant = CONTESTANTS[name](path, durability)
    found: list[tuple[float, float]] = []

    def call() -> None:
        steps = contestant()
        _one_pair(steps)
        ready.wait()
        start = end = time.perf_counter()
        pairs, longest = 0, 0.0
        while end - start < seconds:
            for _ in range(2):
                step, begun = next(steps), time.perf_counter()
                step()
                end = time.perf_counter()
                longest = max(longest, end - begun)
            pairs += 1
        found.append((pairs / (end - start), longest))

    ready = threading.Barrier(callers, action=barrier.wait)
    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < callers:
        raise BenchmarkError(f"{name}: a caller failed")
    results.put((sum(rate for rate, _ in found), max(wait for _, wait in found)))


def _one_pair(steps: Iterator[Step]) -> None:
    next(steps)()
    next(steps)()


def run(name: str, directory: Path, durability: Durability, who: tuple[int, int], seconds: float) -> Result:
    """Let processes, each with so many callers, share one new ledger. Raises `BenchmarkError` when one fails."""
    processes, callers = who
    path = directory / "ledger"
    context = multiprocessing.get_context("fork")
    first = context.Process(target=_one_pair, args=(CONTESTANTS[name](path, durability)(),))
    first.start()  # creates the file
    first.join()
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=_work, args=(name, path, durability, seconds, callers, barrier, results))
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise BenchmarkError(f"{name}: a process failed")
    found = [results.get() for _ in children]
    for file in directory.iterdir():
        file.unlink()
    return Result(sum(rate for rate, _ in found), max(wait for _, wait in found))


def race(
    report: Report, directory: Path, durability: Durability, who: tuple[int, int], options: argparse.Namespace
) -> None:
    """Let the contestants take turns, and report medians and the ratios within the rounds."""
    samples: dict[str, list[Result]] = {name: [] for name in CONTESTANTS}
    for number in range(options.runs + 1):
        order = list(CONTESTANTS)[:: 1 if number % 2 else -1]
        for name in order:
            result = run(name, directory, durability, who, options.seconds)
            if number:
                samples[name].append(result)
    processes, callers = who
    title = f"{processes} process{'es' * (processes > 1)}, {callers} caller{'s' * (callers > 1)} each, {durability}"
    table = report.section(title, processes=processes, callers=callers, durability=durability, contestants=[])
    rows = []
    for name, series in samples.items():
        rate, wait = Spread.of([s.pairs_per_second for s in series]), Spread.of([s.longest_wait for s in series])
        rows.append(
            [
                name,
                f"{rate.median:,.0f}",
                f"{rate.least:,.0f}-{rate.greatest:,.0f}",
                f"{wait.median * 1000:.1f}",
                f"{wait.least * 1000:.1f}-{wait.greatest * 1000:.1f}",
            ]
        )
        table["contestants"].append({"name": name, "pairs/s": rate.as_dict(), "longest wait s": wait.as_dict()})
    report.table(["", "pairs/s", "range", "longest wait ms", "range"], rows)
    rounds = list(zip(*samples.values(), strict=True))
    rates = Spread.of([one.pairs_per_second / other.pairs_per_second for one, other in rounds])
    waits = Spread.of([one.longest_wait / other.longest_wait for one, other in rounds])
    table["ratios"] = {"pairs/s": rates.as_dict(), "longest wait": waits.as_dict()}
    report.say(
        f"  batuta does {rates.median:.2f} times the pairs of plain SQLite ({rates.least:.2f}-{rates.greatest:.2f}),"
        f" and its longest wait is {waits.median:.2f} times as long ({waits.least:.2f}-{waits.greatest:.2f})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser(__doc__, size="0")
    made.add_argument("--seconds", type=float, default=2.0, help="length of a run (default: 2)")
    made.add_argument("--callers", default="1,16", help="callers in one process (default: 1,16)")
    made.add_argument("--processes", default="2,8", help="processes with one caller each (default: 2,8)")
    options = made.parse_args(arguments)
    groups = [(1, int(count)) for count in options.callers.split(",") if count]
    groups += [(int(count), 1) for count in options.processes.split(",") if count]
    with benchmark("ledger", options) as (report, directory):
        Programs(report, directory).batuta()
        report.say(f"sqlite: {sqlite3.sqlite_version}, {options.seconds:g} s a run")
        place = directory / "ledgers"
        place.mkdir()
        durabilities: tuple[Durability, ...] = ("normal", "full")
        for durability in durabilities:
            for who in groups:
                race(report, place, durability, who, options)


if __name__ == "__main__":
    main()
