"""A cheap key derivation and small chunks, for the tests that are about neither."""

from collections.abc import Iterator

import pytest

from batuta_cli.pacha.encryption import memory, transfer
from batuta_cli.pacha.encryption.header import SingleMessageHeader

from .helpers import CHEAP, cheap_header


@pytest.fixture(scope="module")
def cheap() -> Iterator[None]:
    """Both versions at the lowest cost, version 2 in chunks of 4 KiB. Of the module, so that hypothesis may use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SingleMessageHeader, "kdf", CHEAP)
        patch.setattr(memory, "new_header", cheap_header)
        patch.setattr(transfer, "new_header", cheap_header)
        yield
