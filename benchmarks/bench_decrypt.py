"""Claim: `batuta pacha decrypt` takes at most half the time of age with a passphrase (format 1), and about that of cp
(format 2).

    python -m benchmarks.bench_decrypt [--size 4G] [--runs 5] [--dir DIRECTORY] [--json]

Each program decrypts what it has encrypted itself, into a new file in the same directory, whose content is compared
once. Needs six times --size on the disk. Format 1 is read twice, because nothing may appear before its tag is checked.
batuta's output is on the disk when it exits; for the others both times are reported, until exit and until an fsync
after it. The claim is about the first.
"""

from collections.abc import Sequence

from benchmarks.encryption import compare_encryption


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    compare_encryption("decrypt", __doc__, arguments)


if __name__ == "__main__":
    main()
