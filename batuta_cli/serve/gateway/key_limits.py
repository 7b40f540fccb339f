"""The limits of a client key: when it expires, its privacy tier, models, daily budget, requests a minute and at a time.

They are stored beside the key in `keys.toml`. A key without a limit may do all that the configuration allows.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.serve.client_account import ClientAccount
from batuta_cli.serve.money import format_usd, to_nano
from batuta_cli.serve.tiers import PrivacyTier

MOST_A_MINUTE = 1_000_000
MOST_AT_A_TIME = 100_000
_MOST_PATTERNS = 100
_LONGEST_PATTERN = 200  # characters, as a model's name in the configuration
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_LONGEST_LIFETIME = 36_500 * 24  # hours


@dataclass(frozen=True, kw_only=True)
class KeyLimits:
    """The limits; None or empty: no limit. Raises `InvalidInputError` for a value out of range."""

    expires: dt.datetime | None = None
    """From this time on the key is refused."""
    privacy: PrivacyTier | None = None
    """The loosest tier of its requests."""
    models: tuple[str, ...] = ()
    """Globs of the models that it may use."""
    requests_per_minute: int | None = None
    concurrent: int | None = None
    """Requests at a time."""
    daily_budget: int | None = None
    """Nano-dollars that its requests of a day may cost together."""

    def __post_init__(self) -> None:
        if self.expires is not None and self.expires.tzinfo is None:
            raise InvalidInputError("a key's time of expiry has no time zone")
        for name, most in (("requests_per_minute", MOST_A_MINUTE), ("concurrent", MOST_AT_A_TIME)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= most):
                raise InvalidInputError(f"{name} must be a whole number from 1 to {most}")
        if len(self.models) > _MOST_PATTERNS or not all(map(_is_pattern, self.models)):
            raise InvalidInputError(
                f"models must be at most {_MOST_PATTERNS} patterns of 1 to {_LONGEST_PATTERN} printable characters"
            )

    def expired(self, now: dt.datetime) -> bool:
        """Whether the key is refused at that time."""
        return self.expires is not None and now >= self.expires

    def tier(self, configured: PrivacyTier) -> PrivacyTier:
        """The stricter one of the key's tier and the configured one."""
        return configured if self.privacy is None or self.privacy.admits(configured) else self.privacy

    def account(self, name: str) -> ClientAccount:
        """The limits that the pipeline enforces, of the key called `name`."""
        return ClientAccount(name, self.models, self.daily_budget)

    def to_toml(self) -> dict[str, Any]:
        """The fields of the limits that are set, for `keys.toml`."""
        fields: dict[str, Any] = {
            "expires": self.expires,
            "privacy": None if self.privacy is None else str(self.privacy),
            "models": list(self.models) or None,
            "requests_per_minute": self.requests_per_minute,
            "concurrent": self.concurrent,
            "daily_budget_usd": None if self.daily_budget is None else format_usd(self.daily_budget),
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_toml(cls, fields: Mapping[str, Any]) -> "KeyLimits":
        """The limits in the fields of `keys.toml`. Raises `ValueError`, `TypeError` or `UsageError`."""
        expires, models = fields.get("expires"), fields.get("models", [])
        if expires is not None and not isinstance(expires, dt.datetime):
            raise TypeError("the field expires of a key is not a date and time")
        if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
            raise TypeError("the field models of a key is not a list of patterns")
        privacy = fields.get("privacy")
        if privacy is not None and not isinstance(privacy, str):
            raise TypeError("the field privacy of a key is not the name of a tier")
        budget = fields.get("daily_budget_usd")
        if budget is not None and not isinstance(budget, str):
            raise TypeError("the field daily_budget_usd of a key is not an amount in quotes")
        return cls(
            expires=expires,
            privacy=None if privacy is None else PrivacyTier.parse(privacy),
            models=tuple(models),
            requests_per_minute=fields.get("requests_per_minute"),
            concurrent=fields.get("concurrent"),
            daily_budget=None if budget is None else to_nano(budget, "daily_budget_usd"),
        )


LIMIT_FIELDS = frozenset(("expires", "privacy", "models", "requests_per_minute", "concurrent", "daily_budget_usd"))
"""The names of all fields of `KeyLimits.to_toml`."""


def expiry_after(lifetime: str, now: dt.datetime) -> dt.datetime:
    """The time of expiry of a key made now with a lifetime such as `90d`, `12h` or `4w`. Raises `UsageError`."""
    found = _LIFETIME.fullmatch(lifetime)
    hours = 0 if found is None else int(found[1]) * _HOURS[found[2]]
    if not 0 < hours <= _LONGEST_LIFETIME:
        raise UsageError(
            "a lifetime is a whole number of hours, days or weeks, at most 36500 days", hint="--expires 90d"
        )
    return now + dt.timedelta(hours=hours)


def patterns_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The globs in options such as `qwen*` or `qwen*,llama-3*`."""
    return tuple(part.strip() for text in texts for part in text.split(","))


def _is_pattern(pattern: str) -> bool:
    return 0 < len(pattern) <= _LONGEST_PATTERN and pattern.isprintable()


NO_LIMITS = KeyLimits()
