"""Names that people type: read in any case, with or without `-`, `_`, `.` and blanks, and mended when misspelt."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from batuta_cli.errors import UsageError
from batuta_cli.files import display


def normalised(name: str) -> str:
    """A name as it is compared: `Llama-Cpp`, `llama_cpp` and `LlamaCpp` are one."""
    return re.sub(r"[-_.\s]", "", name).casefold()


def unknown_name(what: str, name: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that is none of `choices`: it suggests the nearest, and its hint lists them."""
    from batuta_cli.config.kinds import did_you_mean

    known = list(choices)
    message = f"unknown {what} {display(name[:100]) or '(empty)'}{did_you_mean(name, known)}"
    return UsageError(message, hint=f"known: {', '.join(known)}" if known else None)


class NameEnum(StrEnum):
    """An enumeration whose values are such names; `PrivacyTier("Sovereign")` and `PrivacyTier.SOVEREIGN` are one."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return next((m for m in cls if isinstance(value, str) and normalised(m.value) == normalised(value)), None)

    @classmethod
    def what(cls) -> str:
        """What its members are called in a message."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()

    @classmethod
    def parse(cls, name: str) -> Self:
        """The member that `name` means. Raises `UsageError` that suggests the nearest."""
        member = cls._missing_(name)
        if member is not None:
            return member
        raise unknown_name(cls.what(), name, [member.value for member in cls])
