"""Claim: `batuta pacha verify` takes at most 1.2 times as long as b3sum, and is at least 4 times as fast as OpenSSF's
model_signing. minisign is measured for reference.

    python -m benchmarks.bench_verify [--size 4G] [--files 2000] [--file-size 64K] [--runs 5] [--dir DIRECTORY] [--json]

Each program verifies the signature that it made itself; b3sum verifies nothing and shows what reading and hashing alone
cost.
"""

from collections.abc import Sequence

from benchmarks.compare import Subject
from benchmarks.signing import Contest, compare_signing, signed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""

    def verify(contest: Contest) -> list[Subject]:
        signed(contest)
        return contest.verify()

    compare_signing("verify", __doc__, arguments, verify)


if __name__ == "__main__":
    main()
