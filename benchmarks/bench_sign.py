"""Claim: `batuta pacha sign` takes at most 1.2 times as long as b3sum, and is at least 4 times as fast as OpenSSF's
model_signing. minisign is measured for reference.

    python -m benchmarks.bench_sign [--size 4G] [--files 2000] [--file-size 64K] [--runs 5] [--dir DIRECTORY] [--json]

batuta signs with Ed25519, as minisign does, model_signing with an EC P-256 key; b3sum signs nothing and shows what
reading and hashing alone cost.
"""

from collections.abc import Sequence

from benchmarks.signing import Contest, compare_signing


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    compare_signing("sign", __doc__, arguments, Contest.sign)


if __name__ == "__main__":
    main()
