"""Events are read from a stream however it is cut, and none is made of what a cut left over."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import OperationError
from batuta_cli.serve.providers.sse import Event, EventScanner, LineScanner


def events(*pieces: bytes) -> list[Event]:
    scanner = EventScanner()
    return [event for piece in pieces for event in scanner.feed(piece)]


# The examples of https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
STANDARD = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("", b"YHOO\n+2\n10")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [Event("", b"first event"), Event("", b"second event"), Event("", b" third event")],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [Event("", b""), Event("", b"\n")]),
    (b"data:test\n\ndata: test\n\n", [Event("", b"test"), Event("", b"test")]),
    (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
        [Event("add", b"73857293"), Event("remove", b"2153")],
    ),
]


@pytest.mark.parametrize(("stream", "expected"), STANDARD)
def test_the_examples_of_the_standard(stream: bytes, expected: list[Event]) -> None:
    for newline in (b"\n", b"\r\n", b"\r"):
        assert events(stream.replace(b"\n", newline) + b": end\n") == expected


def test_a_type_without_data_is_no_event_and_is_forgotten() -> None:
    assert events(b"event: ping\n\ndata: x\n\n") == [Event("", b"x")]


def test_a_byte_order_mark_is_not_part_of_the_first_line() -> None:
    assert events(b"\xef", b"\xbb", b"\xbfdata: x\n\n") == [Event("", b"x")]


LINES = st.sampled_from(
    [b'data: {"a": "\xc3\xa9\xf0\x9f\x98\x80"}', b"data:", b"data", b": c", b"event: e", b"", b"id: 7", b"x"]
)


@given(st.lists(LINES, max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 400)))
def test_a_stream_cut_anywhere_gives_the_same_events(lines: list[bytes], newline: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + newline for line in lines) + b":"
    places = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert events(*pieces) == events(stream) == events(*(bytes([b]) for b in stream))


@given(st.integers(0, 40))
def test_an_event_that_is_cut_short_is_never_given(length: int) -> None:
    stream = b"data: one\n\ndata: two\ndata: three\n\n"
    scanner = EventScanner()
    found = [e.data for e in scanner.feed(stream[:length])]
    assert found == [b"one", b"two\nthree"][: (length >= 11) + (length >= len(stream))]


def test_an_event_without_end_is_an_error_before_it_fills_the_memory() -> None:
    for piece in (b"x" * 1000, b"data: " + b"x" * 500 + b"\n", b"data: \n"):
        scanner = EventScanner(limit=4096)
        with pytest.raises(OperationError, match="more than 4,096 bytes without a complete event"):
            for _ in range(10_000):
                list(scanner.feed(piece))


@pytest.mark.parametrize("scanner", [EventScanner, LineScanner])
def test_a_line_without_end_takes_time_in_proportion_to_its_length(scanner: type[EventScanner | LineScanner]) -> None:
    """8 MiB in pieces of 256 bytes. To search the whole line for its end at each piece would take minutes."""
    reader = scanner()
    list(reader.feed(b": x\n"))
    before = time.process_time()
    for _ in range(32_768):
        assert list(reader.feed(b"x" * 256)) == []
    assert time.process_time() - before < 5


@pytest.mark.parametrize("line", [b": comment\n", b"id: 7\n", b"\n: c\n\n", b"event: ping\n\n"])
def test_a_stream_of_lines_without_an_event_ends_at_the_limit(line: bytes) -> None:
    """A backend that sends only comments would else hold its request, and take a core, for ever."""
    scanner = EventScanner(limit=4096)
    with pytest.raises(OperationError, match="without a complete event"):
        for _ in range(4096):
            list(scanner.feed(line))


def test_comments_before_each_event_do_not_add_up() -> None:
    scanner = EventScanner(limit=4096)
    for _ in range(100):
        assert list(scanner.feed(b": ping\n\n" * 100 + b"data: x\n\n")) == [Event("", b"x")]
