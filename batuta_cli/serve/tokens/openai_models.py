"""The encodings of OpenAI's models, and the tokens that the chat API adds to messages. Data: `openai.toml`."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from batuta_cli.serve.tokens.tokenizer import Tokenizer


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
    """The family of `model`, which may have the prefix `openai/`, or None."""
    name = model.strip().lower().removeprefix("openai/")
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
