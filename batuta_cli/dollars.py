"""The parser of amounts of money: US dollars to whole nano-dollars, rounded up.

The configuration, the command line and the Python API use this parser, so that a text means the same amount
everywhere. A nano-dollar is 10⁻⁹ US dollars. The largest amount is 10⁹ dollars, so that every sum of amounts fits the
64-bit integers of a database.

Text is a decimal number: `0.42`, `.42`, `10`. At most 10 digits stand before the point and 30 after it. An exponent is
accepted, because programs print small costs with one (`1e-05`). A sign, a currency sign, a thousands separator, a
blank, `nan` and `inf` are refused.
"""

import re
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation, Overflow

NANO = 10**9
"""Nano-dollars in a dollar."""

MAX_USD = 10**9
"""The largest amount, in dollars."""

EXPECTED = (
    f"must be an amount of US dollars such as 0.42, from 0 to {MAX_USD}, in digits with a decimal point, without $ or"
    " thousands separators"
)
"""The rule in words; completes a message that begins with the name of an option or key."""

_TEXT = re.compile(r"(?:[0-9]{1,10}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_PRECISE = Context(prec=60, traps=[InvalidOperation, Overflow])


class AmountError(ValueError):
    """A value is not an amount of US dollars. Its text is `EXPECTED` and does not contain the value."""

    def __init__(self) -> None:
        super().__init__(EXPECTED)


def parse_amount(value: object) -> int:
    """Nano-dollars of an amount of dollars, rounded up. A float counts as the decimal number that it prints as.

    Takes `str`, `int`, `float` and `Decimal`. Raises `AmountError`.
    """
    number = _number(value)
    if number is None or not number.is_finite() or (number.is_signed() and number != 0) or number > MAX_USD:
        raise AmountError
    return int(number.scaleb(9, _PRECISE).to_integral_value(ROUND_CEILING, _PRECISE))


def format_usd(nano: int) -> str:
    """Nano-dollars as a decimal string of dollars with at least two places: `0.42`, `10.00`, `0.000015`."""
    sign, digits = "-" * (nano < 0), f"{abs(nano):010d}"
    whole, fraction = digits[:-9], digits[-9:].rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{fraction}"


def limit_warnings(daily_budget_usd: object, max_request_cost_usd: object) -> tuple[str, ...]:
    """A warning if one request may cost more than the daily budget. A daily budget of 0 is not warned of."""
    day, request = parse_amount(daily_budget_usd), parse_amount(max_request_cost_usd)
    if not 0 < day < request:
        return ()
    return (
        f"max_request_cost_usd (${format_usd(request)}) is above daily_budget_usd (${format_usd(day)}): the daily"
        " budget alone limits a single request",
    )


def _number(value: object) -> Decimal | None:
    if isinstance(value, str):
        return Decimal(value) if _TEXT.fullmatch(value) else None
    if isinstance(value, float):
        return Decimal(float.__repr__(value))  # a subclass, such as NumPy's, may print differently
    return Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None
