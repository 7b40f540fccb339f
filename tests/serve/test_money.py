"""Money is counted in whole nano-dollars, and never rounded in the spender's favour."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UsageError
from batuta_cli.serve.money import MAX_USD, NANO, format_usd, to_nano, to_usd


@given(st.decimals(0, MAX_USD, allow_nan=False))
def test_an_amount_is_the_smallest_number_of_nano_dollars_that_covers_it(amount: Decimal) -> None:
    for given_as in (abs(amount), f"{abs(amount):.30f}"):
        exact = Fraction(given_as) * NANO
        assert exact <= to_nano(given_as) < exact + 1


@given(st.floats(0, MAX_USD))
def test_a_float_is_the_decimal_number_that_it_prints_as(amount: float) -> None:
    assert to_nano(amount) == to_nano(repr(abs(amount)))


def test_ten_cents_ten_times_are_a_dollar() -> None:
    assert sum(to_nano(0.1) for _ in range(10)) == to_nano(1) == NANO


@given(st.integers(-(10**18), 10**18))
def test_text_and_decimal_tell_the_exact_amount(nano: int) -> None:
    assert Decimal(format_usd(nano)) == to_usd(nano) == Decimal(nano) / NANO


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (15_000, "0.000015"),
        (420_000_000, "0.42"),
        (10 * NANO, "10.00"),
        (-1500000000, "-1.50"),
    ],
)
def test_dollars_are_shown_with_two_places_or_as_many_as_it_takes(nano: int, text: str) -> None:
    assert format_usd(nano) == text


@pytest.mark.parametrize(
    "amount",
    ["-1", "-0.000000001", "-0", "+1", "nan", "-nan", "sNaN", "inf", "-Infinity", "ten", "", " ", "1,5", "1,000", "$5",
     " 1", "1 ", "1.", "1e", "1e-1000", "12345678901", "0." + "0" * 30 + "1", "0x10", "1_000", "١",
     "1000000000.000000001", "1e10", "1e999999999", "9" * 101, -1, 10**9 + 1, float("nan"), float("inf"), -0.5,
     Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), True, None, b"1", [1]],
)  # fmt: skip
def test_what_is_no_amount_of_money_is_refused_by_name(amount: object) -> None:
    with pytest.raises(UsageError, match=r"^--estimate must be an amount of US dollars"):
        to_nano(amount, "--estimate")  # type: ignore[arg-type]


def test_a_tiny_amount_with_a_huge_exponent_costs_one_nano_dollar() -> None:
    assert to_nano("1e-999") == to_nano(Decimal("1e-999999")) == 1
