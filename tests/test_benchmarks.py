"""The benchmarks run, say what they leave out, and clean up. What they measure is not judged here."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, programs
from benchmarks.bench_memory import anonymous_memory

ROOT = Path(__file__).resolve().parents[1]

TINY = {
    "hash": [],
    "sign": ["--files", "3", "--file-size", "4K"],
    "verify": ["--files", "3", "--file-size", "4K"],
    "cached": ["--files", "3", "--file-size", "4K"],
    "encrypt": [],
    "decrypt": [],
    "startup": [],
    "memory": [],
    "ledger": ["--seconds", "0.05"],
    "templates": ["--seconds", "0.01"],
    "gateway": ["--seconds", "0.05", "--connections", "1,4", "--events", "5"],
    "gateway_memory": ["--requests", "100"],
    "tokens": [],
}


def run(name: str, directory: Path, *more: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark as `make bench` does; `path` stands for all places where programs are looked for."""
    code = "import sys, runpy; from benchmarks import programs; "
    if path is not None:
        code += f"programs.SEARCH[:] = [{path!r}]; "
    code += f"sys.argv[0] = {name!r}; runpy.run_module('benchmarks.bench_{name}', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, "--size", "1M", "--runs", "1", "--dir", str(directory), *TINY[name], *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_benchmark_is_tried_here() -> None:
    assert set(TINY) == {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_reports_its_machine_and_batuta_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for fact in ("cores: ", "memory: ", "kernel: ", "python: ", "file system: ", "batuta: ", "load at the end: "):
        assert fact in done.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["sign", "encrypt", "memory"])
def test_json_is_one_document_with_medians_and_noise(name: str, tmp_path: Path) -> None:
    document = json.loads(run(name, tmp_path, "--json").stdout)
    assert document["size"] == 1024 * 1024
    assert document["programs"]["batuta"]
    if name == "memory":
        assert {entry["name"] for entry in document["peaks"]} >= {"sign", "verify", "encrypt, format 1"}
        return
    for table in document["tables"]:
        for row in table["times"]:
            assert {"median", "min", "max", "quartiles"} <= set(row["seconds"])


def test_a_peer_that_is_missing_is_reported_and_the_rest_is_measured(tmp_path: Path) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    (only / "batuta").symlink_to(Path(sys.executable).with_name("batuta"))
    (tmp_path / "work").mkdir()
    done = run("sign", tmp_path / "work", path=str(only))
    assert done.returncode == 0, done.stderr
    for peer in ("b3sum", "minisign", "model_signing"):
        assert f"skipped: {peer}: not installed" in done.stdout
    assert "batuta sign" in done.stdout


def test_a_peer_that_does_not_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b3sum").write_text("#!/bin/sh\necho 'libsodium.so.23: cannot open shared object file' >&2; exit 127\n")
    (tmp_path / "b3sum").chmod(0o755)
    monkeypatch.setattr(programs, "SEARCH", [str(tmp_path)])
    report = compare.Report(json=True)
    assert programs.Programs(report, tmp_path).find("b3sum") is None
    assert "libsodium" in report.document["skipped"][0]["reason"]


def test_a_program_that_fails_is_not_timed(tmp_path: Path) -> None:
    failing = compare.Subject("false", ["sh", "-c", "echo broken >&2; exit 7"], os.environ)
    with pytest.raises(compare.BenchmarkError, match="status 7: broken"):
        compare.run_once(failing)
    silent = compare.Subject("true", ["true"], os.environ, output=tmp_path / "never made")
    with pytest.raises(compare.BenchmarkError, match="status 0"):
        compare.run_once(silent)
    wrong = compare.Subject("true", ["true"], os.environ, check=lambda: False)
    with pytest.raises(compare.BenchmarkError, match="not what it should be"):
        compare.run_once(wrong, check=True)


def test_subjects_take_turns_and_the_first_round_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subjects = [compare.Subject(name, ["sh", "-c", f"echo {name} >> {log}"], os.environ) for name in "ab"]
    report = compare.Report(json=True)
    options = argparse.Namespace(runs=2, cold=True, calm=None)
    compare.race(report, "letters", subjects, options, [compare.Comparison("a", "b", at_most=1e9)])
    assert log.read_text().split() == ["a", "b", "b", "a", "a", "b"]
    (table,) = report.document["tables"]
    assert [len(row["runs"]) for row in table["times"]] == [2, 2]
    assert table["comparisons"][0]["met"] is True


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    def samples(*seconds: float) -> list[compare.Sample]:
        return [compare.Sample(s, None, 0, 0) for s in seconds]

    table: dict[str, list[dict[str, object]]] = {"comparisons": []}
    report, times = compare.Report(json=False), {"a": samples(1, 2, 9), "b": samples(2, 2, 3)}
    compare._report_comparison(report, table, compare.Comparison("a", "b", at_most=0.9), times)
    compare._report_comparison(report, table, compare.Comparison("b", "a", times_faster=1), times)
    assert [entry["ratio"] for entry in table["comparisons"]] == [
        {"median": 1.0, "min": 0.5, "max": 3.0, "quartiles": [0.75, 2.0]}
    ] * 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  a takes 1.00 times as long as b (0.50-3.00); the aim is at most 0.9: MISSED"
    assert said[1] == "  b is 1.0 times as fast as a (0.50-3.00); the aim is at least 1: met"


def test_a_run_that_others_disturb_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter((0.5, 0.2, 0.04, 0.0))
    monkeypatch.setattr(compare, "run_once", lambda subject, **how: compare.Sample(1, None, 0, next(shares)))
    monkeypatch.setattr(compare, "_wait_for_calm", lambda limit: None)
    nothing = compare.Subject("nothing", [], {})
    assert compare._calm_run(nothing, argparse.Namespace(calm=5, cold=False)).others == 0.04
    assert compare._calm_run(nothing, argparse.Namespace(calm=None, cold=False)).others == 0.0


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("64K", 65536), ("4g", 4 * 1024**3), ("10G", 10 * 1024**3)])
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert compare.size_of(text) == size


def test_anonymous_memory_is_what_a_process_allocates() -> None:
    before = anonymous_memory(os.getpid())
    held = b"x" * (64 * 1024 * 1024)
    assert anonymous_memory(os.getpid()) - before > 60 * 1024 * 1024
    del held
    assert anonymous_memory(2**22 + 1) == 0
