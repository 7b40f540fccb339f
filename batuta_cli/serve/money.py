"""Money: whole nano-dollars, rounded up on the way in, never a binary fraction and never a sum of them.

Amounts are read by `batuta_cli.dollars`, which is also the parser of the configuration.
"""

from decimal import Context, Decimal, Inexact

from batuta_cli.dollars import MAX_USD, NANO, AmountError, format_usd, parse_amount
from batuta_cli.errors import UsageError

__all__ = ["MAX_USD", "NANO", "Usd", "format_usd", "to_nano", "to_usd"]

Usd = Decimal | str | int | float
"""An amount of dollars as callers give it; a float means the decimal number it prints as."""


def to_nano(amount: Usd, what: str = "amount") -> int:
    """An amount of dollars in nano-dollars, rounded up.

    Raises `UsageError` that names `what` for anything that is not an amount (see `batuta_cli.dollars`).
    """
    try:
        return parse_amount(amount)
    except AmountError as refused:
        raise UsageError(f"{what} {refused}") from None


def to_usd(nano: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9, Context(prec=60, traps=[Inexact]))
