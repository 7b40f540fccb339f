"""The encodings of OpenAI's models, and the tokens that the chat API adds to messages. Data: `openai.toml`."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from batuta_cli.serve.models.catalogue import split_provider
from batuta_cli.serve.tokens.tokenizer import Tokenizer

_LONGEST_NAME: Final = 256
"""Characters of a name that are read. OpenAI's names have at most about 100, fine-tuned models included."""


@dataclass(frozen=True)
class Overhead:
    """Tokens that the chat API adds for each message, for each name, and once for a request."""

    message: int
    name: int
    request: int
    exact: bool


@dataclass(frozen=True)
class OpenAIModel:
    """A family of models."""

    name: str
    encoding: str
    overhead: Overhead
    rendered: bool
    """The weights are public, so the template is known: the rendered prompt is counted, exactly."""


def openai_model(model: str) -> OpenAIModel | None:
    """The family of `model`, or None.

    A provider may stand before the name (`openai/gpt-4o`, `openrouter/openai/gpt-4o`). The weights of a model whose
    prompt is rendered are public, so any owner may: `unsloth/gpt-oss-20b-GGUF`.
    """
    name = model.strip().lower()
    if len(name) > _LONGEST_NAME:
        return None
    while (parts := split_provider(name))[0]:
        name = parts[1]
    family = _family(name)
    if family is None and "/" in name:
        family = _family(name.rpartition("/")[2])
        return family if family and family.rendered else None
    return family


def _family(name: str) -> OpenAIModel | None:
    families = _families()
    cuts = [at for at, character in enumerate(name) if character in "-:"]
    for end in (len(name), *reversed(cuts)):
        if name[:end] in families:
            return families[name[:end]]
    return None


@functools.cache
def openai_tokenizer(encoding: str) -> Tokenizer:
    """The tokenizer of one of tiktoken's encodings."""
    from batuta_cli.serve.tokens import ranks
    from batuta_cli.serve.tokens.bytepair import BytePairTokenizer

    return BytePairTokenizer(f"tiktoken {encoding}", ranks.encoding(encoding))


@functools.cache
def _families() -> Mapping[str, OpenAIModel]:
    text = resources.files(__package__).joinpath("openai.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    overheads = {name: Overhead(**row) for name, row in table["overhead"].items()}
    return {
        name: OpenAIModel(name, row["encoding"], overheads[row["overhead"]], row.get("rendered", False))
        for row in table["models"]
        for name in row["names"]
    }
