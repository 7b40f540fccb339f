"""Aliases and fallbacks: the model that answers in the place of the one that a request names.

Both take one step: the target of an alias, and a fallback, are names of models, never aliases. An alias does not hide a
model that a backend has. Everything about a request is judged for the model that it ends at: the client's key, the
tier, the context window and the budget, with a separate reservation.

A fallback answers only when the model cannot be reached now: its backends are down, cooling down, full, or answered
404, 429 or 5xx, or broke off, before the first byte. It never answers for a request that is wrong (400), a key that is
(401, 403), the privacy tier, the budget or the context window. There are no fallbacks for embeddings, whose vectors
differ between models.
"""

from collections.abc import Collection, Iterator, Mapping

from batuta_cli.config import Config
from batuta_cli.errors import BatutaError, NoBackendError
from batuta_cli.serve.providers.wire import BackendError

_ABSENT = frozenset((404, 408, 429))


class ModelNames:
    """The aliases and fallbacks of a configuration."""

    def __init__(self, config: Config) -> None:
        self._aliases: Mapping[str, str] = config.aliases
        self._fallbacks: Mapping[str, tuple[str, ...]] = config.fallbacks

    def is_alias(self, name: str) -> bool:
        """Whether the configuration has an alias of this name."""
        return name in self._aliases

    def resolve(self, name: str, known: Collection[str]) -> str:
        """The model for a name in a request; `known`: the models that the backends have."""
        return name if name in known else self._aliases.get(name, name)

    def fallbacks(self, model: str) -> Iterator[str]:
        """The models that may answer for a model, in order."""
        return (name for name in self._fallbacks.get(model, ()) if name != model)

    def listed(self, known: Collection[str]) -> list[str]:
        """The known models, and the aliases that lead to one of them."""
        return sorted({*known, *(name for name, target in self._aliases.items() if target in known)})


def may_fall_back(error: BatutaError) -> bool:
    """Whether another model may answer for a request that failed so before its first byte."""
    if isinstance(error, BackendError):
        return error.retryable and (error.status is None or error.status in _ABSENT or error.status >= 500)
    return isinstance(error, NoBackendError)
