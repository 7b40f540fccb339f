"""The counts of a key: a rate that refills evenly, and running requests of processes that are alive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.serve.gateway.key_counts import CountStore, FileCounts, KeyCounts, MemoryCounts

NOW = 1_000_000.0


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 1000])
def test_a_minutes_requests_may_begin_at_once_and_then_one_an_interval(limit: int) -> None:
    counts = KeyCounts()
    for taken in range(limit):
        assert counts.rate(limit, NOW).remaining == limit - taken
        counts.take(limit, NOW)
    assert counts.rate(limit, NOW).wait == pytest.approx(60 / limit)
    assert counts.rate(limit, NOW).reset == pytest.approx(60)
    assert counts.rate(limit, NOW + 60 / limit - 0.001).remaining == 0
    assert counts.rate(limit, NOW + 60 / limit + 0.001).remaining == 1
    later = counts.rate(limit, NOW + 600)
    assert (later.remaining, later.reset, later.wait) == (limit, 0, 0)


def test_over_a_long_time_no_more_than_the_rate_begin() -> None:
    counts, begun = KeyCounts(), 0
    for tick in range(60 * 60 * 10):  # an hour in tenths of a second, a try each
        if counts.rate(6, NOW + tick / 10).remaining:
            counts.take(6, NOW + tick / 10)
            begun += 1
    assert begun == 6 + 6 * 60 - 1


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_counts_are_kept_by_key(tmp_path: Path, kind: str) -> None:
    store: CountStore = MemoryCounts() if kind == "memory" else FileCounts(tmp_path)
    with store.opened("a") as counts:
        counts.take(60, NOW)
        counts.change(os.getpid(), 2)
    with store.opened("a") as counts:
        assert (counts.rate(60, NOW).remaining, counts.total()) == (59, 2)
        counts.change(os.getpid(), -2)
        assert (counts.total(), counts.running) == (0, {})
    with store.opened("b") as counts:
        assert (counts.rate(60, NOW).remaining, counts.total()) == (60, 0)


def test_workers_share_their_counts_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from batuta_cli.serve.gateway.key_counts import FileCounts\n"
        "with FileCounts(Path(sys.argv[1])).opened('a') as counts:\n"
        "    counts.take(60, 1e6); counts.change(os.getpid(), 3)\n"
        "print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        store = FileCounts(tmp_path)
        with store.opened("a") as counts:
            counts.change(os.getpid(), 1)
            assert (counts.rate(60, NOW).remaining, counts.total()) == (59, 4)
        other.kill()
        other.wait()
        with store.opened("a") as counts:
            assert counts.total() == 1
