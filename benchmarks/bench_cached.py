"""Claim: a directory of 20,000 files is verified again in 0.3 s with `--cached`, and signed again without reading the
files that did not change. Plain `verify` and `sign` read all of them.

    python -m benchmarks.bench_cached [--files 20000] [--file-size 64K] [--runs 5] [--dir DIRECTORY] [--json]

The digest cache is filled once, untimed. `--cached` is not used on tmpfs and network file systems; name another place
with --dir there. --size has no meaning here.
"""

from collections.abc import Sequence

from benchmarks.compare import BenchmarkError, Command, Comparison, Subject, benchmark, in_words, parser, race, size_of
from benchmarks.programs import Programs, random_directory


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser(__doc__)
    made.add_argument("--files", type=int, default=20_000, help="files in the directory (default: 20000)")
    made.add_argument("--file-size", type=size_of, default=size_of("64K"), help="size of each (default: 64K)")
    options = made.parse_args(arguments)
    with benchmark("cached", options) as (report, directory):
        batuta = Programs(report, directory).batuta()
        model = random_directory(directory / "model", options.files, options.file_size)
        signature, other = directory / "model.sig", directory / "other.sig"
        batuta.run("pacha", "sign", model)
        batuta.run("pacha", "verify", model, "--cached")
        if f"{options.files:,} of {options.files:,} files were not read" not in batuta.run(
            "pacha", "verify", model, "--cached"
        ):
            raise BenchmarkError("--cached is not used here; name a directory on ext4, xfs or btrfs with --dir")
        verify: Command = [batuta.path, "pacha", "verify", model, "--signature", signature]
        sign: Command = [batuta.path, "pacha", "sign", model, "--output", other]
        subjects = [
            Subject("verify", verify, batuta.environment, [model]),
            Subject("verify --cached", [*verify, "--cached"], batuta.environment, [model]),
            Subject("sign", sign, batuta.environment, [model], other),
            Subject("sign --cached", [*sign, "--cached"], batuta.environment, [model], other),
        ]
        comparisons = (Comparison("verify --cached", "verify"), Comparison("sign --cached", "sign"))
        title = f"a directory of {options.files:,} files of {in_words(options.file_size)} again"
        race(report, title, subjects, options, comparisons)


if __name__ == "__main__":
    main()
