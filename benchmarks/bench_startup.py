"""Claim: a batuta command is there at once: `batuta --version` and `verify` of a file of 64 KiB, against an empty
Python program and `model_signing --help`.

    python -m benchmarks.bench_startup [--runs 20] [--dir DIRECTORY] [--json]

--size is the small file's.
"""

import sys
from collections.abc import Sequence

from benchmarks.compare import Comparison, Subject, benchmark, parser, race
from benchmarks.programs import Programs, random_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, size="64K", runs=20).parse_args(arguments)
    with benchmark("start-up", options) as (report, directory):
        programs = Programs(report, directory)
        batuta, b3sum, model_signing = programs.batuta(), programs.find("b3sum"), programs.find("model_signing")
        model = random_file(directory / "model.bin", options.size)
        batuta.run("pacha", "sign", model)
        subjects = [
            Subject("python -c pass", [sys.executable, "-c", "pass"], batuta.environment),
            Subject("batuta --version", [batuta.path, "--version"], batuta.environment),
            Subject("batuta verify", [batuta.path, "pacha", "verify", model], batuta.environment, [model]),
        ]
        if b3sum is not None:
            subjects.append(Subject("b3sum", [b3sum.path, model], b3sum.environment, [model]))
        if model_signing is not None:
            subjects.append(Subject("model_signing --help", [model_signing.path, "--help"], model_signing.environment))
        comparisons = (
            Comparison("batuta --version", "python -c pass"),
            Comparison("batuta --version", "model_signing --help"),
            Comparison("batuta verify", "python -c pass"),
            Comparison("batuta verify", "model_signing --help"),
        )
        race(report, "a small file, or none", subjects, options, comparisons)


if __name__ == "__main__":
    main()
