"""Money: whole nano-dollars, rounded up on the way in, never a binary fraction and never a sum of them.

A nano-dollar is 10⁻⁹ US dollars. The largest amount anywhere is 10⁹ dollars, so that every sum fits the 64-bit
integers of SQLite and Redis.
"""

from decimal import ROUND_CEILING, Context, Decimal, Inexact, InvalidOperation, Overflow

from batuta_cli.errors import UsageError

NANO = 10**9
"""Nano-dollars in a dollar."""

MAX_USD = 10**9
"""The largest amount, in dollars."""

Usd = Decimal | str | int | float
"""An amount of dollars as callers give it; a float means the decimal number it prints as."""

_EXPECTED = f"must be an amount of US dollars such as 0.42, from 0 to {MAX_USD}"
_PRECISE = Context(prec=60, traps=[InvalidOperation, Overflow])


def to_nano(amount: Usd, what: str = "amount") -> int:
    """An amount of dollars in nano-dollars, rounded up.

    Raises `UsageError` that names `what` for anything that is not a finite number from 0 to 10⁹.
    """
    value = _decimal(amount)
    if value is None or not value.is_finite() or (value.is_signed() and value != 0) or value > MAX_USD:
        raise UsageError(f"{what} {_EXPECTED}")
    nano = value.scaleb(9, _PRECISE)
    return int(nano.to_integral_value(ROUND_CEILING, _PRECISE))


def to_usd(nano: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9, Context(prec=60, traps=[Inexact]))


def format_usd(nano: int) -> str:
    """Nano-dollars as a decimal string of dollars with at least two places: `0.42`, `10.00`, `0.000015`."""
    sign, digits = "-" * (nano < 0), f"{abs(nano):010d}"
    whole, fraction = digits[:-9], digits[-9:].rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{fraction}"


def _decimal(amount: object) -> Decimal | None:
    if isinstance(amount, bool):
        return None
    if isinstance(amount, float):
        amount = repr(amount)
    if isinstance(amount, str) and not (amount.isascii() and "_" not in amount and len(amount) <= 100):
        return None
    if not isinstance(amount, str | int | Decimal):
        return None
    try:
        return Decimal(amount)
    except InvalidOperation:
        return None
