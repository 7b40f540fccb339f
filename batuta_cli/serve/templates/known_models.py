"""Look up the chat format of a model name: first a table of known names, then patterns of names.

The data is `published_names.json` (repositories whose published templates were compared with the named formats by
`scripts/measure_names.py`), `known_models.toml` (names that were checked) and `patterns.toml` (families of names, the
most specific first). Because a wrong format is worse than no format, the tables also list models without a named
format, with the reason.

Comparison ignores case, the separators `-_. `, the repository's owner, and the endings of model files and quantised
copies. `family:tag` is an Ollama name, where a plain size means the chat model while the Hugging Face repository of
that name is the base model; such names have separate rows.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, cast

Confidence = Literal["high", "medium", "low"]

MAX_NAME: Final = 200
"""Maximum characters of a model name."""

_TEXT_ONLY = "for text; its template has other tool calls, thoughts or media"

_FILE = re.compile(r"(-\d{5}-of-\d{5})?\.(gguf|ggml|bin|safetensors|llamafile)$")
_DIGEST = re.compile(r"(latest|(sha256[:-])?[0-9a-f]{12,64})$")
_SEPARATORS = re.compile(r"[-_.\s]+")
_LETTER_DIGIT = re.compile(r"(?<=[a-z])(?=\d)")

# Endings of the names of quantised copies, in the spelling of `_parts`.
_QUANTISED = re.compile(
    r"[-:]("
    r"gguf|ggml|ggmlv-3|gptq|awq|autoawq|autoround|eetq|hqq|aqlm|bnb|mlx|onnx|exl-[23]|marlin|imat|imatrix|i-1|qat|quantized"
    r"|[1-8]bits?|[1-8]-bits?|\d-\d+bpw|[1-8]bpw|\d+g|int-[248]|u?int-[48]-(awq|gptq)|w-[48]a-(8|16)|nvfp-4|mxfp-4|dynamic|unsloth"
    r"|fp-(4|8|16|32)|bf-16|f-(16|32)|(iq|q|tq)-[1-8](-(0|1|k|s|m|l|xl|xs|xxs|nl))*(-4-[48])?|ud"
    r")$"
)


@dataclass(frozen=True)
class Known:
    """A row of the tables: the name of a format, or the reason why there is no format."""

    format: str | None
    reason: str | None
    confidence: Confidence
    note: str
    """A limitation to show to the user; may be empty."""


@dataclass(frozen=True)
class Pattern:
    """A row of `patterns.toml`; `examples` are names that it decides."""

    expression: re.Pattern[str]
    casual: bool
    """Applies only to a name typed without owner and quantisation."""
    known: Known
    examples: tuple[str, ...]


def known(name: str) -> tuple[Known, str] | None:
    """Return the row for a name, and where it was found: "table" or "pattern"."""
    if published := _published().get(name.strip().casefold()):
        return published, "table"
    return by_tables(name)


def by_tables(name: str) -> tuple[Known, str] | None:
    """Return the row for a name in the tables of names and patterns."""
    forms = _forms(name)
    typed = _parts(name.strip().casefold().removesuffix(":latest"))
    for form in forms:
        if row := _table().get(form):
            return row, "table"
        if ":" in form and (row := _by_pattern(form, casual=False)):
            return row, "pattern"
    match = next((row for form in forms if "/" not in form and (row := _by_pattern(form, casual=form == typed))), None)
    return (match, "pattern") if match else None


def _by_pattern(form: str, *, casual: bool) -> Known | None:
    fitting = (p.known for p in patterns() if (casual or not p.casual) and p.expression.fullmatch(form))
    return next(fitting, None)


def near(name: str) -> str | None:
    """Return the nearest known name that has a format."""
    from difflib import get_close_matches

    forms = [form for form in _forms(name) if ":" not in form and "/" not in form]
    wanted = forms[0] if forms else ""
    chat = {form: shown for form, shown in _shown().items() if _table()[form].format and ":" not in form}
    for ending in ("-instruct", "-chat", "-it", "-chat-hf"):
        if wanted + ending in chat:
            return chat[wanted + ending]
    matches = get_close_matches(wanted, chat, n=1, cutoff=0.8)
    return chat[matches[0]] if matches else None


def reason(key: str) -> tuple[str, str]:
    """Return the text of a reason and its hint."""
    row = _document("patterns.toml")["reasons"][key]
    return row["text"], row["hint"]


@cache
def patterns() -> tuple[Pattern, ...]:
    """Return the patterns in the order of evaluation."""
    return tuple(
        Pattern(
            expression=re.compile("|".join(row["match"])),
            casual=row.get("casual", False),
            known=_known(row, "medium"),
            examples=tuple(row["examples"]),
        )
        for row in _document("patterns.toml")["pattern"]
    )


def _forms(name: str) -> list[str]:
    """Return the spellings of a name to look up, the most specific first; empty if it cannot be a model name."""
    name = name.strip().casefold()
    if not name or len(name) > MAX_NAME:
        return []
    owner, _, bare = name.replace("\\", "/").rpartition("/")
    bare, _, tag = _FILE.sub("", bare).partition(":")
    tag = _DIGEST.sub("", tag)
    forms = []
    if tag and (parts := _unquantised(f"{_parts(bare)}:{_parts(tag)}")):
        forms.append(parts)
    parts = _unquantised(_parts(f"{bare}-{tag}" if tag else bare))
    if owner:
        forms.append(f"{_parts(owner.rpartition('/')[2])}/{parts}")
    forms.append(parts)
    rest = next((parts.removeprefix(owner) for owner in _owners() if parts.startswith(owner)), "")
    if rest[:1].isalpha():  # `google_gemma-2-9b-it`: quantised copies carry the owner in the name
        forms.append(rest)
    return forms


def _parts(name: str) -> str:
    return _SEPARATORS.sub("-", _LETTER_DIGIT.sub("-", name)).strip("-")


def _unquantised(name: str) -> str:
    while (shorter := _QUANTISED.sub("", name)) != name:
        name = shorter
    return name


@cache
def _owners() -> tuple[str, ...]:
    return tuple(f"{_parts(owner.casefold())}-" for owner in _document("patterns.toml")["owners"])


@cache
def _shown() -> dict[str, str]:
    rows = _document("known_models.toml")["models"]
    return {_key(name): name for row in rows for name in row["names"]}


@cache
def _table() -> dict[str, Known]:
    table: dict[str, Known] = {}
    for row in _document("known_models.toml")["models"]:
        known = _known(row, "high")
        table |= {_key(name): known for name in row["names"]}
    owners = frozenset(_document("patterns.toml")["owners"])
    for name, known in _published().items():
        owner, _, bare = name.partition("/")
        if owner in owners and known.format:  # copies of a model keep the name of its repository
            table.setdefault(_key(bare), known)
    return table


@cache
def _published() -> dict[str, Known]:
    """Repositories by their full names, with the formats that their published templates equal."""
    document = json.loads((files(__package__) / "published_names.json").read_text(encoding="utf-8"))
    table = {name.casefold(): Known(None, "differs", "high", "") for name in document["other"]}
    for kind, confidence, note in (("exact", "high", ""), ("text_only", "medium", _TEXT_ONLY)):
        for format, names in document[kind].items():
            known = Known(format, None, cast(Confidence, confidence), note)
            table |= {name.casefold(): known for name in names}
    return table


def _key(name: str) -> str:
    owner, slash, bare = name.casefold().rpartition("/")
    family, colon, tag = bare.partition(":")
    return f"{_parts(owner)}{slash}{_parts(family)}{colon}{_parts(tag)}"


def _known(row: dict[str, Any], confidence: Confidence) -> Known:
    return Known(row.get("format"), row.get("none"), row.get("confidence", confidence), row.get("note", ""))


@cache
def _document(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / name).read_text(encoding="utf-8"))
