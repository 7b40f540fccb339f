"""The client of a request: the name of its client key, and the limits that are judged within the pipeline."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from batuta_cli.errors import ModelNotAllowedError


@dataclass(frozen=True)
class ClientAccount:
    """For whom a request is made: the name of a client key, and the limits of it that depend on the model."""

    name: str = ""
    models: tuple[str, ...] = ()
    """Globs of the models that it may use (`*`, `?` and `[…]`, case-sensitive); empty: all."""
    daily_budget: int | None = None
    """Nano-dollars that its requests of a day may cost together; None: no separate limit."""

    def may_use(self, model: str) -> bool:
        """Whether it may use a model; judged for the model that answers, not for an alias of it."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def require(self, model: str) -> None:
        """Raise `ModelNotAllowedError` unless it may use the model."""
        if not self.may_use(model):
            raise ModelNotAllowedError(
                "this key may not use this model; GET /v1/models lists those that it may use",
                hint="batuta serve keys list shows the models of each key",
            )


ANY_CLIENT = ClientAccount()
"""No client key: no limits."""
