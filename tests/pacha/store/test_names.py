"""Names and addresses of objects."""

import pytest

from batuta_cli.errors import (
    InvalidInputError,
)
from batuta_cli.pacha.hashing import address_of_bytes
from batuta_cli.pacha.store import (
    StoreName,
    parse_reference,
)

# Names


@pytest.mark.parametrize(
    ("text", "name", "tag"),
    [
        ("llama", "llama", "latest"),
        ("llama:8b", "llama", "8b"),
        ("meta/llama-3.1:8b_Q4.K", "meta/llama-3.1", "8b_Q4.K"),
    ],
)
def test_a_name_is_read(text: str, name: str, tag: str) -> None:
    assert parse_reference(text) == StoreName(name, tag)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "a:", ":b", ".a", "-a", "a:-b", "a:.b", "a..b", "a/../b", "/a", "a/", "a//b", "a/.b", "a b", "ä"),
        *("a\n", "a:b:c", "a:b/c", "blake3", "blake3:latest", "blake3:" + "0" * 63, "a" * 201, "a:" + "b" * 129),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text)


def test_an_address_is_read() -> None:
    address = address_of_bytes(b"x")
    assert parse_reference(str(address)) == address
