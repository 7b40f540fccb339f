"""How a table of fields sorts a request."""

import pytest

from batuta_cli.serve.gateway.dialects.fields import INTEGER, TEXT
from batuta_cli.serve.gateway.dialects.treatment import (
    FieldTable,
    carried,
    dropped,
    mapped,
    native_only,
    option,
    refused,
    treat,
)
from batuta_cli.serve.gateway.http_errors import HttpError

TABLE: FieldTable = {
    "model": mapped(TEXT, "model"),
    "stops": option(TEXT, "stop"),
    "grammar": carried(TEXT, "a field of servers"),
    "user": dropped(TEXT, "names a user"),
    "servers": native_only(TEXT, "hosted tools", "", 0),
    "echo": refused("is not supported", 0),
    "n": option(INTEGER, "n"),
}


def test_each_field_is_treated_as_its_row_says() -> None:
    given = {"model": "m", "stops": "x", "grammar": "g", "user": "u", "servers": "s", "n": None, "new": [1]}
    treated = treat(given, TABLE)
    assert treated.options == {"stop": "x", "grammar": "g", "new": [1]}
    assert (treated.dropped, treated.native_only, treated.unknown) == (("user",), ("servers",), ("new",))


def test_a_value_that_asks_for_nothing_is_ignored() -> None:
    treated = treat({"servers": "", "echo": 0, "user": None}, TABLE)
    assert (treated.options, treated.dropped, treated.native_only) == ({}, (), ())


@pytest.mark.parametrize("value", [False, 1, "0", [0]])
def test_a_refused_field_is_an_error_with_its_reason(value: object) -> None:
    with pytest.raises(HttpError) as raised:
        treat({"echo": value}, TABLE)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, "unsupported_field", "echo")
    assert raised.value.message == "echo is not supported"


def test_a_field_of_the_wrong_type_is_an_error_that_does_not_quote_it() -> None:
    with pytest.raises(HttpError) as raised:
        treat({"user": 12345}, TABLE)
    assert (raised.value.status, raised.value.code) == (400, "invalid_type")
    assert raised.value.message == "user must be a string"
