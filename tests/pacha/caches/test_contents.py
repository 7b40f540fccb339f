"""What a cache says that it holds."""

import hashlib

from batuta_cli.pacha.caches.contents import ExpectedDigest


def test_a_digest_is_written_with_its_algorithm_as_the_tools_write_it() -> None:
    digest = hashlib.sha256(b"a model").hexdigest()
    assert str(ExpectedDigest("sha256", digest)) == f"sha256:{digest}"
