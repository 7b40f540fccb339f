"""The fields of the Responses API: what is left out is named, unless it asks for what every response has anyway."""

from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.responses_fields import INPUT_TOKEN_FIELDS, RESPONSE_FIELDS
from batuta_cli.serve.gateway.dialects.treatment import treat
from batuta_cli.serve.gateway.http_errors import HttpError


@pytest.mark.parametrize(("name", "harmless", "other"), [("store", False, True), ("truncation", "disabled", "auto")])
def test_a_setting_that_changes_nothing_is_not_named_and_another_is(name: str, harmless: Any, other: Any) -> None:
    assert treat({name: harmless}, RESPONSE_FIELDS).dropped == ()
    assert treat({name: other}, RESPONSE_FIELDS).dropped == (name,)


@pytest.mark.parametrize("value", [[], ["reasoning.encrypted_content"]])
def test_include_is_a_list_of_texts(value: list[str]) -> None:
    treat({"include": value}, RESPONSE_FIELDS)
    wrong: Any
    for wrong in ("reasoning", [1], {}):
        with pytest.raises(HttpError) as caught:
            treat({"include": wrong}, RESPONSE_FIELDS)
        assert (caught.value.code, caught.value.param) == ("invalid_type", "include")


@pytest.mark.parametrize("table", [RESPONSE_FIELDS, INPUT_TOKEN_FIELDS])
@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background"])
def test_what_needs_a_stored_response_is_refused(table: Any, name: str) -> None:
    with pytest.raises(HttpError, match="keeps no responses"):
        treat({name: "resp_1"}, table)
