"""Kinds of values: what each takes from TOML and from text; what is written is read again."""

from decimal import Decimal
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.config import kinds
from batuta_cli.config.kinds import RefusedValueError, ValueKind, did_you_mean, names_a_secret, nearest


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.Boolean(), "yes", True),
        (kinds.Boolean(), "OFF", False),
        (kinds.Integer(1, 50), "+7", 7),
        (kinds.Fraction(), "0.8", 0.8),
        (kinds.Seconds(0.1, 60), "1.5", 1.5),
        (kinds.Money(), "10.00", Decimal("10.00")),
        (kinds.OptionalMoney(), "", None),
        (kinds.OptionalMoney(), "0", Decimal(0)),
        (kinds.OneOf(("normal", "full")), "full", "full"),
        (kinds.IdentityKind(), "alice@example.com", "alice@example.com"),
        (kinds.EnvName(), "GROQ_API_KEY", "GROQ_API_KEY"),
        (kinds.TimeZone(), "Europe/Berlin", "Europe/Berlin"),
        (kinds.LedgerUrlKind(), "memory:", "memory:"),
        (kinds.BaseUrl(), "http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ValueKind) else repr(value),
)
def test_a_text_of_the_command_line_is_read_and_written_for_toml(
    kind: ValueKind[object], text: str, value: object
) -> None:
    found = kind.check(kind.read(text))
    assert found == value
    assert kind.check(kind.toml(found)) == value


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (kinds.Boolean(), ["maybe", ""]),
        (kinds.Integer(1, 50), ["0", "51", "7.0", "1_0", "", "9" * 30]),
        (kinds.Fraction(), ["1.01", "-0.1", "nan", "1_0", "०.५"]),
        (kinds.Seconds(0.1, 60), ["0", "61", "inf", "1e1", "-1"]),
        (kinds.Money(), ["$1", "-1", "", "nan"]),
        (kinds.OneOf(("normal", "full")), ["ful", ""]),
        (kinds.IdentityKind(), [" ", "a\u200bb", "é" * 101]),
        (kinds.EnvName(), ["groq", "A-B", "sk-proj-abc"]),
        (kinds.TimeZone(), ["Berlin", "../../etc/passwd", ""]),
        (kinds.BaseUrl(), ["ftp://x", "http://u:p@x", "http://x/?a=1"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ValueKind) else None,
)
def test_a_wrong_text_is_refused_with_the_rule_in_words(kind: ValueKind[object], wrong: list[str]) -> None:
    for text in wrong:
        with pytest.raises(RefusedValueError) as caught:
            kind.check(kind.read(text))
        assert str(caught.value).startswith("must ")


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.dates()))
def test_no_value_of_toml_raises_anything_but_a_refusal(value: object) -> None:
    for kind in (kinds.Boolean(), kinds.Integer(0, 9), kinds.Fraction(), kinds.Seconds(0, 9), kinds.Money(),
                 kinds.OneOf(("a",)), kinds.IdentityKind(), kinds.EnvName(), kinds.TimeZone(), kinds.BaseUrl(),
                 kinds.LedgerUrlKind()):  # fmt: skip
        try:
            kind.check(value)
        except RefusedValueError:
            continue


@pytest.mark.parametrize("key", ["api_key", "PASSWORD", "groq-token", "private_key", "client.secret", "bearer"])
def test_a_key_that_names_a_secret_is_told(key: str) -> None:
    assert names_a_secret(key)


@pytest.mark.parametrize("key", ["api_key_env", "first_token_env", "keyboard", "tokens", "default_key", "monkey"])
def test_other_keys_are_not(key: str) -> None:
    assert not names_a_secret(key)


def test_the_nearest_name_is_offered_in_its_own_spelling() -> None:
    assert nearest("DAILY_BUDGET", ["daily_budget_usd", "timezone"]) == "daily_budget_usd"
    assert did_you_mean("timezon", ["timezone"]) == ", did you mean timezone?"
    assert did_you_mean("zzz", ["timezone"]) == ""


def test_networks_are_whole_networks() -> None:
    kind = kinds.NetworksKind()
    assert kind.check(["10.0.0.0/8", "fd00::/8"]) == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    with pytest.raises(RefusedValueError, match=r"did you mean 10\.0\.0\.0/8"):
        kind.check(["10.1.0.0/8"])
