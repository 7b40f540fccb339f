"""What a value in the configuration may be: one class a kind, each reads it from TOML and from a line of text.

`check` takes what a TOML parser gives and returns the value that the rest of batuta uses; `read` turns the text of an
environment variable, or of `batuta config set`, into what `check` takes; `toml` goes back. What is wrong is a
`RefusedValueError`, whose text says what is expected and never quotes the value: it may be a secret in the wrong
place.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import Any, Generic, TypeVar

from batuta_cli.files import display, is_control, is_invisible

T = TypeVar("T")

Network = IPv4Network | IPv6Network

_MONEY_LIMIT = 10**9
_MONEY_PLACES = 9  # a nano-dollar is the smallest amount batuta counts in
_TEXT_LIMIT = 2048
_COMPARED = 64  # characters of a name that are worth comparing; difflib takes quadratic time

# How well-known services begin their keys, and PEM. Not a guard against malice: it catches a paste in the wrong place.
_SECRET = re.compile(
    r"""\b(?:(?:sk|pk|rk|xai|btk|glpat)[-_][\w-]{16,} | (?:gsk|hf|r8|github_pat|gh[pousr])_\w{16,}
        | (?:AKIA|ASIA)[A-Z0-9]{16} | AIza[\w-]{30,} | eyJ[\w-]{16,} | AGE-SECRET-KEY-\w+) | -----BEGIN\b""",
    re.VERBOSE | re.ASCII,
)
_SECRET_WORDS = frozenset(
    ("password", "passwd", "passphrase", "secret", "token", "credential", "credentials", "apikey", "bearer")
)
KEEP_SECRETS_OUT = "keep it in an environment variable; the configuration never has secrets"

_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class RefusedValueError(ValueError):
    """A value is not what its key takes; reads on after the name of the key, as in "must be true or false"."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def hide_secrets(text: str) -> str:
    """`text` without what looks like a secret."""
    return _SECRET.sub("(hidden)", text)


def names_a_secret(key: str) -> bool:
    """Whether a key's name says that its value would be a secret: `api_key`, `password`, `GROQ_TOKEN`."""
    words = re.split(r"[^a-z0-9]+", key.lower())
    return words[-1] != "env" and (
        not _SECRET_WORDS.isdisjoint(words)
        or any(pair in pairwise(words) for pair in (("api", "key"), ("private", "key")))
    )


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that was probably meant."""
    from difflib import get_close_matches

    folded = {k.casefold(): k for k in known}
    near = get_close_matches(name[:_COMPARED].casefold(), folded, n=1)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`, did you mean X?`, or nothing when no known name is near."""
    near = nearest(name, known)
    return f", did you mean {near}?" if near else ""


class Kind(ABC, Generic[T]):
    """One kind of value."""

    @abstractmethod
    def check(self, value: object) -> T:
        """The value that a parsed TOML value stands for. Raises `RefusedValueError`."""

    def read(self, text: str) -> object:
        """What `text` would be in TOML, for `check`. Raises `RefusedValueError`."""
        return text

    def toml(self, value: T) -> object:
        """The value as `check` takes it, made of TOML's and JSON's common types."""
        return value


@dataclass(frozen=True)
class Boolean(Kind[bool]):
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
class Integer(Kind[int]):
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
class Fraction(Kind[float]):
    """A number from 0 to 1."""

    def check(self, value: object) -> float:
        if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
            raise RefusedValueError(f"must be a number from 0 to 1{_not(value)}")
        # Asked in this order because a comparison with a Decimal NaN raises.
        if (isinstance(value, Decimal) and not value.is_finite()) or not 0 <= value <= 1:
            raise RefusedValueError("must be a number from 0 to 1")
        return abs(float(value))  # no negative zero

    def read(self, text: str) -> Decimal:
        return exact(text) if text.isascii() and "_" not in text else Decimal("nan")


@dataclass(frozen=True)
class Money(Kind[Decimal]):
    """An amount of US dollars: exact, not negative, at most 10^9, at most 9 decimal places.

    A string ("10.00") is what batuta writes. Numbers are taken as well, and exactly: the parser hands over their
    decimal digits, so that no binary fraction comes in between.
    """

    def check(self, value: object) -> Decimal:
        if isinstance(value, str):
            value = Decimal(value) if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", value) else Decimal("nan")
        elif not isinstance(value, int | Decimal) or isinstance(value, bool):
            raise RefusedValueError(f"{self._expected}{_not(value)}")
        if isinstance(value, Decimal) and not value.is_finite():
            raise RefusedValueError(self._expected)
        if not 0 <= value <= _MONEY_LIMIT:
            raise RefusedValueError(self._expected)
        amount = Decimal(value).copy_abs()  # no negative zero
        if int(amount.as_tuple().exponent) < -_MONEY_PLACES:
            raise RefusedValueError(self._expected)
        return Decimal(f"{amount:f}")

    def toml(self, value: Decimal) -> str:
        return f"{value:f}"

    @property
    def _expected(self) -> str:
        return f'must be an amount of US dollars such as "10.00", from 0 to {_MONEY_LIMIT}, at most 9 decimal places'


@dataclass(frozen=True)
class OptionalMoney(Kind[Decimal | None]):
    """An amount as `Money` has it, or an empty string for none; zero is an amount."""

    def check(self, value: object) -> Decimal | None:
        return None if value == "" else Money().check(value)

    def toml(self, value: Decimal | None) -> str:
        return "" if value is None else Money().toml(value)


@dataclass(frozen=True)
class Choice(Kind[Any]):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: object) -> str:
        expected = f"must be one of {', '.join(self.words)}"
        text = plain_text(value, expected)
        if text not in self.words:
            raise RefusedValueError(expected + did_you_mean(text, self.words))
        return text


@dataclass(frozen=True)
class Identity(Kind[str]):
    """Who a signing key belongs to, or nothing; the same rules as `pacha keygen --identity`."""

    def check(self, value: object) -> str:
        expected = "must be an identity such as alice@example.com, at most 200 bytes long, or empty"
        text = plain_text(value, expected)
        if len(text.encode()) > 200 or (text and not text.strip()):
            raise RefusedValueError(expected)
        if any(map(is_invisible, text)):
            raise RefusedValueError(f"must not have invisible characters: {display(text)}")
        return text


@dataclass(frozen=True)
class Line(Kind[str]):
    """A short line of text, or nothing; whether it names something is judged where it is used."""

    what: str

    def check(self, value: object) -> str:
        text = plain_text(value, f"must be the name of {self.what}, or empty")
        if text != text.strip():
            raise RefusedValueError("must not begin or end with blanks")
        return text


@dataclass(frozen=True)
class EnvName(Kind[str]):
    """The name of an environment variable, or nothing.

    Upper case only, as POSIX has it (https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html): it
    keeps a key that was pasted in place of the name from passing for one.
    """

    def check(self, value: object) -> str:
        expected = "must be the name of an environment variable such as GROQ_API_KEY, in upper case, or empty"
        text = plain_text(value, expected)
        if not re.fullmatch(r"([A-Z_][A-Z0-9_]{0,63})?", text):
            raise RefusedValueError(expected, "export GROQ_API_KEY=…; the configuration names it, nothing more")
        return text


@dataclass(frozen=True)
class TimeZone(Kind[str]):
    """A name of the IANA time zone database."""

    def check(self, value: object) -> str:
        text = plain_text(value, "must be a time zone such as UTC or Europe/Berlin")
        if text != "UTC":  # always known, even where no database is installed
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
class Ledger(Kind[str]):
    """`sqlite`, or the address of a Redis."""

    def check(self, value: object) -> str:
        expected = "must be sqlite or an address such as redis://host:6379/0"
        text = plain_text(value, expected)
        if text == "sqlite":
            return text
        _check_address(text, ("redis", "rediss"), expected)
        if not re.fullmatch(r"rediss?://[^/]+(/[0-9]{0,5})?", text):
            raise RefusedValueError(expected)
        return text


@dataclass(frozen=True)
class BaseUrl(Kind[str]):
    """An http or https address, or nothing."""

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
    except ValueError:  # a port that is no number, an address in brackets that is none
        usable = False
    # Where somebody looks for a secret to leak: the user's part and the query of an address.
    if usable and "@" in parts.netloc:
        raise RefusedValueError("must not have a user or a password in the address", KEEP_SECRETS_OUT)
    if not usable or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise RefusedValueError(expected)


class _List(Kind[tuple[T, ...]]):
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
class Networks(_List[Network]):
    """Address ranges in CIDR notation. Such a list says what counts as near, so a range of everything is refused."""

    expected = "networks such as 10.0.0.0/8"

    def item(self, value: object, number: int) -> Network:
        expected = f"must be a list of {self.expected}, and its value {number} is none"
        text = plain_text(value, expected)
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise RefusedValueError(expected) from None
        if "%" in text:
            raise RefusedValueError(expected)
        if network.prefixlen == 0:
            raise RefusedValueError("must not have a network that every address is in")
        try:
            ip_network(text)
        except ValueError:
            raise RefusedValueError(f"{expected}: its address lies inside {network}, did you mean that?") from None
        return network


@dataclass(frozen=True)
class Names(_List[str]):
    """Names, of models for example."""

    of: str = ""
    expected = "names"

    def item(self, value: object, number: int) -> str:
        expected = f"must be a list of names of at most 200 characters, and its value {number} is none"
        text = plain_text(value, expected)
        if not text.strip() or len(text) > 200:
            raise RefusedValueError(expected)
        return text


@dataclass(frozen=True)
class Origins(_List[str]):
    """Origins of web pages as browsers send them: a scheme, a host in lower case, a port unless it is the usual one."""

    expected = "origins such as http://localhost:3000"

    def item(self, value: object, number: int) -> str:
        expected = f"must be a list of {self.expected}, and its value {number} is none"
        text = plain_text(value, expected)
        if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,30}://(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?", text):
            raise RefusedValueError(expected)
        if re.fullmatch(r"(http://.*:80|https://.*:443)", text):
            raise RefusedValueError(f"{expected}: browsers leave the usual port out")
        return text


def plain_text(value: object, expected: str) -> str:
    """`value` when it is one line of text that is safe to show. Raises `RefusedValueError`."""
    if not isinstance(value, str):
        raise RefusedValueError(f"{expected}{_not(value)}")
    if any(is_control(c) or 0xD800 <= ord(c) <= 0xDFFF for c in value) or len(value) > _TEXT_LIMIT:
        raise RefusedValueError("must be one short line of Unicode text without control characters")
    if _SECRET.search(value):
        raise RefusedValueError(
            "has what looks like a secret, and those are never in the configuration", KEEP_SECRETS_OUT
        )
    return value


def exact(text: str) -> Decimal:
    """The number that `text` writes, in decimal; NaN when it is none, or too large to handle."""
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
