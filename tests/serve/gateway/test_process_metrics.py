"""The process metrics are those of all workers."""

import os
import subprocess
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from batuta_cli.serve.gateway.process_metrics import WorkerProcesses, worker_pids
from tests.serve.gateway.live import live


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def test_process_metrics_are_those_of_all_workers(environment: dict[str, str]) -> None:
    memory = {}
    for workers in ("1", "3"):
        with live(environment, "--workers", workers) as gateway:
            memory[workers] = samples(gateway.ask("/metrics")[2].decode())["process_resident_memory_bytes", frozenset()]
    assert memory["3"] > 2 * memory["1"]


def test_workers_are_those_that_have_files_of_live_gauges(tmp_path: Path) -> None:
    for name in ("gauge_livesum_12.db", "gauge_livemax_12.db", "gauge_livemostrecent_7.db", "counter_99.db", "notes"):
        (tmp_path / name).touch()
    assert worker_pids(str(tmp_path)) == [7, 12]
    assert worker_pids(None) == worker_pids("") == [os.getpid()]


def test_a_process_that_has_ended_is_left_out_and_the_others_are_added() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    alone = {family.name: family.samples[0].value for family in WorkerProcesses([os.getpid()]).collect()}
    twice = {
        family.name: family.samples[0].value
        for family in WorkerProcesses([os.getpid(), ended.pid, os.getpid()]).collect()
    }
    assert twice["process_start_time_seconds"] == alone["process_start_time_seconds"]
    assert twice["process_max_fds"] == alone["process_max_fds"]
    assert twice["process_open_fds"] >= 2 * (alone["process_open_fds"] - 1)
