"""Claim: `batuta pacha hash` takes at most 1.2 times as long as b3sum. sha256sum is measured for reference.

python -m benchmarks.bench_hash [--size 4G] [--runs 5] [--dir DIRECTORY] [--json]
"""

from collections.abc import Sequence

from benchmarks.compare import Comparison, Subject, benchmark, parser, race
from benchmarks.programs import Programs, random_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__).parse_args(arguments)
    with benchmark("hash", options) as (report, directory):
        programs = Programs(report, directory)
        batuta = programs.batuta()
        model = random_file(directory / "model.bin", options.size)
        subjects = [Subject("batuta hash", [batuta.path, "pacha", "hash", model], batuta.environment, [model])]
        for name in ("b3sum", "sha256sum"):
            if peer := programs.find(name):
                subjects.append(Subject(name, [peer.path, model], peer.environment, [model]))
        comparisons = (Comparison("batuta hash", "b3sum", at_most=1.2), Comparison("batuta hash", "sha256sum"))
        race(report, "one file", subjects, options, comparisons)


if __name__ == "__main__":
    main()
