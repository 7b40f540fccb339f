"""Money in whole nano-dollars, rounded up from dollars. No binary fractions are used.

`batuta_cli.dollars` parses the amounts, here and in the configuration.
"""

from decimal import Context, Decimal, Inexact

from batuta_cli.dollars import MAX_USD, NANO, AmountError, format_usd, parse_amount
from batuta_cli.errors import UsageError

__all__ = ["MAX_USD", "NANO", "Usd", "format_usd", "to_nano", "to_usd"]

Usd = Decimal | str | int | float
"""An amount of dollars given by a caller. A float counts as the decimal number that it prints as."""


def to_nano(amount: Usd, what: str = "amount") -> int:
    """An amount of dollars in nano-dollars, rounded up.

    Raises `UsageError`, which names `what`, for an invalid amount (see `batuta_cli.dollars`).
    """
    try:
        return parse_amount(amount)
    except AmountError as refused:
        raise UsageError(f"{what} {refused}") from None


def to_usd(nano: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9, Context(prec=60, traps=[Inexact]))
