"""Claim: the budget's ledger reserves and settles thousands of requests a second, and with eight processes at once none
of them waits for long. Measured beside plain SQLite, which keeps the same sums without leases, history and turns.

    python -m benchmarks.bench_ledger [--seconds 2] [--runs 5] [--processes 1,2,8] [--dir DIRECTORY] [--json]

A pair is one reservation and its settlement, two transactions. The longest wait is that of the unluckiest of all
transactions of all processes. Contestants take turns, as everywhere; --size is not used.
"""

import argparse
import multiprocessing
import os
import sqlite3
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


def batuta(path: Path, durability: Durability) -> Iterator[Step]:
    """Reserve and settle through the breaker, as the gateway does."""
    ledger = SqliteLedger(str(path), durability=durability, patience=60)
    breaker = CostCircuitBreaker(CircuitBreakerConfig(_BUDGET), ledger)
    held: list[Reservation] = []
    while True:
        yield lambda: held.append(breaker.reserve("0.01", model="m", backend="B"))
        yield lambda: held.pop().settle("0.004", input_tokens=10, output_tokens=10)


def plain(path: Path, durability: Durability) -> Iterator[Step]:
    """The least that keeps a sum and its reservations, with SQLite's own way of waiting."""
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


CONTESTANTS: dict[str, Callable[[Path, Durability], Iterator[Step]]] = {"batuta": batuta, "plain SQLite": plain}


def _work(name: str, path: Path, durability: Durability, seconds: float, barrier: Any, results: Any) -> None:
    steps = CONTESTANTS[name](path, durability)
    _one_pair(steps)
    barrier.wait()
    start = end = time.perf_counter()
    pairs, longest = 0, 0.0
    while end - start < seconds:
        for _ in range(2):
            step, begun = next(steps), time.perf_counter()
            step()
            end = time.perf_counter()
            longest = max(longest, end - begun)
        pairs += 1
    results.put((pairs / (end - start), longest))


def _one_pair(steps: Iterator[Step]) -> None:
    next(steps)()
    next(steps)()


def run(name: str, directory: Path, durability: Durability, processes: int, seconds: float) -> Result:
    """Let so many processes share one new ledger. Raises `BenchmarkError` when one of them fails."""
    path = directory / "ledger"
    context = multiprocessing.get_context("fork")
    first = context.Process(target=_one_pair, args=(CONTESTANTS[name](path, durability),))
    first.start()  # the file is made before it is raced for
    first.join()
    barrier, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=_work, args=(name, path, durability, seconds, barrier, results))
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


def race(report: Report, directory: Path, durability: Durability, processes: int, options: argparse.Namespace) -> None:
    """Let the contestants take turns, and report medians and the ratios within the rounds."""
    samples: dict[str, list[Result]] = {name: [] for name in CONTESTANTS}
    for number in range(options.runs + 1):
        order = list(CONTESTANTS)[:: 1 if number % 2 else -1]
        for name in order:
            result = run(name, directory, durability, processes, options.seconds)
            if number:
                samples[name].append(result)
    title = f"{processes} process{'es' * (processes > 1)}, durability {durability}"
    table = report.section(title, processes=processes, durability=durability, contestants=[])
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
    made.add_argument("--processes", default="1,2,8", help="how many at once (default: 1,2,8)")
    options = made.parse_args(arguments)
    counts = [int(count) for count in options.processes.split(",")]
    with benchmark("ledger", options) as (report, directory):
        Programs(report, directory).batuta()
        report.say(f"sqlite: {sqlite3.sqlite_version}, {options.seconds:g} s a run")
        place = directory / "ledgers"
        place.mkdir()
        durabilities: tuple[Durability, ...] = ("normal", "full")
        for durability in durabilities:
            for count in counts:
                race(report, place, durability, count, options)


if __name__ == "__main__":
    main()
