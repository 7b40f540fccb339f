"""Looks up what is known of a model, by a name in any spelling or by its files: four rows, each with its source.

    facts = look_up("qwen3:8b")
    facts.template, facts.window, facts.tokenizer, facts.price

Spellings: `owner/name`, `name:tag`, `provider/name`, `provider/owner/name`, and the names of quantised copies. A row
that is not known is None. Prices are stricter than the rest: neither a tag nor a quantised copy has a price, because
the price of another model could be too low.
"""

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batuta_cli.errors import NotFoundError, UnknownPriceError, UsageError
from batuta_cli.serve.models.catalogue import catalogue
from batuta_cli.serve.models.pricing import TokenPricing, own_prices, price_for
from batuta_cli.serve.models.windows import ModelInfo, known_model

if TYPE_CHECKING:
    from batuta_cli.config import ModelSection
    from batuta_cli.serve.templates.detection import Detection
    from batuta_cli.serve.tokens import Tokenizer


@dataclass(frozen=True)
class TokenizerFact:
    """The tokenizer of a model."""

    tokenizer: "Tokenizer"
    source: str


@dataclass(frozen=True)
class PriceFact:
    """The list price of a model at its maker, or at the provider that its name begins with."""

    price: TokenPricing
    source: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model."""

    name: str
    template: "Detection | None"
    template_error: UsageError | None
    """Why there is no template."""
    window: ModelInfo | None
    tokenizer: TokenizerFact | None
    price: PriceFact | None


def look_up(name: str, models: Mapping[str, "ModelSection"] = {}, *, at: dt.date | None = None) -> ModelFacts:
    """What is known of a model's name or of its files. `models` has the config's `[models]`.

    Prices are those of the UTC date `at`, by default today. Raises `InvalidInputError` for damaged files of the model,
    `NotFoundError` for a path that does not exist, `MissingDependencyError`, `ConfigError` for the config's prices.
    """
    from batuta_cli.serve.templates.detection import detect_format

    template, error = None, None
    try:
        template = detect_format(name, models)
    except NotFoundError:
        raise
    except UsageError as problem:
        error = problem
    return ModelFacts(
        name=name,
        template=template,
        template_error=error,
        window=known_model(name, models),
        tokenizer=_tokenizer(name, models),
        price=_price(name, models, at or dt.datetime.now(dt.UTC).date()),
    )


def _tokenizer(name: str, models: Mapping[str, "ModelSection"]) -> TokenizerFact | None:
    from batuta_cli.serve.tokens import tokenizer_for
    from batuta_cli.serve.tokens.openai_models import openai_model

    own = models.get(name)
    if own and own.tokenizer:
        return TokenizerFact(tokenizer_for(name, tokenizer_path=own.tokenizer), "the config")
    if openai_model(name):
        return TokenizerFact(tokenizer_for(name), "tiktoken's table of models")
    if not os.path.exists(name):
        return None
    tokenizer = tokenizer_for(name)
    return TokenizerFact(tokenizer, name) if tokenizer.exact else None


def _price(name: str, models: Mapping[str, "ModelSection"], at: dt.date) -> PriceFact | None:
    own = own_prices(models)
    try:
        price = price_for(name, local=False, own=own, at=at)
    except UnknownPriceError:
        return None
    if name in own:
        return PriceFact(price, "the config")
    hosted, table = catalogue().find(name), catalogue()
    where = f"{hosted.provider} {hosted.id}, " if hosted else ""
    return PriceFact(price, f"{where}{table.source}, {table.as_of}")
