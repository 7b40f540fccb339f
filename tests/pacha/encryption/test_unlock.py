import pytest

from batuta_cli.errors import UsageError
from batuta_cli.pacha.encryption.header import ChunkedHeader, SingleMessageHeader
from batuta_cli.pacha.encryption.unlock import FORMATS, new_header


def test_both_formats_can_be_written() -> None:
    assert [type(new_header(version)) for version in FORMATS] == [SingleMessageHeader, ChunkedHeader]


@pytest.mark.parametrize("version", [0, 3, -1, 255])
def test_an_unknown_format_is_not_written(version: int) -> None:
    with pytest.raises(UsageError, match=f"format {version} is not known"):
        new_header(version)
