"""Context windows of models, and the part of a window that is reserved for the output.

Order of sources: the config's `[models]`; the model's own file (`*.context_length` of a GGUF, `max_position_embeddings`
of a folder's `config.json`); the table of open and older models in `data/models.toml`; the hosted models in
`data/prices.json`. Names are matched whole: `llama-2-7b-32k` is not Llama 2, and `gpt-4o` is not GPT-4. An unknown
window is an error, because a wrong one would cut off messages.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import display, errors_named
from batuta_cli.serve.models.catalogue import catalogue

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection

AS_OF = "2026-11-23"
"""The date on which `data/models.toml` was compared with its sources."""

CONFIG_LIMIT = 4 * 1024 * 1024
"""Bytes of a `config.json` that are read. Usual files have a thousand."""

LARGEST_WINDOW = 10**9
"""The largest window that is accepted, here and in the config."""

LARGEST_RESERVE = 4096
"""The reserve of large windows, in tokens."""


@dataclass(kw_only=True, frozen=True)
class ModelInfo:
    """The window and the reserve of a model in tokens, with their source."""

    name: str
    context_window: int
    output_reserve: int
    source: str
    as_of: str = ""
    """The date of the source; empty for a file and for the config."""


def default_reserve(window: int) -> int:
    """The default reserve for the output: a quarter of the window, at most 4,096 tokens."""
    return min(LARGEST_RESERVE, window // 4)


def known_model(name: str, models: Mapping[str, "ModelSection"] = {}, *, files: bool = True) -> ModelInfo | None:
    """The window of a model's name or file, or None. `models` has the config's `[models]`.

    `files=False` is for a name that a client sent: it is never read as a path on this machine.

    Raises `InvalidInputError` for a file of the model that is damaged.
    """
    found = (_from_file(name) if files else None) or _from_table(name) or _from_catalogue(name)
    own = models.get(name)
    if own is None or not own.context_window:
        return found and _with_reserve(found, own.output_reserve if own else 0)
    reserve = own.output_reserve or default_reserve(own.context_window)
    return ModelInfo(name=name, context_window=own.context_window, output_reserve=reserve, source="the config")


def require_model(name: str, models: Mapping[str, "ModelSection"] = {}) -> ModelInfo:
    """As `known_model`. Raises `UsageError` that suggests the nearest names and the options that give a window."""
    info = known_model(name, models)
    if info is not None:
        return info
    raise UsageError(
        f"the context window of {display(name[:200]) or '(empty)'} is not known{_suggestion(name, models)}",
        hint=f'--window TOKENS and --reserve TOKENS, or [models."{display(name[:200])}"] context_window in config.toml',
    )


def _with_reserve(info: ModelInfo, reserve: int) -> ModelInfo:
    return (
        ModelInfo(
            name=info.name,
            context_window=info.context_window,
            output_reserve=reserve,
            source=info.source,
            as_of=info.as_of,
        )
        if reserve
        else info
    )


def _from_file(name: str) -> ModelInfo | None:
    folder = os.path.join(name, "config.json")
    if os.path.isfile(folder):
        window = _position_embeddings(folder)
        return (
            ModelInfo(name=name, context_window=window, output_reserve=default_reserve(window), source=folder)
            if window
            else None
        )
    if not os.path.isfile(name):
        return None
    from batuta_cli.serve.models.gguf import read_metadata

    with errors_named(name), open(name, "rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if not is_gguf and not name.lower().endswith(".gguf"):
        return None
    window = read_metadata(name).context_length or 0
    return (
        ModelInfo(name=name, context_window=window, output_reserve=default_reserve(window), source=name)
        if window
        else None
    )


def _position_embeddings(path: str) -> int:
    """`max_position_embeddings` of a Hugging Face folder, or 0. Multimodal models have it under `text_config`."""
    with errors_named(path), open(path, "rb") as file:
        data = file.read(CONFIG_LIMIT)
    try:
        found = json.loads(data)
        text = found.get("text_config", {})
        window = found.get("max_position_embeddings", text.get("max_position_embeddings", 0))
    except (ValueError, RecursionError, AttributeError):
        raise InvalidInputError(f"{display(path)}: not a JSON object with a model's configuration") from None
    return window if type(window) is int and 0 < window <= LARGEST_WINDOW else 0


def _from_table(name: str) -> ModelInfo | None:
    plain = _plain(name)
    for row in _table()["model"]:
        if re.fullmatch(row["pattern"], plain):
            return ModelInfo(
                name=row["name"],
                context_window=row["window"],
                output_reserve=row["reserve"],
                source=row["source"],
                as_of=AS_OF,
            )
    return None


def _from_catalogue(name: str) -> ModelInfo | None:
    table = catalogue()
    maker = table.find(name)
    hosted = [model for model in (maker, *table.named(name)) if model and model.window]
    if not hosted:
        return None
    # A host may allow less than the model's window, so without an entry of the maker the smallest counts.
    model = maker if maker and maker.window else min(hosted, key=lambda model: model.window or 0)
    window = model.window or 0
    return ModelInfo(
        name=model.id,
        context_window=window,
        output_reserve=default_reserve(window),
        source=table.source,
        as_of=table.as_of,
    )


def _plain(name: str) -> str:
    """A name as in the table: without folder, `.gguf`, and the words that do not affect the window."""
    name = name.lower().rpartition("/")[2].removesuffix(".gguf")
    words = "|".join(_table()["words"])
    # Atomic, so that a hostile name cannot make it backtrack without end.
    return re.sub(rf"(?<=\w)[-._:](?>{words})(?=[-.:]|$)", "", name)


def _suggestion(name: str, models: Mapping[str, "ModelSection"]) -> str:
    from batuta_cli.config.kinds import did_you_mean

    hosted = [model.id for provider in catalogue().providers.values() for model in provider.models if model.window]
    usual = [
        "gpt-4",
        "gpt-4-turbo",
        "claude-3-opus",
        "llama-2-7b",
        "llama-3-8b",
        "llama-3.1-8b",
        "mixtral-8x7b",
        "mistral-7b",
    ]
    return did_you_mean(_plain(name), [*models, *usual, *hosted])


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("data", "models.toml").read_text())
