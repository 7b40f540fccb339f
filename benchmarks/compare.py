"""Programs timed side by side: interleaved runs, medians, ratios, and how noisy they are.

What every number rests on:

* The programs of one table take turns, and each round begins with another one, so that a busy minute or a warm disk
  hurts all of them alike. One round more, which is not counted, comes first.
* A ratio is the median of the ratios within each round. Beside every median stands the range of all runs.
* Inputs are read before each run, so that every program finds them in the page cache; with --cold they are taken out
  of it, so that every program waits for the disk. Outputs are new files, removed after the run.
* Times are of whole processes, start-up included, until exit. For programs that write a large file the table also says
  when it was on the disk: batuta calls fsync before it exits, the others do not, so theirs is called for them.
* What other programs took of the processors during the runs is reported. With --calm a run that they disturbed is
  repeated once they are quieter, also when it was a run of another program.
* A program that fails ends the benchmark: a fast failure is not a fast program.
"""

import argparse
import contextlib
import datetime as dt
import fcntl
import json
import os
import platform
import pty
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

Command = Sequence[str | Path]
"""A program and its arguments."""

_PIECE = 8 * 1024 * 1024
_PROCESSORS = os.cpu_count() or 1
_ATTEMPTS = 20  # at a calm run
_PATIENCE = 30.0  # seconds to wait for calm before an attempt
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


class BenchmarkError(Exception):
    """A program did not do what it was timed for."""


def size_of(text: str) -> int:
    """`4G` in bytes; K, M, G and T are powers of 1024."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not digits.isdigit() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}; 64K, 512M, 4G")
    return int(digits) * _UNITS[unit]


def in_words(size: int) -> str:
    """Bytes as a person says them: `4 GiB`."""
    unit = next((u for u in "TGMK" if size >= _UNITS[u] and size % _UNITS[u] == 0), "")
    return f"{size // _UNITS[unit]:,} {unit}iB" if unit else f"{size:,} bytes"


def parser(claim: str | None, *, size: str = "1G", runs: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has; `claim` is the script's docstring."""
    made = argparse.ArgumentParser(description=claim, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", type=size_of, default=size_of(size), help=f"of the model file (default: {size})")
    made.add_argument("--runs", type=int, default=runs, help=f"counted rounds (default: {runs})")
    made.add_argument("--dir", type=Path, help="where to put the files (default: the directory for temporary files)")
    made.add_argument(
        "--calm", type=float, metavar="PERCENT", help="repeat runs in which other programs took more of the processors"
    )
    made.add_argument("--cold", action="store_true", help="take inputs out of the page cache before each run")
    made.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    return made


@dataclass(frozen=True)
class Subject:
    """A program with its arguments, as it is timed."""

    name: str
    command: Command
    environment: Mapping[str, str]
    inputs: Sequence[Path] = ()
    """Read before each run."""
    output: Path | None = None
    """Made by the program; removed before and after each run."""
    large: bool = False
    """The output is as large as the input, so when it is on the disk is measured, too."""
    answers: Sequence[str] = ()
    """What is typed at each question, on a terminal that the program is given."""
    check: Callable[[], bool] | None = None
    """Whether the output is right; asked in the round that is not counted."""


@dataclass(frozen=True)
class Sample:
    """One run."""

    seconds: float
    """Until the process was gone."""
    on_disk: float | None
    """Until its output was on the disk."""
    cpu: float
    """Processor time, user and system, of all threads."""
    others: float
    """The part of all processors, from 0 to 1, that other programs took meanwhile."""


@dataclass(frozen=True)
class Comparison:
    """How two programs' times relate, and how that should be.

    With `at_most`, the time of `one` should be at most so many times that of `other`. With `times_faster`, that of
    `other` should be at least so many times that of `one`. With neither, the ratio is reported as it is.
    """

    one: str
    other: str
    at_most: float | None = None
    times_faster: float | None = None
    on_disk: bool = False
    """Compare until the output is on the disk."""


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, and where all of them lie."""

    median: float
    least: float
    greatest: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Of at least one number."""
        if len(numbers) < 2:
            return cls(numbers[0], numbers[0], numbers[0], (numbers[0], numbers[0]))
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(median, min(numbers), max(numbers), (low, high))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"median": self.median, "min": self.least, "max": self.greatest, "quartiles": list(self.quartiles)}


@dataclass
class Report:
    """What a benchmark prints: as it goes, or with `--json` as one document at the end."""

    json: bool
    document: dict[str, Any] = field(default_factory=dict)

    def say(self, line: str = "") -> None:
        """A line for a person."""
        if not self.json:
            print(line, flush=True)

    def skip(self, program: str, reason: str) -> None:
        """Say that a program is left out."""
        self.document.setdefault("skipped", []).append({"program": program, "reason": reason})
        print(f"skipped: {program}: {reason}", file=sys.stderr if self.json else sys.stdout, flush=True)

    def section(self, title: str, **facts: Any) -> dict[str, Any]:
        """Begin a table of the document, with the title as a heading; returns the table, to be filled."""
        table = {"title": title, **facts}
        self.document.setdefault("tables", []).append(table)
        self.say(f"\n{title}")
        return table

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned text; all columns but the first are numbers."""
        widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
        for line in [columns, *rows]:
            cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            self.say("  " + "  ".join(cells).rstrip())


@contextlib.contextmanager
def benchmark(name: str, options: argparse.Namespace) -> Iterator[tuple[Report, Path]]:
    """A report that begins with the machine, and a directory that is gone afterwards, also after Ctrl-C or SIGTERM."""
    if options.runs < 1:
        raise SystemExit("error: --runs must be at least 1")
    signal.signal(signal.SIGTERM, _terminated)
    report = Report(options.json)
    with tempfile.TemporaryDirectory(prefix="batuta-bench-", dir=options.dir) as directory:
        facts = machine(directory)
        report.document |= {
            "benchmark": name,
            "machine": facts,
            "size": options.size,
            "runs": options.runs,
            "cold": options.cold,
            "calm": options.calm,
        }
        report.say(
            f"{name}: {in_words(options.size)}, {options.runs} rounds{', cold' * options.cold}"
            + (f", runs repeated above {options.calm:g} % of other programs" if options.calm is not None else "")
        )
        report.say(", ".join(f"{key}: {value}" for key, value in facts.items()))
        try:
            yield report, Path(directory)
        except BenchmarkError as error:
            raise SystemExit(f"error: {error}") from None
        load = f"{os.getloadavg()[0]:.2f}"
        report.document["load at the end"] = load
        report.say(f"load at the end: {load}\n")
        if report.json:
            print(json.dumps(report.document, indent=2))


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def machine(directory: str) -> dict[str, str]:
    """What the numbers depend on, besides the programs."""
    processor = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo", "model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": processor,
        "memory": f"{memory:.0f} GiB",
        "file system": _file_system(directory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def _lines(path: str, beginning: str) -> list[str]:
    with open(path) as file:
        return [line for line in file if line.startswith(beginning)]


def _file_system(directory: str) -> str:
    real = os.path.realpath(directory) + "/"
    mounts = [line.split()[1:3] for line in _lines("/proc/self/mounts", "")]
    fitting = [(point, kind) for point, kind in mounts if real.startswith(point.rstrip("/") + "/")]
    return max(fitting, key=lambda mount: len(mount[0]))[1] if fitting else "unknown"


def _prepare(path: Path, *, cold: bool) -> None:
    """Read a file, or all files of a directory, so that the page cache has what fits; or take them out of it."""
    buffer = bytearray(_PIECE)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb", buffering=0) as stream:
            if cold:
                os.fsync(stream.fileno())  # only what is on the disk can be dropped
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while stream.readinto(buffer):
                    pass


def race(
    report: Report,
    title: str,
    subjects: Sequence[Subject],
    options: argparse.Namespace,
    comparisons: Sequence[Comparison] = (),
) -> None:
    """Time the subjects in turn and report them; comparisons with a subject that is not there are left out.

    Raises `BenchmarkError` when a program fails.
    """
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
    for number in range(options.runs + 1):
        first = number % len(subjects)
        for subject in [*subjects[first:], *subjects[:first]]:
            if number == 0:
                run_once(subject, check=True, cold=options.cold)
            else:
                samples[subject.name].append(_calm_run(subject, options))
    others = Spread.of([sample.others for series in samples.values() for sample in series])
    table = report.section(title, times=[], comparisons=[], others=others.as_dict())
    _report_times(report, table, samples)
    report.say(f"  other programs took {others.median:.0%} of the processors, {others.greatest:.0%} in the worst run")
    for comparison in comparisons:
        if comparison.one in samples and comparison.other in samples:
            _report_comparison(report, table, comparison, samples)


def _calm_run(subject: Subject, options: argparse.Namespace) -> Sample:
    """A run that other programs did not disturb more than `--calm` allows, or the calmest of many."""
    limit = 1.0 if options.calm is None else options.calm / 100
    calmest: Sample | None = None
    for _ in range(_ATTEMPTS):
        if options.calm is not None:
            _wait_for_calm(limit)
        sample = run_once(subject, cold=options.cold)
        if calmest is None or sample.others < calmest.others:
            calmest = sample
        if calmest.others <= limit:
            break
    assert calmest is not None
    return calmest


def _wait_for_calm(limit: float) -> None:
    """Wait until other programs take less than `limit` of the processors for half a second, but not for ever."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        before = _user_seconds()
        time.sleep(0.5)
        if (_user_seconds() - before) / 0.5 / _PROCESSORS <= limit:
            return


def _user_seconds() -> float:
    """The time that all programs together have computed, and that other virtual machines on this host have stolen.

    Not the kernel's time, which may be spent for the program that is timed, for example to write its files.
    """
    numbers = _lines("/proc/stat", "cpu ")[0].split()  # proc_stat(5): user 1, nice 2, steal 8
    return sum(int(numbers[i]) for i in (1, 2, 8)) / os.sysconf("SC_CLK_TCK")


def _report_times(report: Report, table: dict[str, Any], samples: Mapping[str, Sequence[Sample]]) -> None:
    writes = any(sample.on_disk is not None for series in samples.values() for sample in series)
    rows = []
    for name, series in samples.items():
        total, cpu = Spread.of([s.seconds for s in series]), Spread.of([s.cpu for s in series])
        row = [name, f"{total.median:.3f}", f"{total.least:.3f}-{total.greatest:.3f}", f"{cpu.median:.2f}"]
        entry = {"name": name, "seconds": total.as_dict(), "cpu": cpu.as_dict(), "runs": [s.seconds for s in series]}
        if writes:
            on_disk = Spread.of([s.seconds if s.on_disk is None else s.on_disk for s in series])
            row += [f"{on_disk.median:.3f}", f"{on_disk.least:.3f}-{on_disk.greatest:.3f}"]
            entry["on_disk"] = on_disk.as_dict()
        rows.append(row)
        table["times"].append(entry)
    report.table(["", "s", "range", "cpu s", *["on disk s", "range"][: 2 * writes]], rows)


def _report_comparison(
    report: Report, table: dict[str, Any], asked: Comparison, samples: Mapping[str, Sequence[Sample]]
) -> None:
    def times(name: str) -> list[float]:
        return [s.on_disk if asked.on_disk and s.on_disk is not None else s.seconds for s in samples[name]]

    pairs = list(zip(times(asked.one), times(asked.other), strict=True))
    if asked.times_faster is None:
        ratio = Spread.of([one / other for one, other in pairs])
        words, aim = f"takes {ratio.median:.2f} times as long as", f"at most {asked.at_most}"
        met = None if asked.at_most is None else ratio.median <= asked.at_most
    else:
        ratio = Spread.of([other / one for one, other in pairs])
        words, aim = f"is {ratio.median:.1f} times as fast as", f"at least {asked.times_faster}"
        met = ratio.median >= asked.times_faster
    verdict = "" if met is None else f"; the aim is {aim}: {'met' if met else 'MISSED'}"
    where = " until on disk" if asked.on_disk else ""
    spread = f"({ratio.least:.2f}-{ratio.greatest:.2f})"
    report.say(f"  {asked.one} {words} {asked.other}{where} {spread}{verdict}")
    aims = {"at_most": asked.at_most, "times_faster": asked.times_faster, "on_disk": asked.on_disk, "met": met}
    table["comparisons"].append({"one": asked.one, "other": asked.other, "ratio": ratio.as_dict()} | aims)


def run_once(subject: Subject, *, check: bool = False, keep: bool = False, cold: bool = False) -> Sample:
    """Run a program and time it, with its inputs in the page cache or `cold`; with `keep` its output stays.

    Raises `BenchmarkError` when it fails, or, with `check`, when its output is wrong.
    """
    for path in subject.inputs:
        _prepare(path, cold=cold)
    _remove(subject.output)
    if subject.large:
        os.sync()  # what the one before has left to write is not this one's work
    before, everybody = resource.getrusage(resource.RUSAGE_CHILDREN), _user_seconds()
    start = time.perf_counter()
    status, said = _on_terminal(subject) if subject.answers else _run(subject)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = (_user_seconds() - everybody - (after.ru_utime - before.ru_utime)) / seconds / _PROCESSORS
    if status or (subject.output is not None and not subject.output.exists()):
        raise BenchmarkError(f"{subject.name} failed with status {status}: {said.strip()[-500:]}")
    on_disk = None
    if subject.output is not None and subject.large:
        _fsync(subject.output)
        on_disk = time.perf_counter() - start
    if check and subject.check is not None and not subject.check():
        raise BenchmarkError(f"{subject.name}: its output is not what it should be")
    if not keep:
        _remove(subject.output)
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Sample(seconds, on_disk, cpu, min(max(others, 0.0), 1.0))


def _remove(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run(subject: Subject) -> tuple[int, str]:
    done = subprocess.run(
        list(subject.command), env=subject.environment, stdin=subprocess.DEVNULL, capture_output=True, errors="replace"
    )
    return done.returncode, done.stderr or done.stdout


def _on_terminal(subject: Subject) -> tuple[int, str]:
    """Run a program that asks its questions on a terminal, and answer them: age takes a passphrase no other way."""
    controller, terminal = pty.openpty()

    def adopt() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        list(subject.command),
        env=subject.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=adopt,  # noqa: PLW1509  (there are no threads here)
    )
    os.close(terminal)
    said, answers = b"", list(subject.answers)
    with contextlib.suppress(OSError):  # EIO: the last program has closed the terminal
        while piece := os.read(controller, 4096):
            said += piece
            if answers and said.count(b": ") > len(subject.answers) - len(answers):
                os.write(controller, answers.pop(0).encode() + b"\n")
    status = process.wait()
    os.close(controller)
    return status, said.decode(errors="replace")
