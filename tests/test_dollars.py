"""Amounts of money: one parser, rounding up, compared with exact fractions."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.dollars import MAX_USD, NANO, AmountError, format_usd, limit_warnings, parse_amount


@pytest.mark.parametrize(
    ("given_amount", "nano"),
    [
        ("0.42", 420_000_000),
        (".42", 420_000_000),
        ("10", 10 * NANO),
        ("1e-05", 10_000),
        ("1E+2", 100 * NANO),
        ("0", 0),
        (0.1, 100_000_000),
        (1e-5, 10_000),
        (3, 3 * NANO),
        (Decimal("0.000000001"), 1),
        (Decimal("-0"), 0),
        ("0.0000000001", 1),
        ("0." + "0" * 29 + "1", 1),
        (MAX_USD, MAX_USD * NANO),
    ],
)
def test_an_amount_is_rounded_up_to_nano_dollars(given_amount: object, nano: int) -> None:
    assert parse_amount(given_amount) == nano


@pytest.mark.parametrize(
    "wrong",
    ["", " 1", "1 ", "$1", "-1", "+1", "1,000", "1.", ".", "nan", "inf", "1e", "1e1000", "0x1", "１", "1_000",
     "12345678901", "0." + "1" * 31, MAX_USD + 1, -0.5, float("nan"), float("inf"), True, None, b"1", [1]],
    ids=repr,
)  # fmt: skip
def test_what_is_no_amount_is_refused_without_repeating_it(wrong: object) -> None:
    with pytest.raises(AmountError) as caught:
        parse_amount(wrong)
    assert str(caught.value).startswith("must be an amount of US dollars such as 0.42, from 0 to 1000000000")


@given(st.decimals(0, MAX_USD, allow_nan=False, places=15))
def test_rounding_never_loses_money(amount: Decimal) -> None:
    assert parse_amount(amount) == parse_amount(f"{amount:f}") == ceil(Fraction(amount) * NANO)


@given(st.integers(-(10**18), 10**18))
def test_a_formatted_amount_is_exact_and_has_two_places(nano: int) -> None:
    text = format_usd(nano)
    assert Fraction(text) * NANO == nano
    assert len(text.partition(".")[2]) >= 2


@given(st.integers(0, MAX_USD * NANO))
def test_a_formatted_amount_is_read_back(nano: int) -> None:
    assert parse_amount(format_usd(nano)) == nano


def test_a_request_that_may_cost_more_than_a_day_is_warned_of() -> None:
    assert limit_warnings("1", "1") == limit_warnings("0", "5") == ()
    [warning] = limit_warnings("1", "1.5")
    assert "max_request_cost_usd ($1.50) is above daily_budget_usd ($1.00)" in warning
