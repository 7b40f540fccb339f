import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import OperationError
from batuta_cli.pacha.encryption import source
from batuta_cli.pacha.encryption.source import ByteSource, MemorySource, RangeSource, StreamSource

from .helpers import noise, pipe_with


def read(blocks: ByteSource, unit: int) -> tuple[bytes, list[int], list[bool]]:
    """The content, the sizes and the marks of the last one."""
    pieces, sizes, marks = [], [], []
    for block, last in blocks.blocks(unit):
        pieces.append(bytes(block))
        sizes.append(len(block))
        marks.append(last)
    return b"".join(pieces), sizes, marks


@given(data=st.binary(max_size=300), unit=st.integers(1, 70), aim=st.integers(1, 200))
@settings(max_examples=150, deadline=None)
def test_all_sources_give_the_same_whole_blocks_and_mark_only_the_last(data: bytes, unit: int, aim: int) -> None:
    descriptor = os.memfd_create("source")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_AIM", aim)
        answers = [
            read(MemorySource(memoryview(data)), unit),
            read(StreamSource(descriptor, "file", ahead=True), unit),
            read(RangeSource(descriptor, "file", 0, len(data)), unit),
        ]
        with pipe_with(data, piece=13) as pipe:
            one_unit = read(StreamSource(pipe, "pipe", ahead=False), unit)
    os.close(descriptor)
    assert answers[0] == answers[1] == answers[2]
    for content, sizes, marks in (answers[0], one_unit):
        assert content == data
        assert marks == [False] * (len(sizes) - 1) + [True]
        assert all(size == sizes[0] and size % unit == 0 for size in sizes[:-1])
        assert sizes[-1] > 0 or sizes == [0]


def test_a_pipe_hands_on_each_unit_as_soon_as_it_is_known_not_to_be_the_last() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, bytes(100) + b"x")
    blocks = StreamSource(read_end, "pipe", ahead=False).blocks(50)
    block, last = next(blocks)
    assert (bytes(block), last) == (bytes(50), False)
    os.close(write_end)
    assert [(bytes(block), last) for block, last in blocks] == [(bytes(50), False), (b"x", True)]
    os.close(read_end)


def test_a_range_begins_and_ends_where_it_should(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(1000))
    with path.open("rb") as file:
        middle = RangeSource(file.fileno(), path, 100, 300)
        assert read(middle, 64)[0] == noise(1000)[100:400]
        assert read(middle, 64)[0] == noise(1000)[100:400]
        assert read(RangeSource(file.fileno(), path, 900, 300), 64)[0] == noise(1000)[900:]


def test_what_was_taken_does_not_come_again() -> None:
    with pipe_with(b"header and body") as pipe:
        stream = StreamSource(pipe, "pipe", ahead=False)
        assert stream.take(6) == b"header"
        assert read(stream, 4)[0] == b" and body"
        assert stream.take(5) == b""


def test_a_read_error_names_the_file(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OperationError, match=r"model\.gguf: is a directory"):
        StreamSource(descriptor, "model.gguf", ahead=True).take(1)
    with pytest.raises(OperationError, match=r"model\.gguf: is a directory"):
        list(RangeSource(descriptor, "model.gguf", 0, 10).blocks(5))
    os.close(descriptor)
