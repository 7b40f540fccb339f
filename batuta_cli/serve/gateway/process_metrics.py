"""Prometheus' standard process metrics, summed over the workers of a gateway.

prometheus-client's own collector knows one process, and does not work with several
(https://prometheus.github.io/client_python/multiprocess/). Here `process_start_time_seconds` is the earliest and
`process_max_fds` the smallest of the workers; all else is a sum. A worker that ends during a scrape is left out.
"""

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_COMBINE: dict[str, Callable[[Iterable[float]], float]] = {
    "process_start_time_seconds": min,
    "process_max_fds": min,
}
_WORKER_FILE = re.compile(r"gauge_live\w*_([0-9]+)\.db")


def worker_pids(directory: str | None) -> list[int]:
    """The workers that have files in prometheus-client's directory, or this process without a directory."""
    if not directory:
        return [os.getpid()]
    names = (_WORKER_FILE.fullmatch(path.name) for path in Path(directory).iterdir())
    return sorted({int(name[1]) for name in names if name})


class WorkerProcesses(Collector):
    """Collects the process metrics of some processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """One family for each metric, with one sample."""
        families: dict[str, Metric] = {}
        values: dict[str, list[float]] = {}
        for pid in self._pids:
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                families.setdefault(family.name, family)
                values.setdefault(family.name, []).extend(sample.value for sample in family.samples)
        for name, family in families.items():
            sample = family.samples[0]
            family.samples = [sample._replace(value=_COMBINE.get(name, sum)(values[name]))]
            yield family
