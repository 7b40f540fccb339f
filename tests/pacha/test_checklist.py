"""Lists of addresses: what `b3sum` writes is read, and every name survives."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.pacha.checklist import format_line, parse_list
from batuta_cli.pacha.hashing import ContentAddress
from batuta_cli.pacha.sha256 import Sha256Digest

ADDRESS = ContentAddress(blake3(b"x").digest())
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd"), min_size=1, max_size=20)


@pytest.mark.parametrize("name", ["plain", "two words", "new\nline", "back\\slash", "-rf", "\\n", "tab\t", " lead"])
def test_lines_are_those_of_b3sum_with_blake3_in_front(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    done = subprocess.run(["b3sum", "--", name], cwd=tmp_path, capture_output=True, check=True)
    printed = done.stdout.decode().removesuffix("\n")
    digits = ADDRESS.hex
    assert format_line(ADDRESS, name) == printed.replace(digits, f"blake3:{digits}", 1)
    assert parse_list(done.stdout) == [(ADDRESS, name)]


@given(st.lists(paths, min_size=1, max_size=4))
def test_every_list_is_read_as_it_was_written(names: list[str]) -> None:
    text = "".join(format_line(ADDRESS, name) + "\n" for name in names)
    assert parse_list(text.encode()) == [(ADDRESS, name) for name in names]


def test_a_name_that_is_not_utf8_is_shown_but_never_checked_as_another_file() -> None:
    line = format_line(ADDRESS, os.fsdecode(b"bad\xff"))
    assert line == f"{ADDRESS}  bad\ufffd"
    with pytest.raises(InvalidInputError, match="line 1: the path cannot be read"):
        parse_list(line.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "no address",
        ADDRESS.hex,
        f"{ADDRESS} one-space",
        f"{ADDRESS}  ",
        f"{ADDRESS.hex[:-1]}  short",
        f"sha512:{ADDRESS.hex}  other",
        f"SHA512 (a) = {ADDRESS.hex}",
        f"SHA256 () = {ADDRESS.hex}",
        f"SHA256 (a) = {ADDRESS.hex[2:]}",
        "# only a comment",
        f"\\{ADDRESS}  bad\\escape",
        f"\\{ADDRESS}  ends\\",
        f"{ADDRESS}  nul\0",
    ],
)
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_list(text.encode())


@pytest.mark.parametrize(
    "name", ["plain", "two words", "new\nline", "back\\slash", "a (b) = c", ") = x", "*star", "#hash"]
)
@pytest.mark.parametrize("options", [(), ("--tag",), ("--binary",)])
def test_lists_of_sha256sum_are_read(name: str, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    command = ["sha256sum", *options, "--", name]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert parse_list(printed, "sha256") == [(Sha256Digest(hashlib.sha256(b"x").digest()), name)]


@pytest.mark.parametrize("name", ["plain", "new\nline", "a (b) = c"])
def test_tagged_lists_of_b3sum_are_read(name: str) -> None:
    escaped = name.replace("\n", "\\n")
    line = f"{'' if name == escaped else chr(92)}BLAKE3 ({escaped}) = {ADDRESS.hex}"
    assert parse_list(line.encode()) == parse_list(line.encode(), "sha256") == [(ADDRESS, name)]


def test_comments_empty_lines_a_byte_order_mark_and_windows_line_ends_are_skipped() -> None:
    text = f"\ufeff# made by CI\r\n\r\n{ADDRESS}  a\r\n#{ADDRESS}  no\n{ADDRESS.hex} *b\n"
    assert parse_list(text.encode()) == [(ADDRESS, "a"), (ADDRESS, "b")]


def test_a_list_can_have_digests_of_both_kinds() -> None:
    sha256 = Sha256Digest(bytes(32))
    text = f"{ADDRESS}  a\n{sha256}  b\nSHA256 (c) = {sha256.hex}\nBLAKE3 (d) = {ADDRESS.hex}\n"
    assert parse_list(text.encode()) == [(ADDRESS, "a"), (sha256, "b"), (sha256, "c"), (ADDRESS, "d")]


def test_the_line_with_the_error_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"^line 3: "):
        parse_list(f"{ADDRESS}  a\n\nwrong\n".encode())


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda t: f"{ADDRESS}  {t}".encode()))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_list_or_an_error(data: bytes) -> None:
    try:
        entries = parse_list(data)
    except BatutaError as error:
        assert isinstance(error, InvalidInputError)
    else:
        assert all(name and "\0" not in name for _, name in entries)
