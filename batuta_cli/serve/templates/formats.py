"""The named chat formats: their tokens, the conversations that each can express, and their templates.

The data is `formats.toml`; each template is a `.jinja` file in the same folder. Names are stable because scripts pass
them as `--format NAME`.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

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
    MINIMAX = "MiniMax"
    KIMI = "Kimi"
    GLM = "GLM"
    EXAONE = "EXAONE"
    GRANITE = "Granite"
    NEMOTRON = "Nemotron"
    APERTUS = "Apertus"
    OLMO2 = "Olmo2"
    FALCON = "Falcon"
    HUNYUAN = "Hunyuan"
    LLAMA4 = "Llama4"
    SEED_OSS = "SeedOss"
    ERNIE = "ERNIE"


class SystemPlace(StrEnum):
    """The positions where a format accepts a system message."""

    ANY = "any"
    FIRST = "first"
    NONE = "none"


@dataclass(kw_only=True, frozen=True)
class NamedFormat:
    """One format: a family, or a variant of it."""

    name: str
    family: TemplateFormat
    variant: str | None
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...]
    """Tokens that the model reads as structure; text of users and tools must not contain them."""
    marks: tuple[str, ...]
    """Structure written as plain text (`### Response:`); looked for only when this format is in use."""
    stop: tuple[str, ...]
    """Texts that end a response."""
    system: SystemPlace
    alternates: bool
    """User and assistant must alternate, beginning with the user."""
    joins: str | None
    """Separator that joins consecutive messages of one role; None if they are not joined. The user is first."""
    tool_calls: float
    """Tool calls per message: 0 (then no tool results either), 1, or infinity."""
    plain: bool
    """Whether the family's plain name selects this format."""
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Values of template variables, where formats share a template."""
    file: str = ""
    """The template's file, where it is not the name's own."""

    @property
    def template(self) -> str:
        """The Jinja text of the format."""
        text = (files(__package__) / f"{self.file or self.name}.jinja").read_text(encoding="utf-8")
        values = {name: json.dumps(value, ensure_ascii=False) for name, value in self.defaults.items()}
        return "".join(f"{{%- set {name} = {name} | default({value}) -%}}\n" for name, value in values.items()) + text


@cache
def named_formats() -> dict[str, NamedFormat]:
    """Return all formats by name, in the order of the table."""
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
            defaults=row.get("defaults", {}),
            file=row.get("template", ""),
        )
        for name, row in table.items()
    }


def named_format(name: str | TemplateFormat) -> NamedFormat:
    """Return the format with this name in any case, or the plain format of a family (`mistral`: `mistral-v3`).

    Raises `UsageError` that suggests the nearest name and lists all names.
    """
    formats = named_formats()
    wanted = normalised(name)
    found = next((f for f in formats.values() if normalised(f.name) == wanted), None)
    found = found or next((f for f in formats.values() if f.plain and normalised(f.family) == wanted), None)
    if found is None:
        raise unknown_name("format", name, formats)
    return found
