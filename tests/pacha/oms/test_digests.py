"""Digests of parts of files and of streams, compared with hashlib's over the same bytes."""

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.pacha.oms.digests import Part, StreamDigests, digest_parts
from batuta_cli.pacha.scanning import FileEntry, scan


def of(algorithm: str, data: bytes) -> bytes:
    return blake3(data).digest() if algorithm == "blake3" else hashlib.new(algorithm, data).digest()


def entry(directory: Path, content: bytes) -> FileEntry:
    (directory / "f").write_bytes(content)
    [found] = scan(directory / "f")
    return found


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b", "blake3"])
def test_parts_have_the_digests_of_their_bytes_in_their_order(tmp_path: Path, algorithm: str) -> None:
    content = bytes(range(256)) * 10_000
    file = entry(tmp_path, content)
    bounds = [(1_000_000, len(content)), (0, 1_000_000), (0, len(content)), (5, 5)]
    done: list[int] = []
    found = digest_parts([Part(file, start, end) for start, end in bounds], algorithm, done.append)
    assert found == [of(algorithm, content[start:end]) for start, end in bounds]
    assert sum(done) == sum(end - start for start, end in bounds)


@pytest.mark.parametrize("algorithm", ["sha256", "blake3"])
@pytest.mark.parametrize("content", [b"", b"short", b"same size "])
def test_a_file_that_is_not_the_one_that_was_scanned_is_an_error(
    tmp_path: Path, algorithm: str, content: bytes
) -> None:
    file = entry(tmp_path, b"the signed")
    (tmp_path / "g").write_bytes(content)
    (tmp_path / "g").rename(tmp_path / "f")
    with pytest.raises(ChangedWhileReadError):
        digest_parts([Part(file, 0, file.size)], algorithm)


@given(st.binary(max_size=40), st.sets(st.integers(1, 40)), st.lists(st.integers(0, 9), max_size=20))
def test_the_pieces_of_a_stream_do_not_depend_on_how_it_arrives(data: bytes, ends: set[int], steps: list[int]) -> None:
    bounds = sorted(ends)
    stream = StreamDigests("sha256", bounds)
    position = 0
    for step in [*steps, len(data)]:
        stream.update(data[position : position + step])
        position += step
    reached = [end for end in bounds if end <= len(data)]
    pieces = [data[start:end] for start, end in zip([0, *reached], reached, strict=False)]
    if not bounds or len(data) > bounds[-1]:
        pieces.append(data[(bounds or [0])[-1] :])  # bytes after the last bound are a piece more
    assert stream.size == len(data)
    assert stream.digests() == [of("sha256", piece) for piece in pieces]
