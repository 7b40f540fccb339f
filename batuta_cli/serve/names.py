"""Names on the command line and in the config: compared without case, `-`, `_`, `.` and spaces."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from batuta_cli.errors import UsageError
from batuta_cli.files import display


def normalised(name: str) -> str:
    """The form in which names are compared: `Llama-Cpp`, `llama_cpp` and `LlamaCpp` are equal."""
    return re.sub(r"[-_.\s]", "", name).casefold()


def unknown_name(what: str, name: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that is not in `choices`. It suggests the nearest, and its hint lists all."""
    from batuta_cli.config.kinds import did_you_mean

    known = list(choices)
    message = f"unknown {what} {display(name[:100]) or '(empty)'}{did_you_mean(name, known)}"
    return UsageError(message, hint=f"known: {', '.join(known)}" if known else None)


class NameEnum(StrEnum):
    """An enumeration of such names: `PrivacyTier("Sovereign")` is `PrivacyTier.SOVEREIGN`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return next((m for m in cls if isinstance(value, str) and normalised(m.value) == normalised(value)), None)

    @classmethod
    def what(cls) -> str:
        """The noun for a member in a message, such as `privacy tier`."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()

    @classmethod
    def parse(cls, name: str) -> Self:
        """The member called `name`. Raises `UsageError` that suggests the nearest."""
        member = cls._missing_(name)
        if member is not None:
            return member
        raise unknown_name(cls.what(), name, [member.value for member in cls])
