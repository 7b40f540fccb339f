"""The types of a request's fields: a wrong one is an error that names the field and does not quote it."""

from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects import fields
from batuta_cli.serve.gateway.dialects.fields import FieldType
from batuta_cli.serve.gateway.http_errors import HttpError
from batuta_cli.serve.messages import ChatMessage

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def nested(levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(levels - 1):
        made = {"a": made}
    return made


@pytest.mark.parametrize(
    ("kind", "accepted", "refused"),
    [
        (fields.TEXT, ["", "x"], [1, None, ["x"]]),
        (fields.BOOLEAN, [True, False], [0, 1, "true"]),
        (fields.INTEGER, [0, -1, 10**30], [True, 1.0, "1"]),
        (fields.NUMBER, [0, 1.5], [True, "1"]),
        (fields.OBJECT, [{}, nested(64)], [[], "x", nested(10_000)]),
        (fields.STOP, ["x", [], ["x"] * 16], [["x"] * 17, [1], 1]),
        (fields.CHOICES, [1, 16], [0, 17, True, 1.0]),
        (fields.ENCODING, ["float", "base64"], ["", "int8", 1]),
        (fields.RESPONSE_FORMAT, [{"type": "json_object"}], [{}, {"type": 1}, "json"]),
        (
            fields.TOOLS,
            [[FUNCTION], [{"type": "web_search"}], [{"type": "custom", "custom": {"name": "c"}}]],
            [[], {}, [{"type": "function"}], [{"type": "function", "function": {"name": 1}}], [{"type": "custom"}]],
        ),
        (
            fields.TOOL_CHOICE,
            ["none", "auto", "required", FUNCTION, {"type": "allowed_tools"}],
            ["f", {"type": "function"}, {}, None],
        ),
        (fields.OBJECTS, [[], [{}]], [[1], {}]),
    ],
    ids=lambda value: value.description[:30] if isinstance(value, FieldType) else "",
)
def test_a_type_holds_what_its_description_says(kind: FieldType, accepted: list[Any], refused: list[Any]) -> None:
    assert [value for value in accepted if not kind.holds(value)] == []
    assert [value for value in refused if kind.holds(value)] == []


def test_a_missing_field_and_null_are_none_and_a_wrong_one_is_named() -> None:
    assert fields.take({}, "seed", fields.INTEGER) is None
    assert fields.take({"seed": None}, "seed", fields.INTEGER) is None
    with pytest.raises(HttpError) as caught:
        fields.take({"seed": "PRIVATE"}, "seed", fields.INTEGER)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_type", "seed")
    assert "PRIVATE" not in caught.value.message


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (None, "missing_field"),
        ("", "missing_field"),
        (7, "invalid_type"),
        ("m\n", "invalid_value"),
        ("m" * 201, "invalid_value"),
    ],
)
def test_a_model_has_a_name_that_can_be_shown(model: Any, code: str) -> None:
    with pytest.raises(HttpError) as caught:
        fields.take_model({"model": model})
    assert (caught.value.code, caught.value.param) == (code, "model")
    assert fields.take_model({"model": "m" * 200}) == "m" * 200


def test_a_limit_is_between_one_and_ten_million_tokens() -> None:
    assert [fields.take_limit({"max_tokens": limit}, "max_tokens") for limit in (None, 1, 10**7)] == [None, 1, 10**7]
    for limit in (0, -1, 10**7 + 1, 1.0, True):
        with pytest.raises(HttpError):
            fields.take_limit({"max_tokens": limit}, "max_tokens")


@pytest.mark.parametrize("body", [b"", b"PRIVATE", b"[1]", b'"PRIVATE"', b'{"a": "\xff"}', b'{"a": NaN}'])
def test_a_body_that_is_no_object_is_an_error_that_does_not_quote_it(body: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        fields.parse_object(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert "PRIVATE" not in caught.value.message


def test_an_error_about_a_message_names_the_field() -> None:
    with pytest.raises(HttpError) as caught:
        fields.checked_messages(lambda: [ChatMessage.user("a\0b")])
    assert (caught.value.code, caught.value.param) == ("invalid_messages", "messages")
