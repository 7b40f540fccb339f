"""The kinds of values in the configuration, one class each.

`check` turns a parsed TOML value into the value that batuta uses. `read` turns the text of an environment variable, or
of `batuta config set`, into a TOML value. `toml` turns batuta's value into a TOML value. An invalid value raises
`RefusedValueError`. Its text says what is expected and does not quote the value, which may be a misplaced secret.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import Any, Generic, TypeVar

from batuta_cli.config.ledger_url import KNOWN, LedgerUrlError, parse_ledger_url
from batuta_cli.dollars import EXPECTED, NANO, AmountError, parse_amount
from batuta_cli.files import display, is_control, is_invisible
from batuta_cli.secrecy import is_key, is_token

T = TypeVar("T")

Network = IPv4Network | IPv6Network

_TEXT_LIMIT = 2048
_COMPARED = 64  # characters of a name that are compared, because difflib takes quadratic time

_SECRET_WORDS = frozenset(
    ("password", "passwd", "passphrase", "secret", "token", "credential", "credentials", "apikey", "bearer")
)
KEEP_SECRETS_OUT = "keep it in an environment variable; the configuration must not contain secrets"

_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class RefusedValueError(ValueError):
    """A value is invalid for its key. The text follows the key in a message, as in "must be true or false"."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def names_a_secret(key: str) -> bool:
    """Whether a key's name shows that its value is a secret: `api_key`, `password`, `GROQ_TOKEN`."""
    words = re.split(r"[^a-z0-9]+", key.lower())
    return words[-1] != "env" and (
        not _SECRET_WORDS.isdisjoint(words)
        or any(pair in pairwise(words) for pair in (("api", "key"), ("private", "key")))
    )


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that is most similar to `name`; None when none is similar."""
    from difflib import get_close_matches

    folded = {k.casefold(): k for k in known}
    near = get_close_matches(name[:_COMPARED].casefold(), folded, n=1)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`, did you mean X?`, or an empty text when no known name is similar."""
    near = nearest(name, known)
    return f", did you mean {near}?" if near else ""


class ValueKind(ABC, Generic[T]):
    """One kind of value."""

    @abstractmethod
    def check(self, value: object) -> T:
        """batuta's value for a parsed TOML value. Raises `RefusedValueError`."""

    def read(self, text: str) -> object:
        """The TOML value for `text`, to be passed to `check`. Raises `RefusedValueError`."""
        return text

    def toml(self, value: T) -> object:
        """The value as `check` accepts it, in the types that TOML and JSON share."""
        return value


@dataclass(frozen=True)
class Boolean(ValueKind[bool]):
    """True or false; as text also 1, 0, yes, no, on and off."""

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise RefusedValueError(f"must be true or false{_not(value)}")
        return value

    def read(self, text: str) -> bool:
        if text.lower() not in _TRUTH:
            raise RefusedValueError("must be true or false")
        return _TRUTH[text.lower()]


@dataclass(frozen=True)
class Integer(ValueKind[int]):
    """A whole number within bounds."""

    low: int
    high: int

    def check(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise RefusedValueError(f"{self._expected}{_not(value)}")
        if not self.low <= value <= self.high:
            raise RefusedValueError(self._expected)
        return value

    def read(self, text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise RefusedValueError(self._expected)
        return int(text)

    @property
    def _expected(self) -> str:
        return f"must be a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Fraction(ValueKind[float]):
    """A number from 0 to 1."""

    def check(self, value: object) -> float:
        if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
            raise RefusedValueError(f"must be a number from 0 to 1{_not(value)}")
        # The finiteness is tested first, because ordering a Decimal NaN raises.
        if (isinstance(value, Decimal) and not value.is_finite()) or not 0 <= value <= 1:
            raise RefusedValueError("must be a number from 0 to 1")
        return abs(float(value))  # no negative zero

    def read(self, text: str) -> Decimal:
        return exact(text) if text.isascii() and "_" not in text else Decimal("nan")


@dataclass(frozen=True)
class Seconds(ValueKind[float]):
    """A duration in seconds within bounds, whole or with a fraction."""

    low: float
    high: float

    def check(self, value: object) -> float:
        if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
            raise RefusedValueError(f"{self._expected}{_not(value)}")
        if isinstance(value, Decimal):  # as a float, because Decimal("0.1") is below the float 0.1
            value = float(value)
        if not self.low <= value <= self.high:
            raise RefusedValueError(self._expected)
        return float(value)

    def read(self, text: str) -> Decimal:
        return exact(text) if re.fullmatch(r"[0-9]{0,10}(\.[0-9]{1,10})?", text) else Decimal("nan")

    def toml(self, value: float) -> float | int:
        return int(value) if value == int(value) else value

    @property
    def _expected(self) -> str:
        return f"must be a number of seconds from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Money(ValueKind[Decimal]):
    """An amount of US dollars as `batuta_cli.dollars` reads it, rounded up to 9 decimal places.

    batuta writes a string ("10.00"). Numbers are accepted too, and exactly: the parser keeps their decimal digits and
    makes no binary fraction of them.
    """

    def check(self, value: object) -> Decimal:
        if not isinstance(value, str | int | Decimal) or isinstance(value, bool):
            raise RefusedValueError(f"{EXPECTED}{_not(value)}")
        try:
            nano = parse_amount(value)
        except AmountError as refused:
            raise RefusedValueError(str(refused)) from None
        given = Decimal(value).copy_abs()  # no negative zero
        # The digits of the file, "10.00", unless the amount was rounded up.
        return Decimal(f"{given:f}") if given * NANO == nano else Decimal(f"{Decimal(nano) / NANO:f}")

    def toml(self, value: Decimal) -> str:
        return f"{value:f}"


@dataclass(frozen=True)
class OptionalMoney(ValueKind[Decimal | None]):
    """An amount as in `Money`, or an empty string for no amount. Zero is an amount."""

    def check(self, value: object) -> Decimal | None:
        return None if value == "" else Money().check(value)

    def toml(self, value: Decimal | None) -> str:
        return "" if value is None else Money().toml(value)


@dataclass(frozen=True)
class OneOf(ValueKind[Any]):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object) -> str:
        expected = f"must be one of {', '.join(self.words)}"
        text = plain_text(value, expected)
        if text not in self.words:
            raise RefusedValueError(expected + did_you_mean(text, self.words))
        return text


@dataclass(frozen=True)
class IdentityKind(ValueKind[str]):
    """The identity of a signing key, or empty; the rules of `pacha keygen --identity`."""

    def check(self, value: object) -> str:
        expected = "must be an identity such as alice@example.com, at most 200 bytes long, or empty"
        text = plain_text(value, expected)
        if len(text.encode()) > 200 or (text and not text.strip()):
            raise RefusedValueError(expected)
        if any(map(is_invisible, text)):
            raise RefusedValueError(f"must not have invisible characters: {display(text)}")
        return text


@dataclass(frozen=True)
class Line(ValueKind[str]):
    """A short line of text, or empty. The code that uses it checks whether the name exists."""

    what: str

    def check(self, value: object) -> str:
        text = plain_text(value, f"must be the name of {self.what}, or empty")
        if text != text.strip():
            raise RefusedValueError("must not begin or end with blanks")
        return text


@dataclass(frozen=True)
class EnvName(ValueKind[str]):
    """The name of an environment variable, or empty.

    In upper case, as in POSIX (https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html), so that a key
    pasted in place of the name is refused.
    """

    def check(self, value: object) -> str:
        expected = "must be the name of an environment variable such as GROQ_API_KEY, in upper case, or empty"
        text = plain_text(value, expected)
        if not re.fullmatch(r"([A-Z_][A-Z0-9_]{0,63})?", text):
            raise RefusedValueError(expected, "set the variable (export GROQ_API_KEY=…) and write its name here")
        return text


@dataclass(frozen=True)
class TimeZone(ValueKind[str]):
    """A name of the IANA time zone database."""

    def check(self, value: object) -> str:
        text = plain_text(value, "must be a time zone such as UTC or Europe/Berlin")
        if text != "UTC":  # always valid, also without an installed time zone database
            self._look_up(text)
        return text

    def _look_up(self, name: str) -> None:
        from zoneinfo import ZoneInfo, available_timezones

        try:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+/-]{0,63}", name):
                raise ValueError
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            near = did_you_mean(name, available_timezones())
            raise RefusedValueError(
                f"must be a time zone this system knows, such as UTC or Europe/Berlin{near}"
            ) from None


@dataclass(frozen=True)
class LedgerUrlKind(ValueKind[str]):
    """A ledger URL, see `ledger_url`."""

    def check(self, value: object) -> str:
        text = plain_text(value, f"must be {KNOWN}")
        try:
            parse_ledger_url(text)
        except LedgerUrlError as refused:
            raise RefusedValueError(f"is refused: {refused}", refused.hint) from None
        return text


@dataclass(frozen=True)
class BaseUrl(ValueKind[str]):
    """An http or https address, or empty."""

    def check(self, value: object) -> str:
        expected = "must be an address such as http://127.0.0.1:8080/v1, or empty"
        text = plain_text(value, expected)
        if text:
            _check_address(text, ("http", "https"), expected)
        return text


def _check_address(text: str, schemes: tuple[str, ...], expected: str) -> None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, or an invalid address in brackets
        usable = False
    # Secrets in addresses are in the user part or the query.
    if usable and "@" in parts.netloc:
        raise RefusedValueError("must not have a user or a password in the address", KEEP_SECRETS_OUT)
    if not usable or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise RefusedValueError(expected)


class _List(ValueKind[tuple[T, ...]]):
    """Several values; as text they are separated by commas, or a JSON array."""

    expected: str

    def check(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise RefusedValueError(f"must be a list of {self.expected}{_not(value)}")
        return tuple(self.item(v, number) for number, v in enumerate(value, 1))

    @abstractmethod
    def item(self, value: object, number: int) -> T:
        """Check one of them."""

    def read(self, text: str) -> object:
        if not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",")] if text.strip() else []
        import json

        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise RefusedValueError(f"must be {self.expected}, separated by commas, or a JSON array of them") from None

    def toml(self, value: tuple[T, ...]) -> list[str]:
        return [str(v) for v in value]


@dataclass(frozen=True)
class NetworksKind(_List[Network]):
    """Address ranges in CIDR notation. A range of all addresses is refused, because it would make every host local."""

    expected = "networks such as 10.0.0.0/8"

    def item(self, value: object, number: int) -> Network:
        expected = f"must be a list of {self.expected}, and its value {number} is not valid"
        text = plain_text(value, expected)
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise RefusedValueError(expected) from None
        if "%" in text:
            raise RefusedValueError(expected)
        if network.prefixlen == 0:
            raise RefusedValueError("must not have a network of all addresses")
        try:
            ip_network(text)
        except ValueError:
            raise RefusedValueError(f"{expected}: the address has host bits, did you mean {network}?") from None
        return network


@dataclass(frozen=True)
class Names(_List[str]):
    """Names, of models for example."""

    of: str = ""
    expected = "names"

    def item(self, value: object, number: int) -> str:
        expected = f"must be a list of names of at most 200 characters, and its value {number} is not valid"
        text = plain_text(value, expected)
        if not text.strip() or len(text) > 200:
            raise RefusedValueError(expected)
        return text


@dataclass(frozen=True)
class ModelName(ValueKind[str]):
    """The name of a model."""

    def check(self, value: object) -> str:
        text = plain_text(value, "must be the name of a model")
        if not text or text != text.strip() or len(text) > 200:
            raise RefusedValueError("must be the name of a model, of at most 200 characters")
        return text


@dataclass(frozen=True)
class Origins(_List[str]):
    """Origins of web pages as browsers send them: scheme, host in lower case, port unless it is the default port."""

    expected = "origins such as http://localhost:3000"

    def item(self, value: object, number: int) -> str:
        expected = f"must be a list of {self.expected}, and its value {number} is not valid"
        text = plain_text(value, expected)
        if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}://(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?", text):
            raise RefusedValueError(expected)
        if re.fullmatch(r"(http://.*:80|https://.*:443)", text):
            raise RefusedValueError(f"{expected}: leave out the default port, as browsers do")
        return text


def plain_text(value: object, expected: str) -> str:
    """`value` if it is one line of text that can be shown. Raises `RefusedValueError`."""
    if not isinstance(value, str):
        raise RefusedValueError(f"{expected}{_not(value)}")
    if any(is_control(c) or 0xD800 <= ord(c) <= 0xDFFF for c in value) or len(value) > _TEXT_LIMIT:
        raise RefusedValueError("must be one short line of Unicode text without control characters")
    if is_token(value) or is_key(value):
        raise RefusedValueError("looks like a secret, and the configuration must not contain secrets", KEEP_SECRETS_OUT)
    return value


def exact(text: str) -> Decimal:
    """The decimal number in `text`; NaN when it is invalid or too large."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("nan")


def _not(value: object) -> str:
    words = {
        bool: "true or false",
        str: "a string",
        int: "a whole number",
        float: "a fraction",
        Decimal: "a fraction",
        list: "a list",
    }
    return f", not {words.get(type(value), 'a table' if isinstance(value, dict) else 'a date or time')}"
