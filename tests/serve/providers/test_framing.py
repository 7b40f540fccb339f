"""The framing of a body is judged by its first bytes where the content type does not name it."""

import pytest

from batuta_cli.serve.providers.formats.openai_chat import ChatReader
from batuta_cli.serve.providers.framing import UnnamedScanner, scanner_for, whole_pieces
from batuta_cli.serve.providers.sse import Event, EventScanner, LineScanner
from batuta_cli.serve.providers.wire import BackendError
from tests.serve.support_backend import chat_answer, chat_stream


def test_named_framings_have_their_scanners() -> None:
    assert isinstance(scanner_for("text/event-stream"), EventScanner)
    assert isinstance(scanner_for("application/x-ndjson"), LineScanner)
    assert isinstance(scanner_for(""), UnnamedScanner)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n\r\n", b": hello\n\n", b"retry: 5\n\n", b"id: 5\n"])
def test_events_are_recognised_in_any_pieces(before: bytes, size: int) -> None:
    scanner, data = UnnamedScanner("text/plain"), before + b"data: one\n\ndata: two\n\n"
    events = [event for at in range(0, len(data), size) for event in scanner.feed(data[at : at + size])]
    assert [*events, *scanner.end()] == [Event("", b"one"), Event("", b"two")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_json_is_kept_for_its_end(size: int) -> None:
    scanner, data = UnnamedScanner("application/json"), b'\n {"a": 1}'
    assert [event for at in range(0, len(data), size) for event in scanner.feed(data[at : at + size])] == []
    assert list(scanner.end()) == []
    assert scanner.document is not None
    assert bytes(scanner.document) == b'{"a": 1}'


def test_a_page_is_the_backends_error() -> None:
    with pytest.raises(BackendError, match="content type text/html"):
        list(UnnamedScanner("text/html").feed(b"<!doctype html>"))


@pytest.mark.parametrize("body", [chat_answer("Hello"), chat_stream(["Hel", "lo"]), chat_stream(["Hello"])[:-1]])
def test_a_whole_body_is_read_in_every_framing(body: bytes) -> None:
    reader = ChatReader()
    assert "".join(piece.text for piece in whole_pieces(body, reader)) == "Hello"
    assert reader.complete
