"""Claim: `batuta pacha encrypt` takes at most half the time of `age -p` (format 1), and about that of cp (format 2).

    python -m benchmarks.bench_encrypt [--size 4G] [--runs 5] [--dir DIRECTORY] [--json]

The output of every program is a new file in the same directory. batuta's is on the disk when it exits; for the others
both times are reported, until exit and until an fsync after it. The claim is about the first.
"""

from collections.abc import Sequence

from benchmarks.encryption import compare_encryption


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    compare_encryption("encrypt", __doc__, arguments)


if __name__ == "__main__":
    main()
