"""What a backend reports of its error is read in every service's format, and repeats no key and no message."""

import json
from typing import Any

import pytest

from batuta_cli.serve.providers.reported import MESSAGE_LIMIT, Redaction, read_error, read_error_body, reported_error
from batuta_cli.serve.providers.wire import BackendError, ReportedError

OPENAI = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        (
            OPENAI,
            (
                "This model's maximum context length is 8192 tokens.",
                "context_length_exceeded",
                "invalid_request_error",
                "messages",
            ),
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            ("Overloaded", "overloaded_error", "overloaded_error", ""),
        ),
        (
            {"error": 'model "x" not found, try pulling it first'},
            ('model "x" not found, try pulling it first', "", "", ""),
        ),
        ({"detail": "Not Found"}, ("Not Found", "", "", "")),
        (
            {
                "detail": [
                    {"loc": ["body", "messages", 0], "msg": "field required", "input": "my secret", "type": "missing"}
                ]
            },
            ("body.messages.0: field required", "", "", ""),
        ),
        (
            {"object": "error", "message": "prompt is too long", "type": "BadRequestError", "code": 400},
            ("prompt is too long", "context_length_exceeded", "BadRequestError", ""),
        ),
        (
            {"error": {"code": 400, "message": "too large", "type": "exceed_context_size_error", "n_ctx": 4096}},
            ("too large", "context_length_exceeded", "exceed_context_size_error", ""),
        ),
        (
            {"error": "Input validation error", "error_type": "validation"},
            ("Input validation error", "validation", "validation", ""),
        ),
        (
            [{"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}],
            ("bad", "INVALID_ARGUMENT", "INVALID_ARGUMENT", ""),
        ),
        ({"message": "The security token is invalid"}, ("The security token is invalid", "", "", "")),
        ({"error": {"message": ["x"], "type": 5, "param": {}, "code": [1]}}, ("", "5", "5", "")),
        ({}, ("", "", "", "")),
        (None, ("", "", "", "")),
    ],
)
def test_each_services_error_is_read(document: Any, wanted: tuple[str, str, str, str]) -> None:
    found = read_error(document)
    assert (found.message, found.code, found.type, found.param) == wanted
    assert read_error_body(json.dumps(document).encode()) == found


def test_plain_text_is_a_message_and_a_page_is_none() -> None:
    assert read_error_body(b"upstream connect error").message == "upstream connect error"
    assert read_error_body(b'"just text"').message == "just text"
    assert read_error_body(b"<html><body>502 Bad Gateway</body></html>").message == ""


@pytest.mark.parametrize("code", ["context_length_exceeded", 400, "invalid_request_error"])
def test_an_error_about_the_request_is_not_retried(code: Any) -> None:
    error = reported_error({"error": {"message": "no", "code": code}})
    assert (error.status, error.retryable) == (400, False)
    assert reported_error({"error": {"message": "no", "code": "overloaded"}}).retryable


def told(message: str, *, keys: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> str:
    error = BackendError("it failed", reported=ReportedError(message=message))
    applied = Redaction(keys, texts).apply(error)
    assert applied.reported is not None
    assert applied.message == f"it failed: {applied.reported.message}" == str(applied)
    return applied.reported.message


KEY = "abcDEF123456789xyz"
SAID = "Please translate the letter of my lawyer, who is called Ottokar Wunderlich."


@pytest.mark.parametrize(
    "message",
    [
        f"the key {KEY} is wrong",
        f"Incorrect API key provided: sk-proj-{KEY}.",
        "Incorrect API key provided: sk-pr*******************9xyz.",
        f"Authorization: Bearer {KEY}zzz was refused",
        f'{{"api_key": "{KEY}zzz"}}',
        f"http://user:{KEY}@proxy.example refused",
        f"-----BEGIN PRIVATE KEY-----\n{KEY}",
        f"cannot parse {{'role': 'user', 'content': '{SAID}'}}",
        f"cannot parse '{SAID[10:50]}…'",
        "unexpected word: Ottokar Wunderlich",
    ],
)
def test_no_key_and_no_text_of_the_request_is_repeated(message: str) -> None:
    shown = told(message, keys=(KEY,), texts=(SAID, "Ottokar Wunderlich"))
    for hidden in (KEY, "sk-pr", "9xyz", "translate", "Wunderlich", "Ottokar"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("message", "hidden"),
    [
        ("Authorization: Bearer 0123456789abcdefgh was refused", "0123456789abcdefgh"),
        ('{"api_key": "0123456789abcdefgh"}', "0123456789abcdefgh"),
        ("cannot reach http://user:hunter2@proxy.example", "hunter2"),
        ("bad key: PRIVATE KEY MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v", "MC4CAQAwBQ"),
        ("unknown token Wunder1", "Wunder1"),
    ],
)
def test_other_keys_and_short_texts_are_left_out_too(message: str, hidden: str) -> None:
    assert hidden in message and hidden not in told(message, keys=(KEY,), texts=("Wunder1",))


def test_a_harmless_message_is_repeated_as_it_is() -> None:
    message = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
    assert told(message, keys=(KEY,), texts=(SAID, "Hi")) == message


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert told("a\x1b[31m\nb\tc\u202e") == "a [31m b c"
    assert len(told("word " * 10_000)) == MESSAGE_LIMIT


def test_a_key_in_place_of_a_code_is_left_out() -> None:
    error = BackendError("it failed", reported=ReportedError(code=KEY, type=f"x-{KEY}", param="messages"))
    assert Redaction([KEY], []).apply(error).reported == ReportedError(param="messages")


def test_a_report_is_redacted_once() -> None:
    redaction, error = Redaction([], []), BackendError("it failed", reported=ReportedError(message="no"))
    assert redaction.apply(redaction.apply(error)).message == "it failed: no"
