"""Claim: a file of 10 GB is signed, verified, encrypted and decrypted within 200 MiB of anonymous memory.

    python -m benchmarks.bench_memory [--size 10G] [--runs 1] [--dir DIRECTORY] [--json]

The file is sparse, so that only the encrypted copy takes room on the disk, and its decryption again: twice --size.
What a process allocates is RssAnon in /proc/PID/status (Linux), looked at every few milliseconds; of several --runs the
largest counts. The largest resident size, which the kernel itself keeps, is the upper bound; it counts pages of the
file, too, which the kernel takes back when it needs them.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare import BenchmarkError, Command, Report, benchmark, parser
from benchmarks.programs import Program, Programs

LIMIT = 200 * 1024 * 1024
_INTERVAL = 0.003  # seconds


@dataclass(frozen=True)
class Peak:
    """The most memory, in bytes, that a process was seen with; and its upper bound, shared pages and files included."""

    anonymous: int
    resident: int
    seconds: float
    looks: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, size="10G", runs=1).parse_args(arguments)
    with benchmark("memory", options) as (report, directory):
        batuta = Programs(report, directory).batuta()
        model = directory / "model.bin"
        with model.open("wb") as file:
            file.truncate(options.size)
        peaks: dict[str, Peak] = {}
        for name, command, made, finished in _commands(model):
            for _ in range(options.runs):
                made.unlink(missing_ok=True)
                peak = watch(batuta, command)
                if name not in peaks or peak.anonymous > peaks[name].anonymous:
                    peaks[name] = peak
            for path in finished:
                path.unlink()
        _report(report, peaks)


def _commands(model: Path) -> list[tuple[str, Command, Path, list[Path]]]:
    """Name, arguments, the file it makes, and the files to delete afterwards."""
    signature, encrypted, back = model.with_suffix(".bin.sig"), model.with_suffix(".enc"), model.with_suffix(".back")
    none = model.with_suffix(".none")
    commands: list[tuple[str, Command, Path, list[Path]]] = [
        ("sign", ["sign", model], signature, []),
        ("verify", ["verify", model], none, []),
    ]
    for version in ("1", "2"):
        encrypt: Command = ["encrypt", model, "--format", version, "--output", encrypted]
        decrypt: Command = ["decrypt", encrypted, "--output", back]
        commands.append((f"encrypt, format {version}", encrypt, encrypted, []))
        commands.append((f"decrypt, format {version}", decrypt, back, [encrypted, back]))
    return commands


def watch(batuta: Program, command: Command) -> Peak:
    """Run `batuta pacha …` and look at its memory until it is gone. Raises `BenchmarkError` when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [batuta.path, "pacha", *command, "--quiet"],
        env=batuta.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    anonymous, looks = 0, 0
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        anonymous, looks = max(anonymous, anonymous_memory(process.pid)), looks + 1
        time.sleep(_INTERVAL)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"batuta pacha {command[0]} failed with status {process.returncode}")
    return Peak(anonymous, usage.ru_maxrss * 1024, time.perf_counter() - start, looks)


def anonymous_memory(pid: int) -> int:
    """RssAnon of a process in bytes; 0 when the process is ending."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon:")), "RssAnon: 0 kB")
    return int(line.split()[1]) * 1024


def _report(report: Report, peaks: dict[str, Peak]) -> None:
    rows: list[list[str]] = []
    entries: list[dict[str, Any]] = []
    for name, peak in peaks.items():
        met = peak.anonymous <= LIMIT
        verdict = "met" if met else "MISSED"
        rows.append([name, _mib(peak.anonymous), verdict, _mib(peak.resident), f"{peak.seconds:.1f}", str(peak.looks)])
        entries.append({"name": name, "met": met} | vars(peak))
    report.document["limit"] = LIMIT
    report.document["peaks"] = entries
    report.say(f"\nanonymous memory; the aim is at most {LIMIT // 1024**2} MiB")
    report.table(["", "anonymous MiB", "", "resident MiB", "s", "looks"], rows)


def _mib(count: int) -> str:
    return f"{count / 1024**2:.0f}"


if __name__ == "__main__":
    main()
