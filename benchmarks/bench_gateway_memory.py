"""Aim: the gateway's memory is flat over 100,000 requests, streamed ones among them. The growth is measured.

    python -m benchmarks.bench_gateway_memory [--requests 100000] [--connections 16] [--dir DIRECTORY] [--json]

A backend that answers from memory, the gateway before it, a budget that every request is reserved from and settled in.
Every tenth of the way the gateway's anonymous memory (RssAnon in /proc/PID/status, Linux) is looked at; the first tenth
is for warming up, and what counts is the growth after it. --size and --runs are not used.
"""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence

from benchmarks.bench_gateway import gateway_environment, measure, server
from benchmarks.compare import BenchmarkError, benchmark, in_words, parser
from benchmarks.programs import Programs

_LOOKS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser(__doc__, size="0")
    made.add_argument("--requests", type=int, default=100_000, help="how many (default: 100,000)")
    made.add_argument("--connections", type=int, default=16, help="how many at once (default: 16)")
    options = made.parse_args(arguments)
    cores = set(os.sched_getaffinity(0))
    with benchmark("gateway_memory", options) as (report, directory), contextlib.ExitStack() as servers:
        batuta = Programs(report, directory).batuta()
        script = [sys.executable, "-m", "benchmarks.http_servers", "backend", "--events", "20"]
        backend = servers.enter_context(server(script, directory / "backend.log", cores, dict(os.environ)))
        environment = gateway_environment(directory, "groq", f"http://127.0.0.1:{backend}", batuta.environment)
        command = [str(batuta.path), "serve", "gateway", "--port", "0"]
        log = directory / "gateway.log"
        port = int(servers.enter_context(server(command, log, cores, environment)))
        found = re.search(r'"process":(\d+)', log.read_text())
        if found is None:
            raise BenchmarkError("the gateway does not tell its process")
        rows, sizes, done = [], [], 0
        asked = argparse.Namespace(seconds=0.2, events=1)
        for look in range(1, _LOOKS + 1):
            while done < options.requests * look / _LOOKS:
                for streamed in (False, True):
                    result = measure(port, streamed=streamed, connections=options.connections, options=asked)
                    done += round(result.rate * result.seconds)
            sizes.append(_anonymous(int(found[1])))
            rows.append([f"{done:,}", in_words(sizes[-1])])
        report.say()
        report.table(["requests", "anonymous memory"], rows)
        report.say(f"growth after the first tenth: {in_words(max(0, sizes[-1] - sizes[0]))}")
        report.document["requests"], report.document["sizes"] = done, sizes


def _anonymous(process: int) -> int:
    """Bytes that a process has allocated."""
    with open(f"/proc/{process}/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise BenchmarkError("the kernel does not tell RssAnon")


if __name__ == "__main__":
    main()
