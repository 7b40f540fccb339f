"""How long a conversation a model can read: context windows, and the part of them that is kept for the answer.

Order of evidence: the config's `[models]`; the model's own file, which has `*.context_length` in a GGUF and
`max_position_embeddings` in a folder's `config.json`; the table of open and older models in `data/models.toml`; the
hosted models in `data/prices.json`. Names are matched whole: `llama-2-7b-32k` is not Llama 2, `gpt-4o` is not GPT-4.
What is not known is an error, because a wrong window cuts off what was said.
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
"""When `data/models.toml` was compared with its sources."""

CONFIG_LIMIT = 4 * 1024 * 1024
"""Bytes of a `config.json` that are read; usual ones have a thousand."""

LARGEST_WINDOW = 10**9
"""The largest window that is believed, as in the config."""

LARGEST_RESERVE = 4096
"""What the design keeps of the large windows; of the small ones it keeps a quarter."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model: windows in tokens, and where that comes from."""

    name: str
    context_window: int
    output_reserve: int
    source: str
    as_of: str = ""
    """The day on which the source said so; empty for a file or the config, which is read each time."""


def default_reserve(window: int) -> int:
    """The tokens kept for the answer where nothing else is said: a quarter of the window, at most 4,096."""
    return min(LARGEST_RESERVE, window // 4)


def known_model(name: str, models: Mapping[str, "ModelSection"] = {}, *, files: bool = True) -> ModelInfo | None:
    """What is known of a model by its name or its GGUF file, or None. `models` has the config's `[models]`.

    `files=False` for a name that a stranger gave: it is never taken for a file of this machine.

    Raises `InvalidInputError` for a file of the model that is damaged.
    """
    found = (_from_file(name) if files else None) or _from_table(name) or _from_catalogue(name)
    own = models.get(name)
    if own is None or not own.context_window:
        return found and _with_reserve(found, own.output_reserve if own else 0)
    reserve = own.output_reserve or default_reserve(own.context_window)
    return ModelInfo(name, own.context_window, reserve, "the config")


def require_model(name: str, models: Mapping[str, "ModelSection"] = {}) -> ModelInfo:
    """As `known_model`. Raises `UsageError` that suggests the nearest names and says how to give a window."""
    info = known_model(name, models)
    if info is not None:
        return info
    raise UsageError(
        f"the context window of {display(name[:200]) or '(empty)'} is not known{_suggestion(name, models)}",
        hint=f'--window TOKENS and --reserve TOKENS, or [models."{display(name[:200])}"] context_window in config.toml',
    )


def _with_reserve(info: ModelInfo, reserve: int) -> ModelInfo:
    return ModelInfo(info.name, info.context_window, reserve, info.source, info.as_of) if reserve else info


def _from_file(name: str) -> ModelInfo | None:
    folder = os.path.join(name, "config.json")
    if os.path.isfile(folder):
        window = _position_embeddings(folder)
        return ModelInfo(name, window, default_reserve(window), folder) if window else None
    if not os.path.isfile(name):
        return None
    from batuta_cli.serve.models.gguf import read_metadata

    with errors_named(name), open(name, "rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if not is_gguf and not name.lower().endswith(".gguf"):
        return None
    window = read_metadata(name).context_length or 0
    return ModelInfo(name, window, default_reserve(window), name) if window else None


def _position_embeddings(path: str) -> int:
    """`max_position_embeddings` of a Hugging Face folder, or 0; a model that sees as well has it one table deeper."""
    with errors_named(path), open(path, "rb") as file:
        data = file.read(CONFIG_LIMIT)
    try:
        found = json.loads(data)
        text = found.get("text_config", {})
        window = found.get("max_position_embeddings", text.get("max_position_embeddings", 0))
    except (ValueError, RecursionError, AttributeError):
        raise InvalidInputError(f"{display(path)} is not the JSON object that belongs there") from None
    return window if type(window) is int and 0 < window <= LARGEST_WINDOW else 0


def _from_table(name: str) -> ModelInfo | None:
    plain = _plain(name)
    for row in _table()["model"]:
        if re.fullmatch(row["pattern"], plain):
            return ModelInfo(row["name"], row["window"], row["reserve"], row["source"], AS_OF)
    return None


def _from_catalogue(name: str) -> ModelInfo | None:
    table = catalogue()
    offers = [offer for offer in table.named(name) if offer.window]
    if not offers:
        return None
    maker = table.find(name)
    # A host may serve less than the model can do, so among strangers the smallest counts.
    offer = maker if maker and maker.window else min(offers, key=lambda offer: offer.window or 0)
    window = offer.window or 0
    return ModelInfo(offer.id, window, default_reserve(window), table.source, table.as_of)


def _plain(name: str) -> str:
    """A name as the table has them: no folder, no `.gguf`, none of the words that say nothing of the window."""
    name = name.lower().rpartition("/")[2].removesuffix(".gguf")
    words = "|".join(_table()["words"])
    # Atomic, or a name made for it could take for ever.
    return re.sub(rf"(?:(?<=\w)[-._:](?>{words})(?=[-.:]|$))++", "", name)


def _suggestion(name: str, models: Mapping[str, "ModelSection"]) -> str:
    from batuta_cli.config.kinds import did_you_mean

    offers = [offer.id for provider in catalogue().providers.values() for offer in provider.offers if offer.window]
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
    return did_you_mean(_plain(name), [*models, *usual, *offers])


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("data", "models.toml").read_text())
