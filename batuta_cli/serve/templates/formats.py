"""The chat formats that have a name here: what each can express, its tokens, and the template that renders it.

The data is `formats.toml`, the templates are the `.jinja` files beside it. The names are fixed: scripts pass them as
`--format NAME`.
"""

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from batuta_cli.serve.names import NameEnum, normalised, unknown_name


class TemplateFormat(NameEnum):
    """A family of chat formats."""

    LLAMA2 = "Llama2"
    MISTRAL = "Mistral"
    CHATML = "ChatML"
    ALPACA = "Alpaca"
    VICUNA = "Vicuna"
    RAW = "Raw"
    LLAMA3 = "Llama3"
    GEMMA = "Gemma"
    PHI3 = "Phi3"
    PHI4 = "Phi4"
    ZEPHYR = "Zephyr"
    DEEPSEEK = "DeepSeek"
    GPT_OSS = "GptOss"


class SystemPlace(StrEnum):
    """Where a format lets a system message stand."""

    ANY = "any"
    FIRST = "first"
    NONE = "none"


@dataclass(frozen=True)
class NamedFormat:
    """One format: a family, or a variant of it."""

    name: str
    family: TemplateFormat
    variant: str | None
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...]
    """What the model reads as structure; never to come from a user or a tool."""
    marks: tuple[str, ...]
    """Structure that is plain text (`### Response:`), so that it counts only where this format is in use."""
    stop: tuple[str, ...]
    """Where an answer ends."""
    system: SystemPlace
    alternates: bool
    """User and assistant must take turns, the user first."""
    joins: str | None
    """What neighbouring messages of one role are joined by, to be one; the user begins."""
    tool_calls: float
    """How many one message can have: 0 (and no tool results), 1, or infinity."""
    plain: bool
    """The one that the plain name of the family means."""

    @property
    def template(self) -> str:
        """The Jinja text that renders it."""
        return (files(__package__) / f"{self.name}.jinja").read_text(encoding="utf-8")


@cache
def named_formats() -> dict[str, NamedFormat]:
    """All of them by name, in the order of the table."""
    table = tomllib.loads((files(__package__) / "formats.toml").read_text(encoding="utf-8"))
    return {
        name: NamedFormat(
            name=name,
            family=TemplateFormat(row["family"]),
            variant=row.get("variant"),
            bos_token=row["bos"],
            eos_token=row["eos"],
            control_tokens=tuple(row["control_tokens"]),
            marks=tuple(row.get("marks", ())),
            stop=tuple(row["stop"]),
            system=SystemPlace(row["system"]),
            alternates=row.get("alternates", False),
            joins=row.get("joins"),
            tool_calls=float(row.get("tool_calls", 0)),
            plain=row.get("plain", False),
        )
        for name, row in table.items()
    }


def named_format(name: str | TemplateFormat) -> NamedFormat:
    """The format that a name means: `mistral-v3` in any case, or a family (`mistral` is `mistral-v3`).

    Raises `UsageError` that suggests the nearest name and lists them all.
    """
    formats = named_formats()
    wanted = normalised(name)
    found = next((f for f in formats.values() if normalised(f.name) == wanted), None)
    found = found or next((f for f in formats.values() if f.plain and normalised(f.family) == wanted), None)
    if found is None:
        raise unknown_name("format", name, formats)
    return found
